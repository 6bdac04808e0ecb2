"""What happens to the store: one row of the table each. `replicated` has those of several servers.

A row may set servers up (`server`, `prepare`), begin before the fault (`before`), make the fault
(`inject`), go on with it (`each`, every `every_s`), and end it (`lift`). Then `serving` says when
the server serves again, which is when the gateways' time to be normal begins."""

import dataclasses
import random
import shutil
import signal
import subprocess
import threading
import time
import typing

import harness
import resp
import servers

NOBODY = 1  # a port that nobody listens on
ALL = ("single", "sentinel", "cluster")


def nothing(*_):
    """Nothing is to be done."""


@dataclasses.dataclass
class Row:
    """One fault."""

    id: str
    name: str
    inject: typing.Callable = nothing
    lift: typing.Callable = nothing
    each: typing.Callable = None
    every_s: float = 0.1
    prepare: typing.Callable = nothing
    before: typing.Callable = nothing
    serving: typing.Callable = None
    finish: typing.Callable = nothing  # looks at what the rules do not
    hindrance: typing.Callable = nothing  # why this machine cannot run it
    topologies: tuple = ("single",)
    linked: bool = False  # a proxy stands between each gateway and the server
    server: tuple = ()  # arguments of redis-server
    store: str = ""  # lines of [store]
    host: str = "127.0.0.1"  # in the URL
    wrapper: tuple = ()  # a command that runs the gateway
    secs: float = None  # in place of --secs
    after_s: float = 0.0
    # Over-admission: exact, local, lag (the last charges were lost), flushed (all were), none (no
    # promise).
    bound: str = "local"
    strict: bool = False  # no 5xx at all
    untouched: tuple = ()  # kinds that get none
    lasting: bool = True  # the gateways lose their store, and their logs say so
    served_all_along: bool = False  # so the gateways must be normal while the fault lasts
    reseed: bool = False  # the application writes its sessions again
    slow_connects: bool = False  # connections are refused, and may not be tried without end
    changes: int = 1  # times that the state of the store changes
    unpromised: tuple = ()  # rules of which docs/redis.md says that such a store breaks them
    says: tuple = ()  # what each gateway's log must say
    # What only a self-check sets otherwise.
    timeout_ms: int = 50
    revocation: str = "refuse"
    max_stale: str = "5m"
    limits: str = "local"
    writes_past: bool = False  # the gateways do not see writes


def masters(s):
    """The servers that take writes."""
    if s.topology.name == "cluster":
        return [node for node, _ in s.topology.masters()]
    return [s.topology.master]


def server_does(*parts):
    """An action: a command to every master."""
    def act(s, *_):
        for server in masters(s):
            server.run(*parts)
    return act


def end_script(s):
    """Ends a script that does not end, unless a sentinel did."""
    for server in masters(s):
        try:
            server.run("SCRIPT", "KILL")
        except resp.Refused:
            pass


def both(*actions):
    def act(s, *rest):
        for action in actions:
            action(s, *rest)
    return act


def aside(s, *parts):
    """Sends a command whose reply comes late, and does not wait for it."""
    def work(port):
        try:
            resp.run(port, *parts, timeout=60)
        except (OSError, resp.Refused):
            pass

    for server in masters(s):
        threading.Thread(target=work, args=(server.port,), daemon=True).start()


def shape(**how):
    """An action: sets all links."""
    return lambda s, *_: s.links.set(**how)


def happen(what, share=1.0):
    return lambda s, *_: s.links.happen(what, share)


# --- The server dies, stalls, is slow ------------------------------------------------------------

def kill(s, *_):
    s.topology.master.kill()


def restart(s, *_):
    s.topology.master.start()


def save_early(s):
    """An RDB of a moment before the last writes, purges and revocations."""
    time.sleep(1.5)
    s.topology.master.run("SAVE")


def pause(s, *_):
    s.topology.master.pause()


def resume(s, *_):
    s.topology.master.resume()


def stop_and_go(s, _):
    """Stops it for longer than any deadline; then it does what has come meanwhile."""
    s.topology.master.pause()
    time.sleep(0.5)
    s.topology.master.resume()


def ramp(s, elapsed):
    """Slower and slower, then faster again."""
    part = elapsed / s.secs
    s.links.set(down={"delay_ms": 240 * min(part, 1 - part), "jitter_ms": 20})


def spoil(s, _):
    s.links.happen(random.choice(["garbage", "cut"]), 0.2)


