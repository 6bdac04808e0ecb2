"""A connection to Redis, as the kit needs one: a command at a time, every reply read whole."""

import collections
import socket

made = collections.Counter()  # connections of the kit itself, by port


class Refused(Exception):
    """An error that the server answered."""


class Connection:
    """Connects at once; raises OSError when that fails, or when no answer comes in time."""

    def __init__(self, port, timeout=2.0, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port), timeout)
        self.file = self.sock.makefile("rb")
        made[port] += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, *parts):
        data = [str(part).encode() for part in parts]
        self.sock.sendall(b"*%d\r\n" % len(data)
                          + b"".join(b"$%d\r\n%s\r\n" % (len(d), d) for d in data))

    def run(self, *parts):
        """The reply: str, int, list or None. Raises Refused for an error."""
        self.send(*parts)
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise Refused(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return None if int(rest) < 0 else [self.reply() for _ in range(int(rest))]
        return rest


def run(port, *parts, timeout=2.0):
    """One command on a connection of its own."""
    with Connection(port, timeout) as connection:
        return connection.run(*parts)


def info_of(text):
    """The fields of an answer to INFO or CLUSTER INFO."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
