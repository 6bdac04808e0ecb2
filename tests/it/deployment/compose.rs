//! `compose.yaml`: it follows the specification, names only what is there, opens nothing to the
//! network, and what it starts works together.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{at, free_port, from_root, list_at, output, read, text, text_at};
use crate::support::{BINARY, Client, Folder, Gateway, eventually, run};

/// Says what of a file is not as a JSON schema wants it.
const VALIDATE: &str = "
import json, sys, jsonschema, yaml
schema, compose = json.load(open(sys.argv[1])), yaml.safe_load(open(sys.argv[2]))
# This draft is what the schema names in a spelling of its own.
for error in jsonschema.Draft7Validator(schema).iter_errors(compose):
    print(list(error.path), error.message)
";
const CONFIG: &str = "deploy/compose/gateway/gateway.toml";

fn compose() -> Value {
    read("compose.yaml")[0].clone()
}

/// The services, by their names.
fn services(compose: &Value) -> Vec<(&String, &Value)> {
    at(compose, "/services").as_object().unwrap().iter().collect()
}

#[test]
fn the_compose_file_follows_the_specification() {
    let schema = from_root("target/compose/compose_spec.json");
    let schema_of = |file: &Path| {
        let mut command = Command::new("python3");
        output(command.args(["-c", VALIDATE]).arg(&schema).arg(file))
    };
    assert_eq!(schema_of(&from_root("compose.yaml")), "");
    let folder = Folder::new();
    let misspelt = text("compose.yaml").replace("stop_grace_period", "stop_grace");
    assert!(schema_of(&folder.write("compose.yaml", misspelt)).contains("'stop_grace'"));
}

#[test]
fn compose_pins_images_and_opens_only_loopback() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let image = text_at(service, "/image");
        let is_own = image == "portcullis" && service["build"]["context"] == ".";
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(is_own || tag.contains('.'), "{name}: {image} is another one tomorrow");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        let options = &service["security_opt"];
        assert_eq!(options[0], "no-new-privileges:true", "{name}");
    }
    let gateway = at(&compose, "/services/gateway");
    assert_eq!((&gateway["read_only"], &gateway["cap_drop"][0]), (&true.into(), &"ALL".into()));
    assert_eq!(at(&compose, "/networks/back/internal"), true);
}

#[test]
fn what_compose_mounts_is_there() {
    let compose = compose();
    let folder = Folder::new();
    make_secrets(folder.path());
    let mut mounted = 0;
    for (name, service) in services(&compose) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there = match source.strip_prefix("./") {
                Some(path) => from_root(path).exists(),
                None => compose["volumes"].get(source).is_some(),
            };
            assert!(is_there, "{name}: {volume}");
            mounted += 1;
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let pointer = format!("/secrets/{}/file", secret.as_str().unwrap());
            let file = text_at(&compose, &pointer).strip_prefix("./deploy/compose/secrets/");
            assert!(folder.path().join(file.unwrap()).is_file(), "{name}: {secret}");
            mounted += 1;
        }
    }
    assert!(mounted > 10, "only {mounted}");
    // The ports of the configuration are those that compose publishes and asks.
    let config = read(CONFIG);
    let ports = [text_at(&config, "/server/listen/0"), text_at(&config, "/admin/listen")];
    for (listen, published) in ports.iter().zip(list_at(&compose, "/services/gateway/ports")) {
        let port = listen.rsplit(':').next().unwrap();
        assert!(published.as_str().unwrap().ends_with(&format!(":{port}")), "{published}");
    }
    let scraped = text("deploy/compose/prometheus.yml");
    assert!(scraped.contains("\"gateway:9901\"") && scraped.contains("job_name: portcullis"));
}

fn make_secrets(folder: &Path) {
    output(Command::new(from_root("deploy/compose/make-secrets")).arg(folder));
}

fn secret(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn secrets_are_random_and_stay() {
    let folders = [Folder::new(), Folder::new()];
    for folder in &folders {
        make_secrets(folder.path());
    }
    let names = ["admin_token", "redis_password", "grafana_password", "redis_users"];
    let all = || folders.iter().flat_map(|folder| names.map(|name| secret(folder.path(), name)));
    let made: Vec<String> = all().collect();
    let mut different = made.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), made.len(), "two are the same");
    assert!(made.iter().all(|secret| secret.len() >= 64), "{made:?}");
    make_secrets(folders[0].path());
    assert_eq!(all().collect::<Vec<_>>(), made, "they changed");
    let password = secret(folders[0].path(), "redis_password");
    assert!(!secret(folders[0].path(), "redis_users").contains(&password));
}

