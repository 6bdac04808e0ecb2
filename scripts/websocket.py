#!/usr/bin/env python3
"""WebSockets (RFC 6455) for scripts/bench, memory and edge: an echo server, and a load of messages.
Standard library only.

usage: scripts/websocket.py echo PORT                       until it is ended
       scripts/websocket.py load PORT PATH SECONDS CONNS    prints one line of JSON

Clients mask with the key 0, which leaves a payload as it is: so the server answers what it got.
Frames are whole messages of one length, sent one at a time: each waits for its answer.
"""
import base64
import hashlib
import json
import os
import select
import socket
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(b"portcullis bench")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + GUID).digest())
BINARY, CLOSE = 0x82, 0x88
PAYLOAD = b"w" * 1024
READ_BYTES = 65536


def handshake(path, token=None):
    """The request that opens one; with a token, as its bearer."""
    bearer = b"authorization: Bearer %s\r\n" % token.encode() if token else b""
    return (b"GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: %s\r\n%s\r\n"
            % (path.encode(), KEY, bearer))


def is_open(head):
    """Whether this answer opens it."""
    return head.startswith(b"HTTP/1.1 101 ") and ACCEPT in head


def frame(payload, mask):
    """One whole binary message."""
    size, bit = len(payload), 0x80 if mask else 0
    length = bytes((bit | size,)) if size < 126 else bytes((bit | 126, size >> 8, size & 255))
    return bytes((BINARY,)) + length + (b"\0\0\0\0" if mask else b"") + payload


def frame_end(data, at):
    """Where the frame ends that begins at `at`, and where its payload begins; (0, 0): not whole."""
    if len(data) < at + 2:
        return 0, 0
    masked, size, begin = data[at + 1] & 0x80, data[at + 1] & 0x7f, at + 2
    if size == 126:
        size, begin = int.from_bytes(data[at + 2:at + 4], "big"), at + 4
    begin += 4 if masked else 0
    return (begin + size, begin) if len(data) >= begin + size else (0, 0)


class Echo:
    """A server that sends each message back."""

    def __init__(self, port):
        self.poll, self.sockets, self.rests = select.epoll(), {}, {}
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.poll.register(self.listener, select.EPOLLIN)

    def run(self):
        while True:
            for number, _ in self.poll.poll():
                if number == self.listener.fileno():
                    self.accept()
                else:
                    self.read(number)

    def accept(self):
        try:
            while True:
                sock, _ = self.listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets[sock.fileno()] = sock
                self.poll.register(sock, select.EPOLLIN)
        except BlockingIOError:
            pass

    def read(self, number):
        sock = self.sockets[number]
        try:
            data = sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data or not self.answer(sock, number, self.rests.pop(number, b"") + data):
            self.poll.unregister(number)
            self.sockets.pop(number).close()
            self.rests.pop(number, None)

    def answer(self, sock, number, data):
        """False when the connection is over."""
        if data.startswith(b"GET "):
            if not data.endswith(b"\r\n\r\n"):
                self.rests[number] = data
                return True
            key = data.lower().find(b"\r\nsec-websocket-key:")
            if key < 0:  # a plain request: that it listens is all there is to know
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                return True
            key = data[key + 20:].split(b"\r\n", 1)[0].strip()
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
                         b"upgrade: websocket\r\nsec-websocket-accept: %s\r\n\r\n" % accept)
            return True
        at, out = 0, []
        while True:
            end, begin = frame_end(data, at)
            if not end:
                break
            if data[at] == CLOSE:
                sock.sendall(b"".join(out) + bytes((CLOSE, end - begin)) + data[begin:end])
                return False
            # The proxy's key is not 0 where it sends a frame of its own, which is a Close.
            out.append(frame(data[begin:end], mask=False))
            at = end
        if at < len(data):
            self.rests[number] = data[at:]
        if out:
            sock.sendall(b"".join(out))
        return True


def open_socket(port, path, token=None):
    """A connection that has been opened, or SystemExit with the answer."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(handshake(path, token))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(READ_BYTES)
        if not data:
            break
        head += data
    if not is_open(head):
        raise SystemExit(f"no WebSocket at port {port}: {head[:300]!r}")
    return sock


def load(port, path, seconds, conns):
    """Sends messages, one at a time on each connection; returns the figures of scripts/bench."""
    message, answer = frame(PAYLOAD, mask=True), frame(PAYLOAD, mask=False)
    poll, sockets, times, bad, errors = select.epoll(), {}, [], 0, 0
    for _ in range(conns):
        sock = open_socket(port, path)
        sock.settimeout(10)
        sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    cpu, began = os.times(), time.perf_counter()
    sent, rests = {}, {}
    for number, sock in sockets.items():
        sent[number] = time.perf_counter()
        sock.send(message)
    end = began + seconds
    while (now := time.perf_counter()) < end:
        for number, _ in poll.poll(0.1):
            data = sockets[number].recv(READ_BYTES)
            if not data:
                poll.unregister(number)
                errors += 1
                continue
            if number in rests:
                data = rests.pop(number) + data
            if len(data) < len(answer):
                rests[number] = data
                continue
            now = time.perf_counter()
            times.append(now - sent[number])
            bad += data != answer
            sent[number] = now
            sockets[number].send(message)
    took = time.perf_counter() - began
    times.sort()

    def at(share):
        return times[min(len(times) - 1, int(len(times) * share))] * 1e3 if times else 0.0

    own = os.times()
    return {"n": len(times), "rps": len(times) / took, "bad": bad, "errors": errors, "p50": at(0.5),
            "p99": at(0.99), "p999": at(0.999),
            "generator": own.user + own.system - cpu.user - cpu.system}


def main():
    what, *args = sys.argv[1:] or [""]
    if what == "echo" and len(args) == 1:
        try:
            Echo(int(args[0])).run()
        except KeyboardInterrupt:
            return 0
    if what == "load" and len(args) == 4:
        port, path, seconds, conns = args
        print(json.dumps(load(int(port), path, float(seconds), int(conns))))
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
