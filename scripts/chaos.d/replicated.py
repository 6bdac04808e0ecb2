"""Rows of several servers: Sentinel and Cluster."""

import socketserver
import threading
import time

import resp
import servers
from faults import Row

WRITES = ("evalsha", "eval", "set", "hset", "del", "xadd", "zadd", "hdel", "pexpire")


# --- Sentinel -------------------------------------------------------------------------------------

def kill_master(s):
    s.notes["old"] = s.topology.master
    s.topology.master.kill()


def pause_master(s):
    s.notes["old"] = s.topology.master
    s.topology.master.pause()


def another_serves(s):
    return s.topology.wait_serving(but=s.notes["old"])


def writes_to(server):
    """Commands that write, which this server has run so far."""
    stats = server.info("commandstats")
    return sum(int(stats[f"cmdstat_{name}"].partition("calls=")[2].partition(",")[0])
               for name in WRITES if f"cmdstat_{name}" in stats)


def another_serves_and_the_old_returns(s):
    """The old master wakes, and takes writes until a sentinel tells it that it is a replica now."""
    back, old = another_serves(s), s.notes["old"]

    def watch():
        time.sleep(0.5)
        old.resume()
        time.sleep(0.3)  # what was on its way to it before
        first = last = None
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                if old.run("ROLE")[0] != "master":
                    break
                last = writes_to(old)
                first = last if first is None else first
            except (OSError, resp.Refused):
                pass
            time.sleep(0.05)
        s.notes["writes"] = (last or 0) - (first or 0)

    s.notes["watch"] = threading.Thread(target=watch, daemon=True)
    s.notes["watch"].start()
    return back


def judge_stale_master(s, history):
    s.notes["watch"].join()
    if s.notes["writes"]:
        history.failures.append(f"{s.notes['writes']} writes to the stale master")


def kill_sentinels(s):
    for sentinel in s.topology.sentinels:
        sentinel.kill()


def start_sentinels(s):
    for sentinel in s.topology.sentinels:
        sentinel.start()


def pause_sentinels(s):
    for sentinel in s.topology.sentinels[:2]:
        sentinel.pause()


def resume_sentinels(s):
    for sentinel in s.topology.sentinels[:2]:
        sentinel.resume()


