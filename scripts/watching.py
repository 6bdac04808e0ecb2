"""What it costs to look, in instructions: `scripts/bench cost --watching`.

The scenario `api` with nothing on, with a dashboard that is open, and with traces of one request in
a hundred and of all. What is done once a second, whatever the traffic, is told apart: an open
dashboard is told of each second, and of 20 requests in it. "in all" is a request with its share of
that at 10,000 requests a second, which is what a gateway of two processors takes."""

import http.client
import http.server
import json
import socket
import threading
import time

import cost
import harness

# At this rate what is done by the clock is shared out among requests.
REQUESTS_PER_SECOND = 10_000
# Requests, and how many in a second, for the count in which the clock weighs most.
SLOWLY = (240, 40)
# Requests of the other count: those that are told of in a second that has just begun, up to 20 whose
# cost is that of hundreds, must be few among them.
QUICKLY = 12_000


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes all spans."""
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Stream:
    """A tab that is open: it reads `/v1/live`, and counts the seconds that it is told of."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.connection.request("GET", "/v1/live")
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        if self.answer.status != 200:
            harness.stop(f"/v1/live answered {self.answer.status}")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            while self.answer.read1():
                pass
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass  # it was closed

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)


class Gateway:
    """One under callgrind, with a Redis of its own and what else it is to have."""

    def __init__(self, o, children, binary, more):
        self.o, self.children = o, children
        self.origin = cost.Origin()
        redis = harness.free_ports(1)[0]
        self.redis = harness.start_redis(children, redis, f"redis-{redis}")
        self.tokens = []
        for n in range(cost.USERS):
            user = {"sub": f"user-{n}", "sid": f"session-{n}", "jti": f"token-{n}"}
            self.tokens.append(harness.token(iss="bench", aud="bench", **user))
            session = {"userId": n, "email": f"user{n}@example.com", "role": "user"}
            harness.redis_command(redis, "SET", f"app:session:session-{n}", json.dumps(session))
        self.child, port = cost.start(children, binary, self.origin, f"redis://127.0.0.1:{redis}",
                                      more)
        self.profile, self.client = cost.Profile(children, self.child), cost.Http1(port)
        self.ask(cost.WARM_UP)

    def ask(self, requests):
        for n in range(requests):
            status = self.client.status("/api/1k", self.tokens[n % cost.USERS])
            if status != 200:
                harness.stop(f"an answer {status}\n{harness.log_tail(self.child)}")

    def count(self, requests, a_second=None):
        """Instructions of so many requests, at this pace or at once, and the seconds of that."""
        self.profile.part()
        since = time.monotonic()
        for n in range(requests):
            if a_second:
                time.sleep(max(0, since + n / a_second - time.monotonic()))
            self.ask(1)
        return cost.instructions(self.profile.part()), time.monotonic() - since

    def costs(self):
        """What a request costs, and a second, whatever the traffic."""
        # Two counts at two paces are two equations.
        (quick, short), (slow, long) = self.count(QUICKLY), self.count(*SLOWLY)
        many, few = QUICKLY, SLOWLY[0]
        request = (quick - slow * short / long) / (many - few * short / long)
        return request, (slow - request * few) / long

    def end(self):
        self.client.close()
        self.children.end(self.child)
        self.children.end(self.redis)
        for file in self.children.folder.glob("profile*"):
            file.unlink()
        self.origin.close()


def measure(o, children, binary):
    """Prints the table."""
    def line(name, gateway, plain=None):
        request, second = gateway.costs()
        shared = request + second / REQUESTS_PER_SECOND
        change = f"{shared / (plain or shared) - 1:+.1%}"
        print(f"{name:22}  {request:9,.0f}  {second:12,.0f}  {shared:9,.0f}  {change:>7}", flush=True)
        return shared

    print(f"{'api':22}  {'a request':>9}  {'each second':>12}  {'in all':>9}  {'change':>7}")
    gateway = Gateway(o, children, binary, "")
    plain = line("nothing on", gateway)
    stream = Stream(gateway.child.admin)
    line("a dashboard is open", gateway, plain)
    stream.close()
    gateway.end()
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    collector.daemon_threads = True
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    for sample in ("1%", "100%"):
        endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
        traces = f"\n[telemetry.traces]\nendpoint = \"{endpoint}\"\nsample = \"{sample}\"\n"
        # Under callgrind every request is slow; none is to be told of for that.
        gateway = Gateway(o, children, binary, traces + "slow = \"1h\"\n")
        line(f"traces of {sample}", gateway, plain)
        gateway.end()
    collector.shutdown()
