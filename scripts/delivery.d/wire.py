"""What runs beside the kit, in one thread of its own: callers, the upstream, and a link to Redis
that cuts at a command.

The upstream has a port for each gateway, so that what came of a gateway that died is known. A link
reads the commands that pass. `cut` arms it:
  before   a command of this kind is counted and goes nowhere
  after    it goes to Redis, and nothing comes back
Either way nothing comes back on that connection from then on, so that no answer is taken for that
of another question."""

import asyncio
import collections
import json
import threading
import time

KINDS = ("accept", "take", "settle", "renew")
OUTCOMES = (b"k", b"x", b"r", b"w")  # the letters by which q_settle.lua is told how it ended
TRY_AGAIN_S = 0.05
ANSWER_S = 15.0  # longest wait for an answer


def kind_of(parts):
    """Which script of queues a command calls; "" for every other command."""
    name = parts[0].upper()
    if name not in (b"EVALSHA", b"EVAL") or len(parts) < 4 or b":queue:{" not in parts[3]:
        return ""
    if name == b"EVAL":
        found = [kind for kind in KINDS if b"-- q_%s" % kind.encode() in parts[1]]
        return found[-1] if found else ""
    count = int(parts[2])
    keys, values = parts[3:3 + count], parts[3 + count:]
    if count == 2 and keys[0].endswith(b":ready"):
        return "renew"
    if count == 6 and keys[2].endswith(b":pause"):
        return "take"
    if count < 7 or not keys[2].endswith(b":open"):
        return ""
    if len(values) >= 7 and values[3] in OUTCOMES:
        return "settle"
    return "accept" if len(values) >= 9 else ""


def commands(got):
    """The whole commands at the beginning of what came: [(their bytes, their parts)], the rest."""
    found, at = [], 0
    while True:
        begin = at
        end = got.find(b"\r\n", at)
        if end < 0 or got[at:at + 1] != b"*":
            return found, got[begin:]
        count, at, parts = int(got[at + 1:end]), end + 2, []
        for _ in range(count):
            end = got.find(b"\r\n", at)
            if end < 0:
                return found, got[begin:]
            size = int(got[at + 1:end])
            at = end + 2 + size + 2
            if at > len(got):
                return found, got[begin:]
            parts.append(got[end + 2:end + 2 + size])
        found.append((got[begin:at], parts))


class Up(asyncio.Protocol):
    """What a gateway sends."""

    def __init__(self, link):
        self.link, self.got, self.down, self.is_cut = link, b"", None, False

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()
        self.link.loop.create_task(self.connect())

    async def connect(self):
        try:
            _, self.down = await self.link.loop.create_connection(
                lambda: Down(self), "127.0.0.1", self.link.target)
        except OSError:
            self.transport.abort()
            return
        self.link.sides.add(self)
        self.transport.resume_reading()

    def data_received(self, data):
        kind, how = self.link.armed
        if not kind and not self.got:
            self.down.transport.write(data)
            return
        found, self.got = commands(self.got + data)
        for raw, parts in found:
            if kind and kind_of(parts) == kind:
                self.is_cut = True
                self.link.count += 1
                if how == "before":
                    continue
            self.down.transport.write(raw)

    def connection_lost(self, _):
        self.link.sides.discard(self)
        if self.down:
            self.down.transport.close()


class Down(asyncio.Protocol):
    """What Redis answers."""

    def __init__(self, up):
        self.up = up

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if not self.up.is_cut and not self.up.link.is_held:
            self.up.transport.write(data)

    def connection_lost(self, _):
        self.up.transport.abort()


