"""What each thing of an upstream and a route costs, in instructions: `scripts/bench cost --features`.

A plain forward on HTTP/1.1 with one thing on at a time, all in one process, so that what the others
cost when they are off is the same for all."""

import cost
import harness

WARM_UP = 200
# name: what its upstream has, what its route has; @ALL@ stands for two servers
FEATURES = {
    "nothing (pass)": ("", ""),
    "two servers, p2c": ("@ALL@", ""),
    "balance = \"round-robin\"": ("@ALL@\nbalance = \"round-robin\"", ""),
    "balance = \"ewma\"": ("@ALL@\nbalance = \"ewma\"", ""),
    "balance = \"hash:address\"": ("@ALL@\nbalance = \"hash:address\"", ""),
    "balance = \"hash:header:x-user\"": ("@ALL@\nbalance = \"hash:header:x-user\"", ""),
    "health": ("health = { path = \"/\" }", ""),
    "eject": ("@ALL@\neject = {}", ""),
    "breaker": ("breaker = {}", ""),
    "retry": ("retry = {}", ""),
    "retry and hedge": ("@ALL@\nretry = {}\nhedge = \"p99\"", ""),
    "all of these": ("@ALL@\nhealth = { path = \"/\" }\neject = {}\nbreaker = {}\nretry = {}\n"
                     "hedge = \"p99\"", ""),
    "deadline": ("", "deadline = \"10s\""),
    "request_headers, response_headers": (
        "", "request_headers = { set = { x-a = \"1\" } }\n"
            "response_headers = { set = { x-b = \"1\" } }"),
    "rewrite": ("", "rewrite = { host = \"shop.internal\" }"),
    "cors, no page asks": ("", "cors = { origins = [\"https://shop.example.com\"] }"),
    "compress, not asked for": ("", "compress = true"),
    "split, sticky by a field": (
        "", "split = [{ upstream = \"@NAME@\", weight = 99 }, { upstream = \"other\", weight = 1 "
            "}]\nsticky = \"header:x-user\""),
    "split with rollback": (
        "", "split = [{ upstream = \"@NAME@\", weight = 99 }, { upstream = \"other\", weight = 1 "
            "}]\nsticky = \"header:x-user\"\nrollback = {}"),
    "mirror, a share of 1 %": ("", "mirror = { upstream = \"other\", share = \"1%\" }"),
    "mirror, all": ("", "mirror = { upstream = \"other\" }"),
    "faults of other networks": (
        "", "faults = { allow_from = [\"192.0.2.0/24\"], abort = \"50%\" }"),
}


def config(ports):
    """The upstreams and routes, one pair for each."""
    servers = ", ".join(f"\"http://127.0.0.1:{port}\"" for port in ports)
    text = [f"[upstreams.other]\nservers = [\"http://127.0.0.1:{ports[0]}\"]"]
    for number, (upstream, route) in enumerate(FEATURES.values()):
        name = f"f{number}"
        one = f"servers = [\"http://127.0.0.1:{ports[0]}\"]"
        own = upstream.replace("@ALL@", "")
        text.append(f"[upstreams.{name}]\n"
                    f"{'servers = [' + servers + ']' if '@ALL@' in upstream else one}\n{own}")
        goes = "" if "split" in route else f"upstream = \"{name}\"\n"
        text.append(f"[routes.{name}]\npath = \"/{name}/*\"\n{goes}"
                    f"{route.replace('@NAME@', name)}")
    return "\n".join(text) + "\n"


def measure(o, children, binary):
    """Prints the table."""
    origins = [cost.Origin(), cost.Origin()]
    child, port = cost.start(children, binary, origins[0], "memory:",
                             config([origin.port for origin in origins]))
    profile, client, plain = cost.Profile(children, child), cost.Http1(port), None
    print(f"{'on':36}  {'instructions':>12}  {'more':>7}")
    for number, name in enumerate(FEATURES):
        def ask(requests):
            for _ in range(requests):
                status = client.status(f"/f{number}/1k", None)
                if status != 200:
                    harness.stop(f"{name}: an answer {status} where 200 was expected\n"
                                 f"{harness.log_tail(child)}")

        ask(WARM_UP)
        profile.part()
        ask(o.requests)
        found = round(cost.instructions(profile.part()) / o.requests)
        plain = plain or found
        print(f"{name:36}  {found:12,}  {found - plain:+7,}", flush=True)
    children.end(child)
    for origin in origins:
        origin.close()
