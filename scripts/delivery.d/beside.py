"""Deferred deliveries beside BullMQ, interleaved: what accepting and working cost in Redis's CPU,
how many of each there are a second, and what an accept takes at 2,000 a second.

Each has a Redis of its own. Ours is asked over HTTP by wrk and delivers over HTTP to an upstream;
BullMQ is called and works within one node process, without a network but that to Redis. So the
seconds are not of the same thing, and Redis's CPU is."""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import harness
import origin
import resp
import servers
import stage as stages

COUNT = 20_000  # items of a round
BODY = 1024
WIDTH = 50
RATE = 2000  # of the open loop, a second
OPEN_S = 6  # the first one is not told
LUA = """
wrk.method = "POST"
wrk.body = string.rep("x", %d)
local bad = 0
response = function(status) if status ~= 202 then bad = bad + 1 end end
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
""" % BODY
# What ours must keep to: ms, and deliveries a second.
P99_MAX_MS, PER_CORE_MIN = 5.0, 5000
COLUMNS = ["", "accept: Redis µs", "accept/s", "work: Redis µs", "work/s", "life: Redis µs",
           "p50 at 2,000/s", "p99 at 2,000/s", "per gateway core"]


class Quick(asyncio.Protocol):
    """An upstream that answers whatever ends like a request of ours."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def connection_made(self, transport):
        self.transport, self.got = transport, 0

    def data_received(self, data):
        # Bodies are of one length and hold no such bytes.
        self.got += len(data)
        if data.endswith(b"x"):
            self.transport.write(self.ANSWER)


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Quick, "127.0.0.1", port)
    await server.serve_forever()


def redis_cpu_s(port):
    cpu = resp.info_of(resp.run(port, "INFO", "cpu"))
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def node(folder, *parts):
    """One line of JSON that the script says."""
    command = ["node", "bullmq.js", *map(str, parts)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode or not done.stdout.strip():
        harness.stop(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def wrk(children, url, count):
    """About so many accepts; their number, seconds, and Redis's part is the caller's."""
    script = children.folder / "post.lua"
    script.write_text(LUA)
    command = ["wrk", "-t1", f"-c{WIDTH}", f"-d{max(1, count // 6000)}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"RESULT (\d+) (\d+)", done.stdout)
    if not found:
        harness.stop(f"wrk gave no result:\n{done.stdout}{done.stderr}")
    return int(found[1]), int(found[2]) / 1e6


def spent(port, act):
    """What it returns, Redis's CPU in s, and how long it took."""
    cpu, began = redis_cpu_s(port), time.monotonic()
    told = act()
    return told, redis_cpu_s(port) - cpu, time.monotonic() - began


class Ours:
    """A gateway that accepts, and one that delivers."""

    def __init__(self, children, options, folder):
        self.children, self.folder, self.binary = children, folder, options.binary
        self.redis, self.site, port, admin, other, other_admin = harness.free_ports(6)
        harness.start_redis(children, self.redis)
        self.upstream = origin.in_process(lambda: asyncio.run(serve(self.site)))
        self.url = f"http://127.0.0.1:{port}/work"
        self.gateway("door", port, admin, 0)
        self.start = lambda: self.gateway("worker", other, other_admin, WIDTH)

    def gateway(self, name, port, admin, concurrency):
        text = stages.CONFIG.format(
            port=port, admin=admin, redis=self.redis, site=self.site, timeout="1s",
            concurrency=concurrency, lease=30, queue="",
            upstream=stages.PLACES).replace('"required"', '"optional"')
        return harness.start_gateway(self.children, self.binary, text, port, name)

    def waiting(self):
        return resp.run(self.redis, "ZCARD", stages.PREFIX + "open")

    def round(self):
        _, cpu, _ = spent(self.redis, lambda: time.sleep(1))
        (_, took), accept, _ = spent(self.redis, lambda: wrk(self.children, self.url, COUNT))
        count = self.waiting()
        opened = node(self.folder, "post", self.url, RATE, OPEN_S)
        more = self.waiting()

        def work():
            worker = self.start()
            servers.wait(lambda: self.waiting() == 0, "all are delivered", 600, 0.02)
            fields = open(f"/proc/{worker.pid}/stat").read().rpartition(")")[2].split()
            self.children.end(worker)
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        core_s, worked, seconds = spent(self.redis, work)
        accept_us = (accept - cpu * took) / count * 1e6
        work_us = (worked - cpu * seconds) / more * 1e6
        return [accept_us, count / took, work_us, more / seconds, accept_us + work_us,
                opened["p50"], opened["p99"], more / core_s]


