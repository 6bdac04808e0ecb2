"""The load on one gateway: an open loop, in a process of its own.

Every kind of request has its own pace, fixed before the first one is sent, and nothing that happens
changes it: a request whose answer is late delays no other. Its latency counts from when it was due.
How late it was sent in fact is noted too, since that is this generator's own delay.

kind      asks of the store                       a good answer
direct    nothing, and no gateway either          200
plain     nothing                                 200
auth      revocation                              200
revoked   revocation, of revoked tokens           401
wide      a wide limit, places in flight          200
tight     a limit that the load exceeds           200, 429
two       two such limits that count 200 alone    200, 404, 429
session   session                                 200, and the upstream saw the session
api       revocation, a wide limit, session       200, and the upstream saw the session
read      cache                                   200
write     cache: PUT, then a read elsewhere       200
purge     cache: by the admin API                 200
revoke    by the admin API                        200, 201"""

import collections
import gc
import heapq
import json
import multiprocessing
import os
import select
import socket
import time

import origin

# Requests a second, to each gateway.
RATES = {"direct": 20, "plain": 10, "auth": 15, "revoked": 10, "wide": 15, "tight": 24, "two": 12, "session": 10,
         "api": 15, "read": 30, "write": 4, "purge": 1, "revoke": 2}
ADMIN = {"purge", "revoke"}
KINDS = list(RATES)
HANG_S = 3.0  # an answer that takes longer does not come any more
ITEMS, WRITTEN, PURGED = 12, 6, 3  # of /read: the first are written, those behind them purged
OLD = 4  # tokens of each gateway that were revoked before the start

# status: 0 for a broken connection, -1 for no answer; seen: the version, or whether there was a
# session.
Answer = collections.namedtuple("Answer", "kind gateway key due sent ended status seen")


class Ask:
    """One request to come, and what comes after its answer."""

    __slots__ = ("kind", "key", "gateway", "port", "data", "due", "sent", "then", "got", "sock")

    def __init__(self, kind, key, gateway, port, data, due, then=None):
        self.kind, self.key, self.gateway, self.port = kind, key, gateway, port
        self.data, self.due, self.then, self.got = data, due, then, b""


def request(method, path, token="", body=None, fields=""):
    """A request as it is sent."""
    if token:
        fields += f"authorization: Bearer {token}\r\n"
    data = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        fields += "content-type: application/json\r\n"
    if data or method in ("PUT", "POST"):
        fields += f"content-length: {len(data)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{fields}\r\n".encode() + data


class Plan:
    """What is asked, one request after the other, by kind."""

    def __init__(self, me, ports, admins, upstream, tokens, spread_at, writes_past):
        self.me, self.ports, self.admins, self.upstream = me, ports, admins, upstream
        self.tokens, self.spread_at = tokens, spread_at
        self.writes_past = writes_past
        self.number = collections.Counter()

    def next(self, kind, due):
        """The request of this kind that is due then."""
        n = self.number[kind]
        self.number[kind] += 1
        return getattr(self, kind, self.simple)(kind, n, due)

    def ask(self, kind, key, due, data, then=None, gateway=None, admin=False):
        gateway = self.me if gateway is None else gateway
        port = (self.admins if admin else self.ports)[gateway]
        return Ask(kind, key, gateway, port, data, due, then)

    def simple(self, kind, n, due):
        return self.ask(kind, "", due, request("GET", f"/{kind}/{n % 20}", self.tokens.get(kind)))

    def direct(self, kind, n, due):
        """Asks the upstream itself: what is late here is the machine."""
        ask = self.simple(kind, n, due)
        ask.port = self.upstream
        return ask

    def revoked(self, kind, n, due):
        """Half with tokens that were revoked before the start, half with those revoked since."""
        since = max(1, self.number["revoke"])
        key = f"r{self.me}.{n % OLD if n % 2 else OLD + n // 2 % since}"
        return self.ask(kind, key, due, request("GET", "/auth/r", self.tokens["jti"](key)))

    def revoke(self, kind, n, due):
        key = f"r{self.me}.{n + OLD}"
        data = request("POST", "/v1/revocations", body={"jti": key, "expires_in": "1h"})
        return self.ask(kind, key, due, data, admin=True)

    def tight(self, kind, n, due):
        """Half for a caller who is spread evenly; half for one who comes to the first gateway alone
        until the fault, and evenly after it."""
        key = "even" if n % 2 else "sticky"
        gateway = self.me
        if key == "sticky" and due < self.spread_at:
            gateway = 0
        data = request("GET", f"/tight/{key}", self.tokens["sub"](key))
        return self.ask(kind, key, due, data, gateway=gateway)

    def two(self, kind, n, due):
        sub, client = "both", f"client{n % 2}"
        data = request("GET", f"/two/{sub}/{client}", self.tokens["sub"](sub),
                       fields=f"x-client: {client}\r\n")
        return self.ask(kind, f"{sub}/{client}", due, data)

    def read(self, kind, n, due):
        item = f"p{(n * 5 + self.me) % ITEMS}"
        return self.ask(kind, item, due, request("GET", f"/read/{item}"))

    def write(self, kind, n, due):
        """A write, and at once a read of the same item through another gateway."""
        item = f"p{(n + self.me * 2) % WRITTEN}"

        def read_elsewhere(answer):
            if answer.status == 200:
                return self.ask("read", item, answer.ended, request("GET", f"/read/{item}"),
                                gateway=(self.me + 1) % len(self.ports))
            return None

        ask = self.ask(kind, item, due, request("PUT", f"/read/{item}"), then=read_elsewhere)
        ask.port = self.upstream if self.writes_past else ask.port
        return ask

    def purge(self, kind, n, due):
        """Raises the version behind the gateways' backs, then purges the path."""
        item = f"p{WRITTEN + (n + self.me) % PURGED}"
        raised = Ask("raise", item, self.me, self.upstream, request("POST", f"/raise/{item}"), due)

        def purge(answer):
            ask = self.ask(kind, (item, answer.seen), answer.ended,
                           request("POST", "/v1/cache/purge", body={"path": f"/read/{item}"}),
                           admin=True)
            return ask

        raised.then = purge
        return raised


