//! Reloads: who waits is answered where he asked, and who comes is answered where it is said now.

use std::io::{Read as _, Write as _};

use super::{route, upstream};
use crate::support::{Client, Exposition, Gateway, Nats, PATIENCE, Service, eventually, said};

#[test]
fn other_servers_take_over_without_a_failed_request() {
    let (former, next) = (Nats::start(), Nats::start());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let slow = Service::with(&former, "orders.slow", move |_, publish| {
        let _ = released.recv();
        publish.send(&said("former"));
    });
    let quick = Service::answering(&former, "orders.quick", |_| vec![said("former")]);
    let _service = Service::answering(&next, "orders.*", |_| vec![said("next")]);
    let config = |nats: &Nats| upstream(nats, "") + &route("/{what}", "orders.{what}");
    let gateway = Gateway::start(&config(&former));
    assert_eq!(Client::get(gateway.public, "/quick").send().text(), "former");
    let public = gateway.public;
    let waiting = std::thread::spawn(move || Client::get(public, "/slow").send());
    eventually("the request waits", || slow.count() == 1);
    gateway.rewrite(&config(&next));
    gateway.signal("HUP");
    eventually("the next server answers", || {
        let reply = Client::get(gateway.public, "/quick").send();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text() == "next"
    });
    drop(release);
    let reply = waiting.join().expect("a reply");
    assert_eq!((reply.status, &*reply.text()), (200, "former"));
    // Nothing of the former settings goes on.
    drop((slow, quick));
    eventually("it has left", || former.clients() == 0);
}

/// Its body is still on its way when the servers change.
#[test]
fn who_came_before_a_reload_is_answered_by_the_connection_that_was() {
    let (former, next, spare) = (Nats::start(), Nats::start(), Nats::start());
    let _slow = Service::answering(&former, "orders.put", |asked| vec![said(&asked.payload)]);
    let quick = Service::answering(&next, "orders.put", |_| vec![said("next")]);
    let config = |nats: &Nats| upstream(nats, "") + &route("/*", "orders.put");
    let unused = upstream(&spare, "").replace("orders]", "spare]")
        + &route("/spare", "spare").replace("orders", "spare");
    let gateway = Gateway::start(&(config(&former) + &unused));
    let mut slow = std::net::TcpStream::connect(gateway.public).expect("a connection");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = "PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 6\r\n\
                Connection: close\r\n\r\nfor";
    slow.write_all(head.as_bytes()).expect("a head");
    let busy = || {
        let text = Client::get(gateway.admin, "/metrics").send().text();
        let labels = [("upstream", "orders"), ("server", &*former.url())];
        Exposition::text(&text).value("portcullis_upstream_server_busy", &labels)
    };
    eventually("the request is there", || busy() == Some(1.0));
    gateway.rewrite(&config(&next));
    gateway.signal("HUP");
    eventually("the next server answers", || {
        Client::request(gateway.public, "PUT", "/").body("x").send().text() == "next"
    });
    // Nobody used it: it is given up as soon as any is.
    eventually("a connection that nobody needs has left", || spare.clients() == 0);
    assert_eq!(former.clients(), 2, "the service's, and the one that somebody waits on");
    slow.write_all(b"mer").expect("the rest");
    let mut reply = String::new();
    slow.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("former"), "{reply}");
    assert!(quick.count() > 0);
}

#[test]
fn a_reload_that_says_the_same_keeps_the_connection() {
    let nats = Nats::start();
    let _service = Service::answering(&nats, "orders.get", |_| vec![said("here")]);
    let config = |more: &str| upstream(&nats, more) + &route("/*", "orders.get");
    let gateway = Gateway::start(&config(""));
    assert_eq!(Client::get(gateway.public, "/").send().text(), "here");
    gateway.rewrite(&(config("retry = {}") + "methods = [\"GET\"]\n"));
    gateway.signal("HUP");
    eventually("the reload is in force", || {
        Client::request(gateway.public, "POST", "/").send().status == 405
    });
    assert_eq!(Client::get(gateway.public, "/").send().text(), "here");
    assert_eq!(gateway.stderr().matches(": connected with").count(), 1, "{}", gateway.stderr());
}
