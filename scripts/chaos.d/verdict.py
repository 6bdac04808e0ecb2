"""Judges what happened in a row: each rule is a function that returns what it found wrong."""

import bisect
import collections
import re

import faults
import harness
import scene
import traffic

SLACK_MS = 50
ADMIN_MS = 100  # longest wait for replicas (WAIT), which only answers of the admin API know
BACK_S = 2.0
OWN_LATE_MS = 10  # a generator that is later than this cannot judge others
NOISE_MS = 30  # nor can a machine where the upstream itself takes so long to answer
# Of each connection that a gateway has: pauses of store.reconnect_backoff (250 ms) or, by their
# jitter, down to half of it.
CONNECTS_PER_S = 6
RACE_S = 0.3  # gateways do not come back in the same instant
GOOD = {"direct": {200}, "plain": {200}, "auth": {200}, "revoked": {401}, "wide": {200}, "tight": {200, 429},
        "two": {200, 404, 429}, "session": {200}, "api": {200}, "read": {200}, "write": {200},
        "purge": {200}, "revoke": {200, 201}}
# What [store.on_outage] asks for, and what the admin API says when it cannot confirm.
CONFIGURED = {"session": {503}, "api": {503}, "purge": {503}, "revoke": {503}}
STORELESS = {"direct", "plain"}
CERTAIN = ("errors: ", "401/403", "revoked passed", "panicked", " logged ", "ended: ")
STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\S+Z) +(\w+) (.*)$")
# A server's way over the ladder: healthy, slow, open, recovering; new before it was reached.
RUNG = re.compile(r"^the store: (\w+) -> (\w+) \((.*?)\)(?:.* server=\"?([^\"]*))?")
SLOW_S = 2.0  # a server is slow for as long at least


