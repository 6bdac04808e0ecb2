//! The gateway's name in `Via`, and requests that go round in a circle.

use crate::support::{Client, Gateway, Upstream, eventually, response};

fn config(servers: &str, via: &str) -> String {
    format!(
        "[server]\n{via}\n[upstreams.shop]\nservers = [\"{servers}\"]\n\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n"
    )
}

#[test]
fn upstreams_are_told_of_the_gateway_by_choice() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    for (via, expected) in
        [("", &["1.1 before"][..]), ("via = \"edge\"", &["1.1 before", "1.1 edge"])]
    {
        let gateway = Gateway::start(&config(&upstream.url(), via));
        upstream.forget();
        let answer = Client::get(gateway.public, "/").header("Via", "1.1 before").send();
        assert_eq!((answer.status, answer.header("via")), (200, None));
        assert_eq!(upstream.only().headers_named("via"), expected, "{via}");
        let answer = Client::get(gateway.public, "/").header("Via", "1.0 x, 1.1 Edge").send();
        assert_eq!(answer.status, if via.is_empty() { 200 } else { 508 }, "{via}");
    }
}

#[test]
fn a_request_that_comes_back_is_refused() {
    let upstream = Upstream::replying(response("200 OK", "ok"));
    let gateway = Gateway::start(&config(&upstream.url(), "via = \"edge\""));
    let itself = format!("http://{}", gateway.public);
    gateway.rewrite(&config(&itself, "via = \"edge\""));
    gateway.signal("HUP");
    eventually("the circle is found", || {
        let answer = Client::get(gateway.public, "/").send();
        answer.status == 508 && answer.text().contains("loop_detected")
    });
    eventually("a line for each time that it has passed", || {
        let lines = gateway.access_lines();
        let found = lines.iter().filter(|line| line["reason"] == "loop_detected").count();
        found >= 1 && lines.iter().filter(|line| line["status"] == 508).count() == 2 * found
    });
}
