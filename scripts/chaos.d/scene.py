"""Three gateways on the servers of one topology, under load, and what is to be known of them."""

import functools
import http.client
import json
import os
import signal
import time

import harness
import links
import origin
import traffic

GATEWAYS = 3
TIMEOUT_MS = 50  # store.timeout
BEFORE_S, AFTER_S = 2.9, 3.0
SETTLE_S = 1.0  # the pauses between attempts to connect have grown until then
# Two bursts of the tight limits pass before the fault, and the last one is just over: what Redis
# granted in the last window is then the most it can be.
WINDOW_S = 2
LIMITS = {"even": 30, "sticky": 30, "both": 20, "client0": 12, "client1": 12}
LEASE_S = 5
HELD = 3  # places of /hold
CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
[log]
access = "off"
level = "info"
[admin]
listen = "127.0.0.1:{admin}"
[store]
url = "{url}"
timeout = "{timeout}ms"
{store}
[store.on_outage]
revocation = "{revocation}"
revocation_max_stale = "{max_stale}"
limits = "{limits}"
session = "refuse"
cache = "bypass"
nodes = {gateways}
[auth.checked]
algorithms = ["HS256"]
secret = "{secret}"
[auth.unchecked]
algorithms = ["HS256"]
secret = "{secret}"
revocation = false
[session]
id_from = ["claim:sid"]
header = "x-session"
[limits.wide]
key = ["address"]
allow = ["1000000/1m"]
[limits.places]
key = ["address"]
concurrent = 1000
lease = "{lease}s"
[limits.held]
key = ["address"]
concurrent = {held}
lease = "{lease}s"
[limits.tight]
key = ["claim:sub"]
allow = ["{tight}/{window}s"]
[limits.by_sub]
key = ["claim:sub"]
allow = ["{by_sub}/{window}s"]
count = {{ status = ["200"] }}
[limits.by_client]
key = ["header:x-client"]
allow = ["{by_client}/{window}s"]
count = {{ status = ["200"] }}
[upstreams.app]
servers = ["http://127.0.0.1:{origin}"]
client_share = "100%"
[routes.plain]
path = "/plain/*"
upstream = "app"
[routes.auth]
path = "/auth/*"
upstream = "app"
auth = "checked"
[routes.wide]
path = "/wide/*"
upstream = "app"
limits = ["wide", "places"]
[routes.hold]
path = "/hold/*"
upstream = "app"
limits = ["held"]
[routes.tight]
path = "/tight/*"
upstream = "app"
auth = "unchecked"
limits = ["tight"]
[routes.two]
path = "/two/*"
upstream = "app"
auth = "unchecked"
limits = ["by_sub", "by_client"]
[routes.session]
path = "/session/*"
upstream = "app"
auth = "unchecked"
session = true
[routes.api]
path = "/api/*"
upstream = "app"
auth = "checked"
limits = ["wide"]
session = true
[routes.read]
path = "/read/*"
upstream = "app"
cache = {{ ttl = "1m", shared = true }}
"""


@functools.lru_cache(None)
def token(**claims):
    return harness.token(**claims)


TOKENS = {
    "auth": token(sub="u1", jti="good"), "session": token(sub="u1", sid="s1", jti="s"),
    "api": token(sub="u1", sid="s2", jti="good2"),
    "jti": lambda jti: token(sub="u2", jti=jti), "sub": lambda sub: token(sub=sub, jti="t"),
}


class Gateway:
    """One of the gateways, and its figures."""

    def __init__(self, scene, number, port, admin):
        self.scene, self.port, self.admin = scene, port, admin
        self.number, self.name, self.child = number, f"gateway-{number}", None

    def start(self):
        scene, row, folder = self.scene, self.scene.row, self.scene.children.folder
        path = folder / f"{self.name}.toml"
        path.write_text(CONFIG.format(
            port=self.port, admin=self.admin, url=scene.url(self.number), timeout=row.timeout_ms,
            revocation=row.revocation, max_stale=row.max_stale, limits=row.limits,
            gateways=GATEWAYS, secret=harness.SECRET, lease=LEASE_S, held=HELD,
            tight=LIMITS["even"], by_sub=LIMITS["both"], by_client=LIMITS["client0"],
            window=WINDOW_S, origin=scene.origin_port,
            store=(row.store + scene.topology.store).format(folder=folder)))
        wrapper = [part.format(folder=folder) for part in row.wrapper]
        self.child = scene.children.start(
            self.name, [*wrapper, scene.binary, "run", "--config", path])
        harness.wait_open(self.child, self.port, "the gateway")

    def signal(self, signum):
        os.kill(self.child.pid, signum)

    def connection(self, port, timeout=2):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def call(self, method, path, body=None):
        """(status, body) of the admin listener."""
        connection = self.connection(self.admin)
        fields = {"content-type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, fields)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def revoke(self, jti):
        """Revokes a token before there is a fault; on a busy machine that may take several."""
        for _ in range(20):
            status, text = self.call("POST", "/v1/revocations", {"jti": jti, "expires_in": "1h"})
            if status == 201:
                return
            time.sleep(0.2)
        harness.stop(f"a revocation before the fault was answered {status}: {text}")

    def metric(self, name):
        """The sum of a metric over its labels; None where there is no such one."""
        lines = [line for line in self.call("GET", "/metrics")[1].splitlines()
                 if line.partition(" ")[0].partition("{")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None

    def hold(self):
        """Begins a request that takes a place of /hold for longer than a row lasts."""
        connection = self.connection(self.port)
        connection.request("GET", "/hold/30000")
        return connection

    def ask_place(self):
        """What a request for a place of /hold is answered."""
        connection = self.connection(self.port)
        connection.request("GET", "/hold/0")
        status = connection.getresponse().status
        connection.close()
        return status

    def rss_mib(self):
        return harness.memory(self.child.pid, "VmRSS") / 1024

    def files(self):
        """Open files, without connections to the upstream: those stay for a while on purpose."""
        origin = f":{self.scene.origin_port:04X}"
        with open("/proc/net/tcp", encoding="ascii") as file:
            pooled = {f"socket:[{line.split()[9]}]" for line in file if origin in line.split()[2]}
        folder, count = f"/proc/{self.child.pid}/fd", 0
        for name in os.listdir(folder):
            try:
                count += os.readlink(f"{folder}/{name}") not in pooled
            except OSError:
                pass  # it was closed meanwhile
        return count

    def wait_connected(self):
        """Waits until its store answers it."""
        harness.wait_open(self.child, self.admin, "the gateway")
        end = time.monotonic() + 5
        while not json.loads(self.call("GET", "/v1/status")[1])["store"]["connected"]:
            if time.monotonic() > end:
                harness.stop(f"{self.name} does not reach its store:\n"
                             f"{harness.log_tail(self.child)}")
            time.sleep(0.02)

    def log(self):
        return (self.scene.children.folder / f"{self.name}.log").read_text(errors="replace")


class Scene:
    """One row: servers, links, gateways, load."""

    lease_s, held = LEASE_S, HELD

    def __init__(self, children, options, row, topology):
        self.children, self.binary, self.row = children, options.binary, row
        self.secs = options.secs if row.secs is None else row.secs
        self.cycles = options.cycles
        self.topology = topology(children, *row.server)
        self.links, self.load, self.notes = None, None, {}
        self.origin_port, *ports = harness.free_ports(1 + 2 * GATEWAYS)
        self.origin = origin.start(self.origin_port)
        self.gateways = [Gateway(self, n, *ports[2 * n:2 * n + 2]) for n in range(GATEWAYS)]
        self.exempt = set()  # gateways that cannot answer, by the fault itself

    def url(self, gateway):
        """Where a gateway finds its store."""
        port = self.links_at[gateway] if self.links else None
        return self.topology.url(self.row.host, port)

    def start(self):
        self.topology.start()
        if self.row.linked:
            self.links = links.Links()
            self.links_at = harness.free_ports(GATEWAYS)
            for n, port in enumerate(self.links_at):
                self.links.open(f"gateway-{n}", port, ("127.0.0.1", self.topology.port))
        self.seed()
        self.row.prepare(self)
        for gateway in self.gateways:
            gateway.start()
        for gateway in self.gateways:
            gateway.wait_connected()
        for me, gateway in enumerate(self.gateways):
            for n in range(traffic.OLD):
                gateway.revoke(f"r{me}.{n}")
        time.sleep(0.3)  # the followers hear of them

    def seed(self):
        """What the application keeps in Redis: it writes its sessions again when they are lost."""
        for sid in ("s1", "s2"):
            self.topology.run("SET", f"app:session:{sid}", '{"n":1}', "EX", 3600)

    def run(self):
        """The whole row; returns its History."""
        self.start()
        history = History()
        history.exempt = self.exempt
        history.files = [gateway.files() for gateway in self.gateways]
        marks = [len(gateway.log()) for gateway in self.gateways]
        history.begin = time.monotonic() + 0.2
        spread_at = history.begin + BEFORE_S
        self.load = traffic.Load(
            [g.port for g in self.gateways], [g.admin for g in self.gateways], self.origin_port,
            TOKENS, history.begin, spread_at, self.row.writes_past)
        self.row.before(self)
        until(spread_at)
        history.conns_before, history.connects_before = self.clients(), self.connects()
        self.fault(history)
        until(history.start + self.secs + AFTER_S)
        until(history.back + max(AFTER_S, self.row.after_s))
        history.conns_after, history.connects = self.clients(), self.connects()
        history.answers = self.load.end()
        self.load = None
        history.passed, history.fetches = self.told_by_origin()
        history.whole_logs = [gateway.log() for gateway in self.gateways]
        history.logs = [log[mark:] for log, mark in zip(history.whole_logs, marks)]
        history.dead = [g.name for g in self.gateways if g.child.poll() is not None]
        if not history.dead:
            history.rss_mib = max(gateway.rss_mib() for gateway in self.gateways)
            history.redirects = self.redirects()
            self.row.finish(self, history)
        return history

    def fault(self, history):
        """Makes the fault, lets it last, and waits until the server serves again."""
        row = self.row
        history.start = time.monotonic()
        row.inject(self)
        end = history.start + self.secs
        while (now := time.monotonic()) < end:
            if row.slow_connects and not history.settled and now > history.start + SETTLE_S:
                history.settled = now, self.connects()
            if row.each:
                row.each(self, now - history.start)
            until(min(end, now + row.every_s))
        history.lifted = time.monotonic(), self.connects()
        row.lift(self)
        history.back = row.serving(self) if row.serving else self.topology.wait_serving()
        if row.served_all_along:
            history.back = history.start
        if row.reseed:
            self.seed()

    def clients(self):
        """Connections of gateways to their store."""
        return sum(server.clients() for server in self.topology.servers
                   if server.child.poll() is None)

    def connects(self):
        """How many connections gateways have made or tried, so far as that can be seen."""
        if self.links:
            return self.links.count()
        return sum(server.received() for server in self.topology.servers)

    def redirects(self):
        told = [gateway.metric("portcullis_store_redirects_total") for gateway in self.gateways]
        return None if None in told else int(sum(told))

    def told_by_origin(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.origin_port, timeout=10)
        connection.request("GET", "/notes")
        notes = json.loads(connection.getresponse().read())
        return notes["passed"], notes["fetches"]

    def end(self):
        """Ends everything it started."""
        if self.load:
            self.load.kill()
        if self.links:
            self.links.end()
        for gateway in self.gateways:
            if gateway.child:
                self.children.end(gateway.child, signal.SIGKILL)
        for server in self.topology.servers:
            if server.child:
                self.children.end(server.child, signal.SIGKILL)
        self.origin.kill()
        self.origin.join()


class History:
    """What happened in a row; times are of the monotonic clock, which all processes share."""

    rss_mib, redirects, settled = 0, None, None

    def __init__(self):
        self.failures = []  # what the row itself found wrong


def until(when):
    time.sleep(max(0.0, when - time.monotonic()))