class Sender:
    """Sends what is due and reads what comes, on as many connections as that takes."""

    def __init__(self, plan, start, pipe):
        self.plan, self.pipe = plan, pipe
        self.poll, self.busy, self.idle = select.epoll(), {}, collections.defaultdict(list)
        self.answers, self.looked = [], 0.0
        self.due = [(start + (n + 1) / 97 + plan.me / 3 / RATES[kind], kind)
                    for n, kind in enumerate(KINDS)]
        heapq.heapify(self.due)

    def run(self):
        """Until the pipe says stop, and everything is answered or hangs."""
        stopped = False
        while not stopped or self.busy:
            now = time.monotonic()
            while not stopped and self.due[0][0] <= now:
                due, kind = self.due[0]
                heapq.heapreplace(self.due, (due + 1 / RATES[kind], kind))
                self.send(self.plan.next(kind, due))
            pause = 0.02 if stopped else min(0.02, self.due[0][0] - time.monotonic())
            for number, _ in self.poll.poll(max(0, pause)):
                self.receive(number)
            if now > self.looked + 0.05:
                self.looked = now
                stopped = stopped or self.pipe.poll()
                for number, ask in list(self.busy.items()):
                    if now - ask.sent > HANG_S:
                        self.done(number, -1)
        return self.answers

    def send(self, ask):
        idle = self.idle[ask.port]
        ask.sent = time.monotonic()
        try:
            if idle:
                ask.sock = idle.pop()
            else:
                ask.sock = socket.socket()
                ask.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ask.sock.settimeout(0.2)
                ask.sock.connect(("127.0.0.1", ask.port))
                ask.sock.setblocking(False)
                self.poll.register(ask.sock, select.EPOLLIN)
            self.busy[ask.sock.fileno()] = ask
            ask.sock.send(ask.data)
        except OSError:
            self.busy[ask.sock.fileno()] = ask
            self.done(ask.sock.fileno(), 0)

    def receive(self, number):
        ask = self.busy.get(number)
        if ask is None:
            # An idle connection that the gateway closed.
            for idle in self.idle.values():
                for sock in [sock for sock in idle if sock.fileno() == number]:
                    idle.remove(sock)
                    self.poll.unregister(number)
                    sock.close()
            return
        try:
            data = ask.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.done(number, 0)
            return
        ask.got += data
        head, mark, body = ask.got.partition(b"\r\n\r\n")
        if mark:
            head = head.lower()
            length = field(head, b"content-length")
            if len(body) >= int(length or 0):
                self.done(number, int(head[9:12]), head)

    def done(self, number, status, head=b""):
        """Notes an answer, and keeps its connection if it is good."""
        ask = self.busy.pop(number)
        if status > 0 and field(head, b"connection") != b"close":
            self.idle[ask.port].append(ask.sock)
        else:
            ask.sock.close()  # which takes it out of the poll as well
        seen = field(head, b"x-version") or field(head, b"x-saw-session") or -1
        answer = Answer(ask.kind, ask.gateway, ask.key, ask.due, ask.sent, time.monotonic(),
                        status, int(seen))
        if ask.kind != "raise":
            self.answers.append(answer)
        if ask.then and (ask.kind != "raise" or status == 200):
            following = ask.then(answer)
            if following:
                self.send(following)


def field(head, name):
    """The value of a field of a head in lower case, or nothing."""
    at = head.find(b"\r\n" + name + b": ")
    return head[at + len(name) + 4:].split(b"\r\n", 1)[0] if at >= 0 else b""


def work(pipe, start, plan):
    try:
        # Where that is allowed, a busy machine does not keep it from its pace.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        pass
    gc.collect()
    gc.freeze()
    gc.disable()
    answers = Sender(plan, start, pipe).run()
    pipe.recv()
    pipe.send(answers)


class Load:
    """One process for each gateway."""

    def __init__(self, ports, admins, upstream, tokens, start, spread_at, writes_past):
        self.running = []
        for me in range(len(ports)):
            pipe, far = multiprocessing.Pipe()
            plan = Plan(me, ports, admins, upstream, tokens, spread_at, writes_past)
            process = origin.in_process(lambda plan=plan, far=far: work(far, start, plan))
            self.running.append((process, pipe))

    def end(self):
        """Stops it; returns all answers."""
        answers = []
        for _, pipe in self.running:
            pipe.send("stop")
        for process, pipe in self.running:
            answers += pipe.recv()
            process.join()
        return answers

    def kill(self):
        for process, _ in self.running:
            process.kill()
            process.join()
