"""The load generators of scripts/bench: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC, our own for
WebSockets. Each gives the same figures of one run, and looks at every answer that it counts."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import harness
import websocket

FILES = pathlib.Path(__file__).resolve().parent / "bench.d"
STREAMS = 8  # on each connection of HTTP/2
# A message of gRPC: not compressed, its length, its bytes.
CALL = b"\0" + (32).to_bytes(4, "big") + b"q" * 32
REPLY = b"\0" + (1024).to_bytes(4, "big") + b"x" * 1024
GRPC_FIELDS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def wrk(url, tokens, seconds, conns, close=False):
    """HTTP/1.1; with `close`, each request has a connection of its own."""
    env = dict(os.environ, TOKENS=str(tokens or ""), CLOSE="1" if close else "")
    command = ["wrk", "-t1", f"-c{conns}", f"-d{seconds}s", "--timeout", "10s",
               "-s", str(FILES / "tokens.lua"), url]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    for line in result.stdout.splitlines():
        if line.startswith("RESULT"):
            n, us, bad, errors, *latency = map(int, line.split()[1:])
            p50, p99, p999 = (value / 1e3 for value in latency)
            return {"n": n, "rps": n / (us / 1e6), "bad": bad, "errors": errors,
                    "p50": p50, "p99": p99, "p999": p999}
    harness.stop(f"wrk gave no result:\n{result.stdout}{result.stderr}")


def h2load(url, seconds, conns, body_bytes, call=None):
    """HTTP/2 with prior knowledge, as many requests at a time as wrk has connections; with `call`,
    a file, gRPC. An answer with less than its body, such as a failed call's, is a bad one."""
    streams = min(STREAMS, conns)
    with tempfile.NamedTemporaryFile(prefix="portcullis-h2load-") as log:
        command = ["h2load", "-c", str(max(conns // streams, 1)), "-m", str(streams),
                   "-D", str(seconds), f"--log-file={log.name}",
                   *(["-d", str(call), *GRPC_FIELDS] if call else []), url]
        result = subprocess.run(command, capture_output=True, text=True)
        answers = [line.split() for line in pathlib.Path(log.name).read_text().splitlines()]
    done = re.search(r"requests: .* (\d+) done, (\d+) succeeded, .* (\d+) errored, (\d+) timeout",
                     result.stdout)
    data = re.search(r"\((\d+)\) data", result.stdout)
    if not done or not data or not answers:
        harness.stop(f"h2load gave no result:\n{result.stdout}{result.stderr}")
    n, succeeded, errored, late = map(int, done.groups())
    errors = errored + late
    bad = max(sum(status != "200" for _, status, _ in answers) - errors, n - errors - succeeded)
    missing = (n - errors) * body_bytes - int(data[1])
    bad = max(bad, -(-missing // body_bytes))
    times = [int(us) / 1e3 for _, _, us in answers]
    p50, p99, p999 = (harness.percentile(times, share) for share in (0.5, 0.99, 0.999))
    return {"n": n, "rps": n / seconds, "bad": bad, "errors": errors,
            "p50": p50, "p99": p99, "p999": p999}


def messages(port, path, seconds, conns):
    """WebSocket messages, which are to come back as they went; from a process of its own."""
    command = [sys.executable, str(pathlib.Path(websocket.__file__).resolve()), "load", str(port),
               path, str(seconds), str(conns)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        harness.stop(f"the load of messages gave no result:\n{result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def verify_call(url, call):
    """Makes one call, and stops unless its reply and its trailers are there, byte for byte."""
    command = ["nghttp", "-d", str(call), *GRPC_FIELDS, url]
    reply = subprocess.run(command, capture_output=True).stdout
    if reply != REPLY:
        harness.stop(f"{url} answered a call with {reply[:200]!r} instead of its message")
    said = subprocess.run([*command, "-nv"], capture_output=True, text=True).stdout
    _, _, behind = re.sub(r"\x1b\[[0-9;]*m", "", said).rpartition("recv DATA frame")
    if "grpc-status: 0" not in behind or "END_STREAM" not in behind:
        harness.stop(f"{url} answered a call without its trailers:\n{said}")
