"""An open loop of requests, in a process of its own: GETs and POSTs, each due at a time that
nothing changes. Latencies count from then.

    load.py PORT GETS POSTS SECONDS      prints one answer per line: method, number, due, ms, status

Status 0 is a connection that broke, -1 no answer within 5 s. POSTs carry a number each, by which
servers know them again."""

import asyncio
import sys
import time

HANG_S = 5


async def one(port, method, number):
    """Sends one request on a connection of its own: the status of its whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = b"x" * 64 if method == "POST" else b""
        length = b"content-length: %d\r\n" % len(body) if body else b""
        head = b"%s /a/%d HTTP/1.1\r\nhost: shop\r\nconnection: close\r\nx-number: %s%d\r\n%s\r\n"
        kind = method.encode()
        writer.write(head % (kind, number, kind[:1], number, length) + body)
        answer = await reader.read()
    finally:
        writer.close()
    head, mark, body = answer.partition(b"\r\n\r\n")
    if not mark or not head.startswith(b"HTTP/1.1 "):
        return 0
    said = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0].strip()
    return int(head[9:12]) if not said or len(body) == int(said) else 0


async def ask(port, method, number, due, start):
    try:
        status = await asyncio.wait_for(one(port, method, number), HANG_S)
    except (asyncio.TimeoutError, TimeoutError):
        status = -1
    except OSError:
        status = 0
    print(method, number, f"{due - start:.4f}", f"{(time.monotonic() - due) * 1e3:.2f}", status)


async def main(port, gets, posts, seconds):
    start = time.monotonic()
    due = sorted([(n / gets, "GET", n) for n in range(int(gets * seconds))]
                 + [((n + 0.5) / posts, "POST", n) for n in range(int(posts * seconds))])
    tasks = []
    for at, method, number in due:
        await asyncio.sleep(max(0, start + at - time.monotonic()))
        tasks.append(asyncio.create_task(ask(port, method, number, start + at, start)))
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    port, gets, posts, seconds = map(float, sys.argv[1:])
    asyncio.run(main(int(port), gets, posts, seconds))