class BullMQ:
    """One node process at a time."""

    def __init__(self, children, folder):
        self.folder = folder
        self.redis, = harness.free_ports(1)
        harness.start_redis(children, self.redis, "redis-bullmq", "--maxmemory-policy",
                            "noeviction")

    def round(self):
        added, accept, _ = spent(self.redis, lambda: node(self.folder, "add", self.redis, COUNT))
        opened = node(self.folder, "open", self.redis, RATE, OPEN_S)
        count = COUNT + RATE * OPEN_S
        done, worked, _ = spent(self.redis, lambda: node(self.folder, "work", self.redis, count))
        accept_us, work_us = accept / COUNT * 1e6, worked / count * 1e6
        return [accept_us, COUNT / added["seconds"], work_us, count / done["seconds"],
                accept_us + work_us, opened["p50"], opened["p99"], None]


def line(name, figures, markdown):
    forms = ["{:.1f}", "{:,.0f}", "{:.1f}", "{:,.0f}", "{:.1f}", "{:.2f} ms", "{:.2f} ms",
             "{:,.0f}/s"]
    cells = [name, *("-" if value is None else form.format(value)
                     for form, value in zip(forms, figures))]
    show(cells, markdown)


def show(cells, markdown):
    if markdown:
        print("| " + " | ".join(cells) + " |")
    else:
        print("  ".join(cell.ljust(17) for cell in cells).rstrip())
    sys.stdout.flush()


def run(options):
    """The table; an exit status."""
    for program, package in [("wrk", "wrk"), ("node", "nodejs"), ("npm", "npm")]:
        harness.need(program, package)
    with harness.Children() as children:
        folder = children.folder / "bullmq"
        folder.mkdir()
        for name in ("package.json", "bullmq.js"):
            shutil.copy(stages.HERE / name, folder / name)
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(install, cwd=folder).returncode:
            harness.stop("npm could not install BullMQ: see its message above")
        sides = {"ours": Ours(children, options, folder), "BullMQ": BullMQ(children, folder)}
        show(COLUMNS, options.markdown)
        if options.markdown:
            print("|" + "---|" * len(COLUMNS))
        all_of = {name: [] for name in sides}
        for number in range(options.rounds):
            for name, side in sides.items():
                all_of[name].append(side.round())
                line(f"{name}, {number + 1}", all_of[name][-1], options.markdown)
        middle = {name: [None if None in column else statistics.median(column)
                         for column in zip(*found)] for name, found in all_of.items()}
        for name, figures in middle.items():
            line(f"{name}, median", figures, options.markdown)
        sides["ours"].upstream.kill()
    missed = misses(middle["ours"], middle["BullMQ"])
    print(f"missed: {'; '.join(missed)}" if missed else "every bar was kept")
    return 1 if missed else 0


def misses(ours, theirs):
    """The bars that ours did not keep to."""
    life, p99, per_core = ours[4], ours[6], ours[7]
    return [words for words, holds in [
        (f"a life costs Redis {life:.0f} µs, BullMQ's {theirs[4]:.0f}", life <= theirs[4]),
        (f"p99 of an accept {p99:.1f} ms, at most {P99_MAX_MS}", p99 <= P99_MAX_MS),
        (f"{per_core:,.0f} deliveries/s per core, at least {PER_CORE_MIN:,}",
         per_core >= PER_CORE_MIN)] if not holds]