def few_clients(s):
    """No client but the kit is taken."""
    server = s.topology.master
    server.keep = resp.Connection(server.port)
    server.run("CONFIG", "SET", "maxclients", 1)
    server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def many_clients(s):
    server = s.topology.master
    server.run("CONFIG", "SET", "maxclients", 10000)
    server.keep.close()
    server.keep = None


def pause_clients(s):
    server_does("CLIENT", "PAUSE", int(s.secs * 500), "ALL")(s)


def pause_writes(s, elapsed):
    if elapsed > s.secs / 2 and "paused" not in s.notes:
        s.notes["paused"] = True
        server_does("CLIENT", "PAUSE", int(s.secs * 500), "WRITE")(s)


def little_memory(s):
    for server in masters(s):
        used = int(server.info("memory")["used_memory"])
        server.run("CONFIG", "SET", "maxmemory", used + 600_000)


def fill(s, _):
    """Writes until keys are evicted, and more; who is logged in stays so."""
    s.seed()
    with resp.Connection(s.topology.master.port) as connection:
        for _ in range(60):
            connection.run("SET", f"kit:fill:{random.random()}", "x" * 4000)


KEYS_TO_LOAD = 3000


def reload_slowly(s):
    micros = int(s.secs * 1e6 / KEYS_TO_LOAD)
    s.topology.master.run("CONFIG", "SET", "key-load-delay", micros)
    aside(s, "DEBUG", "RELOAD")


# --- A replica takes over behind the same address -------------------------------------------------

LAG_MS = 500


def add_replica(s):
    """A replica that hears of everything too late: the link between has a delay."""
    port, at = harness.free_ports(2)
    replica = servers.plain(s.children, "replica", port)
    replica.start()
    s.topology.servers.append(replica)
    s.links.open("replication", at, ("127.0.0.1", s.topology.port))
    s.topology.replicate(replica, at)
    s.links.set(["replication"], down={"delay_ms": LAG_MS})
    time.sleep(2 * LAG_MS / 1e3)


def cut_and_kill(s):
    """What is on the way to the replica never arrives."""
    s.links.set(["replication"], accept="refuse")
    s.links.happen("kill", 1, ["replication"])
    s.topology.master.kill()


def promote(s):
    replica = s.topology.servers[-1]
    replica.run("REPLICAOF", "NO", "ONE")
    s.topology.master = replica
    gateways = [name for name in s.links.names if name != "replication"]
    s.links.target(("127.0.0.1", replica.port), gateways)


# --- Users, names, certificates -------------------------------------------------------------------

USER = 'username = "gateway"\npassword = "file:{folder}/password"'


def set_user(s, password):
    s.topology.master.run("ACL", "SETUSER", "gateway", "reset", "on", f">{password}", "~*", "&*",
                          "+@all")


def add_user(s):
    (s.children.folder / "password").write_text("first")
    set_user(s, "first")


def return_user(s):
    set_user(s, "first")


def rotate(s):
    """The new password is in the file before it is in Redis; the old one ends with its clients."""
    (s.children.folder / "password").write_text("second")
    time.sleep(0.2)
    set_user(s, "second")
    s.topology.master.run("CLIENT", "KILL", "USER", "gateway")


HOSTS = "{folder}/hosts"
# A file of names of its own, for this process alone: in namespaces that need no privilege.
OWN_NAMES = ("unshare", "-rm", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', HOSTS)


def names_are_fixed(_=None):
    """Why a gateway cannot be given names of its own here."""
    command = ["unshare", "-rm", "sh", "-c", "mount --bind /etc/hosts /etc/hosts"]
    if shutil.which("unshare") and not subprocess.run(command, capture_output=True).returncode:
        return ""
    return "this machine lets nobody but root have names of their own (unshare -rm)"


def name_at(s, address):
    # In place: what is mounted is this very file.
    with open(s.children.folder / "hosts", "w") as file:
        file.write(f"127.0.0.1 localhost\n{address} redis.test\n")


def first_name(s):
    name_at(s, "127.0.0.1")


def move_name(s):
    """The server is gone from where it was; another one, empty, is elsewhere by the same name."""
    s.topology.master.kill()


def arrive(s):
    server = s.topology.master
    server.host = "127.0.0.2"
    server.start()
    name_at(s, server.host)


def wrong_certificate(s):
    s.topology.show("wrong")


def certificates_go_on(s, elapsed):
    if elapsed > s.secs / 2 and "expired" not in s.notes:
        s.notes["expired"] = True
        s.topology.show("expired")


def good_certificate(s):
    s.topology.show("new")


# --- Gateways -------------------------------------------------------------------------------------

VICTIM, OTHER = 1, 0


def hold_places(s):
    """The victim holds all places of /hold; another gateway asks for one until it gets it."""
    s.notes["held"] = [s.gateways[VICTIM].hold() for _ in range(s.held)]
    time.sleep(0.2)
    s.notes["full"] = s.gateways[OTHER].ask_place() == 429


def watch_places(s):
    begin = time.monotonic()

    def work():
        while time.monotonic() < begin + s.lease_s + 5 and "freed" not in s.notes:
            try:
                if s.gateways[OTHER].ask_place() == 200:
                    s.notes["freed"] = time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.05)

    s.exempt.add(VICTIM)
    s.notes["watch"] = threading.Thread(target=work, daemon=True)
    s.notes["watch"].start()


