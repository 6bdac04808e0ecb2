"""A TCP proxy for each link, in a process of its own, that delays, cuts, holds and spoils.

A link accepts in one of these ways:
  pass     and connects to its target
  refuse   not at all: the port is closed
  silent   and never says a word
  reset    and ends the connection with an RST
What passes is shaped, each way by itself ("up" to the target, "down" from it):
  delay_ms, jitter_ms   each piece waits so long; pieces keep their order
  rate                  bytes a second
  slices                the first bytes of each piece come one by one
  hold                  nothing arrives, as if all packets were lost; what was held back arrives
                        when the shape is lifted, as TCP would send it again
Some things happen to connections at once:
  kill      an RST for both sides
  freeze    nothing comes of it any more, not even its end; the server has forgotten it
  garbage   bytes that nobody sent come before the next piece
  cut       half a piece, then an RST"""

import asyncio
import collections
import multiprocessing
import random
import socket
import struct

import origin

SLICES = 48  # bytes of a piece that come one by one
PLAIN = {"delay_ms": 0, "jitter_ms": 0, "rate": 0, "slices": False, "hold": False}


def reset(transport):
    """Ends a connection with an RST."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Side(asyncio.Protocol):
    """One end of a connection through a link; `way` is where what it receives goes."""

    def __init__(self, link, way, other=None):
        self.link, self.way, self.other = link, way, other
        self.transport, self.frozen, self.once = None, False, ""
        self.waiting, self.timer, self.free = collections.deque(), None, 0.0

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.way == "up":
            self.link.accepted(self)

    def data_received(self, data):
        if self.frozen or self.other is None:
            return
        if self.once == "garbage":
            data = bytes(random.randrange(256) for _ in range(64)) + b"\r\n" + data
        elif self.once == "cut":
            self.other.transport.write(data[:len(data) // 2])
            self.end(reset)
            return
        self.once = ""
        shape = self.link.shape[self.way]
        if not self.waiting and not any(shape.values()):
            self.other.transport.write(data)
            return
        few = SLICES if shape["slices"] else 0
        for piece in [*(data[n:n + 1] for n in range(min(few, len(data)))), data[few:]]:
            if piece:
                self.waiting.append((self.due(shape, len(piece)), piece))
        self.arm()

    def due(self, shape, size):
        """When a piece arrives; later ones never earlier."""
        delay = max(0, shape["delay_ms"] + random.uniform(-1, 1) * shape["jitter_ms"]) / 1e3
        at = max(self.link.loop.time() + delay, self.free)
        self.free = at + (size / shape["rate"] if shape["rate"] else 0)
        return at

    def arm(self):
        held = self.link.shape[self.way]["hold"]
        if self.timer is None and self.waiting and not held:
            self.timer = self.link.loop.call_at(self.waiting[0][0], self.deliver)

    def deliver(self, everything=False):
        """Hands on what is due."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        now = self.link.loop.time()
        while self.waiting and (everything or self.waiting[0][0] <= now):
            _, piece = self.waiting.popleft()
            if self.other and not self.frozen:
                self.other.transport.write(piece)
        self.arm()

    def connection_lost(self, _):
        self.end(lambda transport: transport.close())

    def end(self, how):
        """Ends both sides, unless nothing of it is to arrive."""
        held = self.link.shape[self.way]["hold"]
        if self.timer is not None:
            self.timer.cancel()
        self.link.sides.discard(self)
        if not self.transport.is_closing():
            how(self.transport)
        other, self.other = self.other, None
        if other and not self.frozen and not held:
            other.other = None
            other.end(how)


class Link:
    """A port, and where what comes to it goes."""

    def __init__(self, loop, port, target):
        self.loop, self.port, self.target = loop, port, target
        self.accept, self.server = "pass", None
        self.shape = {"up": dict(PLAIN), "down": dict(PLAIN)}
        self.sides, self.count = set(), 0

    async def listen(self):
        if self.accept == "refuse" and self.server:
            self.server.close()
            self.server = None
        elif self.accept != "refuse" and not self.server:
            self.server = await self.loop.create_server(
                lambda: Side(self, "up"), "127.0.0.1", self.port, reuse_address=True)

    def accepted(self, side):
        self.count += 1
        self.sides.add(side)
        if self.accept == "reset":
            side.end(reset)
        elif self.accept == "pass":
            side.transport.pause_reading()
            self.loop.create_task(self.connect(side))

    async def connect(self, side):
        there = Side(self, "down", side)
        try:
            await self.loop.create_connection(lambda: there, *self.target)
        except OSError:
            side.end(reset)
            return
        if side.transport.is_closing():
            there.other = None
            there.end(reset)
            return
        self.sides.add(there)
        side.other = there
        side.transport.resume_reading()

    def set(self, accept="pass", **shapes):
        """Sets everything anew; what is not named is plain."""
        self.accept = accept
        for way in ("up", "down"):
            self.shape[way] = {**PLAIN, **shapes.get(way, {})}
        for side in list(self.sides):
            if not any(self.shape[side.way].values()):
                side.deliver(everything=True)
            if side.other and side.other.transport.is_closing():
                side.end(reset)  # its end was held back

    def happen(self, what, share):
        """Does something to this share of the connections, to one at least."""
        mine = [side for side in self.sides if side.way == "down" and not side.frozen]
        chosen = random.sample(mine, max(1, round(len(mine) * share))) if mine else []
        for side in chosen:
            if what == "kill":
                side.end(reset)
            elif what == "freeze":
                other, side.other = side.other, None
                if other:
                    other.frozen, other.other = True, None
                side.end(reset)
            else:
                side.once = what
        if what == "kill" and share == 1:
            for side in list(self.sides):
                side.frozen = False
                side.end(reset)


async def obey(pipe):
    """Does what the controller says, and answers each word of it."""
    loop, links, came = asyncio.get_running_loop(), {}, asyncio.Event()
    loop.add_reader(pipe.fileno(), came.set)
    while True:
        await came.wait()
        came.clear()
        while pipe.poll():
            order, name, *rest = pipe.recv()
            reply = None
            if order == "open":
                links[name] = Link(loop, *rest)
                await links[name].listen()
            elif order == "set":
                links[name].set(**rest[0])
                await links[name].listen()
            elif order == "target":
                links[name].target = rest[0]
            elif order == "count":
                reply = links[name].count
            else:
                links[name].happen(order, rest[0])
            pipe.send(reply)


class Links:
    """The controller's side."""

    def __init__(self):
        self.pipe, far = multiprocessing.Pipe()
        self.process = origin.in_process(lambda: asyncio.run(obey(far)))
        self.names = []

    def ask(self, *order):
        self.pipe.send(order)
        return self.pipe.recv()

    def open(self, name, port, target):
        """A new link, at this port, to (host, port)."""
        self.names.append(name)
        self.ask("open", name, port, target)

    def set(self, names=None, **how):
        for name in names or self.names:
            self.ask("set", name, how)

    def happen(self, what, share=1.0, names=None):
        for name in names or self.names:
            self.ask(what, name, share)

    def target(self, target, names=None):
        for name in names or self.names:
            self.ask("target", name, target)

    def count(self):
        """Connections that were accepted so far."""
        return sum(self.ask("count", name) for name in self.names)

    def end(self):
        self.process.kill()
        self.process.join()
