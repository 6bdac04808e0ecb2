"""The rows: who dies when, and what must hold."""

import math
import signal
import subprocess
import tempfile
import time

import harness
import servers
import stage as stages

WIDTH = 16  # callers of a load
MARGIN_S = 0.15  # beyond store.timeout, for the callers and the gateway itself
IDLE_COMMANDS = 100  # most commands a second of a gateway that has nothing to do
LOG_LINES = 5  # most lines that a gateway writes of one loss


def rounds(options):
    """How many kills, each with so many items at the step."""
    return math.ceil(options.times / options.flight)


def held(s, link, flight, what):
    servers.wait(lambda: link.count >= flight, f"{what}: {link.count} of {flight}", 30, 0.01)


def before_the_script(s, options):
    """The gateway dies when the body is written and its item is not: nothing is queued."""
    link = s.wire.link(s.redis.port)
    gateway = s.gateway("a", 0, redis=link.port, timeout="1s")
    jobs = []
    for _ in range(rounds(options)):
        mine = s.jobs(options.flight)
        jobs += mine
        s.wire.call(link.cut, "accept", "before")
        asked = s.begin([gateway.port], mine, options.flight)
        held(s, link, options.flight, "accepts that were cut")
        gateway.kill()
        asked.result(30)
        s.expect(s.open() == 0, f"{s.open()} queued")
        s.wire.call(link.cut)
        gateway.start()
    s.expect(s.load.statuses[202] == 0, f"{s.load.statuses[202]} acknowledged")
    alone = s.bodies()[1]
    # Their clients ask again, and have it done once.
    s.gateway("b", 64)
    s.begin([gateway.port], jobs, WIDTH, insists=True).result(120)
    s.wait_empty()
    stages.Sums(s).check(s)
    return len(jobs), f"{alone} bodies alone, each with an end"


def before_the_answer(s, options):
    """The item is queued and nobody was told: who asks again gets its id."""
    link = s.wire.link(s.redis.port)
    gateway = s.gateway("a", 0, redis=link.port, timeout="1s")
    # The script is known from here on.
    jobs = s.jobs(1)
    s.begin([gateway.port], jobs, 1, insists=True).result(30)
    for _ in range(rounds(options)):
        mine = s.jobs(options.flight)
        jobs += mine
        s.wire.call(link.cut, "accept", "after")
        asked = s.begin([gateway.port], mine, options.flight)
        held(s, link, options.flight, "accepts that were cut")
        gateway.kill()
        asked.result(30)
        s.wire.call(link.cut)
        gateway.start()
    s.expect(s.open() == len(jobs), f"{s.open()} queued of {len(jobs)}")
    told = s.load.statuses[202]
    s.begin([gateway.port], jobs, WIDTH, insists=True).result(120)
    s.expect(s.open() == len(jobs), f"{s.open()} queued of {len(jobs)}, after they asked again")
    s.expect(len(s.load.again) == len(jobs) and told == 1, "who asked again got another answer")
    s.gateway("b", 64)
    s.wait_empty()
    stages.Sums(s).check(s)
    return len(jobs) - 1, ""


def one_cut(s, options, kind, how, sends):
    """A gateway dies at this command of a delivery; the next one goes on `sends` sends each."""
    link = s.wire.link(s.redis.port)
    door = s.gateway("door", 0)
    worker = s.gateway("a", options.flight, redis=link.port, timeout="1s")
    # The scripts are known from here on.
    s.begin([door.port], s.jobs(1), 1, insists=True).result(30)
    s.wait_empty()
    slowest = 0.0
    for _ in range(rounds(options)):
        mine = s.jobs(options.flight)
        worker.end()
        s.begin([door.port], mine, WIDTH, insists=True).result(60)
        s.wire.call(link.cut, kind, how)
        before = len(s.sends())
        worker.start()
        if kind == "take":
            servers.wait(lambda: link.count and s.claimed() >= options.flight,
                         "all are claimed by takes that were cut", 30, 0.01)
        else:
            held(s, link, options.flight, "settles that were cut")
        if how == "after":
            time.sleep(0.1)
        worker.kill()
        began = time.monotonic()
        s.wire.call(link.cut)
        worker.start()
        s.wait_empty()
        slowest = max([slowest, *(it.at - began for it in s.sends()[before:])])
        times = len(s.sends()) - before
        s.expect(times == sends * len(mine), f"{times} sends of {len(mine)} items")
    sums = stages.Sums(s)
    sums.check(s)
    s.expect(slowest < 2 * stages.LEASE_S, f"the last came after {slowest:.1f} s")
    return s.count - 1, f"all sent {slowest:.1f} s after the death at most"