def end_gateway(s):
    s.children.end(s.gateways[VICTIM].child, signal.SIGKILL)
    watch_places(s)


def start_gateway(s):
    s.gateways[VICTIM].start()


def gateway_serves(s):
    s.gateways[VICTIM].wait_connected()
    return time.monotonic()


def judge_places(s, history):
    """The places of a dead gateway are free once their lease is over, and not before it is dead."""
    s.notes["watch"].join()
    freed = s.notes.get("freed")
    if not s.notes["full"]:
        history.failures.append("places: more were given than there are")
    if freed is None or freed > s.lease_s + 2:
        history.failures.append("places of the dead gateway stay taken")


def pause_gateway(s):
    s.exempt.add(VICTIM)
    s.gateways[VICTIM].signal(signal.SIGSTOP)


def resume_gateway(s):
    s.gateways[VICTIM].signal(signal.SIGCONT)


# --- Leaks ----------------------------------------------------------------------------------------

WARM = 5  # cycles until everything that is allocated once has been
GROWTH = 1.1  # of RSS
GROWTH_MIB = 8.0


def cycles(s):
    """The server dies and comes back empty, then it is somebody's replica for a while."""
    for n in range(s.cycles):
        if n == min(WARM, s.cycles - 1):
            s.notes["rss"] = [gateway.rss_mib() for gateway in s.gateways]
        kill(s)
        time.sleep(0.1)
        restart(s)
        s.topology.wait_serving()
        s.seed()
        time.sleep(0.3)
        server_does("REPLICAOF", "127.0.0.1", NOBODY)(s)
        time.sleep(0.1)
        server_does("REPLICAOF", "NO", "ONE")(s)
        time.sleep(0.3)


def judge_leaks(s, history):
    """Memory, sockets and places, when nobody asks any more."""
    after = [gateway.rss_mib() for gateway in s.gateways]
    for now, then in zip(after, s.notes["rss"]):
        if now > then * GROWTH + GROWTH_MIB:
            history.failures.append(
                f"RSS: {then:.0f} MiB after {WARM} cycles, {now:.0f} at the end")
            break
    end = time.monotonic() + s.lease_s + 2
    while (places := places_taken(s)) and time.monotonic() < end:
        time.sleep(0.1)
    if places:
        history.failures.append(f"{places} places in flight stay taken")
    time.sleep(0.5)
    for gateway, before in zip(s.gateways, history.files):
        if gateway.files() > before + 2:
            history.failures.append(f"{gateway.name}: {before} files open before, "
                                    f"{gateway.files()} after")


def places_taken(s):
    """Places in flight that Redis knows of."""
    keys = s.topology.run("KEYS", "app:ratelimit:*")
    kinds = [key for key in keys if s.topology.run("TYPE", key) == "zset"]
    return sum(s.topology.run("ZCARD", key) for key in kinds)


