"""A server that fails as it is told: HTTP/1.1, in a process of its own. It counts what reached it.

    server.py PORT CONTROL_PORT

Whoever connects to the control port writes one word, and gets the counts back as JSON: `count` only
asks; any other word is what the server does from now on:

    good    200 at once
    error   500, while /health says that all is well
    slow    200 after 10 s
    reset   reads the request and resets the connection
    lie     answers something that is no HTTP"""

import asyncio
import collections
import json
import socket
import struct
import sys

SLOW_S = 10
ANSWERS = {"good": (200, b"ok"), "slow": (200, b"ok"), "error": (500, b"error")}


class Server:
    """What it does, and what it has seen: requests, and their numbers."""

    def __init__(self):
        self.mode, self.seen, self.numbers = "good", 0, collections.Counter()

    async def serve(self, reader, writer):
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def answer(self, reader, writer):
        """One exchange. False when the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(field(head, b"content-length") or 0))
        status, body = ANSWERS.get(self.mode, (0, b""))
        if head.startswith(b"get /health "):
            status, body = 200, b"ok"
        else:
            self.seen += 1
            if number := field(head, b"x-number"):
                self.numbers[number.decode()] += 1
        if self.mode == "slow":
            await asyncio.sleep(SLOW_S)
        if self.mode == "reset":
            away = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, away)
            return False
        if self.mode == "lie":
            writer.write(b"\x16\x03\x01 this is no answer\r\n\r\n")
            await writer.drain()
            return False
        writer.write(b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        return True

    async def control(self, reader, writer):
        word = (await reader.readline()).decode().strip()
        if word not in ("", "count"):
            self.mode = word
        writer.write(json.dumps({"seen": self.seen, "numbers": self.numbers}).encode())
        await writer.drain()
        writer.close()


def field(head, name):
    """The value of a field of a head in lower case, or nothing."""
    at = head.find(b"\r\n" + name + b":")
    return head[at + len(name) + 3:].split(b"\r\n", 1)[0].strip() if at >= 0 else b""


async def main(port, control_port):
    server = Server()
    await asyncio.start_server(server.serve, "127.0.0.1", port, backlog=1024)
    await asyncio.start_server(server.control, "127.0.0.1", control_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
