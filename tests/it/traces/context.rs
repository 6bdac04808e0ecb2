//! Whose trace a request is part of, and what its upstream is told of it.

use crate::support::{Client, Collector, Gateway, Upstream, response};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn upstream() -> Upstream {
    Upstream::replying(response("200 OK", "fine"))
}

fn before(upstream: &Upstream, collector: &Collector, traces: &str, server: &str) -> Gateway {
    let route = "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n";
    let server = format!("[server]\n{server}\n");
    Gateway::start(&[&server, &*upstream.table("shop"), &collector.table(traces), route].concat())
}

/// Trace, span and flags of the last `traceparent` that came.
fn sent(upstream: &Upstream) -> [String; 3] {
    let line = upstream.recorded().last().unwrap().header("traceparent").unwrap().to_owned();
    let mut parts = line.split('-').map(str::to_owned);
    assert_eq!(parts.next().as_deref(), Some("00"), "{line}");
    [(); 3].map(|()| parts.next().unwrap())
}

#[test]
fn strangers_begin_a_trace_that_is_linked_to_theirs_and_force_nothing() {
    let (upstream, collector) = (upstream(), Collector::start());
    let gateway = before(&upstream, &collector, "sample = \"0%\"\nerrors = \"0/s\"", "");
    for flags in ["01", "00"] {
        let parent = format!("00-{TRACE}-{SPAN}-{flags}");
        let request = Client::get(gateway.public, "/").header("traceparent", parent);
        request.header("tracestate", "a=1").send();
        let [trace, span, sampled] = sent(&upstream);
        assert_ne!((&*trace, &*span), (TRACE, SPAN), "{flags}");
        assert_eq!(sampled, "00", "{flags}");
        assert_eq!(upstream.recorded().last().unwrap().header("tracestate"), None, "{flags}");
    }
    gateway.rewrite(
        &[
            "[server]\n",
            &upstream.table("shop"),
            &collector.table("sample = \"100%\""),
            "[routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        ]
        .concat(),
    );
    crate::support::eventually("the reload is in force", || {
        gateway.signal("HUP");
        let parent = format!("00-{TRACE}-{SPAN}-00");
        Client::get(gateway.public, "/").header("traceparent", parent).send();
        sent(&upstream)[2] == "01"
    });
    let [trace, span, _] = sent(&upstream);
    crate::support::eventually("its spans are exported", || {
        collector.spans().iter().filter(|it| it.trace == trace).count() == 2
    });
    let spans: Vec<_> = collector.spans().into_iter().filter(|it| it.trace == trace).collect();
    let server = spans.iter().find(|it| it.kind == "server").unwrap();
    assert_eq!(server.parent, "", "it begins here");
    assert_eq!(server.links, [(TRACE.to_owned(), SPAN.to_owned())]);
    let attempt = spans.iter().find(|it| it.kind == "client").unwrap();
    assert_eq!((&attempt.parent, &attempt.id), (&server.id, &span));
}

#[test]
fn a_trusted_parent_decides_whether_anything_is_recorded() {
    let (upstream, collector) = (upstream(), Collector::start());
    for (traces, server) in [
        ("sample = \"0%\"\nerrors = \"0/s\"", "trusted_proxies = [\"127.0.0.0/8\"]"),
        ("sample = \"0%\"\nerrors = \"0/s\"\ntrust_parent = \"always\"", ""),
    ] {
        let gateway = before(&upstream, &collector, traces, server);
        let ask = |flags: &str| {
            let parent = format!("00-{TRACE}-{SPAN}-{flags}");
            let request = Client::get(gateway.public, "/").header("traceparent", parent);
            request.header("tracestate", "a=1").send();
            assert_eq!(upstream.recorded().last().unwrap().header("tracestate"), Some("a=1"));
            sent(&upstream)
        };
        let before = collector.spans().len();
        assert_eq!(ask("00"), [TRACE, SPAN, "00"], "who records nothing is no piece of it");
        let [trace, attempt, flags] = ask("01");
        assert_eq!((&*trace, &*flags), (TRACE, "01"));
        let spans = collector.wait_for(before + 2).split_off(before);
        let [client, server] = ["client", "server"]
            .map(|kind| spans.iter().find(|span| span.kind == kind).expect("a span of each"));
        assert_eq!((&*server.parent, &*server.trace, server.links.len()), (SPAN, TRACE, 0));
        assert_eq!((&client.parent, &client.id), (&server.id, &attempt));
        assert_ne!(server.id, SPAN);
        // Sampled; and that it is known whose the parent is, and whether it is another program's.
        assert_eq!((client.flags, server.flags), (0x101, 0x301));
    }
}

#[test]
fn never_trusts_not_even_a_proxy() {
    let (upstream, collector) = (upstream(), Collector::start());
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway =
        before(&upstream, &collector, "trust_parent = \"never\"\nsample = \"0%\"", trusted);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    Client::get(gateway.public, "/").header("traceparent", parent).send();
    let [trace, _, flags] = sent(&upstream);
    assert_ne!(trace, TRACE);
    assert_eq!(flags, "00");
}
