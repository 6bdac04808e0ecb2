//! Who the server is, and who the gateway is to it.

use super::{code, route, upstream};
use crate::support::{
    CertificateAuthority, Client, Folder, Gateway, Nats, Service, TlsClient, eventually, said,
};

/// A server that shows its certificate, and wants one of its clients.
fn secure(authority: &CertificateAuthority) -> Nats {
    let folder = Folder::new();
    let server = authority.issue(&["localhost"]);
    folder.write("server.pem", &server.cert);
    folder.write("server.key", &server.key);
    folder.write("ca.pem", &authority.pem);
    let settings = "tls { cert_file: \"server.pem\", key_file: \"server.key\", \
                    ca_file: \"ca.pem\", verify: true }\n";
    Nats::start_in(folder, settings)
}

#[test]
fn both_sides_prove_who_they_are() {
    let authority = CertificateAuthority::new();
    let nats = secure(&authority);
    let own = authority.client("gateway");
    let tls = TlsClient::with(&authority, Some(&own), &[]);
    let _service = Service::over(&nats, Some(&tls), "orders.get", |_, publish| {
        publish.send(&said("here"));
    });
    let folder = Folder::new();
    folder.write("ca.pem", &authority.pem);
    folder.write("gateway.pem", &own.cert);
    folder.write("gateway.key", &own.key);
    let url = format!("tls://localhost:{}", nats.address().port());
    let config = |url: &str, keys: &str| {
        upstream(&nats, "").replace(&nats.url(), url)
            + &format!("[upstreams.orders.tls]\nca_file = \"ca.pem\"\n{keys}\n")
            + &route("/*", "orders.get")
    };
    let keys = "client_cert = \"gateway.pem\"\nclient_key = \"gateway.key\"";
    let gateway = Gateway::start_in(folder, &config(&url, keys));
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*reply.text()), (200, "here"));

    // Without its own certificate, and towards a name that the server does not have.
    let other = url.replace("localhost", "127.0.0.1");
    for (url, keys) in [(&url, ""), (&other, keys)] {
        gateway.rewrite(&config(url, keys).replace("\"10s\"", "\"500ms\""));
        gateway.signal("HUP");
        eventually("it is not believed", || {
            let reply = Client::get(gateway.public, "/").send();
            reply.status == 503 && code(&reply) == "upstream_unreachable"
        });
    }
}

#[test]
fn a_name_and_a_password_or_a_token_let_the_gateway_in() {
    for (server, keys) in [
        (
            "authorization { users: [{ user: gateway, password: pass-7 }, \
             { user: service, password: secret }] }\n",
            "username = \"gateway\"\npassword = \"pass-7\"",
        ),
        ("authorization { token: token-7 }\n", "token = \"token-7\""),
    ] {
        let nats = Nats::start_in(Folder::new(), server);
        let wrong = keys.replace("-7", "-8").to_owned() + "\nconnect_timeout = \"500ms\"";
        let config = |keys: &str| upstream(&nats, keys) + &route("/*", "orders.get");
        let gateway = Gateway::start(&config(&wrong));
        let reply = Client::get(gateway.public, "/").send();
        assert_eq!((reply.status, &*code(&reply)), (503, "upstream_unreachable"));
        let said = gateway.stderr();
        assert!(said.contains("see username, password, token, nkey and creds"), "{said}");
        assert!(!said.contains("-8"), "{said}");
        gateway.rewrite(&config(keys));
        gateway.signal("HUP");
        eventually("it is let in", || {
            let reply = Client::get(gateway.public, "/").send();
            reply.status == 503 && code(&reply) == "upstream_no_responders"
        });
    }
}
