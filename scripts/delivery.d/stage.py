"""The servers of a row, what is read of them, and what a row comes to."""

import collections
import os
import pathlib
import signal
import time
import urllib.request

import harness
import servers
import wire

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
drain = "1s"
[log]
access = "off"
[admin]
listen = "127.0.0.1:{admin}"
[store]
url = "redis://127.0.0.1:{redis}"
timeout = "{timeout}"
[upstreams.app]
servers = ["http://127.0.0.1:{site}"]
{upstream}
[queues.work]
concurrency = {concurrency}
max_in_flight = 100000
max_items = 10000000
max_bytes = "16GiB"
lease = "{lease}s"
keep = "1h"
{queue}
[routes.work]
path = "/work"
methods = ["POST"]
upstream = "app"
deliver = {{ queue = "work", key = "required" }}
"""
PLACES = "max_connections = 4096"  # of an upstream
HERE = pathlib.Path(__file__).resolve().parent
PREFIX = "app:queue:{work.0}:"
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
LEASE_S = 5  # the shortest that there is
END_S = 120  # longest wait for a queue to be empty
CLAIMED = """
local claimed = {}
for _, item in ipairs(ARGV) do
  if redis.call("HGET", item, "s") == "d" then claimed[#claimed + 1] = item end
end
return claimed
"""
COLUMNS = ["row", "times", "acknowledged", "lost", "sent", "repeats", "deaths after the send",
           "settles refused", "order broken", "bodies left", "dead", "verdict"]


def shard(number):
    """What the keys of a shard begin with."""
    return PREFIX.replace(".0}", f".{number}}}")


def item(one):
    """The key of an item, which lies in the shard that its id names."""
    high, low = (LETTERS.index(letter) for letter in one[:2])
    return f"{shard(high << 3 | low >> 2)}item:{one}"


class Gateway:
    """A gateway that dies, stalls and comes back, with a port of the upstream for itself."""

    def __init__(self, stage, name, concurrency, **more):
        """`more`: another port of `redis`, `timeout`, `lease` in s, and lines of `queue` and
        `upstream`."""
        self.stage, self.name, self.child = stage, name, None
        self.port, self.admin = harness.free_ports(2)
        self.site = stage.wire.do(stage.wire.upstream.open())
        others = {"redis": stage.redis.port, "timeout": "50ms", "lease": LEASE_S, "queue": "",
                  "upstream": PLACES}
        self.text = CONFIG.format(port=self.port, admin=self.admin, site=self.site,
                                  concurrency=concurrency, **{**others, **more})
        stage.gateways.append(self)

    def start(self):
        self.child = harness.start_gateway(
            self.stage.children, self.stage.binary, self.text, self.port, self.name)
        # What it says once it has a connection; a row begins with gateways that serve.
        servers.wait(self.is_ready, f"{self.name} is ready")
        return self

    def is_ready(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=2):
            return True

    def kill(self):
        """Kill -9; what it had sent and not settled is noted."""
        self.stage.children.end(self.child, signal.SIGKILL)
        # What it wrote before is on its way.
        time.sleep(0.2)
        # It may die again before the leases of its first death have ended: each send counts once.
        self.stage.died_with |= self.stage.sent_and_unsettled(self.site)
        self.child = None

    def end(self):
        """In order, with what it has counted noted before."""
        self.stage.refused_before += self.lost()
        self.stage.children.end(self.child)
        self.child = None

    def signal(self, signum):
        os.kill(self.child.pid, signum)

    def metric(self, name, **labels):
        """A sum over all series that have these labels."""
        url = f"http://127.0.0.1:{self.admin}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
                   if line.startswith(name + "{") and all(it in line for it in wanted))

    def lost(self):
        """Settles that were refused."""
        return int(self.metric("portcullis_queue_attempts_total", outcome="lost"))

    def cpu_s(self):
        """Processor time it has used, in seconds."""
        fields = open(f"/proc/{self.child.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stage:
    """What a row plays on."""

    def __init__(self, children, binary, *redis):
        self.children, self.binary, self.wire = children, binary, wire.Wire()
        self.gateways, self.died_with, self.refused_before = [], set(), 0
        self.load = wire.Load()
        port, = harness.free_ports(1)
        self.redis = servers.plain(children, "redis", port, *redis)
        self.redis.start()
        self.problems, self.count, self.shards = [], 0, 1

    def gateway(self, name, concurrency, **more):
        return Gateway(self, name, concurrency, **more).start()

    def run(self, *parts):
        return self.redis.run(*parts)

    def open(self):
        """Items that are not settled."""
        return sum(self.run("ZCARD", it + "open") for it in self.prefixes())

    def prefixes(self):
        return [shard(number) for number in range(self.shards)]

    def claimed(self):
        return self.run("XPENDING", PREFIX + "ready", "g")[0]

    def jobs(self, count, line=""):
        """So many requests, each with a key of its own."""
        first, self.count = self.count, self.count + count
        return [(f"k{number}", f"{line} {number}", line) for number in range(first, first + count)]

    def begin(self, ports, jobs, width, insists=False):
        """Has callers ask, each request by itself; a future."""
        return self.begin_lines(ports, [[job] for job in jobs], width, insists)

    def begin_lines(self, ports, lines, width, insists=True):
        """The same, of lines."""
        return self.wire.later(self.load.run(ports, lines, width, insists))

    def sends(self):
        return list(self.wire.upstream.sends)

    def sent_and_unsettled(self, site):
        """The ids that were sent last by the gateway of this site, and are claimed yet, with how
        often they were sent."""
        sends = self.sends()
        last, times = {it.id: it.port for it in sends}, collections.Counter(it.id for it in sends)
        mine = {item(one): one for one, port in last.items() if port == site}
        keys = list(mine)
        # At once: who takes them over waits for no more than a lease.
        claimed = [mine[key] for first in range(0, len(keys), 5000)
                   for key in self.run("EVAL", CLAIMED, 0, *keys[first:first + 5000])]
        return {(one, times[one]) for one in claimed}

    def wait_empty(self, seconds=END_S):
        """Returns when nothing is open; stops with what is."""
        end = time.monotonic() + seconds
        while (left := self.open()) and time.monotonic() < end:
            time.sleep(0.05)
        if left:
            ids = self.run("ZRANGE", PREFIX + "open", 0, 4)
            items = [self.run("HMGET", f"{PREFIX}item:{it}", *"saqfzdnl") for it in ids]
            sets = [self.run("XLEN", PREFIX + "ready"), self.claimed(),
                    self.run("ZCARD", PREFIX + "later"), self.run("GET", PREFIX + "pause")]
            harness.stop(f"{left} are not delivered within {seconds} s: {items}; stream, claimed, "
                         f"later, pause: {sets}")

    def refused(self):
        """Settles that were refused, at gateways that live and ended in order."""
        return self.refused_before + sum(it.lost() for it in self.gateways if it.child)

    def expect(self, holds, what):
        if not holds and what not in self.problems:
            self.problems.append(what)

    def bodies(self):
        """Bodies of items, and bodies that nothing was queued for."""
        own, alone, at = 0, 0, "0"
        # Of all shards.
        pattern = PREFIX.replace("{", "[{]").replace(".0}", ".*}") + "body:*"
        with self.redis.connect(10) as redis:
            while True:
                at, keys = redis.run("SCAN", at, "MATCH", pattern, "COUNT", 1000)
                for key in keys:
                    if redis.run("EXISTS", key.replace(":body:", ":item:")):
                        own += 1
                    else:
                        alone += 1
                    self.expect(redis.run("PTTL", key) > 0, f"{key} has no end")
                if at == "0":
                    return own, alone

    def end(self):
        self.wire.end()


class Sums:
    """What became of all that a row sent."""

    def __init__(self, stage, acked=None):
        acked = stage.load.ids() if acked is None else acked
        by_key = collections.defaultdict(list)
        for send in stage.sends():
            by_key[send.key].append(send)
        self.acked, self.sent = len(acked), sum(map(len, by_key.values()))
        self.lost = sum(1 for key in acked if not by_key[key])
        with stage.redis.connect(10) as redis:
            states = {key: redis.run("HGET", item(one), "s")
                      for key, one in acked.items()}
        self.not_done = sum(1 for state in states.values() if state != "k")
        self.repeats = sum(len(sends) - 1 for sends in by_key.values() if sends)
        self.ids_of_key = max((len({it.id for it in sends}) for sends in by_key.values() if sends),
                              default=0)
        self.other_id = sum(1 for key, one in acked.items()
                            if any(send.id != one for send in by_key[key]))
        began = stage.load.began
        self.late_id = sum(1 for key, one in acked.items() if any(
            send.id != one and send.at > began[key] for send in by_key[key]))
        self.deaths, self.refused = len(stage.died_with), stage.refused()
        self.broken = self.order_broken(stage)
        self.bodies, self.alone = stage.bodies()
        prefixes = stage.prefixes()
        self.dead = sum(stage.run("ZCARD", it + "dead") for it in prefixes)
        self.bytes = sum(int(stage.run("GET", it + "bytes") or 0) for it in prefixes)
        self.lines = sum(len(stage.run("KEYS", it.replace("{", "[{]") + "line:*"))
                         for it in prefixes)

    @staticmethod
    def order_broken(stage):
        """How often one of a line was sent after a later one of it."""
        last, broken = {}, 0
        for send in stage.sends():
            if send.line:
                number = int(send.body.rpartition(" ")[2])
                broken += number < last.get(send.line, -1)
                last[send.line] = max(number, last.get(send.line, -1))
        return broken

    def check(self, stage, loses=False, is_equal=True, anew=False):
        """The laws: what does not hold is a problem of the row. `anew`: what nobody had
        acknowledged may be gone, and be queued anew under the same key by who asks again."""
        expect = stage.expect
        if not loses:
            expect(self.lost == 0, f"{self.lost} lost")
            expect(self.not_done == 0, f"{self.not_done} acknowledged and not done")
        once = self.late_id == 0 if anew else self.ids_of_key <= 1 and self.other_id == 0
        expect(once, "a key was queued more than once")
        expect(self.broken == 0, f"order broken {self.broken} times")
        if is_equal:
            expect(self.repeats == self.deaths + self.refused,
                   f"{self.repeats} repeats, and {self.deaths} + {self.refused} explained")
        expect(self.bodies == self.dead, f"{self.bodies} bodies of {self.dead} dead items")
        expect(self.bytes == 0, f"{self.bytes} bytes of nothing")
        expect(self.lines == 0, f"{self.lines} lines of nobody")
