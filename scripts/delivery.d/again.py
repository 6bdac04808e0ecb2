"""The rows whose event comes again and again: another server is promoted, Redis is emptied, or
stands still; and the one whose destination is away."""

import bisect
import collections
import math
import subprocess
import tempfile
import time

import harness
import rows
import servers
import stage as stages

MARGIN_S = 0.15  # beyond store.timeout, for the callers and the gateway itself
IDLE_COMMANDS = 100  # most commands a second of a gateway that has nothing to do
BEHIND_S = 0.3  # what a replica is behind that is promoted
SETTLED_S = 0.5  # longest from a send until what is written of it is on its way to the replica
STALL_S = 5.0
AWAY_END_S = 10.0  # the last part of an outage, in which probes are counted
DRAIN_S = 30  # how long a queue with a rate takes to be empty
LATE_S = 0.2  # how much later than others something may come to the upstream
PLACES = 16  # deliveries at a time of a gateway


def each(options, least=1):
    """So many items for each event."""
    return max(least, math.ceil(options.times / options.events))


def follow(s, replica):
    """Has it follow the primary, through a link of its own, which is returned."""
    copies = s.wire.link(s.redis.port)
    servers.wait(lambda: replica.run("REPLICAOF", "127.0.0.1", copies.port), "it obeys")
    servers.wait(lambda: replica.info("replication")["master_link_status"] == "up", "it follows")
    return copies


def promoted(s, options, queue=""):
    """The primary dies under load, again and again; a replica that is 0.3 s behind takes over."""
    other = servers.plain(s.children, "other", *harness.free_ports(1))
    other.start()
    copies = follow(s, other)
    link = s.wire.link(s.redis.port)
    gateways = [s.gateway(name, PLACES, redis=link.port, timeout="1s", queue=queue)
                for name in "ab"]
    behind = []  # from when on nothing was copied, until when

    def event():
        nonlocal other, copies
        began = time.monotonic()
        s.wire.call(copies.hold)
        time.sleep(BEHIND_S)
        s.redis.kill()
        other.run("REPLICAOF", "NO", "ONE")
        s.redis, other = other, s.redis
        s.wire.call(link.lead_to, s.redis.port)
        behind.append((began - SETTLED_S, time.monotonic()))
        # The dead one comes back as a replica: what it had alone is gone.
        (other.folder / "dump.rdb").unlink(missing_ok=True)
        other.start()
        copies = follow(s, other)

    rows.under_load(s, options, gateways, [event] * options.events)
    again = sent_again(s, behind)
    s.expect(not again, f"{len(again)} sent again though their first send was copied")
    sums = stages.Sums(s)
    sums.check(s, loses=not queue, is_equal=False, anew=True)
    told = "durability = \"replicas:1\"" if queue else "nobody waits: what is lost is reported"
    return options.times, f"{options.events} promotions, to and fro; {told}"


def sent_again(s, behind):
    """The keys that were sent more than once, and first at no time of these."""
    first, times = {}, collections.Counter()
    for send in s.sends():
        first.setdefault(send.key, send.at)
        times[send.key] += 1
    return [key for key, count in times.items() if count > 1 and not any(
        began <= first[key] <= end for began, end in behind)]


def promoted_waiting(s, options):
    """The same, where each was acknowledged by the replica before the 202."""
    if not understood(options, 'durability = "replicas:1"'):
        return 0, "not run: the gateway has no `durability`"
    return promoted(s, options, 'durability = "replicas:1"')


def understood(options, queue):
    """Whether the gateway reads this in the table of a queue."""
    text = stages.CONFIG.format(port=1, admin=2, redis=3, site=4, timeout="50ms", concurrency=1,
                                lease=stages.LEASE_S, queue=queue, upstream=stages.PLACES)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [str(options.binary), "check", "--config", file.name]
        return not subprocess.run(command, capture_output=True).returncode


