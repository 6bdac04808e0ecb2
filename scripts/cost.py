"""User instructions per request, counted by callgrind, beside figures kept in the repository.

usage: scripts/bench cost                     build, count, compare with scripts/bench.d/cost.json
       scripts/bench cost --masters 3         the same over a Redis Cluster of three masters
       scripts/bench cost --update            the same, and keep these figures from now on
       scripts/bench cost --scenario api,miss
       scripts/bench cost --functions api     what costs most in one scenario, per function
       scripts/bench cost --features          what each thing costs when it is on
       scripts/bench cost --identity          what callers cost, by how they show who they are
       scripts/bench cost --watching          what an open dashboard and traces cost
       scripts/bench cost --functions api --than BINARY     where another build costs more or less

Unlike time, instructions are the same on a busy machine: two counts of one build differ by less
than 1 %, so a larger difference is one of the code. What the gateway does by the clock, whatever the
traffic, is counted first and left out: a request takes fifty times as long here, and would carry
fifty times its share. What they do not show is the kernel's work (system calls), waiting for
memory, and contention: scripts/bench shows those.

scenario  what is counted: one request on a connection that stays open, with a body of 1 KiB
pass      no token: forward only
api       HS256 token: revocation, sliding window, session attached, forward
cached    HS256 token, answered from the response cache
deny      HS256 token, over its limit: 429; here most are among the 100 a second that are kept for
          operators, which a fast gateway's are not
miss      no token, a URL that is new each time: looked up in the cache, forwarded and stored
h2        pass, over HTTP/2 with prior knowledge

How to read a difference: a scenario that changed by more than 1 % is marked. `--functions NAME`
lists the functions with the most instructions of their own, and `--than` another build those whose
share changed most. What a function calls counts for what is called; inlined code counts for the
function that it became a part of. A large `memcpy` usually is a future or a value that is moved
whole; `malloc` and `free` are allocations. For callers of a function: --keep DIR and then
callgrind_annotate --tree=caller on the file of the scenario.
A cost that is wanted is kept by --update, in the commit that causes it, with the reason.

Needs (Linux; Debian's names): valgrind redis-server. Uses free ports of 127.0.0.1; ends with status
1 when a scenario costs over 1 % more than its kept figure, or an answer was not the expected one.
"""
import argparse
import base64
import collections
import email.utils
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import features
import harness
import identity
import watching

FILES = pathlib.Path(__file__).resolve().parent / "bench.d"
KEPT = FILES / "cost.json"
SCENARIOS = ["pass", "api", "cached", "deny", "miss", "h2"]
ANONYMOUS = ["pass", "miss", "h2"]
NOT_FORWARDED = ["cached", "deny"]
# The share by which two counts of one build may differ.
TOLERANCE = 0.01
USERS = 20
# How long it is counted what is done by the clock.
IDLE_SECONDS = 5
# Before counting: what is made once was made, and who is to be over a limit is over it.
WARM_UP = 300
BODY = b"x" * 1024
HEAD = ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: origin\r\nDate: {date}\r\n"
        "Cache-Control: public, max-age=600\r\nContent-Length: {length}\r\n\r\n")


def options(arguments):
    parser = argparse.ArgumentParser(
        prog="bench cost", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default=",".join(SCENARIOS), metavar="NAMES")
    parser.add_argument("--requests", type=int, default=2000, help="requests counted (2000)")
    parser.add_argument("--masters", type=int, default=0, metavar="N",
                        help="over a Redis Cluster of so many masters")
    parser.add_argument("--update", action="store_true", help="keep the figures of this run")
    parser.add_argument("--functions", metavar="NAME", help="list one scenario's functions")
    parser.add_argument("--than", metavar="BINARY", help="another build, for --functions")
    parser.add_argument("--features", action="store_true", help="what each thing costs")
    parser.add_argument("--identity", action="store_true", help="what kinds of callers cost")
    parser.add_argument("--watching", action="store_true",
                        help="what an open dashboard and traces cost")
    parser.add_argument("--lines", type=int, default=40, help="lines of --functions (40)")
    parser.add_argument("--keep", metavar="DIR", help="keep callgrind's files there")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    harness.add_binary_options(parser)
    o = parser.parse_args(arguments)
    if o.functions:
        o.scenario = o.functions
    o.scenario = [name for name in o.scenario.split(",") if name]
    for name in o.scenario:
        if name not in SCENARIOS:
            parser.error(f"there is no {name}; known are: {', '.join(SCENARIOS)}")
    if o.functions and len(o.scenario) != 1:
        parser.error("--functions takes one scenario")
    if o.than and not o.functions:
        parser.error("--than goes with --functions")
    if o.requests < 100:
        parser.error("--requests is at least 100: what starts up late would be counted")
    return o


