"""What is known of a caller, and what an upstream is told of him, in instructions: `scripts/bench
cost --identity`.

Each route forwards, over the embedded store, so that Redis's part is not in it; all are in one
process."""

import base64
import hashlib
import json
import re
import secrets
import subprocess
import time

import cost
import harness

WARM_UP = 200
USERS = 20
# name: the route, and how its callers show who they are
ROWS = {
    "nobody is asked for (pass)": ("", "nothing"),
    "a token (HS256, revocation)": ("auth = \"users\"", "token"),
    "assertion, the same for 30 s": (
        "auth = \"users\"\nassertion = { signer = \"main\", audience = \"shop\" }", "token"),
    "assertion, signed each time (ES256)": (
        "auth = \"users\"\nassertion = { signer = \"main\", audience = \"shop\", reuse = \"0s\" }",
        "token"),
    "a token with a proof (DPoP, ES256)": ("auth = \"users\"", "proof"),
    "a session of session.make": ("auth = \"web\"", "cookie"),
}
CONFIG = """
[session.make]
[signers.main]
issuer = "https://gateway.example"
keys = ["file:@DIR@/signer.pem"]
[auth.users]
issuer = "users"
audience = ["bench"]
algorithms = ["HS256"]
jwks_file = "@DIR@/jwks.json"
revocation = true
[auth.users.dpop]
window = "10m"
[auth.web]
session = true
[upstreams.login]
servers = ["http://127.0.0.1:@LOGIN@"]
[routes.login]
path = "/login"
upstream = "login"
issues = { session = true, sub = "/id" }
"""


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """A key of a client's, by openssl: proofs need no module then."""

    def __init__(self, path):
        self.path = path
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
        # The point is the end of the public key: 32 bytes each for x and y (RFC 5480 §2.2).
        point = openssl("pkey", "-in", path, "-pubout", "-outform", "DER")[-64:]
        self.jwk = {"crv": "P-256", "kty": "EC", "x": base64url(point[:32]),
                    "y": base64url(point[32:])}
        canonical = json.dumps(self.jwk, separators=(",", ":"), sort_keys=True)  # RFC 7638
        self.thumbprint = base64url(hashlib.sha256(canonical.encode()).digest())

    def proof(self, url, token):
        """For one GET with this token (RFC 9449 §4.2)."""
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk}
        claims = {"jti": secrets.token_urlsafe(12), "htm": "GET", "htu": url,
                  "iat": int(time.time()),
                  "ath": base64url(hashlib.sha256(token.encode()).digest())}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
        der = openssl("dgst", "-sha256", "-sign", self.path, stdin=signed.encode())
        return f"{signed}.{base64url(fixed(der))}"


def fixed(der):
    """An ECDSA signature as JWS has it (RFC 7518 §3.4): r and s, 32 bytes each."""
    first = 4 + der[3]
    numbers = der[4:first], der[first + 2:]
    return b"".join(number[-32:].rjust(32, b"\0") for number in numbers)


def openssl(*arguments, stdin=b""):
    words = ["openssl", *map(str, arguments)]
    done = subprocess.run(words, input=stdin, capture_output=True, check=False)
    if done.returncode:
        harness.stop(f"{' '.join(words)} failed:\n{done.stderr.decode()}")
    return done.stdout


def config(login_port):
    """The routes, one for each row."""
    text = [CONFIG.replace("@LOGIN@", str(login_port))]
    for number, (route, _) in enumerate(ROWS.values()):
        text.append(f"[routes.i{number}]\npath = \"/i{number}\"\nupstream = \"origin\"\n{route}")
    return "\n".join(text) + "\n"


def cookies(port):
    """A session for each user: their cookies."""
    client, found = cost.Http1(port), []
    for _ in range(USERS):
        status, head = client.send("/login", "")
        cookie = re.search(rb"\r\nset-cookie: *([^;]+)", head, re.I)
        if status != 200 or not cookie:
            harness.stop(f"no session was made:\n{head.decode(errors='replace')}")
        found.append(cookie[1].decode())
    client.close()
    return found


def fields(how, port, number, requests, key):
    """What the callers of a row send: one text for each request."""
    if how == "nothing":
        return [""] * requests
    if how == "cookie":
        shown = cookies(port)
        return [f"Cookie: {shown[n % USERS]}\r\n" for n in range(requests)]
    users = [{"iss": "users", "aud": "bench", "sub": f"user-{n}", "jti": f"token-{n}"}
             for n in range(USERS)]
    if how == "token":
        tokens = [harness.token(**user) for user in users]
        return [f"Authorization: Bearer {tokens[n % USERS]}\r\n" for n in range(requests)]
    bound = [harness.token(**user, cnf={"jkt": key.thumbprint}) for user in users]
    url, lines = f"http://gateway.example/i{number}", []
    for n in range(requests):
        token = bound[n % USERS]
        proof = key.proof(url, token)
        lines.append(f"Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
    return lines


def measure(o, children, binary):
    """Prints the table."""
    harness.need("openssl", "openssl")
    origin, login = cost.Origin(), cost.Origin(b"{\"id\":\"user\"}")
    (children.folder / "signer.pem").write_bytes(
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"))
    key = Key(children.folder / "client.pem")
    child, port = cost.start(children, binary, origin, "memory:", config(login.port))
    profile, plain = cost.Profile(children, child), None
    print(f"{'a caller who is':36}  {'instructions':>12}  {'more':>8}")
    for number, (name, (_, how)) in enumerate(ROWS.items()):
        sent = fields(how, port, number, WARM_UP + o.requests, key)
        client = cost.Http1(port)

        def ask(lines):
            for line in lines:
                status, head = client.send(f"/i{number}", line)
                if status != 200:
                    harness.stop(f"{name}: an answer {status} where 200 was expected\n"
                                 f"{head.decode(errors='replace')}\n{harness.log_tail(child)}")

        ask(sent[:WARM_UP])
        profile.part()
        ask(sent[WARM_UP:])
        found = round(cost.instructions(profile.part()) / o.requests)
        plain = plain or found
        print(f"{name:36}  {found:12,}  {found - plain:+8,}", flush=True)
        client.close()
    children.end(child)
    for upstream in (origin, login):
        upstream.close()