class Judge:
    """The figures of a row, and what is wrong with them."""

    def __init__(self, row, history):
        self.row, self.h = row, history
        self.answers = [a for a in history.answers if not self.is_exempt(a)]
        self.answers.sort(key=lambda a: a.due)
        self.acked = {a.key: a.ended for a in history.answers
                      if a.kind == "revoke" and a.status in GOOD["revoke"]}
        self.lateness_ms = max((1e3 * (a.sent - a.due) for a in self.answers), default=0)
        self.noise_ms, self.plain_ms = self.longest("direct"), self.longest("plain")
        self.problems = []
        for rule in (self.late, self.errors, self.untimely, self.refusals, self.revocations,
                     self.admissions, self.staleness, self.recovery, self.connections, self.lines,
                     self.ends):
            found = rule()
            if found:
                self.problems.append(found)
        self.problems += history.failures

    def longest(self, kind):
        return max(((a.ended - a.due) * 1e3 for a in self.answers if a.kind == kind), default=0)

    def is_exempt(self, answer):
        """Whether the fault itself keeps this gateway from answering."""
        return (answer.gateway in self.h.exempt and answer.ended >= self.h.start
                and answer.due < self.h.back)

    def is_good(self, answer):
        if answer.kind == "revoked" and answer.status == 200:
            return answer.sent < self.acked_at(answer.key)
        if answer.kind in ("session", "api") and answer.seen != 1:
            return False
        return answer.status in GOOD[answer.kind]

    def acked_at(self, key):
        """When the revocation of this token was acknowledged: for the oldest, before the start."""
        if int(key.partition(".")[2]) < traffic.OLD:
            return self.h.begin
        return self.acked.get(key, float("inf"))

    def phase(self, answer):
        if answer.due < self.h.start:
            return "before"
        return "fault" if answer.due < self.h.back or self.served_later(answer) else "after"

    def served_later(self, answer):
        """Where the server serves all along, the fault still lasts for the row's time."""
        return self.row.served_all_along and answer.due < self.h.lifted[0]

    # --- the rules -------------------------------------------------------------------------------

    def late(self):
        self.late_count, worst, kinds, dues = 0, 0, set(), []
        for a in self.answers:
            bound = scene.TIMEOUT_MS + SLACK_MS + (ADMIN_MS if a.kind in traffic.ADMIN else 0)
            took = (a.ended - a.due) * 1e3
            if a.status == -1 or took > bound:
                self.late_count += 1
                worst = max(worst, took)
                kinds.add(a.kind)
                dues.append(a.due - self.h.start)
        return self.late_count and (
            f"{self.late_count} late, up to {worst:.0f} ms: {', '.join(sorted(kinds))} "
            f"(due {dues[0]:+.1f} to {dues[-1]:+.1f} s; "
            f"plain: {self.plain_ms:.0f}, direct: {self.noise_ms:.0f} ms)")

    def errors(self):
        """5xx that the configuration does not ask for, and connections that broke."""
        return self.count_errors("errors", lambda a: a.status == 0 or (
            a.status >= 500 and a.status not in CONFIGURED.get(a.kind, set())))

    def untimely(self):
        """5xx that it asks for in an outage, but not then."""
        until = self.h.back + BACK_S
        return self.count_errors("untimely", lambda a: (
            a.status in CONFIGURED.get(a.kind, set())
            and (self.row.strict or a.kind in self.row.untouched
                 or not self.h.start <= a.ended or a.due > until)))

    def count_errors(self, name, wrong):
        found = [a for a in self.answers if wrong(a)]
        if not found:
            return ""
        count = collections.Counter(f"{a.kind} {a.status or 'broken'}" for a in found)
        first, last = found[0].due - self.h.start, found[-1].due - self.h.start
        return (f"{name}: " + ", ".join(f"{k} x{n}" for k, n in sorted(count.items()))
                + f" ({first:+.1f} to {last:+.1f} s)")

    def refusals(self):
        count = collections.Counter(a.kind for a in self.answers
                                    if a.status in (401, 403) and a.kind != "revoked")
        return count and "401/403 to valid callers: " + ", ".join(
            f"{kind} x{n}" for kind, n in sorted(count.items()))

    def revocations(self):
        passed = [a for a in self.answers if a.kind == "revoked" and a.status == 200
                  and a.sent >= self.acked_at(a.key)]
        self.revoked_passed = len(passed)
        if not passed or "revoked" in self.row.unpromised:
            return ""
        first, last = passed[0].sent - self.h.start, passed[-1].sent - self.h.start
        keys = len({a.key for a in passed})
        return f"{len(passed)} revoked passed ({keys} tokens, {first:+.1f} to {last:+.1f} s)"

    def admissions(self):
        """The most that passed within any window, over the limit, beside what is allowed."""
        times = collections.defaultdict(list)
        for when, _, keys in self.h.passed:
            for key in keys:
                times[key].append(when)
        # A decision may take store.timeout to reach the upstream, so windows are shorter by that.
        window = scene.WINDOW_S - scene.TIMEOUT_MS / 1e3
        self.over, worst, self.bound = 0, None, self.row.bound
        for key, limit in scene.LIMITS.items():
            bound = self.bound_of(key, limit)
            times[key].sort()
            for n, when in enumerate(times[key]):
                end = bisect.bisect_left(times[key], when + window)
                over = end - n - limit
                if worst is None or over - bound > worst[0]:
                    worst = (over - bound, over, bound, key, when - self.h.start)
        if worst is None:
            return "nothing passed a limit"
        excess, self.over, self.bound, key, when = worst
        if self.row.bound == "none":
            self.bound = None
            return ""
        return excess > 0 and (f"{key}: {self.over} over the limit of {scene.LIMITS[key]}, "
                               f"bound {self.bound} ({when:+.1f} s)")

    def bound_of(self, key, limit):
        """(2 - 1/n) L in all; `lost` data may admit a limit once more, which `row.bound` says."""
        share = limit - limit // scene.GATEWAYS
        rate = traffic.RATES["two" if key not in ("even", "sticky") else "tight"] / 2
        race = int(rate * (scene.GATEWAYS - 1) * RACE_S)
        lag = min(limit, int(rate * scene.GATEWAYS * faults.LAG_MS / 1e3))
        return {"none": 0, "exact": 0, "local": share + race, "lag": share + race + lag,
                "flushed": limit + race}[self.row.bound]

    def staleness(self):
        """Answers with a version below one whose write or purge was acknowledged before they were
        asked for."""
        acked = collections.defaultdict(list)  # item: [(when, highest version until then)]
        for a in sorted(self.h.answers, key=lambda a: a.ended):
            if a.status == 200 and a.kind in ("write", "purge"):
                item, version = (a.key, a.seen) if a.kind == "write" else a.key
                known = acked[item]
                known.append((a.ended, max(version, known[-1][1] if known else 0)))
        stale = []
        for a in self.answers:
            if a.kind == "read" and a.status == 200 and acked[a.key]:
                at = bisect.bisect_right(acked[a.key], (a.sent,)) - 1
                if at >= 0 and a.seen < acked[a.key][at][1]:
                    stale.append(a)
        self.stale = len(stale)
        if not stale or "stale" in self.row.unpromised:
            return ""
        items = len({a.key for a in stale})
        first, last = stale[0].sent - self.h.start, stale[-1].sent - self.h.start
        return f"{len(stale)} stale ({items} items, {first:+.1f} to {last:+.1f} s)"

    def recovery(self):
        """Normal again, every kind at every gateway."""
        back = self.h.back
        after = [a for a in self.answers if a.due >= back]
        # A revoked token that passes is another rule's.
        bad = [a for a in after if not self.is_good(a) and (a.kind, a.status) != ("revoked", 200)]
        groups = {(a.kind, a.gateway) for a in after if self.is_good(a)}
        missing = {(kind, g) for kind in traffic.KINDS for g in range(scene.GATEWAYS)} - groups
        if missing:
            self.normal_ms = None
            kinds = sorted({kind for kind, _ in missing})
            return f"not back: {', '.join(kinds)}"
        self.normal_ms = 1e3 * max((a.ended - back for a in bad), default=0.0)
        if not bad:
            self.normal_ms = 1e3 * max(0.0, min(a.ended for a in after) - back)
        slow = [a for a in bad if a.due > back + BACK_S]
        return slow and (f"not normal {self.normal_ms / 1e3:.1f} s after the return: "
                         f"{slow[-1].kind} {slow[-1].status}")

    def connections(self):
        """Connections are as many as before; and none is tried without end meanwhile."""
        problems = []
        if self.row.slow_connects:
            (begin, before), (end, after) = self.h.settled, self.h.lifted
            pace = (after - before) / (end - begin) / max(self.h.conns_before, 1)
            if pace > CONNECTS_PER_S:
                problems.append(f"{pace:.1f} connects/s of each connection")
        if self.h.conns_after > self.h.conns_before:
            problems.append(f"connections: {self.h.conns_before} before, "
                            f"{self.h.conns_after} after")
        return "; ".join(problems)

    def lines(self):
        """One line of the log for each change, one at least, and no panic."""
        for name, log in enumerate(self.h.logs):
            if "panicked" in log:
                return f"gateway {name} panicked"
            messages, changes = collections.Counter(), []
            for line in log.splitlines():
                found = STAMP.match(line)
                if found and not found[3].startswith("audit "):
                    if found[2] == "ERROR":
                        return f"gateway {name} logged {found[3]}"
                    change = RUNG.match(found[3])
                    if change:
                        changes.append(change)
                    else:
                        messages[plain(found[3])] += 1
            wrong = self.ladder(changes)
            if wrong:
                return f"log of gateway {name}: {wrong}"
            for message, n in messages.items():
                if n > self.row.changes:
                    return f"log of gateway {name}: {n} x {message[:70]}"
            has_opened = any(change[2] == "open" for change in changes)
            if self.row.lasting and not messages and not has_opened and name not in self.h.exempt:
                return f"the log of gateway {name} says nothing"
            missing = [word for word in self.row.says if word not in self.h.whole_logs[name]]
            if missing and name not in self.h.exempt:
                return f"the log of gateway {name} does not say {', '.join(missing)}"
        return ""

    def ladder(self, changes):
        """Each server's changes follow each other, and it opens as often as the fault says. How
        often it is slow is the machine's affair, but each time lasts."""
        rungs, opened, slowed = {}, collections.Counter(), collections.Counter()
        for source, target, _, server in (change.groups() for change in changes):
            is_next = source in ("new", rungs.get(server, source)) and source != target
            if not is_next:
                return f"{rungs.get(server)}, and then {source} -> {target} {server or ''}"
            rungs[server] = target
            opened[server] += target == "open"
            slowed[server] += target == "slow"
        seconds = self.answers[-1].due - self.h.begin if self.answers else 0
        for server, times in slowed.items():
            if times > 1 + seconds / SLOW_S:
                return f"slow {times} times in {seconds:.0f} s {server or ''}"
        for server, times in opened.items():
            if times > self.row.changes:
                return f"{times} x -> open {server or ''}"
        return ""

    def ends(self):
        return self.h.dead and f"ended: {', '.join(self.h.dead)}"

    # --- the table -------------------------------------------------------------------------------

    def noise(self):
        """Why times mean nothing here: what is late may be so because of the machine."""
        if self.lateness_ms > OWN_LATE_MS:
            return f"the load generator was late ({self.lateness_ms:.0f} ms)"
        if self.noise_ms > NOISE_MS:
            return f"the machine was late ({self.noise_ms:.0f} ms without a gateway)"
        return ""

    def certain(self):
        """What is wrong however late the machine was: a late machine makes a store seem away, and
        then too each of these is forbidden."""
        return [problem for problem in self.problems
                if not self.noise() or any(word in problem for word in CERTAIN)]

    def is_void(self):
        return bool(self.noise()) and not self.certain()

    def verdict(self):
        noise, certain = self.noise(), "; ".join(self.certain())
        if noise and certain:
            return f"{certain}; the rest void: {noise}"
        return f"void: {noise}" if noise else certain or "ok"

    def detect_ms(self):
        """From the fault to the last answer that waited for the store."""
        waited = [a for a in self.answers if a.kind not in STORELESS | traffic.ADMIN
                  and self.phase(a) == "fault" and (a.ended - a.due) * 1e3 > 0.8 * scene.TIMEOUT_MS]
        return 1e3 * max((a.ended - self.h.start for a in waited), default=0.0)

    def cells(self, topology):
        """One line of the table."""
        fault = [a for a in self.answers if self.phase(a) == "fault"]
        times = [(a.ended - a.due) * 1e3 for a in fault if a.kind not in traffic.ADMIN]
        count = collections.Counter(a.status for a in fault)
        names = {0: "broken", -1: "none"}
        statuses = " ".join(f"{names.get(s, s)}x{n}" for s, n in sorted(count.items()))
        p50, p99, p999 = (harness.percentile(times, share) for share in (0.5, 0.99, 0.999))
        normal = "never" if self.normal_ms is None else f"{self.normal_ms:.0f}"
        bound = "-" if self.bound is None else self.bound
        return [topology, f"{self.row.id} {self.row.name}", str(len(self.answers)), statuses,
                str(self.late_count), f"{p50:.1f}/{p99:.0f}/{p999:.0f}/{max(times, default=0):.0f}",
                f"{self.detect_ms():.0f}", normal, f"{max(self.over, 0)}/{bound}",
                str(self.revoked_passed), str(self.stale),
                "-" if self.h.redirects is None else str(self.h.redirects),
                str(self.h.connects - self.h.connects_before), str(self.h.conns_after),
                f"{self.h.rss_mib:.0f}", f"{self.lateness_ms:.0f}", self.verdict()]

    def detail(self):
        """Lines of latency and statuses, per kind and phase."""
        lines = [f"  {'kind':8} {'phase':7} {'sent':>5} {'p50':>6} {'p99':>6} {'max':>6}  statuses"]
        for kind in traffic.KINDS:
            for phase in ("before", "fault", "after"):
                part = [a for a in self.answers if a.kind == kind and self.phase(a) == phase]
                times = [(a.ended - a.due) * 1e3 for a in part]
                count = collections.Counter(a.status for a in part)
                lines.append(
                    f"  {kind:8} {phase:7} {len(part):5} {harness.percentile(times, 0.5):6.1f} "
                    f"{harness.percentile(times, 0.99):6.1f} {max(times, default=0):6.1f}  "
                    + " ".join(f"{s}x{n}" for s, n in sorted(count.items())))
        return "\n".join(lines)


def plain(message):
    """A line of a log without its figures, but with the server that it is about."""
    text, mark, server = message.partition(" server=")
    return re.sub(r"\d+", "0", text) + mark + server


COLUMNS = ["topology", "fault", "sent", "statuses in the fault", "late", "p50/p99/p99.9/max ms",
           "detect ms", "normal ms", "over/bound", "revoked passed", "stale", "redirects",
           "reconnects", "conns", "RSS MiB", "lateness ms", "verdict"]
WIDTHS = [8, 30, 5, 50, 4, 20, 9, 9, 10, 14, 5, 9, 10, 5, 7, 11, 0]