class Origin:
    """An upstream that answers every request alike, as fresh."""

    def __init__(self, body=BODY):
        self.requests, self.body = 0, body
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        waiting = b""
        try:
            while piece := connection.recv(65536):
                waiting += piece
                while b"\r\n\r\n" in waiting:
                    waiting = waiting.split(b"\r\n\r\n", 1)[1]
                    self.requests += 1
                    date = email.utils.formatdate(usegmt=True)
                    head = HEAD.format(date=date, length=len(self.body))
                    connection.sendall(head.encode() + self.body)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self):
        self.listener.close()


class Http1:
    """One keep-alive connection."""

    def __init__(self, port):
        self.socket = connect(port)

    def status(self, path, token):
        """Sends a request and reads its whole answer: the status."""
        return self.send(path, f"Authorization: Bearer {token}\r\n" if token else "")[0]

    def send(self, path, fields):
        """The same with these lines of fields: the status and the head."""
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: gateway.example\r\n"
                             f"User-Agent: cost\r\nAccept: */*\r\n{fields}\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += receive(self.socket)
        head, body = answer.split(b"\r\n\r\n", 1)
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        if not length:
            harness.stop(f"an answer without Content-Length:\n{head.decode(errors='replace')}")
        while len(body) < int(length[1]):
            body += receive(self.socket)
        return int(head.split(None, 2)[1]), head

    def close(self):
        self.socket.close()


class Http2:
    """One connection with prior knowledge (RFC 9113 §3.3), a stream at a time."""

    DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
    END_STREAM, END_HEADERS, ACK = 1, 4, 1
    # HPACK's static table (RFC 7541, appendix A): the first byte of a field block.
    STATUSES = {0x88: 200, 0x8c: 400, 0x8d: 404, 0x8e: 500}

    def __init__(self, port):
        self.socket, self.unread, self.stream = connect(port), b"", -1
        # Windows that this program never has to open again while it counts.
        settings, window = struct.pack(">HI", 4, 2**31 - 1), struct.pack(">I", 2**31 - 65536)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
                            self.frame(self.SETTINGS, 0, 0, settings) +
                            self.frame(self.WINDOW_UPDATE, 0, 0, window))

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        length = struct.pack(">I", len(payload))[1:]
        return length + struct.pack(">BBI", kind, flags, stream) + payload

    def read(self):
        """The next frame: (type, flags, payload)."""
        while len(self.unread) < 9 or len(self.unread) < 9 + int.from_bytes(self.unread[:3], "big"):
            self.unread += receive(self.socket)
        end = 9 + int.from_bytes(self.unread[:3], "big")
        frame, self.unread = self.unread[:end], self.unread[end:]
        return frame[3], frame[4], frame[9:]

    def status(self, path, _token):
        """Sends a request and reads its whole answer: the status."""
        def literal(index, value):  # without indexing, the name from the static table
            name = bytes([index]) if index < 15 else bytes([15, index - 15])
            return name + bytes([len(value)]) + value

        self.stream += 2
        fields = (b"\x82\x86" + literal(4, path.encode()) + literal(1, b"gateway.example") +
                  literal(58, b"cost") + literal(19, b"*/*"))
        self.socket.sendall(
            self.frame(self.HEADERS, self.END_STREAM | self.END_HEADERS, self.stream, fields))
        status = 0
        while True:
            kind, flags, payload = self.read()
            if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                self.socket.sendall(
                    self.frame(kind, self.ACK, 0, payload if kind == self.PING else b""))
            elif kind == self.HEADERS:
                fields = payload.lstrip(b"\x20\x3f")  # an update of the table's size comes first
                status = self.STATUSES.get(fields[0] if fields else 0, -1)
            elif kind == self.GOAWAY:
                harness.stop("the gateway ended the HTTP/2 connection")
            if kind in (self.DATA, self.HEADERS) and flags & self.END_STREAM:
                return status

    def close(self):
        self.socket.close()


