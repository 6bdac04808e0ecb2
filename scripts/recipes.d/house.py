"""What scripts/recipes runs of one page: its blocks with this machine's ports, an application, a
gateway, and what the page's commands print. Standard library only."""

import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

import harness

HERE = pathlib.Path(__file__).resolve().parent
# The ports of the pages.
PUBLIC, TLS, ADMIN, REDIS, SENTINEL, APP, GRPC = 8080, 8443, 9901, 6379, 26379, 3000, 50051
# Where a client of a balancer asks from.
CLIENT = "198.51.100.7"
PATIENCE = 60  # seconds that something may take which ends by itself
PATIENCE_QUIET = 15  # the same where a page is spoilt
READ_BYTES = 65536
COLUMNS = 300  # of a line of a log that is shown
DOCUMENT = harness.REPO / "tests" / "it" / "recipes" / "keycloak.json"


class Mismatch(Exception):
    """A statement of a page that does not hold."""


class Fields(dict):
    """Header fields by their names in lower case; one that is missing is empty."""

    def __missing__(self, name):
        return ""


class Answer:
    """A response."""

    def __init__(self, response):
        self.status, self.text = response.status, response.read().decode(errors="replace")
        self.fields = Fields((name.lower(), value) for name, value in response.getheaders())

    def json(self):
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def outcome(self):
        """Its status; of a refusal its code, too."""
        said = self.json()
        if isinstance(said, dict) and str(said.get("type", "")).startswith("urn:portcullis:"):
            return self.status, said["type"].rsplit(":", 1)[1]
        return self.status


