"""Many connections of clients, for scripts/memory and edge: opened in a burst, idle, and asked."""

import select
import socket
import ssl
import time

BURST = 64  # requests in flight while connections come
PER_ADDRESS = 20000  # connections from one source address, fewer than there are ports
REQUEST = b"GET /small HTTP/1.1\r\nhost: localhost\r\n\r\n"
ENDS = (b"ok\n", b'"status":')  # of the upstream's answer, and of the gateway's own


class Crowd:
    """Connections of clients, each with at most one request in progress.

    `status` is what a good answer has in it, `ends` what answers end with, and `wrap` makes a
    socket of TLS out of a connected one."""

    def __init__(self, port, request=REQUEST, status=b" 200 OK\r\n", ends=ENDS, wrap=None):
        self.port, self.request, self.status, self.ends = port, request, status, ends
        self.wrap = wrap
        self.sockets, self.poll, self.got, self.closed = {}, select.epoll(), {}, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.poll.close()
        for sock in self.sockets.values():
            sock.close()

    def open(self, count):
        """Opens connections in a burst, with one request each; returns how many were answered."""
        answered = 0
        for n in range(count):
            sock = socket.socket()
            if n >= PER_ADDRESS:
                sock.bind((f"127.0.0.{2 + n // PER_ADDRESS}", 0))
            sock.settimeout(10)
            sock.connect(("127.0.0.1", self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.wrap:
                sock = self.wrap(sock)
            sock.setblocking(False)
            self.sockets[sock.fileno()] = sock
            self.poll.register(sock, select.EPOLLIN)
            self.send(sock)
            if len(self.got) >= BURST:
                answered += self.finish(BURST // 2)
        return answered + self.finish()

    def speak(self):
        """Sends a request on every connection at once; returns how many were answered."""
        for sock in list(self.sockets.values()):
            self.send(sock)
        return self.finish()

    def send(self, sock):
        sock.send(self.request)
        self.got[sock.fileno()] = b""

    def finish(self, most=0):
        """Receives until at most `most` requests are in progress; returns how many ended."""
        answered, end = 0, time.monotonic() + 30
        while len(self.got) > most:
            answered += self.receive()
            if time.monotonic() > end:
                self.got.clear()
        return answered

    def receive(self):
        """Takes what has come; returns how many answers are complete."""
        answered = 0
        for number, _ in self.poll.poll(1, 1024):
            try:
                data = self.sockets[number].recv(4096)
            except ssl.SSLWantReadError:
                continue  # a ticket, say
            except OSError:
                data = b""
            if not data:
                self.poll.unregister(number)
                self.sockets.pop(number).close()
                self.got.pop(number, None)
                self.closed += 1
            elif number in self.got:
                self.got[number] += data
                if any(end in self.got[number] for end in self.ends):
                    answered += self.status in self.got.pop(number)
        return answered


def tls_wrap():
    """Makes connected sockets such of TLS 1.3, whoever the server is; their handshake is over."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return lambda sock: context.wrap_socket(sock, server_hostname="localhost")