SINGLE = [
    Row("1", "dies, back empty", kill, restart, reseed=True),
    Row("2", "back from an old RDB", kill, restart, before=save_early, reseed=True),
    Row("3", "stalls (SIGSTOP)", pause, resume),
    Row("4", "stalls and resumes, again and again", each=stop_and_go, every_s=1.0, changes=6),
    Row("5", "+200 ms", shape(down={"delay_ms": 200}), shape(), linked=True),
    Row("6", "slower and faster, with jitter", each=ramp, lift=shape(), linked=True, changes=2),
    Row("7", "10 % of connections reset, 4/s", each=happen("kill", 0.1), every_s=0.25, linked=True,
        lasting=False, changes=12),
    Row("8", "answers lost one way", shape(down={"hold": True}), shape(), linked=True),
    Row("9", "dead peer, no FIN", happen("freeze"), linked=True, served_all_along=True),
    Row("10", "64 KiB/s, 1-byte slices", shape(down={"rate": 65536, "slices": True}), shape(),
        linked=True, lasting=False, changes=4),
    Row("11", "garbage and cut frames", each=spoil, every_s=0.3, linked=True, lasting=False,
        changes=12),
    Row("12", "accepts and is silent", both(shape(accept="silent"), happen("kill")),
        both(shape(), happen("kill")), linked=True, slow_connects=True),
    Row("13", "accepts, then RST", both(shape(accept="reset"), happen("kill")), shape(),
        linked=True, slow_connects=True),
    Row("14", "maxclients", few_clients, many_clients, slow_connects=True),
    Row("15", "all clients killed", server_does("CLIENT", "KILL", "TYPE", "normal"), topologies=ALL,
        served_all_along=True, changes=1),
    Row("16", "CLIENT PAUSE ALL, then WRITE", pause_clients, each=pause_writes, topologies=ALL,
        changes=2),
    Row("17", "DEBUG SLEEP", lambda s: aside(s, "DEBUG", "SLEEP", s.secs)),
    Row("18", "a script that does not end (BUSY)",
        lambda s: aside(s, "EVAL", "while true do end", 0), end_script,
        topologies=ALL),
    Row("19", "SCRIPT FLUSH, 10/s", each=server_does("SCRIPT", "FLUSH"), topologies=ALL,
        served_all_along=True, lasting=False, strict=True, bound="exact"),
    Row("20", "FLUSHALL", both(server_does("FLUSHALL"), lambda s: s.seed()), topologies=ALL,
        strict=True, served_all_along=True, lasting=False, bound="flushed"),
    Row("21", "no memory for writes (OOM)", server_does("CONFIG", "SET", "maxmemory", 1),
        server_does("CONFIG", "SET", "maxmemory", 0), topologies=ALL, says=("OOM",)),
    Row("22", "keys are evicted", little_memory, server_does("CONFIG", "SET", "maxmemory", 0),
        each=fill, server=("--maxmemory-policy", "allkeys-lru"), lasting=False, reseed=True,
        strict=True, bound="none", unpromised=("revoked", "stale"), says=("evicts",)),
    Row("23", "LOADING", reload_slowly, says=("LOADING",),
        prepare=server_does("DEBUG", "POPULATE", KEYS_TO_LOAD, "kit", 8)),
    Row("24", "turns replica", server_does("REPLICAOF", "127.0.0.1", NOBODY),
        server_does("REPLICAOF", "NO", "ONE"), says=("READONLY",), slow_connects=True),
    Row("25", "promotion with a lag", cut_and_kill, promote, prepare=add_replica, linked=True,
        secs=1.0, reseed=True, bound="lag"),
    Row("35", "user deleted", server_does("ACL", "DELUSER", "gateway"), return_user, store=USER,
        prepare=add_user, says=("WRONGPASS",), slow_connects=True),
    Row("35b", "password rotated", rotate, store=USER, prepare=add_user, served_all_along=True,
        lasting=False),
    Row("36", "a right is missing",
        server_does("ACL", "SETUSER", "gateway", "-evalsha", "-eval"), return_user, store=USER,
        prepare=add_user, says=("NOPERM",)),
    Row("37", "certificate of a stranger, expired, replaced", wrong_certificate, good_certificate,
        each=certificates_go_on, topologies=("tls",)),
    Row("38", "the name moves to another address", move_name, arrive, prepare=first_name,
        hindrance=names_are_fixed, host="redis.test", wrapper=OWN_NAMES, reseed=True),
    Row("39", "a gateway is killed", end_gateway, start_gateway, before=hold_places,
        serving=gateway_serves, finish=judge_places, lasting=False, after_s=4.5,
        bound="exact"),
    Row("39b", "a gateway is stopped", pause_gateway, resume_gateway, lasting=False,
        bound="exact"),
    Row("40", "dies, and turns replica, over and over", cycles, secs=0, finish=judge_leaks,
        changes=1000, bound="none"),
]
