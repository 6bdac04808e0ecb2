"""The Redis servers of a run: one, one with Sentinel, or a Cluster, all with the same face."""

import os
import signal
import subprocess
import time

import harness
import resp

SERVE_S = 30  # longest wait until a server serves
NODE_TIMEOUT_MS = 2000  # cluster-node-timeout
DOWN_AFTER_MS = 1000  # sentinel down-after-milliseconds


def wait(true, what, seconds=SERVE_S, pause=0.005):
    """Waits until it is true; returns when that was seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return time.monotonic()
        except (OSError, resp.Refused):
            pass
        time.sleep(pause)
    harness.stop(f"{what}: not within {seconds} s")


class Server:
    """A redis-server (or sentinel) that dies, stalls and comes back."""

    def __init__(self, children, name, port, *arguments):
        self.children, self.name, self.port = children, name, port
        self.arguments, self.child, self.keep = arguments, None, None
        self.host = "127.0.0.1"
        self.earlier = self.own = 0  # connections of former lives; the kit's own
        self.folder = children.folder / name
        self.folder.mkdir(exist_ok=True)

    def start(self):
        """Starts it, and returns when it takes connections; it may be loading then."""
        self.child = self.children.start(self.name, [
            "redis-server", *self.arguments, "--port", self.port, "--bind", self.host,
            "--dir", self.folder])
        self.own = resp.made[self.port]
        wait(lambda: self.connect(0.5).close() is None, f"{self.name} listens")

    def kill(self):
        self.earlier = self.received()
        self.children.end(self.child, signal.SIGKILL)

    def pause(self):
        os.kill(self.child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        os.kill(self.child.pid, signal.SIGCONT)

    def run(self, *parts, timeout=2.0):
        """A command, on the connection that is kept if there is one, else on a new one."""
        if self.keep:
            return self.keep.run(*parts)
        with self.connect(timeout) as connection:
            return connection.run(*parts)

    def connect(self, timeout=2.0):
        return resp.Connection(self.port, timeout, self.host)

    def info(self, section):
        return resp.info_of(self.run("INFO", section, timeout=0.3))

    def serves(self):
        """Whether it takes writes now."""
        with self.connect(0.2) as connection:
            connection.run("SET", "kit:probe", "1", "PX", "1000")
        return True

    def clients(self):
        """Clients that are connected now, without the kit, and without the connections that MIGRATE
        keeps from one server to another for a while."""
        moving = sum(" cmd=restore" in line for line in self.run("CLIENT", "LIST").splitlines())
        return int(self.info("clients")["connected_clients"]) - 1 - moving

    def received(self):
        """Connections that others than the kit have made or tried; 0 when it cannot tell."""
        if not self.child or self.child.poll() is not None:
            return self.earlier
        try:
            stats = self.info("stats")
        except (OSError, resp.Refused):
            return self.earlier
        total = int(stats["total_connections_received"]) + int(stats["rejected_connections"])
        return self.earlier + total - (resp.made[self.port] - self.own)


def plain(children, name, port, *more):
    """A server that keeps nothing on disk unless told to."""
    return Server(children, name, port, "--save", "", "--appendonly", "no",
                  "--enable-debug-command", "yes", "--busy-reply-threshold", "100",
                  "--repl-diskless-sync-delay", "0", "--loading-process-events-interval-bytes",
                  "1024", "--dbfilename", "dump.rdb", *more)


class Single:
    """One server."""

    name, store = "single", ""

    def __init__(self, children, *more):
        self.children = children
        self.port, = harness.free_ports(1)
        self.master = plain(children, "redis", self.port, *more)
        self.servers = [self.master]

    def start(self):
        self.master.start()
        self.wait_serving()

    def url(self, host="127.0.0.1", port=None):
        """store.url; only of one server can it be another host or port, as of a link."""
        return f"redis://{host}:{port or self.port}"

    def run(self, *parts):
        """A command of an application: to the server of its key."""
        return self.master.run(*parts)

    def wait_serving(self):
        """Returns when it serves again."""
        return wait(self.master.serves, "Redis serves")

    def replicate(self, server, port):
        """Makes `server` a replica of what is at `port`, and waits until it is one."""
        server.run("REPLICAOF", "127.0.0.1", port)
        wait(lambda: server.info("replication")["master_link_status"] == "up",
             f"{server.name} replicates")


class Tls(Single):
    """One server that takes TLS from gateways; the kit itself speaks to it in clear."""

    name, store = "tls", '\n[store.tls]\nca_file = "{folder}/ca.pem"'

    def __init__(self, children, *more):
        super().__init__(children, *more)
        self.tls_port, = harness.free_ports(1)
        self.folder = children.folder
        harness.need("openssl", "openssl")
        self.authority("ca")
        self.authority("stranger")
        for name, by, days in (("first", "ca", 30), ("new", "ca", 30), ("wrong", "stranger", 30),
                               ("expired", "ca", -1)):
            self.certificate(name, by, days)
        self.master.arguments += ("--tls-port", self.tls_port, "--tls-auth-clients", "no",
                                  "--tls-cert-file", self.folder / "first.pem",
                                  "--tls-key-file", self.folder / "first.key",
                                  "--tls-ca-cert-file", self.folder / "ca.pem")

    def openssl(self, *parts):
        done = subprocess.run(["openssl", *map(str, parts)], cwd=self.folder, capture_output=True,
                              text=True)
        if done.returncode:
            harness.stop(f"openssl {parts[0]} failed:\n{done.stderr}")

    def authority(self, name):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", 30,
                     "-subj", f"/CN={name}")

    def certificate(self, name, by, days):
        """A certificate for 127.0.0.1; with negative days it has ended already."""
        (self.folder / "san").write_text("subjectAltName = IP:127.0.0.1\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=redis")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey",
                     f"{by}.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", days,
                     "-extfile", "san")

    def url(self, host="127.0.0.1", port=None):
        return f"rediss://{host}:{port or self.tls_port}"

    def show(self, name):
        """New connections see this certificate; those that are there end."""
        self.master.run("CONFIG", "SET", "tls-cert-file", self.folder / f"{name}.pem",
                        "tls-key-file", self.folder / f"{name}.key")
        self.master.run("CLIENT", "KILL", "TYPE", "normal")


class Sentinel(Single):
    """A master, two replicas and three sentinels."""

    name = "sentinel"

    def __init__(self, children, *more):
        self.children = children
        ports = harness.free_ports(6)
        more = (*more, "--repl-ping-replica-period", "1", "--min-replicas-max-lag", "2")
        self.nodes = [plain(children, f"redis-{n}", ports[n], *more) for n in range(3)]
        self.sentinels = [Server(children, f"sentinel-{n}", ports[3 + n]) for n in range(3)]
        self.master, self.servers = self.nodes[0], [*self.nodes, *self.sentinels]

    def configure(self, sentinel, master_port, name="main"):
        """Writes a sentinel's own file, and has it run from there."""
        path = sentinel.folder / "sentinel.conf"
        path.write_text(f"sentinel monitor {name} 127.0.0.1 {master_port} 2\n"
                        f"sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}\n"
                        f"sentinel failover-timeout {name} 5000\n")
        sentinel.arguments = (str(path), "--sentinel")

    def start(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes[1:]:
            self.replicate(node, self.master.port)
        for node in self.nodes:
            node.run("CONFIG", "SET", "min-replicas-to-write", 1)
        for sentinel in self.sentinels:
            self.configure(sentinel, self.master.port)
            sentinel.start()
        wait(lambda: all(self.knows(s) for s in self.sentinels), "the sentinels know each other")
        self.wait_serving()

    def knows(self, sentinel):
        known = sentinel.info("sentinel").get("master0", "")
        return "slaves=2,sentinels=3" in known

    def url(self, *_):
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        return f"redis-sentinel://{hosts}/main"

    def wait_serving(self, but=None):
        """Returns when a master takes writes; it is `self.master` from then on."""
        def serves():
            for node in self.nodes:
                if node is but or node.child.poll() is not None:
                    continue
                try:
                    if node.run("ROLE", timeout=0.1)[0] == "master" and node.serves():
                        self.master = node
                        return True
                except (OSError, resp.Refused):
                    pass
            return False

        return wait(serves, "a master serves", pause=0.02)


class Cluster(Single):
    """Three masters with a replica each."""

    name, slots = "cluster", 16384

    def __init__(self, children, *more):
        self.children = children
        more = (*more, "--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MS,
                "--cluster-require-full-coverage", "no", "--repl-ping-replica-period", "1",
                "--cluster-allow-replica-migration", "no")
        self.more, self.count = more, 0
        self.nodes = [self.node() for _ in range(6)]
        self.master, self.servers = self.nodes[0], self.nodes

    def node(self):
        """A node more; its port and that of the bus are free."""
        while True:
            port, = harness.free_ports(1)
            if port < 55000:
                break
        self.count += 1
        return plain(self.children, f"node-{self.count}", port, *self.more)

    def start(self):
        for node in self.nodes:
            node.start()
        for n, node in enumerate(self.nodes[:3]):
            first, last = self.slots * n // 3, self.slots * (n + 1) // 3 - 1
            node.run("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.run("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            node.run("CLUSTER", "MEET", "127.0.0.1", self.master.port)
        wait(lambda: all(self.known(n) == "6" for n in self.nodes), "the nodes know each other")
        for n, node in enumerate(self.nodes[3:]):
            of = self.nodes[n].run("CLUSTER", "MYID")
            wait(lambda node=node, of=of: node.run("CLUSTER", "REPLICATE", of) == "OK",
                 "a replica follows", pause=0.1)
        wait(lambda: all("up" == n.info("replication")["master_link_status"]
                         for n in self.nodes[3:]), "the replicas follow")
        self.wait_serving()

    @staticmethod
    def known(node):
        return resp.info_of(node.run("CLUSTER", "INFO"))["cluster_known_nodes"]

    def url(self, *_):
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        return f"redis-cluster://{hosts}"

    def alive(self):
        """Nodes whose processes run and are not stopped."""
        def runs(node):
            state = open(f"/proc/{node.child.pid}/stat").read().rpartition(")")[2].split()[0]
            return state not in "TZ"
        return [node for node in self.nodes if node.child.poll() is None and runs(node)]

    def run(self, *parts):
        """To the master of the slot of parts[1]."""
        port = self.alive()[0].port
        for _ in range(4):
            try:
                return resp.run(port, *parts)
            except resp.Refused as error:
                kind, *rest = str(error).split()
                if kind != "MOVED":
                    raise
                port = int(rest[1].rpartition(":")[2])
        raise resp.Refused("MOVED in circles")

    def masters(self):
        """[(server, [(first, last)])] as a node of the majority sees them."""
        ranges = {}
        for first, last, master, *_ in self.alive()[-1].run("CLUSTER", "SLOTS"):
            ranges.setdefault(master[1], []).append((first, last))
        return [(node, ranges[node.port]) for node in self.nodes if node.port in ranges]

    def master_of(self, key):
        """The server of a key's slot."""
        slot = self.alive()[0].run("CLUSTER", "KEYSLOT", key)
        return next(node for node, ranges in self.masters()
                    if any(first <= slot <= last for first, last in ranges))

    def replica_of(self, master):
        """A replica of this master that runs."""
        of = master.run("CLUSTER", "MYID")
        for line in master.run("CLUSTER", "NODES").splitlines():
            node, address, flags, primary, *_ = line.split()
            port = int(address.partition("@")[0].rpartition(":")[2])
            if primary == of and "fail" not in flags:
                return next(n for n in self.nodes if n.port == port)
        harness.stop(f"{master.name} has no replica")

    def wait_serving(self, but=None):
        """Returns when all slots are served by others than `but`, as every node sees it."""
        def serves():
            alive = [node for node in self.alive() if node is not but]
            for node in alive:
                state = resp.info_of(node.run("CLUSTER", "INFO", timeout=0.2))
                slots = node.run("CLUSTER", "SLOTS", timeout=0.2)
                ports = {master[1] for _, _, master, *_ in slots}
                if (state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) < self.slots
                        or but and but.port in ports):
                    return False
            return len(alive) > 2

        return wait(serves, "the cluster serves", pause=0.02)


TOPOLOGIES = {kind.name: kind for kind in (Single, Tls, Sentinel, Cluster)}
