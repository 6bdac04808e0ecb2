"""What the scripts here share: building and running the gateway, free ports, tokens, processes and
their figures in /proc. Standard library only."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
# Where scripts/bench --setup installs what it needs.
VENV = REPO / "target" / "bench-venv"
SECRET = "only-for-measurements-0123456789abcdef"


def stop(message):
    """Ends the program with a message for the person who runs it."""
    raise SystemExit(message)


def add_binary_options(parser):
    """The options that say which gateway is measured."""
    parser.add_argument("--binary", help="measure this binary, instead of building one")
    parser.add_argument("--profile", default="release", help="cargo profile to build (release)")
    parser.add_argument("--no-build", action="store_true", help="take what was built before")


def gateway_binary(options):
    """Path of the gateway, built when needed."""
    if options.binary:
        path = pathlib.Path(options.binary).resolve()
        if not os.access(path, os.X_OK):
            stop(f"{path} is not an executable file: correct --binary")
        return path
    path = REPO / "target" / options.profile / "portcullis"
    if not options.no_build:
        if not shutil.which("cargo"):
            stop("cargo is missing: install Rust with rustup, or give --binary")
        command = ["cargo", "build", "--locked", "--profile", options.profile]
        if subprocess.run(command, cwd=REPO).returncode:
            stop("the gateway does not build: see cargo's message above")
    if not path.exists():
        stop(f"{path} does not exist: leave out --no-build")
    return path


def need(program, package):
    """Stops with the remedy when a program is missing."""
    if not shutil.which(program):
        stop(f"{program} is missing: sudo apt-get install -y {package}")


def envoy_of_setup():
    """The binary of Envoy that scripts/bench --setup has installed; empty when there is none."""
    found = sorted(VENV.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return str(found[-1]) if found else ""


def free_ports(count):
    """Ports of 127.0.0.1 that nobody used a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def raise_open_files(wanted):
    """Raises this process's limit of open files (children inherit it)."""
    if (limit := most_open_files(wanted)) < wanted:
        stop(f"{wanted} open files are needed, the limit is {limit}: raise it (ulimit -Hn), "
             "or run as root")


def most_open_files(wanted):
    """The same, as far as that is allowed; returns the limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return wanted
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard


class Children:
    """Processes that this program started; leaving the `with` block ends them, and nothing else."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-"))
        self.folder.chmod(0o755)
        self.running = []
        return self

    def start(self, name, command, **options):
        """Starts a process whose output goes to NAME.log in the folder."""
        log = open(self.folder / f"{name}.log", "ab")
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options)
        log.close()
        child.log = self.folder / f"{name}.log"
        self.running.append(child)
        return child

    def end(self, child, how=signal.SIGTERM):
        """Ends one process (and its group) and waits for it."""
        if child.poll() is None:
            for signum in (how, signal.SIGCONT):
                try:
                    os.killpg(child.pid, signum)
                except ProcessLookupError:
                    pass
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child in self.running:
            self.running.remove(child)

    def __exit__(self, kind, *_):
        for child in list(reversed(self.running)):
            self.end(child)
        if kind is None or kind in (SystemExit, KeyboardInterrupt):
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"logs are kept in {self.folder}")


def log_tail(child):
    """The last lines a process wrote."""
    lines = child.log.read_text(errors="replace").splitlines()[-15:]
    return "\n".join("    " + line for line in lines)


def wait_open(child, port, what, seconds=15):
    """Waits until something listens on the port; stops with the process's own words if it ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if child.poll() is not None:
                stop(f"{what} ended with status {child.returncode}:\n{log_tail(child)}")
            time.sleep(0.02)
    stop(f"{what} does not listen on port {port} after {seconds} s:\n{log_tail(child)}")


def start_gateway(children, binary, config, port, name="gateway"):
    """Runs the gateway with this configuration (text) and waits for its listener."""
    path = children.folder / f"{name}.toml"
    path.write_text(config)
    child = children.start(name, [binary, "run", "--config", path])
    wait_open(child, port, "the gateway")
    return child


def start_redis(children, port, name="redis", *more):
    """Runs a redis-server that keeps nothing on disk, and waits for its listener."""
    child = children.start(name, [
        "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", children.folder, *more])
    wait_open(child, port, "redis-server")
    return child


def start_cluster(children, masters, seconds=15):
    """Runs a Redis Cluster without replicas: its processes and ports."""
    ports, buses = free_ports(masters), free_ports(masters)
    servers = [start_redis(children, port, f"redis-{port}", "--cluster-enabled", "yes",
                           "--cluster-config-file", f"nodes-{port}", "--cluster-port", bus)
               for port, bus in zip(ports, buses)]
    for n, port in enumerate(ports):
        first, last = 16384 * n // masters, 16384 * (n + 1) // masters - 1
        redis_command(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
        redis_command(port, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        redis_command(port, "CLUSTER", "MEET", "127.0.0.1", ports[0], buses[0])
    end = time.monotonic() + seconds
    # The first key says "OK" once all slots have somebody.
    while any(redis_command(port, "SET", "of:nobody", 1)[:12] == "-CLUSTERDOWN" for port in ports):
        if time.monotonic() > end:
            stop(f"the Redis Cluster was not whole within {seconds} s")
        time.sleep(0.05)
    return servers, ports


def cluster_command(ports, *parts):
    """The same as redis_command, by whichever server of a cluster takes it."""
    for port in ports:
        reply = redis_command(port, *parts)
        if not reply.startswith("-MOVED"):
            return reply
    return reply


def redis_command(port, *parts, timeout=2):
    """Sends one command and returns the first line of the reply."""
    with socket.create_connection(("127.0.0.1", port), timeout) as s:
        data = [str(p).encode() for p in parts]
        s.sendall(b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(d), d) for d in data))
        return s.makefile("rb").readline().strip().decode()


def token(**claims):
    """A token signed with HS256 and SECRET."""
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"iat": now, "exp": now + 86400, **claims}
    signed = encode(b'{"alg":"HS256","typ":"JWT"}') + "." + encode(json.dumps(claims).encode())
    signature = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return signed + "." + encode(signature)


def memory(pid, field):
    """A figure of /proc/PID/status (VmRSS, VmHWM) in KiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def read_head(file):
    """Reads a response head: (status, headers in lower case). (0, {}) at the end of the stream."""
    line = file.readline(65537)
    if not line:
        return 0, {}
    status, headers = int(line.split()[1]), {}
    while (line := file.readline(65537)) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return status, headers


def percentile(values, share):
    """The nearest-rank percentile; 0 for no values."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
