//! `portcullis status`: what it prints, and its exit status.

use serde_json::Value;

use super::start;
use crate::support::{Folder, Gateway, Redis, Refused, eventually, run};

fn status(gateway: &Gateway, more: &[&str]) -> Refused {
    let url = format!("http://{}", gateway.admin);
    run(&Folder::new(), &[&["status", "--admin", &url], more].concat())
}

#[test]
fn one_screen_says_whether_it_is_well_and_what_to_do() {
    let redis = Redis::start();
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n", redis.url()));
    let well = status(&gateway, &[]);
    assert_eq!((well.code, &*well.stderr), (Some(0), ""), "{}", well.stdout);
    assert!(well.stdout.contains(&format!("portcullis {}", env!("CARGO_PKG_VERSION"))));
    let lines = ["● good   no findings", "as in the file", "shop      ● 1 of 1 in", "req/s "];
    for line in lines {
        assert!(well.stdout.contains(line), "{line:?} is not in\n{}", well.stdout);
    }
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    eventually("it is poor", || status(&gateway, &[]).code == Some(1));
    let poor = status(&gateway, &[]).stdout;
    let expected = "✖ poor   The main store: maxmemory-policy is allkeys-lru: keys go when memory \
                    is full. (redis_evicts_main)\n         do: CONFIG SET maxmemory-policy \
                    noeviction\n";
    assert!(poor.contains(expected), "{poor}");
    let json = status(&gateway, &["--json"]);
    let told: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.code, &told["findings"][0]["id"]), (Some(1), &"redis_evicts_main".into()));
}

#[test]
fn what_is_muted_does_not_change_the_exit_status() {
    let redis = Redis::start();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]), "OK");
    let mute = "[admin]\nmute = [\"redis_evicts_main\"]\n";
    let (_upstream, gateway) = start(&format!("{mute}[store]\nurl = \"{}\"\n", redis.url()));
    eventually("it is known", || status(&gateway, &[]).stdout.contains("muted: redis_evicts_main"));
    let ran = status(&gateway, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("● good   no findings"), "{}", ran.stdout);
}

#[test]
fn its_exit_status_says_why_there_is_no_screen() {
    let (_upstream, gateway) = start("[admin]\ntoken = \"operator-0123456789\"\n");
    assert_eq!(status(&gateway, &[]).code, Some(1), "it is refused without the token");
    assert_eq!(run(&Folder::new(), &["status", "--admin", "https://a"]).code, Some(2));
    assert_eq!(run(&Folder::new(), &["status", "--admin", "http://127.0.0.1:1"]).code, Some(3));
    let folder = Folder::new();
    folder.write("token", "operator-0123456789");
    let url = format!("http://{}", gateway.admin);
    let ran = run(&folder, &["status", "--admin", &url, "--admin-token", "file:token"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_store_that_does_not_let_the_gateway_in_is_said_as_the_log_says_it() {
    let redis = Redis::start();
    let own = "username = \"gateway\"\npassword = \"wrong-horse\"\n";
    let (_upstream, gateway) = start(&format!("[store]\nurl = \"{}\"\n{own}", redis.url()));
    eventually("it is known", || status(&gateway, &[]).stdout.contains("WRONGPASS"));
    let said = status(&gateway, &[]).stdout;
    let expected = format!(
        "✖ poor   The main store does not answer: Redis does not know this user or password \
         (WRONGPASS) ({}). (store_away_main)\n         do: Correct store.username and \
         store.password, or ACL SETUSER in Redis.\n",
        redis.address()
    );
    assert!(said.contains(&expected), "{said}");
    let user = ["ACL", "SETUSER", "gateway", "on", ">wrong-horse", "~*", "&*", "+@all"];
    assert_eq!(redis.cli(&user), "OK");
    eventually("it is over", || !status(&gateway, &[]).stdout.contains("does not answer"));
}