#[test]
fn redis_of_compose_has_the_rights_that_the_gateway_asks_for() {
    let folder = Folder::new();
    make_secrets(folder.path());
    folder.write("gateway.toml", text(CONFIG).replace("file:/run/secrets/", "file:"));
    let printed = run(&folder, &["acl", "--format", "file"]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let users = text("deploy/compose/users.acl");
    assert!(users.ends_with(&format!("user default off\n{}", printed.stdout)), "{users}");
}

#[test]
fn prometheus_of_compose_can_be_configured_so() {
    let folder = Folder::new();
    folder.write("prometheus.yml", text("deploy/compose/prometheus.yml"));
    folder.write("portcullis.rules.yml", text("deploy/prometheus/portcullis.rules.yml"));
    let unpacked = from_root("target/prometheus/usr/bin/promtool");
    let promtool = if unpacked.is_file() { unpacked } else { "promtool".into() };
    let mut command = Command::new(promtool);
    output(command.args(["check", "config", "prometheus.yml"]).current_dir(folder.path()));
}

/// What compose starts beside the gateway; it ends with the test.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Redis as `redis.conf` has it, but for the places of its files.
fn start_redis(folder: &Folder, port: u16) -> Beside {
    let config = text("deploy/compose/redis.conf").replace("dir /data", "dir .");
    let config = config.replace("/run/secrets/redis_users", "redis_users");
    let config = folder.write("redis.conf", config);
    let mut command = Command::new("redis-server");
    command.arg(config).args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.current_dir(folder.path()).stdout(Stdio::null());
    let redis = Beside(command.spawn().expect("redis-server starts"));
    // The health check of compose.yaml.
    let checks = compose();
    let check = text_at(&checks, "/services/redis/healthcheck/test/1");
    let check = check.replace("redis-cli", &format!("redis-cli -p {port}"));
    eventually("Redis is healthy", || {
        Command::new("sh").args(["-c", &check]).status().is_ok_and(|status| status.success())
    });
    redis
}

/// The sample application, by the command of `compose.yaml`, and where it listens.
fn start_app() -> (Beside, String) {
    let compose = compose();
    let words = list_at(&compose, "/services/app/command").iter();
    let words = words.map(|word| word.as_str().unwrap().replace("0.0.0.0:3000", "127.0.0.1:0"));
    let mut child = Command::new(BINARY).args(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut said).unwrap();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split(". ").next());
    (Beside(child), address.unwrap_or_else(|| panic!("where? {said:?}")).to_owned())
}

#[test]
fn what_compose_starts_works_together() {
    let folder = Folder::new();
    make_secrets(folder.path());
    let token = secret(folder.path(), "admin_token");
    let port = free_port();
    let redis = start_redis(&folder, port);
    let (app, address) = start_app();
    let config = text(CONFIG)
        .replace("file:/run/secrets/", "file:")
        .replace("redis:6379", &format!("127.0.0.1:{port}"))
        .replace("app:3000", &address)
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("0.0.0.0:9901", "127.0.0.1:0")
        .replace("[store]\n", "[store]\ntimeout = \"10s\"\n");
    let gateway = Gateway::start_in(folder, &config);
    let get = |path: &str| Client::get(gateway.public, path).send();
    eventually("Redis is asked", || {
        Client::get(gateway.admin, "/readyz").send().text().contains(": healthy")
    });
    let first = get("/products");
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.text().contains("teapot"), "{}", first.text());
    eventually("it is stored", || {
        get("/products").header("cache-status").is_some_and(|status| status.contains("; hit"))
    });
    // Redis has judged them: its user may do all that was asked.
    eventually("there are lines", || gateway.access_lines().len() >= 2);
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|line| line.get("degraded").is_none()), "{lines:#?}");
    // Who operates shows the token, and nobody else does.
    let authorized = Client::get(gateway.admin, "/v1/status");
    let authorized = authorized.header("authorization", format!("Bearer {token}")).send();
    assert_eq!(authorized.status, 200, "{}", authorized.text());
    assert_eq!(Client::get(gateway.admin, "/v1/status").send().status, 401);
    // Nobody else may ask Redis.
    let url = format!("redis://127.0.0.1:{port}/0");
    let mut command = Command::new("redis-cli");
    assert!(output(command.args(["-u", &url, "GET", "x"])).contains("NOAUTH"));
    drop((redis, app));
}

#[test]
fn the_sample_application_ends_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let (mut app, address) = start_app();
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(Client::get(address, "/products").send().status, 200);
        crate::support::kill(signal, app.0.id());
        let mut ended = None;
        eventually(&format!("{signal} ends it"), || {
            ended = app.0.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(0), "{signal}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&Folder::new(), &["demo", "--api-only", "--listen", &address]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the sample API cannot listen on"), "{}", refused.stderr);
    let odd = run(&Folder::new(), &["demo", "--api-only", "--store", "memory:"]);
    assert_eq!(odd.code, Some(2), "{}", odd.stderr);
}

#[test]
fn grafana_of_compose_shows_the_dashboard_that_is_mounted() {
    let compose = compose();
    let provided = read("deploy/compose/grafana/dashboards/portcullis.yaml");
    let folder = text_at(&provided, "/0/providers/0/options/path");
    let mounts = list_at(&compose, "/services/grafana/volumes").iter();
    let targets: Vec<PathBuf> =
        mounts.map(|mount| mount.as_str().unwrap().split(':').nth(1).unwrap().into()).collect();
    assert!(targets.contains(&Path::new(folder).join("portcullis.json")), "{targets:?}");
    let source = read("deploy/compose/grafana/datasources/prometheus.yaml");
    assert_eq!(text_at(&source, "/0/datasources/0/url"), "http://prometheus:9090");
    // It asks whichever Prometheus is there: what is provisioned is asked no questions.
    let dashboard = text("deploy/grafana/portcullis.json");
    assert!(dashboard.contains("\"uid\": \"${datasource}\"") && !dashboard.contains("__inputs"));
}