class Liar(socketserver.ThreadingTCPServer):
    """Answers as a sentinel would whose master is one of the replicas."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, address, replica):
        self.replica, self.three = replica, False
        super().__init__(address, Lies)


class Lies(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            parts = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                parts.append(self.rfile.read(size + 2)[:-2].decode().lower())
            self.wfile.write(self.reply(parts))

    def reply(self, parts):
        port = str(self.server.replica.port)
        if parts[0] == "hello":
            return words("server", "redis", "version", "7.0.15", "proto", "3", "id", "1", "mode",
                         "sentinel", "modules", "").replace(b"*12", b"%6", 1)
        if parts[:2] == ["sentinel", "get-master-addr-by-name"]:
            return words("127.0.0.1", port)
        if parts[:2] == ["sentinel", "master"]:
            return words("name", "main", "ip", "127.0.0.1", "port", port, "flags", "master",
                         "config-epoch", "0", "quorum", "2")
        if parts[0] in ("subscribe", "psubscribe"):
            return b"".join(words(parts[0], name, "1").replace(b"$1\r\n1", b":1")
                            for name in parts[1:])
        if parts[0] == "ping":
            return b"+PONG\r\n"
        return b"*0\r\n" if parts[0] == "sentinel" else b"+OK\r\n"


def words(*parts):
    data = [part.encode() for part in parts]
    return b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(d), d) for d in data)


def begin_to_lie(s):
    """One of the configured sentinels lies from the start."""
    sentinel = s.topology.sentinels[0]
    sentinel.kill()
    liar = Liar(("127.0.0.1", sentinel.port), s.topology.nodes[1])
    threading.Thread(target=liar.serve_forever, daemon=True).start()


# --- Cluster --------------------------------------------------------------------------------------

def a_master_without_sessions(s):
    """A master whose death leaves the sessions of the load alone."""
    busy = {s.topology.master_of(f"app:session:{sid}") for sid in ("s1", "s2")}
    return next(node for node, _ in s.topology.masters() if node not in busy)


def kill_a_master(s):
    s.notes["old"] = a_master_without_sessions(s)
    s.notes["old"].kill()


def fail_over(s):
    """As an operator plans it."""
    old = s.topology.masters()[0][0]
    s.topology.replica_of(old).run("CLUSTER", "FAILOVER")


def take_over(s, elapsed):
    """As an operator does it in need: without asking the other masters."""
    if elapsed > s.secs / 2 and "taken" not in s.notes:
        s.notes["taken"] = True
        old = s.topology.masters()[-1][0]
        s.topology.replica_of(old).run("CLUSTER", "FAILOVER", "TAKEOVER")


def used_slots(s):
    """Slots that hold keys of the gateways, with their masters."""
    found = {}
    for node, _ in s.topology.masters():
        for key in node.run("KEYS", "app:*"):
            found[node.run("CLUSTER", "KEYSLOT", key)] = node
    return found


def open_slot(slot, source, target):
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.run("CLUSTER", "MYID"))
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.run("CLUSTER", "MYID"))


def move_keys(slot, source, target, most=1000):
    while keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, min(most, 100)):
        source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        if len(keys) < 100 or most <= 100:
            return


def close_slot(s, slot, target):
    owner = target.run("CLUSTER", "MYID")
    target.run("CLUSTER", "SETSLOT", slot, "NODE", owner)
    for node, _ in s.topology.masters():
        node.run("CLUSTER", "SETSLOT", slot, "NODE", owner)


def reshard(s, elapsed):
    """Every slot in use goes to the next master, and on."""
    nodes = [node for node, _ in s.topology.masters()]
    end = time.monotonic() + min(0.5, max(0.0, s.secs - elapsed))
    for slot, source in used_slots(s).items():
        if time.monotonic() > end:
            return
        target = nodes[(nodes.index(source) + 1) % len(nodes)]
        open_slot(slot, source, target)
        move_keys(slot, source, target)
        close_slot(s, slot, target)


def leave_open(s):
    """A move that was interrupted: the slots of limits are open, and half of their keys are gone.

    Who has one key of two on this side is answered TRYAGAIN there, and on the other side too."""
    nodes = [node for node, _ in s.topology.masters()]
    s.notes["open"] = []
    for slot, source in used_slots(s).items():
        keys = source.run("CLUSTER", "GETKEYSINSLOT", slot, 1)
        if keys and "ratelimit" in keys[0]:
            target = nodes[(nodes.index(source) + 1) % len(nodes)]
            open_slot(slot, source, target)
            move_keys(slot, source, target, most=1)
            s.notes["open"].append((slot, source, target))


def close_all(s):
    for slot, source, target in s.notes["open"]:
        move_keys(slot, source, target)
        close_slot(s, slot, target)


def pause_majority(s):
    s.notes["paused"] = [node for node, _ in s.topology.masters()][:2]
    for node in s.notes["paused"]:
        node.pause()


def resume_majority(s):
    for node in s.notes["paused"]:
        node.resume()


def knows_replica(node, name):
    """Whether this node has heard that that one is a replica."""
    return any(line.startswith(name) and "slave" in line
               for line in node.run("CLUSTER", "NODES").splitlines())


def lead(replica):
    """Makes this replica the master, as often as its election needs."""
    asked = 0.0

    def leads():
        nonlocal asked
        if time.monotonic() > asked + 6:
            asked = time.monotonic()
            replica.run("CLUSTER", "FAILOVER")
        return replica.run("ROLE")[0] == "master"

    servers.wait(leads, f"{replica.name} takes over", pause=0.02)


def roll(s):
    """Every node gives way to a new one at another address; those of the URL are gone then."""
    cluster = s.topology
    for master, _ in cluster.masters():
        old = [master, cluster.replica_of(master)]
        new = [cluster.node(), cluster.node()]
        for node in new:
            node.start()
            node.run("CLUSTER", "MEET", "127.0.0.1", master.port)
            cluster.nodes.append(node)
        of = master.run("CLUSTER", "MYID")
        for node in new:
            servers.wait(lambda node=node: node.run("CLUSTER", "REPLICATE", of) == "OK",
                         f"{node.name} follows", pause=0.1)
            servers.wait(lambda node=node: node.info("replication")["master_link_status"] == "up",
                         f"{node.name} has the data")
        name = new[0].run("CLUSTER", "MYID")
        servers.wait(lambda: all(knows_replica(node, name) for node in cluster.nodes),
                     f"all know {new[0].name}", pause=0.1)
        lead(new[0])
        of = new[0].run("CLUSTER", "MYID")
        servers.wait(lambda: new[1].run("CLUSTER", "REPLICATE", of) == "OK", "the other follows")
        gone = [node.run("CLUSTER", "MYID") for node in old]
        time.sleep(1.0)  # as an operator waits for clients to follow
        for node in old:
            node.kill()
            cluster.nodes.remove(node)
        for node in cluster.nodes:
            for name in gone:
                try:
                    node.run("CLUSTER", "FORGET", name)
                except resp.Refused:
                    pass  # it never knew it


SENTINEL, CLUSTER = ("sentinel",), ("cluster",)
ROWS = [
    Row("26", "fail-over", kill_master, topologies=SENTINEL, secs=0, serving=another_serves,
        bound="lag"),
    Row("27", "a stale master returns", pause_master, topologies=SENTINEL, secs=0, after_s=4,
        serving=another_serves_and_the_old_returns, finish=judge_stale_master, bound="lag"),
    Row("28", "sentinels dead", kill_sentinels, start_sentinels, topologies=SENTINEL, strict=True,
        served_all_along=True),
    Row("28b", "sentinels without a majority", pause_sentinels, resume_sentinels, strict=True,
        topologies=SENTINEL, served_all_along=True, lasting=False),
    Row("28c", "a lying sentinel", kill_master, topologies=SENTINEL, prepare=begin_to_lie, secs=0,
        serving=another_serves, bound="lag"),
    Row("29", "a master dies", kill_a_master, topologies=CLUSTER, secs=0, serving=another_serves,
        untouched=("session",), bound="lag"),
    Row("30", "CLUSTER FAILOVER, then TAKEOVER", fail_over, each=take_over, topologies=CLUSTER,
        strict=True, served_all_along=True, lasting=False, changes=2),
    Row("31", "slots move", each=reshard, topologies=CLUSTER, strict=True, served_all_along=True,
        lasting=False, bound="exact"),
    Row("32", "slots are left open", leave_open, close_all, topologies=CLUSTER, strict=True,
        served_all_along=True, lasting=False, bound="exact"),
    Row("33", "a minority is left", pause_majority, resume_majority, topologies=CLUSTER, secs=5.0),
    Row("34", "all nodes at new addresses", roll, topologies=CLUSTER, secs=0, strict=True,
        served_all_along=True, lasting=False),
]
