//! Reloads: who waits is answered where he asked, and who comes is answered where it is said now.

use super::{route, upstream};
use crate::support::{Client, Gateway, Nats, Service, eventually, said};

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
