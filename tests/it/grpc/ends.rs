//! What ends a running call from outside, which is its token's end, its revocation at any gateway,
//! the end of its session, or an operator; and what does not.

use h2::{Reason, RecvStream, SendStream};
use http::Response;
use serde_json::{Value, json};

use crate::grpc::line;
use crate::support::grpc_upstream::{Call, GRPC, GrpcClient, OK, Step, message};
use crate::support::{
    AUTH, Act, Gateway, Http2Upstream, Redis, claims, eventually, operate, token,
};

/// Calls below `/quiet.` get no head before they have ended.
fn upstream() -> Http2Upstream {
    Http2Upstream::new(|head| {
        let is_quiet = head.uri().path().starts_with("/quiet.");
        let begin = [GRPC, Step::Data(message(b"one"))];
        let begin = if is_quiet { &[][..] } else { &begin };
        let end = if is_quiet { vec![Step::Rest] } else { vec![Step::Read, OK] };
        Act::Play([begin, &end].concat())
    })
}

fn config(upstream: &Http2Upstream, more: &str) -> String {
    format!(
        "{AUTH}{more}[upstreams.shop]\nservers = [\"{}\"]\nprotocol = \"h2\"\n\
         [routes.mine]\npath = \"/*\"\nupstream = \"shop\"\nauth = \"users\"\n\
         grpc = {{ deadline = \"0s\" }}\n",
        upstream.url()
    )
}

fn begin(client: &mut GrpcClient, path: &str, claims: &Value) -> Call {
    let bearer = format!("Bearer {}", token(claims.clone()));
    client.begin(path, &[("authorization", &bearer)])
}

/// A call of which the upstream has sent a message, and may send more.
async fn open(client: &mut GrpcClient, claims: &Value) -> (SendStream<bytes::Bytes>, Answer) {
    let (upload, mut answer) = begin(client, "/shop.Chat/Talk", claims).head().await;
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"one"));
    (upload, answer)
}

type Answer = Response<RecvStream>;

/// The status in the trailers, and what they say of it.
async fn ended(answer: &mut Answer) -> (String, String) {
    let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
    let text = |name: &str| trailers[name].to_str().unwrap().to_owned();
    (text("grpc-status"), text("grpc-message"))
}

/// Ends it in the client's own time.
async fn assert_open((mut upload, mut answer): (SendStream<bytes::Bytes>, Answer)) {
    upload.send_data(message(b"more"), true).unwrap();
    assert_eq!(answer.body_mut().trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_revokes_ends_calls_at_another() {
    let (redis, upstream) = (Redis::start(), upstream());
    // Nothing here is about deadlines, and the machine may be busy.
    let store =
        format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n", redis.url());
    let config = store + &config(&upstream, "");
    let [here, there] = [Gateway::start(&config), Gateway::start(&config)];
    for gateway in [&here, &there] {
        eventually("revocations are followed", || {
            gateway.stderr().contains("revocations are followed")
        });
    }
    let mut client = GrpcClient::connect(there.public).await;
    let ada = claims("ada");
    let quiet = begin(&mut client, "/quiet.Chat/Talk", &ada);
    let (_upload, mut answer) = open(&mut client, &ada).await;
    let stays = open(&mut client, &claims("bob")).await;
    eventually("all are at the upstream", || upstream.open() == 3);

    let body = json!({ "jti": ada["jti"] }).to_string();
    assert_eq!(operate(&here, "POST", "/v1/revocations", &body).status, 201);
    let told = ("16".to_owned(), "The token was revoked.".to_owned());
    assert_eq!(ended(&mut answer).await, told);
    // There was no head yet.
    let refused = quiet.end().await.unwrap();
    assert_eq!((refused.field("grpc-status"), refused.trailers.is_empty()), ("16", true));
    for number in 0..2 {
        let line = line(&there, number);
        assert_eq!((&line["reason"], &line["grpc_status"]), (&"stream_revoked".into(), &16.into()));
        assert_eq!((&line["subject"], &line["status"]), (&"ada".into(), &200.into()), "{line}");
    }
    eventually("they are cancelled", || {
        upstream.resets() == [Reason::CANCEL] && upstream.open() == 1
    });
    assert_open(stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_its_calls() {
    let upstream = upstream();
    let config = config(&upstream, "").replace("[auth.users]", "[auth.users]\nleeway = \"0s\"");
    let gateway = Gateway::start(&config);
    let mut client = GrpcClient::connect(gateway.public).await;
    let mut brief = claims("ada");
    brief["exp"] = (brief["iat"].as_u64().unwrap() + 3).into();
    let (_upload, mut answer) = open(&mut client, &brief).await;
    let stays = open(&mut client, &claims("ada")).await;
    assert_eq!(ended(&mut answer).await.0, "16");
    assert_eq!(line(&gateway, 0)["reason"], "stream_expired");
    assert_open(stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_ends_its_calls() {
    let upstream = upstream();
    let session = "[session]\nid_from = [\"cookie:sid\"]\nheader = \"x-session\"\n";
    let config = config(&upstream, session).replace("auth = \"users\"", "session = true");
    let gateway = Gateway::start(&config);
    let write = operate(&gateway, "PUT", "/v1/sessions/s1?ttl=1h", "{\"n\": 1}");
    assert_eq!(write.status, 201, "{}", write.text());
    let mut client = GrpcClient::connect(gateway.public).await;
    let call = client.begin("/shop.Chat/Talk", &[("cookie", "sid=s1")]);
    let (_upload, mut answer) = call.head().await;
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message(b"one"));
    assert_eq!(operate(&gateway, "DELETE", "/v1/sessions/s1", "").status, 200);
    assert_eq!(ended(&mut answer).await.0, "16");
    assert_eq!(line(&gateway, 0)["reason"], "stream_session_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_and_end_them() {
    let upstream = upstream();
    let gateway = Gateway::start(&config(&upstream, ""));
    let mut client = GrpcClient::connect(gateway.public).await;
    let (_upload, mut answer) = open(&mut client, &claims("ada")).await;
    let stays = open(&mut client, &claims("bob")).await;
    let list = operate(&gateway, "GET", "/v1/tunnels?sub=ada", "").json();
    assert_eq!((&list["open"], &list["tunnels"][0]["kind"]), (&json!(1), &json!("grpc")), "{list}");
    assert_eq!(operate(&gateway, "DELETE", "/v1/tunnels?sub=ada", "").status, 200);
    assert_eq!(ended(&mut answer).await.0, "7");
    assert_eq!(line(&gateway, 0)["reason"], "closed_by_operator");
    assert_open(stays).await;
    eventually("none is listed", || {
        operate(&gateway, "GET", "/v1/tunnels", "").json()["open"] == json!(0)
    });
}

/// As any other request.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_the_drain_let_them_finish() {
    let upstream = upstream();
    let config = config(&upstream, "");
    let mut gateway = Gateway::start(&config);
    let mut client = GrpcClient::connect(gateway.public).await;
    let reloaded = open(&mut client, &claims("ada")).await;
    let drained = open(&mut client, &claims("ada")).await;
    gateway.rewrite(&config.replace("[routes.mine]", "[routes.other]"));
    gateway.signal("HUP");
    eventually("it is reloaded", || gateway.stderr().contains("reloaded"));
    assert_open(reloaded).await;
    gateway.signal("TERM");
    eventually("it drains", || gateway.stderr().contains("draining"));
    assert_open(drained).await;
    assert!(gateway.wait().success());
}