def connect(port):
    s = socket.create_connection(("127.0.0.1", port), 120)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def receive(s):
    try:
        piece = s.recv(65536)
    except TimeoutError:
        harness.stop("no answer from the gateway within two minutes")
    if not piece:
        harness.stop("the gateway closed a connection that was to stay open")
    return piece


def check_programs():
    for program in ("valgrind", "callgrind_control"):
        harness.need(program, "valgrind")
    harness.need("redis-server", "redis-server")


def start(children, binary, origin, store, more=""):
    """Runs the gateway under callgrind, with more configuration: (process, its port)."""
    gateway, admin = harness.free_ports(2)
    secret = base64.urlsafe_b64encode(harness.SECRET.encode()).rstrip(b"=").decode()
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "k": secret}]}
    (children.folder / "jwks.json").write_text(json.dumps(keys))
    config = (FILES / "cost.toml").read_text() + more
    for place, value in {"GATEWAY": gateway, "ADMIN": admin, "STORE": store, "ORIGIN": origin.port,
                         "DIR": children.folder}.items():
        config = config.replace(f"@{place}@", str(value))
    path = children.folder / "gateway.toml"
    path.write_text(config)
    # One processor, so that there is one worker, whatever the machine has.
    one = {min(os.sched_getaffinity(0))}
    child = children.start("gateway", [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={children.folder}/profile",
        binary, "run", "--config", path], preexec_fn=lambda: os.sched_setaffinity(0, one))
    child.admin = admin
    harness.wait_open(child, gateway, "the gateway under valgrind", 180)
    return child, gateway


