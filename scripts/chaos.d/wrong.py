"""Rows that are wrong on purpose, each with the rule that must find it."""

import os
import signal
import time

import faults
import resp
from faults import Row, kill, restart


def revoke_a_valid_caller(s):
    s.gateways[0].call("POST", "/v1/revocations", {"jti": "good", "expires_in": "1h"})


def keep_connections(s):
    s.notes["kept"] = [resp.Connection(s.topology.port) for _ in range(5)]


def knock(s, _):
    """Connects to a link again and again, as a gateway without a pause would."""
    for _ in range(100):
        resp.socket.create_connection(("127.0.0.1", s.links_at[0])).close()


def die_thrice(s):
    for _ in range(3):
        kill(s)
        time.sleep(0.3)
        restart(s)
        time.sleep(0.6)


def end_a_gateway(s):
    s.gateways[faults.VICTIM].signal(signal.SIGKILL)


def delay_the_load(s):
    process, _ = s.load.running[0]
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGCONT)


def no_memory_before(s):
    """Judges memory as if there had been next to none after the first cycles."""
    faults.GROWTH, faults.GROWTH_MIB = 0.1, 0.0


ROWS = [
    (Row("w1", "deadlines of 300 ms, judged as 50", faults.pause, faults.resume, timeout_ms=300),
     "late"),
    (Row("w2", "limits refuse, which nobody asked for", kill, restart, limits="refuse",
         reseed=True), "errors"),
    (Row("w3", "a valid caller is revoked", revoke_a_valid_caller, served_all_along=True),
     "401/403"),
    (Row("w4", "revocation is not judged in an outage", kill, restart, revocation="allow",
         max_stale="0s", reseed=True), "revoked passed"),
    (Row("w5", "limits allow, judged by the bound of local", kill, restart, limits="allow",
         reseed=True), "over the limit"),
    (Row("w6", "writes go past the gateways", served_all_along=True, writes_past=True), "stale"),
    (Row("w7", "comes back late", kill, restart, store='reconnect_backoff = "60s"', secs=5.5,
         reseed=True), "not "),
    (Row("w8", "connections are kept", keep_connections, served_all_along=True),
     "connections"),
    (Row("w9", "connects without a pause", faults.shape(accept="reset"), faults.shape(),
         each=knock, linked=True, slow_connects=True), "connects/s"),
    (Row("w10", "three changes, judged as one", die_thrice, secs=0, reseed=True), "log"),
    (Row("w11", "no change, judged as one", served_all_along=True), "says nothing"),
    (Row("w12", "a gateway ends", end_a_gateway, served_all_along=True), "ended"),
    (Row("w13", "a gateway lives on, judged as dead", faults.watch_places,
         before=faults.hold_places, finish=faults.judge_places), "places"),
    (Row("w14", "memory is kept", faults.cycles, secs=0, before=no_memory_before,
         finish=faults.judge_leaks, changes=1000), "RSS"),
    (Row("w15", "the load is late", before=delay_the_load, served_all_along=True, lasting=False),
     "void"),
]