def before_the_send(s, options):
    """Taken, and the answer never seen: sent once, by the next one."""
    return one_cut(s, options, "take", "after", 1)


def before_the_settle(s, options):
    """The upstream has acted and nobody wrote it down: sent twice, under the same key."""
    return one_cut(s, options, "settle", "before", 2)


def after_the_settle(s, options):
    """It is written and the gateway never knew: sent once."""
    return one_cut(s, options, "settle", "after", 1)


def stopped(s, options):
    """A gateway stands still for longer than a lease and goes on: its settles are refused."""
    door = s.gateway("door", 0)
    for _ in range(rounds(options)):
        mine = s.jobs(options.flight)
        worker = s.gateway("a", options.flight)
        s.wire.upstream.holding = {worker.site}
        before = len(s.sends())
        s.begin([door.port], mine, WIDTH, insists=True).result(60)
        servers.wait(lambda: len(s.sends()) - before >= len(mine), "all are sent", 30, 0.01)
        worker.signal(signal.SIGSTOP)
        other = s.gateway("b", options.flight)
        s.wait_empty()
        worker.signal(signal.SIGCONT)
        s.wire.call(s.wire.upstream.release)
        servers.wait(lambda: worker.lost() >= len(mine), "all settles are refused", 60, 0.1)
        for gateway in (worker, other):
            gateway.end()
            s.gateways.remove(gateway)
    sums = stages.Sums(s)
    sums.check(s)
    s.expect(sums.refused == sums.sent - len(s.load.ids()), "one settle refused for each repeat")
    return s.count, ""


def under_load(s, options, gateways, events, redis_may_be_away=True):
    """Asks for `times` items while the events happen, spread over them; returns when all are
    delivered."""
    jobs = s.jobs(options.times)
    asked = s.begin([it.port for it in gateways], jobs, WIDTH, insists=True)
    for number, event in enumerate(events, 1):
        most = len(jobs) * number // (len(events) + 1)
        servers.wait(lambda most=most: len(s.load.ids()) >= most, "the load goes on", 120, 0.005)
        event()
    asked.result(300)
    s.wait_empty()


def redis_dies(s, options):
    """Redis -9 with an AOF, five times under load."""
    gateways = [s.gateway(name, 16) for name in "ab"]

    def event():
        s.redis.kill()
        s.redis.start()

    under_load(s, options, gateways, [event] * 5)
    stages.Sums(s).check(s)
    away = s.load.statuses[503]
    return options.times, f"5 deaths of Redis; {away} × 503 on the way"


def promoted(s, options, queue=""):
    """The primary dies under load, and a replica that is 0.3 s behind takes over."""
    replica = servers.plain(s.children, "replica", *harness.free_ports(1))
    replica.start()
    copies = s.wire.link(s.redis.port)
    replica.run("REPLICAOF", "127.0.0.1", copies.port)
    servers.wait(lambda: replica.info("replication")["master_link_status"] == "up", "it follows")
    link = s.wire.link(s.redis.port)
    gateways = [s.gateway(name, 16, redis=link.port, timeout="1s", queue=queue) for name in "ab"]

    def event():
        # The replica is behind by as much as comes in that time.
        s.wire.call(copies.hold)
        time.sleep(0.3)
        s.redis.kill()
        replica.run("REPLICAOF", "NO", "ONE")
        s.redis = replica
        s.wire.call(link.lead_to, replica.port)
        if queue:
            # As a new primary has one before long: who waits for a replica waits for that.
            third = servers.plain(s.children, "third", *harness.free_ports(1))
            third.start()
            third.run("REPLICAOF", "127.0.0.1", replica.port)

    under_load(s, options, gateways, [event])
    sums = stages.Sums(s)
    if queue:
        sums.check(s, is_equal=False, anew=True)
        return options.times, "durability = \"replicas:1\""
    sums.check(s, loses=True, is_equal=False, anew=True)
    return options.times, "a replica that nobody waits for: what is lost is reported"


