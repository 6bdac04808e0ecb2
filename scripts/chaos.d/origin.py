"""The upstream: its answers carry a version that writes raise, and it notes whom limits let pass.

GET  /read/ITEM           the item's version, in x-version
PUT  /read/ITEM           raises it
POST /raise/ITEM          raises it too; the kit asks this directly, as an application that purges
GET  /tight/KEY           noted: when, for whom
GET  /two/SUB/CLIENT      noted; every second answer is a 404
GET  /hold/MS             answers after so many milliseconds
GET  /notes               what was noted, as JSON; the kit asks this directly
Everything is answered at once, so an answer's time is the gateway's and the store's."""

import asyncio
import collections
import json
import multiprocessing
import signal
import time


class Origin(asyncio.Protocol):
    """One connection. What it changes is the process's own."""

    versions = collections.Counter()
    fetches = collections.Counter()
    passed = []  # (when, kind, keys)
    two = 0

    def connection_made(self, transport):
        self.transport, self.got = transport, b""

    def data_received(self, data):
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            head, self.got = self.got[:end].decode("latin-1").lower(), self.got[end + 4:]
            self.answer(head)

    def answer(self, head):
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        kind, _, rest = target.lstrip("/").partition("/")
        status, fields, body = "200 OK", "", b"ok\n"
        if kind in ("read", "raise"):
            if method in ("put", "post"):
                Origin.versions[rest] += 1
            else:
                Origin.fetches[rest] += 1
            fields = f"x-version: {Origin.versions[rest]}\r\n"
        elif kind == "tight":
            Origin.passed.append((time.monotonic(), kind, [rest]))
        elif kind == "two":
            Origin.two += 1
            if Origin.two % 2:
                status = "404 Not Found"
            else:
                Origin.passed.append((time.monotonic(), kind, rest.split("/")))
        elif kind in ("session", "api"):
            fields = f"x-saw-session: {int('x-session:' in head)}\r\n"
        elif kind == "notes":
            body = json.dumps({"passed": Origin.passed, "fetches": Origin.fetches}).encode()
        whole = (f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
                 .encode() + body)
        if kind == "hold":
            asyncio.get_running_loop().call_later(int(rest) / 1e3, self.transport.write, whole)
        else:
            self.transport.write(whole)


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port)
    await server.serve_forever()


def start(port):
    """Runs it in a process that ends with this one."""
    return in_process(lambda: asyncio.run(serve(port)))


def in_process(work):
    """Runs this in a process that ends with this one, and not by Ctrl-C before it."""
    def run():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        work()

    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    return process