def flushed(s, options):
    """FLUSHALL, again and again: what was there is gone, by command; all goes on behind it."""
    gateways = [s.gateway(name, PLACES) for name in "ab"]
    ports = [it.port for it in gateways]
    lines, half, slowest = rows.log_lines(gateways), each(options, 2) // 2, 0.0
    for number in range(1, options.events + 1):
        before = len(s.load.ids())
        asked = s.begin(ports, s.jobs(half), rows.WIDTH, insists=True)
        servers.wait(lambda: len(s.load.ids()) > before, "the load goes on", 120, 0.001)
        s.run("FLUSHALL")
        at = time.monotonic()
        s.begin(ports, s.jobs(half), rows.WIDTH, insists=True).result(120)
        asked.result(120)
        again = min(when + took for when, took, status in s.load.took
                    if status == 202 and when > at)
        slowest = max(slowest, again - at)
        resets = "portcullis_queue_resets_total"
        servers.wait(lambda: sum(it.metric(resets) for it in gateways) >= number,
                     "the loss is counted, and the group is back", 30)
        s.wait_empty()
        sent = {it.key for it in s.sends()}
        lost = [key for key, began in s.load.began.items() if began > at and key not in sent]
        s.expect(not lost, f"{len(lost)} lost that were acknowledged behind FLUSHALL {number}")
    lines = rows.log_lines(gateways) - lines
    most = rows.LOG_LINES * len(gateways) * options.events
    s.expect(lines <= most, f"{lines} lines in the log")
    before = int(s.redis.info("stats")["total_commands_processed"])
    time.sleep(3)
    idle = (int(s.redis.info("stats")["total_commands_processed"]) - before) / 3
    s.expect(idle < IDLE_COMMANDS * len(gateways), f"{idle:.0f} commands/s of idle gateways")
    # Who had no answer before it asks again under the same key, of which nobody knows any more.
    stages.Sums(s).check(s, loses=True, is_equal=False, anew=True)
    return s.count, (f"{options.events} times; accepts again after {slowest:.2f} s at most; "
                     f"{idle:.0f} commands/s at rest; {lines} log lines")


class Stalls:
    """Redis stands still with deliveries under way, and what callers are told meanwhile."""

    def __init__(self, s, options, lease, upstream):
        self.s, self.options, self.waits = s, options, []
        self.link = s.wire.link(s.redis.port)
        self.gateways = [s.gateway(name, PLACES, lease=lease, upstream=upstream, redis=port)
                         for name, port in (("a", self.link.port), ("b", s.redis.port))]
        self.ports = [it.port for it in self.gateways]

    def one(self, seconds, most, act, loses=False):
        """So many seconds, with `act` done now and then and so many taken; how many were sent
        meanwhile, and how many had been taken and not sent before. `loses`: no lease of the first
        gateway is renewed, until another one has sent all that it had."""
        s = self.s
        # More than there are places at the upstream.
        self.taken = min(each(self.options, PLACES), most)
        s.wire.upstream.holding = {it.site for it in self.gateways}
        before = len(s.sends())
        s.begin(self.ports, s.jobs(self.taken), rows.WIDTH, insists=True).result(60)
        servers.wait(lambda: s.claimed() >= self.taken, "all are taken", 30, 0.01)
        self.wait_sent(before)
        unsent = self.taken - (len(s.sends()) - before)
        first = sum(1 for it in s.sends()[before:] if it.port == self.gateways[0].site)
        if loses:
            s.wire.call(self.link.cut, "renew", "before")
        s.redis.pause()
        at = time.monotonic()
        jobs = [] if loses else s.jobs(each(self.options))
        asked = s.begin(self.ports, jobs, rows.WIDTH, insists=True)
        while time.monotonic() < at + seconds:
            s.wire.call(act)
            time.sleep(0.05)
        sent = sum(1 for it in s.sends() if it.at > at)
        end = at + seconds - 0.5
        self.waits += [took for when, took, _ in s.load.took if at + 0.5 < when < end]
        s.redis.resume()
        if loses:
            wanted = before + self.taken + first
            servers.wait(lambda: len(s.sends()) >= wanted, "another one has sent them", 30, 0.02)
            s.wire.call(self.link.cut)
            s.wire.call(self.link.lead_to, s.redis.port)
        s.wire.call(s.wire.upstream.release)
        asked.result(120)
        s.wait_empty()
        # Also those whose lease was lost, which the queue waits for no more.
        servers.wait(self.all_told, "each of them was told what became of it", 30, 0.05)
        return sent, unsent

    def all_told(self):
        """Whether all that these gateways have sent has ended."""
        sites = {it.site for it in self.gateways}
        ended = sum(it.metric("portcullis_queue_attempts_total") for it in self.gateways)
        return ended >= sum(1 for it in self.s.sends() if it.port in sites)

    def wait_sent(self, before):
        """Waits until nothing more is sent: all places at the upstream are taken."""
        last, since = -1, time.monotonic()
        while time.monotonic() < since + 0.2:
            if (now := len(self.s.sends()) - before) != last:
                last, since = now, time.monotonic()
            time.sleep(0.01)

    def end(self):
        for gateway in self.gateways:
            gateway.end()
            self.s.gateways.remove(gateway)