def promoted_waiting(s, options):
    """The same, where each was acknowledged by the replica before the 202."""
    if not understood(options, 'durability = "replicas:1"'):
        return 0, "not run: the gateway has no `durability`"
    return promoted(s, options, 'durability = "replicas:1"')


def understood(options, queue):
    """Whether the gateway reads this in the table of a queue."""
    text = stages.CONFIG.format(port=1, admin=2, redis=3, site=4, timeout="50ms", concurrency=1,
                                lease=stages.LEASE_S, queue=queue)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [str(options.binary), "check", "--config", file.name]
        return not subprocess.run(command, capture_output=True).returncode


def log_lines(gateway):
    return len(gateway.child.log.read_text(errors="replace").splitlines())


def flushed(s, options):
    """FLUSHALL: what was there is gone, by command; everything goes on behind it."""
    gateways = [s.gateway(name, 16) for name in "ab"]
    asked = s.begin([it.port for it in gateways], s.jobs(options.times), WIDTH, insists=True)
    servers.wait(lambda: len(s.load.ids()) >= options.times // 2, "the load goes on", 120, 0.005)
    lines = sum(map(log_lines, gateways))
    s.run("FLUSHALL")
    at = time.monotonic()
    asked.result(120)
    s.wait_empty()
    servers.wait(lambda: sum(g.metric("portcullis_queue_resets_total") for g in gateways) >= 1,
                 "the loss is counted", 10)
    sent = {it.key for it in s.sends()}
    lost = [key for key, began in s.load.began.items() if began > at and key not in sent]
    s.expect(not lost, f"{len(lost)} lost that were acknowledged afterwards")
    lines = sum(map(log_lines, gateways)) - lines
    s.expect(lines <= LOG_LINES * len(gateways), f"{lines} lines in the log")
    before = int(s.redis.info("stats")["total_commands_processed"])
    time.sleep(3)
    idle = (int(s.redis.info("stats")["total_commands_processed"]) - before) / 3
    s.expect(idle < IDLE_COMMANDS * len(gateways), f"{idle:.0f} commands/s of idle gateways")
    sums = stages.Sums(s)
    sums.check(s, loses=True, is_equal=False)
    again = min((when + took - at for when, took, status in s.load.took
                 if status == 202 and when > at), default=0)
    return options.times, (f"accepts again after {again:.2f} s; {idle:.0f} commands/s at rest; "
                           f"{lines} log lines")


def stream_lost(s, options):
    """The stream and its group are deleted, fifty times under load."""
    gateways = [s.gateway(name, 16) for name in "ab"]
    lines = sum(map(log_lines, gateways))
    under_load(s, options, gateways, [lambda: s.run("DEL", stages.PREFIX + "ready")] * 50)
    stages.Sums(s).check(s)
    lines = sum(map(log_lines, gateways)) - lines
    s.expect(lines <= LOG_LINES * 50, f"{lines} lines in the log")
    return options.times, f"50 deletions, {lines} log lines"


def redis_stalls(s, options):
    """Redis stands still for 5 s, with deliveries under way."""
    # Leases outlast it: what is refused or given up is no matter of this row.
    gateways = [s.gateway(name, 16, lease=3 * stages.LEASE_S) for name in "ab"]
    late = []

    def event():
        s.redis.pause()
        at = time.monotonic()
        time.sleep(5)
        s.redis.resume()
        late.extend(took for when, took, _ in s.load.took if at + 0.5 < when < at + 4.5)

    under_load(s, options, gateways, [event])
    stages.Sums(s).check(s)
    slowest = max(late, default=0.0)
    s.expect(late and slowest < 0.05 + MARGIN_S, f"an accept was answered after {slowest:.2f} s")
    return options.times, f"{s.load.statuses[503]} × 503, the slowest after {slowest * 1e3:.0f} ms"


def destination_away(s, options):
    """The upstream is away: nothing dies of it, and it is asked ever less often."""
    gateways = [s.gateway(name, 16) for name in "ab"]
    for gateway in gateways:
        s.wire.call(s.wire.upstream.close, gateway.site)
    count = options.times * 10
    began = time.monotonic()
    s.begin([it.port for it in gateways], s.jobs(count), WIDTH, insists=True).result(300)
    time.sleep(max(0.0, began + options.away - 5 - time.monotonic()))

    def tries():
        name = "portcullis_queue_attempts_total"
        return sum(g.metric(name, outcome="retry") for g in gateways)

    before = tries()
    time.sleep(5)
    probes = (tries() - before) / 5
    s.expect(probes <= len(gateways), f"{probes:.1f} tries/s after {options.away} s")
    s.expect(s.run("ZCARD", stages.PREFIX + "dead") == 0, "some died of an outage")
    for gateway in gateways:
        s.wire.do(s.wire.upstream.open(gateway.site))
    at = time.monotonic()
    s.wait_empty(300)
    drained = time.monotonic() - at
    stages.Sums(s).check(s)
    return count, f"{probes:.1f} tries/s in the end; drained in {drained:.0f} s"


def lines_of(s, count, width):
    """So many requests in lines, each asked for in its order."""
    each = max(1, count // width)
    return [s.jobs(each, f"l{number}") for number in range(width)]


def in_order(s, options, shards=1):
    """Lines, and a gateway that dies ten times under load: no order is ever broken."""
    s.shards = shards
    order = f'order_by = "header:x-line"\nshards = {shards}'
    gateways = [s.gateway(name, 16, queue=order) for name in "abc"]
    lines = lines_of(s, options.times, 50)
    asked = s.begin_lines([it.port for it in gateways], lines, 50)
    for number in range(1, 11):
        most = options.times * number // 12
        servers.wait(lambda most=most: len(s.load.ids()) >= most, "the load goes on", 120, 0.005)
        gateways[number % 3].kill()
        gateways[number % 3].start()
    asked.result(300)
    s.wait_empty()
    stages.Sums(s).check(s)
    if shards > 1:
        used = sum(s.run("EXISTS", it + "ready") for it in s.prefixes())
        s.expect(used == shards, f"{used} of {shards} shards had something")
    return s.count, "50 lines, 10 deaths"


def in_order_in_shards(s, options):
    """The same in four shards."""
    return in_order(s, options, 4)


def end_to_end(s, options):
    """All of it at once: two gateways die once each under way."""
    gateways = [s.gateway(name, 64) for name in "ab"]
    jobs = s.jobs(options.items)
    began = time.monotonic()
    asked = s.begin([it.port for it in gateways], jobs, 64, insists=True)
    for number, gateway in enumerate(gateways, 1):
        most = len(jobs) * number // 3
        servers.wait(lambda most=most: len(s.load.ids()) >= most, "the load goes on", 1800, 0.05)
        gateway.kill()
        gateway.start()
    asked.result(3600)
    s.wait_empty(1800)
    took = time.monotonic() - began
    stages.Sums(s).check(s)
    return options.items, f"{options.items / took:.0f}/s with the kit on the same cores; 2 deaths"


AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
# name, what is killed, function, Redis's own arguments.
ROWS = [
    ("before-script", "gateway, before the accept script", before_the_script, ()),
    ("before-answer", "gateway, before the 202", before_the_answer, ()),
    ("before-send", "gateway, after take", before_the_send, ()),
    ("before-settle", "gateway, before settle", before_the_settle, ()),
    ("after-settle", "gateway, after settle", after_the_settle, ()),
    ("stopped", "gateway stopped beyond a lease", stopped, ()),
    ("order", "gateways, with lines", in_order, ()),
    ("order-in-shards", "gateways, with lines in 4 shards", in_order_in_shards, ()),
    ("redis", "Redis -9, AOF everysec", redis_dies, AOF),
    ("replica", "primary -9, nobody waits", promoted, ()),
    ("replica-waited", "primary -9, replicas:1", promoted_waiting, ()),
    ("flush", "FLUSHALL", flushed, ()),
    ("stream", "the stream is deleted", stream_lost, ()),
    ("stall", "Redis stalled 5 s", redis_stalls, ()),
    ("away", "destination away", destination_away, ()),
]
EVERYTHING = ("items", "gateways, end to end", end_to_end, ())
