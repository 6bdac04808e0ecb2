"""The rows of gateways and of one Redis: who dies when, and what must hold."""

import math
import signal
import time

import harness
import servers
import stage as stages

WIDTH = 16  # callers of a load
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


def log_lines(gateways):
    return sum(len(it.child.log.read_text(errors="replace").splitlines()) for it in gateways)


def stream_lost(s, options):
    """The stream and its group are deleted, fifty times under load."""
    gateways = [s.gateway(name, 16) for name in "ab"]
    lines = log_lines(gateways)
    under_load(s, options, gateways, [lambda: s.run("DEL", stages.PREFIX + "ready")] * 50)
    stages.Sums(s).check(s)
    lines = log_lines(gateways) - lines
    s.expect(lines <= LOG_LINES * 50, f"{lines} lines in the log")
    return options.times, f"50 deletions, {lines} log lines"


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
