"""Whether each law can fail: a row that went well is spoiled in one way after the other."""

import copy

import harness
import rows
import stage as stages


def again(s, **changes):
    """One more send, like the first but for this."""
    send = copy.copy(s.wire.upstream.sends[0])
    for name, value in changes.items():
        setattr(send, name, value)
    s.wire.upstream.sends.append(send)


def forget(s):
    """As if the upstream had never seen one of them."""
    key = s.wire.upstream.sends[0].key
    s.wire.upstream.sends = [it for it in s.wire.upstream.sends if it.key != key]


def an_item(s):
    return next(iter(s.load.ids().values()))


# What is spoiled, what the law says of it, and how it is made good again.
WAYS = [
    (" lost", forget, None),
    ("repeats, and", again, None),
    ("order broken", again, None),
    ("queued more than once", lambda s: again(s, id="another"), None),
    ("not done", lambda s: s.run("HSET", f"{stages.PREFIX}item:{an_item(s)}", "s", "w"),
     lambda s: s.run("HSET", f"{stages.PREFIX}item:{an_item(s)}", "s", "k")),
    ("bodies of", lambda s: s.run("SET", f"{stages.PREFIX}body:{an_item(s)}", "x", "EX", 60),
     lambda s: s.run("DEL", f"{stages.PREFIX}body:{an_item(s)}")),
    ("has no end", lambda s: s.run("SET", stages.PREFIX + "body:nobody", "x"),
     lambda s: s.run("DEL", stages.PREFIX + "body:nobody")),
    ("bytes of nothing", lambda s: s.run("INCRBY", stages.PREFIX + "bytes", 5),
     lambda s: s.run("DEL", stages.PREFIX + "bytes")),
    ("lines of nobody", lambda s: s.run("RPUSH", stages.PREFIX + "line:x", 1),
     lambda s: s.run("DEL", stages.PREFIX + "line:x")),
]


def problems(s):
    s.problems = []
    stages.Sums(s).check(s)
    return s.problems


def run(options):
    """An exit status: 1 where a law holds whatever happens."""
    options.times, blind = 100, []
    with harness.Children() as children:
        s = stages.Stage(children, options.binary)
        try:
            rows.in_order(s, options)
            if s.problems:
                harness.stop(f"the row that is spoiled failed itself: {s.problems}")
            for law, spoil, mend in WAYS:
                sends = list(s.wire.upstream.sends)
                spoil(s)
                found = [it for it in problems(s) if law in it]
                print(f"{law.strip():24} {'found: ' + found[0] if found else 'NOT FOUND'}")
                blind += [] if found else [law]
                s.wire.upstream.sends = sends
                if mend:
                    mend(s)
            if problems(s):
                harness.stop(f"not as it was: {s.problems}")
        finally:
            s.end()
    print(f"\nnot found: {', '.join(blind)}" if blind else "\neach law can fail")
    return 1 if blind else 0
