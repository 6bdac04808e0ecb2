#!/usr/bin/env python3
"""The application of docs/tutorial.md: products and a log-in. All the rest is the gateway's.

It signs tokens (RS256), publishes its public key (JWKS), and writes its sessions into Redis.
Python's standard library is enough; `openssl` makes the key and signs.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = ("127.0.0.1", 3000)
REDIS = ("127.0.0.1", 6379)
ISSUER = "http://127.0.0.1:3000"
KEY_FILE = "shop-key.pem"
TOKEN_SECONDS = 3600
SESSION_SECONDS = 1800
USERS = {
    "ada": {"password": "lovelace", "id": "42", "email": "ada@example.com"},
    "bob": {"password": "builder", "id": "7", "email": "bob@example.com"},
}
PRODUCTS = {1: "teapot", 2: "cup"}


def openssl(*arguments, data=b""):
    ran = subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True)
    return ran.stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwks():
    """The public half of the key, as RFC 7517 has it."""
    modulus = openssl("rsa", "-in", KEY_FILE, "-noout", "-modulus").decode().strip()
    n = bytes.fromhex(modulus.removeprefix("Modulus="))
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "shop-1"}
    return {"keys": [{**key, "n": base64url(n), "e": "AQAB"}]}


def token(claims):
    """A signed token, as RFC 7515 has it."""
    parts = [{"alg": "RS256", "typ": "JWT", "kid": "shop-1"}, claims]
    text = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    return text + "." + base64url(openssl("dgst", "-sha256", "-sign", KEY_FILE, data=text.encode()))


def redis(*commands):
    """Sends commands whose answers are one line each, and raises what Redis refuses."""
    with socket.create_connection(REDIS, timeout=5) as link, link.makefile("rb") as answers:
        for command in commands:
            words = [str(word).encode() for word in command]
            sent = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
            link.sendall(sent)
            answer = answers.readline()
            if not answer.startswith((b"+", b":")):
                raise OSError(f"Redis: {answer!r}")


def log_in(name, password):
    """A token and its session, or nothing."""
    user = USERS.get(name)
    if user is None or not secrets.compare_digest(user["password"], password):
        return None
    now, sid = int(time.time()), secrets.token_urlsafe(16)
    session = {"user": user["id"], "email": user["email"], "created_at": now}
    redis(
        # Whose session it is: this is how "log out everywhere" finds it.
        ("ZADD", f"app:sessions-of:{user['id']}", now, sid),
        ("SET", f"app:session:{sid}", json.dumps(session), "EX", SESSION_SECONDS),
    )
    life = {"iat": now, "exp": now + TOKEN_SECONDS}
    return token({"iss": ISSUER, "aud": "shop", "sub": user["id"], "sid": sid, **life})


def log_out(user, sid):
    """Ends the session, and the tokens that name it."""
    redis(
        ("SET", f"app:auth:blacklist:sid:{sid}", 1, "EX", TOKEN_SECONDS),
        ("DEL", f"app:session:{sid}"),
        ("ZREM", f"app:sessions-of:{user}", sid),
    )


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        data = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def sent(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(data or b"{}")

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/jwks.json":
            self.answer(200, jwks())
        elif path == "/me":
            # The gateway has checked the token; a client cannot set these fields.
            who = {"user": self.headers["X-User-Id"], "email": self.headers["X-User-Email"]}
            self.answer(200, who)
        elif path == "/products":
            self.answer(200, [{"id": id, "name": name} for id, name in PRODUCTS.items()])
        elif path.removeprefix("/products/").isdigit():
            id = int(path.removeprefix("/products/"))
            known = id in PRODUCTS
            self.answer(200 if known else 404, {"id": id, "name": PRODUCTS.get(id)})
        else:
            self.answer(404, {"error": "not here"})

    def do_POST(self):
        sent = self.sent()
        if self.path == "/login":
            made = log_in(sent.get("user"), sent.get("password", ""))
            self.answer(200 if made else 401, {"token": made} if made else {"error": "wrong"})
        elif self.path == "/logout":
            log_out(self.headers["X-User-Id"], self.headers["X-Session-Id"])
            self.answer(200, {"goodbye": self.headers["X-User-Id"]})
        elif self.path == "/products":
            id = max(PRODUCTS) + 1
            PRODUCTS[id] = sent["name"]
            self.answer(201, {"id": id, "name": sent["name"]})
        else:
            self.answer(404, {"error": "not here"})


if not os.path.exists(KEY_FILE):
    openssl("genrsa", "-out", KEY_FILE, "2048")
ThreadingHTTPServer(ADDRESS, Shop).serve_forever()