def blocks(text):
    """The fenced blocks of a page: language and text."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
    return [(language, code) for language, code in found]


def commands(block):
    """The commands of a block of shell, each with what its comment says of it: the one behind it,
    or lines of their own before it."""
    found, before = [], ""
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("#"):
            before = f"{before} {line[1:].strip()}".strip()
        elif line:
            command, _, said = line.partition("  # ")
            found.append((command.strip(), said.strip() or before))
            before = ""
    return found


def squeezed(text):
    return "".join(text.split())


def parts(said):
    """What must be in the output of which a page says this."""
    if status := re.fullmatch(r"(\d{3})( \w+)?", said):
        return [f"HTTP/1.1 {status[1]}", (status[2] or "").strip()]
    return said.split("…")


class House:
    """One page, and what runs of it."""

    def __init__(self, tools, children, name, text, is_quiet):
        self.tools, self.children, self.is_quiet = tools, children, is_quiet
        self.patience = PATIENCE_QUIET if is_quiet else PATIENCE
        self.folder, self.held = tools / name, set()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        pages = (PUBLIC, TLS, ADMIN, REDIS, SENTINEL, APP, GRPC)
        self.port = dict(zip(pages, harness.free_ports(len(pages))))
        numbers = {str(theirs): str(ours) for theirs, ours in self.port.items()}
        text = text.replace('"0.0.0.0:', '"127.0.0.1:')
        # Numbers that are no parts of longer ones.
        self.text = re.sub(r"(?<!\w)\d+(?!\w)", lambda it: numbers.get(it[0], it[0]), text)
        self.definitions, self.app, self.gate, self.server = "", None, None, None
        path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "NEXT_TELEMETRY_DISABLED": "1"}

    def close(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()

    def logs(self):
        """The last words of what runs."""
        lines = [line for child in (self.app, self.gate) if child
                 for line in (f"  {child.log.name}:", *harness.log_tail(child).splitlines())]
        return "\n".join(line[:COLUMNS] for line in lines)

    def holds(self, is_so, statement, found=""):
        """Prints a statement that holds; ends the page where it does not."""
        if not is_so:
            raise Mismatch(f"{statement}: not so: {found}"[:4 * COLUMNS])
        if not self.is_quiet and statement not in self.held:
            print(f"  {statement}", flush=True)
        self.held.add(statement)

    def equal(self, found, wanted, statement):
        self.holds(found == wanted, statement, f"{found!r} in place of {wanted!r}")

    def put(self, theirs, ours):
        """Puts something of this machine in place of the page's, which must be there."""
        if theirs not in self.text:
            raise Mismatch(f"{theirs!r} is not on the page")
        self.text = self.text.replace(theirs, ours)

    def block(self, language, begins=""):
        """The text of the first block of this language that has this in it."""
        for its, text in blocks(self.text):
            if its == language and begins in text:
                return text
        raise Mismatch(f"the page has no block of {language} with {begins!r}")

    def configuration(self):
        return "\n".join(text for language, text in blocks(self.text) if language == "toml")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    # What runs.

    def redis(self):
        harness.start_redis(self.children, self.port[REDIS])

    def start_app(self, command, port=APP):
        """Runs the application, in place of the one that ran before."""
        if self.app:
            self.children.end(self.app)
        self.app = self.children.start("app", command, cwd=self.folder, env=self.env)
        harness.wait_open(self.app, self.port[port], "the application", self.patience)

    def start_gateway(self, config=None):
        """Runs the gateway with the page's configuration, in place of the one that ran before."""
        if self.gate:
            self.children.end(self.gate)
        self.gate = self.another_gateway("gateway", config or self.configuration(),
                                         self.port[PUBLIC])

    def another_gateway(self, name, config, port):
        """Runs a gateway with this configuration."""
        self.write(f"{name}.toml", config)
        self.made("portcullis", "check", "--config", f"{name}.toml")
        self.holds(True, "portcullis check passes")
        gateway = self.children.start(name, ["portcullis", "run", "--config", f"{name}.toml"],
                                      cwd=self.folder, env=self.env)
        harness.wait_open(gateway, port, "the gateway")
        return gateway

    def made(self, *command, seconds=PATIENCE):
        """Runs a command to its good end; what it prints."""
        ran = subprocess.run([str(word) for word in command], cwd=self.folder, env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             stdin=subprocess.DEVNULL, timeout=seconds)
        if ran.returncode:
            raise Mismatch(f"{' '.join(str(word) for word in command)}:\n{ran.stdout}")
        return ran.stdout

    def copy(self, name):
        """A file of scripts/recipes.d, where it finds its packages."""
        shutil.copy(HERE / name, self.folder)

    # What is asked.

    def ask(self, method, path, fields=None, body=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port[PUBLIC],
                                                timeout=PATIENCE)
        try:
            connection.request(method, path, body=body, headers=fields or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **fields):
        return self.ask("GET", path, {name.replace("_", "-"): it for name, it in fields.items()})

    def post(self, path, body, **fields):
        fields = {name.replace("_", "-"): it for name, it in fields.items()}
        return self.ask("POST", path, {"content-type": "application/json", **fields},
                        json.dumps(body))

    def shell(self, command):
        """What a command of the page prints, in either way."""
        ran = subprocess.run(["bash", "-c", self.definitions + command], cwd=self.folder,
                             env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        return ran.stdout

    def run(self, command, said, shown):
        """Runs a command of the page, and looks for what the page says of it."""
        printed = self.shell(command)
        named = f"{command}   # {said}" if said else command
        for part in shown.get(said, parts(said)):
            is_there = squeezed(part) in squeezed(printed)
            if not is_there:
                raise Mismatch(f"{named}: {part!r} is not in what it prints:\n{printed}")
        self.holds(True, named)

    def run_commands(self, shown, without=()):
        """Runs the page's commands in their order. `shown` has what is printed where the page says
        it in words, by those words."""
        for _, block in (it for it in blocks(self.text) if it[0] == "sh"):
            for command, said in commands(block):
                if re.match(r"\w+(\(\) |=)", command):
                    self.definitions += command + "\n"
                elif not any(word in command for word in without):
                    self.run(command, said, shown)

    def until(self, is_so, statement):
        """Waits until something is so."""
        end = time.monotonic() + self.patience
        while not is_so():
            if time.monotonic() > end:
                raise Mismatch(f"{statement}: not within {self.patience} s")
            time.sleep(0.05)
        self.holds(True, statement)

    # Who signs tokens.

    def issuer(self, theirs, algorithm, claims):
        """Runs an issuer of this name, which gives tokens with these claims to clients."""
        kind = {"RS256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                "ES256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}[algorithm]
        self.made("openssl", "genpkey", "-algorithm", *kind, "-out", "key.pem")
        self.copy("key.mjs")
        key = self.made("node", "key.mjs", "key.pem", algorithm, "k-1")
        path = urllib.parse.urlsplit(theirs).path
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
        realm = f"http://127.0.0.1:{self.server.server_port}{path}"
        self.server.answers = {
            f"{path}/.well-known/openid-configuration":
                lambda: DOCUMENT.read_text().replace("ISSUER", realm),
            f"{path}/protocol/openid-connect/certs": lambda: '{"keys": [%s]}' % key,
            f"{path}/protocol/openid-connect/token":
                lambda: json.dumps({"access_token": self.token(**claims)}),
        }
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.put(theirs, realm)

    def token(self, **claims):
        """A token of the page's issuer and audience."""
        words = [word for name, value in claims.items()
                 for word in ("--claim", f"{name}={value}")]
        return self.made("portcullis", "token", "--private-key", "key.pem", "--kid", "k-1",
                         *words).strip()


class Issuer(http.server.BaseHTTPRequestHandler):
    """Answers what its server has for a path."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        make = self.server.answers.get(self.path)
        body = make().encode() if make else b"{}"
        self.send_response(200 if make else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def piped(source, target):
    """Hands on what one side says until it has nothing more to say."""
    try:
        while data := source.recv(READ_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(accept):
    """A listener whose connections are handled in threads of their own; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def handle(stream):
        try:
            accept(stream)
        except OSError:
            pass
        finally:
            stream.close()

    def listen():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=handle, args=(stream,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    return listener.getsockname()[1]


def passing_balancer(port):
    """A balancer that passes connections of a client on, with the PROXY protocol, version 2."""
    def accept(stream):
        with socket.create_connection(("127.0.0.1", port)) as gateway:
            addresses = socket.inet_aton(CLIENT) + socket.inet_aton("10.0.0.9")
            ports = (40000).to_bytes(2, "big") + (443).to_bytes(2, "big")
            gateway.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + addresses + ports)
            threading.Thread(target=piped, args=(stream, gateway), daemon=True).start()
            piped(gateway, stream)

    return serve(accept)


def reading_balancer(port, folder):
    """A balancer that ends TLS of a client, and writes who it is into the request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "site.pem", folder / "site.key")

    def accept(stream):
        with context.wrap_socket(stream, server_side=True) as secure:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := secure.recv(READ_BYTES)):
                    return
                head += data
            lines = head.decode().split("\r\n")
            chain = [line.split(": ", 1)[1] for line in lines
                     if line.lower().startswith("x-forwarded-for: ")]
            kept = [line for line in lines[1:-2] if not line.lower().startswith("x-forwarded-for:")]
            told = [lines[0], *kept, f"X-Forwarded-For: {', '.join([*chain, CLIENT])}",
                    "X-Forwarded-Proto: https", "Connection: close", "", ""]
            with socket.create_connection(("127.0.0.1", port)) as gateway:
                gateway.sendall("\r\n".join(told).encode())
                while data := gateway.recv(READ_BYTES):
                    secure.sendall(data)

    return serve(accept)
