"""A server and its readers, which know what was written some time later.

usage: service.py LAG_SECONDS SERVER_PORT READER_PORT..."""

import asyncio
import sys
import time

LAG_S = float(sys.argv[1])
SERVER, *READERS = map(int, sys.argv[2:])
values = {}  # by path: position, and when it was written
times = []  # of all writes, in their order


def known(is_reader):
    """How far somebody is."""
    if not is_reader:
        return len(times)
    # Few are younger than the lag.
    until, count = time.monotonic() - LAG_S, len(times)
    while count and times[count - 1] > until:
        count -= 1
    return count


def answer(method, path, wanted, is_reader):
    """Status line, fields and body."""
    if method == "PUT":
        times.append(time.monotonic())
        values[path] = len(times)
    position = known(is_reader)
    if wanted > position:
        return "425 Too Early", "", ""
    value = values.get(path, 0)
    value = value if value <= position else 0
    who = "reader" if is_reader else "server"
    return "200 OK", f"x-position: {position}\r\n", f"{who} {value}"


async def serve(reader, writer, is_reader):
    """Answers the requests of one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            await reader.readexactly(int(fields.get("content-length", 0)))
            wanted = int(fields.get("x-min-position", 0))
            status, more, body = answer(method, path, wanted, is_reader)
            writer.write(f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n{body}"
                         .encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    servers = []
    for port in [SERVER, *READERS]:
        is_reader = port != SERVER
        servers.append(await asyncio.start_server(
            lambda reader, writer, it=is_reader: serve(reader, writer, it), "127.0.0.1", port))
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