class Link:
    """A port that leads to Redis."""

    def __init__(self, loop, target):
        self.loop, self.target = loop, target
        self.armed, self.count, self.sides = ("", ""), 0, set()
        self.is_held = False  # nothing comes back, of anybody

    async def listen(self):
        server = await self.loop.create_server(lambda: Up(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def cut(self, kind="", how=""):
        self.armed, self.count = (kind, how), 0

    def hold(self):
        self.is_held = True

    def lead_to(self, target):
        """Another server, also for those who are connected."""
        self.target = target
        for side in list(self.sides):
            side.transport.abort()


class Send:
    """One request that the upstream saw."""

    __slots__ = ("at", "port", "id", "key", "attempt", "line", "body")

    def __init__(self, port, head, body):
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        self.at, self.port, self.body = time.monotonic(), port, body
        self.id, self.key = fields.get("x-delivery-id", ""), fields.get("idempotency-key", "")
        self.attempt, self.line = fields.get("x-delivery-attempt", ""), fields.get("x-line", "")


class Site(asyncio.Protocol):
    """A connection to the upstream."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"

    def __init__(self, upstream, port):
        self.upstream, self.port, self.got = upstream, port, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            head = self.got[:end].decode("latin-1")
            mark = head.lower().find("content-length: ")
            size = int(head[mark + 16:].split("\r\n", 1)[0]) if mark >= 0 else 0
            if len(self.got) < end + 4 + size:
                return
            body, self.got = self.got[end + 4:end + 4 + size], self.got[end + 4 + size:]
            head = "\r\n".join(name.lower() + colon + value for name, colon, value in (
                line.partition(": ") for line in head.split("\r\n")))
            self.upstream.sends.append(Send(self.port, head, body.decode("latin-1")))
            if self.port in self.upstream.holding:
                self.upstream.held.append(self)
            else:
                self.transport.write(self.ANSWER)


class Upstream:
    """Where everything is delivered to; it takes all of it, at once or when it is let go."""

    def __init__(self, loop):
        self.loop, self.sends, self.holding, self.held, self.servers = loop, [], set(), [], {}

    async def open(self, port=0):
        """A port of it, the same as before if one is named."""
        server = await self.loop.create_server(
            lambda: Site(self, server_port()), "127.0.0.1", port, reuse_address=True)

        def server_port():
            return server.sockets[0].getsockname()[1]

        self.servers[server_port()] = server
        return server_port()

    def close(self, port):
        self.servers.pop(port).close()

    def release(self):
        """Answers what is held, and holds nothing any more."""
        self.holding = set()
        self.answer()

    def answer(self):
        """Answers what is held; what comes behind it is held as before."""
        held, self.held = self.held, []
        for site in held:
            if not site.transport.is_closing():
                site.transport.write(Site.ANSWER)


class Caller:
    """A connection to a gateway, made anew where it has broken."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def post(self, key, body, line):
        """(status, fields, body), or (0, {}, b"") where no answer came."""
        try:
            return await asyncio.wait_for(self.exchange(key, body, line), ANSWER_S)
        except (OSError, EOFError, asyncio.TimeoutError, ValueError, IndexError):
            self.close()
            return 0, {}, b""

    async def exchange(self, key, body, line):
        if not self.writer:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        order = f"x-line: {line}\r\n" if line else ""
        self.writer.write((f"POST /work HTTP/1.1\r\nhost: kit\r\nidempotency-key: {key}\r\n{order}"
                           f"content-length: {len(body)}\r\n\r\n{body}").encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (
            one.partition(": ") for one in head[1:])}
        status = int(head[0].split(" ")[1])
        content = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, fields, content

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None


class Load:
    """Requests of callers, and what they were told. A line is asked for in order: a list of
    (key, body, line), each after the one before was acknowledged."""

    def __init__(self):
        self.acked, self.again, self.statuses = {}, {}, collections.Counter()
        self.took, self.is_stopped = [], False  # (when, s, status)
        self.began = {}  # when what was acknowledged was asked for

    async def run(self, ports, lines, width, insists):
        """Asks for all of it by so many callers at a time."""
        waiting = iter(lines)

        async def work(number):
            callers = [Caller(port) for port in ports]
            for line in waiting:
                for one in line:
                    await self.one(callers, number, one, insists)
                    if self.is_stopped:
                        break
                if self.is_stopped:
                    break
            for caller in callers:
                caller.close()

        await asyncio.gather(*(work(number) for number in range(width)))

    async def one(self, callers, number, one, insists):
        while True:
            caller = callers[number % len(callers)]
            began = time.monotonic()
            status, fields, body = await caller.post(*one)
            self.statuses[status] += 1
            self.took.append((began, time.monotonic() - began, status))
            if status == 202:
                kept = self.again if fields.get("idempotent-replayed") else self.acked
                kept[one[0]] = json.loads(body)["id"]
                self.began[one[0]] = began
            if status == 202 or not insists or self.is_stopped:
                return
            number += 1
            await asyncio.sleep(TRY_AGAIN_S)

    def ids(self):
        """The id of every key that was acknowledged, first or again."""
        return {**self.again, **self.acked}


class Wire:
    """The thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.upstream = Upstream(self.loop)

    def do(self, coroutine, seconds=60):
        """Its result."""
        return self.later(coroutine).result(seconds)

    def later(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, function, *arguments):
        """The same of a function."""
        async def run():
            return function(*arguments)

        return self.do(run())

    def link(self, target):
        link = Link(self.loop, target)
        self.do(link.listen())
        return link

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