def redis_stalls(s, options):
    """Redis stands still for 5 s, again and again: what was taken is delivered meanwhile."""
    # Taken, and waiting for a place at the upstream. Leases outlast it.
    few = "max_connections = 4\nclient_share = \"100%\"\nconnect_timeout = \"30s\""
    going_on = Stalls(s, options, 3 * stages.LEASE_S, few)
    meanwhile = 0
    for _ in range(math.ceil(options.events / 2)):
        sent, unsent = going_on.one(STALL_S, 2 * PLACES, s.wire.upstream.answer)
        s.expect(sent == unsent, f"{sent} sent meanwhile of {unsent} that were taken")
        meanwhile += sent
    going_on.end()
    s.expect(s.refused() == 0, f"{s.refused()} leases lost that had not run out")
    # Sent, and answered when the lease has run out: each of these is one repeat.
    beyond = Stalls(s, options, stages.LEASE_S, stages.PLACES)
    for _ in range(options.events // 2):
        # The other one has places for all of it.
        beyond.one(stages.LEASE_S + 1.5, PLACES, lambda: None, loses=True)
    stages.Sums(s).check(s)
    waits = going_on.waits
    slowest = max(waits, default=0.0)
    s.expect(waits and slowest < 0.05 + MARGIN_S, f"an accept was answered after {slowest:.2f} s")
    return s.count, (f"{options.events} stalls; {meanwhile} sent and answered meanwhile; "
                     f"{s.load.statuses[503]} × 503, the slowest after {slowest * 1e3:.0f} ms")


def destination_away(s, options):
    """The upstream is away: nothing dies of it, it is asked ever less often, then at `rate`."""
    count = options.times * 10
    rate = math.ceil(count / DRAIN_S)
    gateways = [s.gateway(name, PLACES, queue=f'rate = "{rate}/1s"') for name in "ab"]
    for gateway in gateways:
        s.wire.call(s.wire.upstream.close, gateway.site)
    began = time.monotonic()
    s.begin([it.port for it in gateways], s.jobs(count), rows.WIDTH, insists=True).result(300)
    time.sleep(max(0.0, began + options.away - AWAY_END_S - time.monotonic()))

    def tries():
        name = "portcullis_queue_attempts_total"
        return sum(g.metric(name, outcome="retry") for g in gateways)

    before = tries()
    time.sleep(AWAY_END_S)
    probes = (tries() - before) / AWAY_END_S
    s.expect(probes <= 1, f"{probes:.1f} tries/s of the fleet after {options.away} s")
    s.expect(s.run("ZCARD", stages.PREFIX + "dead") == 0, "some died of an outage")
    for gateway in gateways:
        s.wire.do(s.wire.upstream.open(gateway.site))
    s.wait_empty(300)
    stages.Sums(s).check(s)
    at = sorted(it.at for it in s.sends())
    # As they come: what is counted in one window may come a little closer.
    most = max(bound(at, first, 1 - LATE_S) for first in range(len(at)))
    s.expect(most <= rate, f"{most} came within {1 - LATE_S:.1f} s, and the rate is {rate}/1s")
    drained, least = at[-1] - at[0], (count - rate) / rate
    s.expect(drained < 1.25 * least + 3, f"{count} took {drained:.0f} s at {rate}/s")
    return count, (f"away for {options.away} s; {probes:.1f} tries/s in the end; then {rate}/s: "
                   f"drained in {drained:.1f} s, {most} at most in {1 - LATE_S:.1f} s")


def bound(at, first, seconds):
    """How many of these times, in their order, are within so many seconds from the first one."""
    return bisect.bisect_left(at, at[first] + seconds) - first


AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
# name, what is killed, function, Redis's own arguments.
ROWS = [
    ("before-script", "gateway, before the accept script", rows.before_the_script, ()),
    ("before-answer", "gateway, before the 202", rows.before_the_answer, ()),
    ("before-send", "gateway, after take", rows.before_the_send, ()),
    ("before-settle", "gateway, before settle", rows.before_the_settle, ()),
    ("after-settle", "gateway, after settle", rows.after_the_settle, ()),
    ("stopped", "gateway stopped beyond a lease", rows.stopped, ()),
    ("order", "gateways, with lines", rows.in_order, ()),
    ("order-in-shards", "gateways, with lines in 4 shards", rows.in_order_in_shards, ()),
    ("redis", "Redis -9, AOF everysec", rows.redis_dies, AOF),
    ("replica", "primary -9, nobody waits", promoted, ()),
    ("replica-waited", "primary -9, replicas:1", promoted_waiting, ()),
    ("flush", "FLUSHALL", flushed, ()),
    ("stream", "the stream is deleted", rows.stream_lost, ()),
    ("stall", "Redis stalled 5 s", redis_stalls, ()),
    ("away", "destination away", destination_away, ()),
]
EVERYTHING = ("items", "gateways, end to end", rows.end_to_end, ())