class Profile:
    """What one process counted, part by part."""

    def __init__(self, children, child):
        self.folder, self.child, self.parts = children.folder, child, 0

    def part(self):
        """Ends a part: its file, which has what was counted since the last one."""
        self.parts += 1
        command = ["callgrind_control", "-d", str(self.child.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        path = self.folder / f"profile.{self.parts}"
        if not path.exists():
            harness.stop(f"{' '.join(command)} wrote no profile:\n{done.stdout}{done.stderr}"
                         f"{harness.log_tail(self.child)}")
        return path


def instructions(path):
    """All instructions of a part."""
    found = re.findall(r"^(?:summary|totals): (\d+)", path.read_text(), re.M)
    return max(map(int, found), default=0)


def by_the_clock(profile):
    """Instructions in a second in which nobody asks for anything."""
    profile.part()
    since = time.monotonic()
    time.sleep(IDLE_SECONDS)
    return instructions(profile.part()) / (time.monotonic() - since)


def count(o, children, binary, keep):
    """Counts each scenario: {name: instructions per request}. Profiles go to the folder `keep`."""
    origin = Origin()
    if o.masters:
        servers, ports = harness.start_cluster(children, o.masters)
        store = "redis-cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
    else:
        ports = harness.free_ports(1)
        servers = [harness.start_redis(children, ports[0])]
        store = f"redis://127.0.0.1:{ports[0]}"
    tokens = []
    for n in range(USERS):
        user = {"sub": f"user-{n}", "sid": f"session-{n}", "jti": f"token-{n}"}
        tokens.append(harness.token(iss="bench", aud="bench", **user))
        session = {"userId": n, "email": f"user{n}@example.com", "role": "user"}
        key = f"app:session:session-{n}"
        harness.cluster_command(ports, "SET", key, json.dumps(session))
    child, port = start(children, binary, origin, store)
    profile, figures = Profile(children, child), {}
    idle = by_the_clock(profile)
    print(f"in each second, whatever the traffic: {idle:,.0f} instructions", file=sys.stderr)
    for name in o.scenario:
        print(f"counting {name}", file=sys.stderr, flush=True)
        client = (Http2 if name == "h2" else Http1)(port)
        expected = 429 if name == "deny" else 200

        def ask(first, requests, is_checked):
            for n in range(first, first + requests):
                path = {"h2": "/pass/1k", "miss": f"/miss/{n:06}"}.get(name, f"/{name}/1k")
                # A refusal is remembered for a second, in which one user asks more often than many.
                user = 0 if name == "deny" else n % USERS
                status = client.status(path, None if name in ANONYMOUS else tokens[user])
                if is_checked and status != expected:
                    harness.stop(f"{name}: an answer {status} where {expected} was expected\n"
                                 f"{harness.log_tail(child)}")

        ask(0, WARM_UP, False)
        profile.part()
        before, since = origin.requests, time.monotonic()
        ask(WARM_UP, o.requests, True)
        path = profile.part()
        own = instructions(path) - idle * (time.monotonic() - since)
        if name == "miss":  # what was asked for last is stored by now
            ask(WARM_UP + o.requests - 1, 1, True)
        forwarded = 0 if name in NOT_FORWARDED else o.requests
        if origin.requests - before != forwarded:
            harness.stop(f"{name}: {origin.requests - before} requests reached the origin where "
                         f"{forwarded} were expected")
        figures[name] = round(own / o.requests)
        shutil.copy(path, keep / name)
        client.close()
    children.end(child)
    for server in servers:
        children.end(server)
    origin.close()
    return figures


def functions(path, requests):
    """Instructions per request of each function itself: {name: number}.

    callgrind_annotate would do, but it adds what threads cost that go on after the dump to the
    functions that they began with.
    """
    names, found, current, is_called = {}, collections.Counter(), "", False
    with open(path, errors="replace") as lines:
        for line in lines:
            if line.startswith(("fn=", "cfn=")):
                number, name = re.match(r"c?fn=(\(\d+\))(?: (.*))?", line).groups()
                if name:
                    names[number] = re.sub(r"::h[0-9a-f]{16}|'\d+$", "", name)
                if line.startswith("fn="):
                    current = names[number]
            elif line.startswith("calls="):
                is_called = True  # the next line says what the called function cost
            elif line[0] in "0123456789+-*":
                if not is_called:
                    found[current] += int(line.split()[1]) / requests
                is_called = False
    return found


def list_functions(o, ours, other):
    here = functions(ours, o.requests)
    if not other:
        print(f"instructions per request, of {round(sum(here.values())):,}")
        for name, number in here.most_common(o.lines):
            print(f"{number:9,.0f}  {name}")
        return
    there = functions(other, o.requests)
    rows = sorted(((here[name] - there[name], name) for name in here.keys() | there.keys()),
                  key=lambda row: -abs(row[0]))
    print(f"instructions per request: {round(sum(here.values())):,} here, "
          f"{round(sum(there.values())):,} in {o.than}")
    print(f"{'change':>9}  {'here':>9}  {'there':>9}  function")
    for change, name in rows[:o.lines]:
        print(f"{change:+9,.0f}  {here[name]:9,.0f}  {there[name]:9,.0f}  {name}")


def compare(figures, kept):
    """Prints the table; the scenarios that cost more."""
    dearer = []
    print(f"{'scenario':8}  {'instructions':>12}  {'kept':>9}  {'change':>8}")
    for name, number in figures.items():
        if not kept.get(name):
            print(f"{name:8}  {number:12,}  {'-':>9}")
            continue
        change = number / kept[name] - 1
        mark = ""
        if abs(change) > TOLERANCE:
            mark = "  dearer" if change > 0 else "  cheaper"
        if change > TOLERANCE:
            dearer.append(name)
        print(f"{name:8}  {number:12,}  {kept[name]:9,}  {change:+8.1%}{mark}")
    return dearer


def main(arguments):
    o = options(arguments)
    check_programs()
    binary = harness.gateway_binary(o)
    if o.features:
        with harness.Children() as children:
            features.measure(o, children, binary)
        return 0
    if o.identity:
        with harness.Children() as children:
            identity.measure(o, children, binary)
        return 0
    if o.watching:
        with harness.Children() as children:
            watching.measure(o, children, binary)
        return 0
    folder = pathlib.Path(o.keep) if o.keep else pathlib.Path(tempfile.mkdtemp(prefix="cost-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with harness.Children() as children:
            figures = count(o, children, binary, folder)
        if o.functions:
            other = None
            if o.than:
                there = folder / "than"
                there.mkdir(exist_ok=True)
                with harness.Children() as children:
                    count(o, children, pathlib.Path(o.than).resolve(), there)
                other = there / o.functions
            list_functions(o, folder / o.functions, other)
            return 0
    finally:
        if not o.keep:
            shutil.rmtree(folder, ignore_errors=True)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    dearer = compare(figures, kept)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(figures, indent=2) + "\n")
    if o.masters:
        return 0  # what is kept is of one Redis
    if o.update:
        KEPT.write_text(json.dumps({**kept, **figures}, indent=2) + "\n")
        return 0
    if dearer:
        print(f"bench cost: dearer than scripts/bench.d/cost.json: {', '.join(dearer)}; "
              "--functions NAME shows where", file=sys.stderr)
    return 1 if dearer else 0
