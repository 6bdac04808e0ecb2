//! `portcullis convert`: what comes out passes `check`, what is left out is said, and where nginx
//! is the source, both answer alike.

mod beside_nginx;
mod closed_kong_traefik;
mod nginx;

use std::path::Path;

use crate::support::{CertificateAuthority, Client, Folder, Gateway, Refused, Upstream, run};

/// The examples, by whose they are and their files in `tests/it/convert/`, with the exit status of
/// their conversion. What is said of each is in the file beside it that ends in `.said`, and is
/// written anew by `UPDATE_CONVERTED=1`.
const EXAMPLES: [(&str, &str, i32); 18] = [
    ("nginx", "spa.conf", 1),
    ("nginx", "tls.conf", 1),
    ("nginx", "balanced.conf", 0),
    ("nginx", "limits.conf", 1),
    ("nginx", "legacy.conf", 1),
    ("nginx", "certbot.conf", 1),
    ("kong", "shop.yml", 0),
    ("kong", "limited.yml", 1),
    ("kong", "keys.yml", 1),
    ("kong", "balanced.json", 1),
    ("kong", "transformed.yml", 1),
    ("kong", "dumped.yml", 1),
    ("traefik", "app.yml", 0),
    ("traefik", "canary.toml", 0),
    ("traefik", "guarded.yml", 1),
    ("traefik", "hardened.yml", 1),
    ("traefik", "paths.yml", 1),
    ("traefik", "production.yml", 1),
];

/// Where an example lies.
fn example(kind: &str, file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/convert").join(kind).join(file)
}

/// Converts a text that lies in this folder under this name.
fn convert(folder: &Folder, kind: &str, file: &str) -> Refused {
    run(folder, &["convert", kind, file])
}

/// A folder with the files that examples name.
fn stocked() -> Folder {
    let folder = Folder::new();
    let pair = CertificateAuthority::new().issue(&[
        "shop.example.com",
        "www.shop.example.com",
        "www.example.com",
        "api.example.com",
        "localhost",
    ]);
    folder.write("site.pem", &pair.cert);
    folder.write("site.key", &pair.key);
    folder.write("mime.types", "types { text/html html; }");
    folder
}

#[test]
fn every_example_passes_check_and_says_what_it_leaves_out() {
    let update = std::env::var_os("UPDATE_CONVERTED").is_some();
    let mut wrong = Vec::new();
    for (kind, file, status) in EXAMPLES {
        let folder = stocked();
        let path = example(kind, file);
        folder.write(file, std::fs::read(&path).unwrap());
        let converted = convert(&folder, kind, file);
        folder.write("gateway.toml", &converted.stdout);
        let checked = run(&folder, &["check", "--config", "gateway.toml"]);
        let fine = (Some(status), Some(0));
        if (converted.code, checked.code) != fine {
            wrong.push(format!(
                "{file}: {:?}\n{}\n{}\n{}",
                (converted.code, checked.code),
                checked.stderr,
                converted.stderr,
                converted.stdout
            ));
        }
        // What is said is in the file, too.
        for line in converted.stderr.lines().skip(1).filter(|line| !line.starts_with(' ')) {
            let begin = line.split(": ").next().unwrap_or_default();
            assert!(converted.stdout.contains(&format!("# - {begin}: ")), "{line}");
        }
        let said = path.with_extension("said");
        if update {
            std::fs::write(&said, &converted.stderr).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&said).unwrap_or_default(), converted.stderr, "{file}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}

#[test]
fn what_cannot_be_used_is_told_with_its_line_and_what_to_do() {
    let folder = Folder::new();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs += &format!("a{level}: &a{level} [{inner}]\n");
    }
    for (kind, file, text, expected) in [
        (
            "nginx",
            "a.conf",
            "http {\n  server {\n",
            "a.conf:2: the block of server is never closed",
        ),
        ("nginx", "b.conf", "events {}\n", "b.conf:1: no server is in it"),
        ("kong", "c.yml", "services: [\n", "c.yml:"),
        ("kong", "d.json", "{\"a\": 1}", "d.json:1: neither services nor routes"),
        ("kong", "e.yml", &laughs, "counted with its aliases"),
        ("traefik", "f.toml", "a = 1\nb = \n", "f.toml:2: is no TOML"),
        ("traefik", "g.yml", "http: {}\n", "g.yml:1: no http.routers"),
    ] {
        folder.write(file, text);
        let refused = convert(&folder, kind, file);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{file}");
        assert!(refused.stderr.contains(expected), "{file}: {}", refused.stderr);
        assert!(refused.stderr.contains("help: "), "{file}: {}", refused.stderr);
    }
    let refused = convert(&folder, "nginx", "missing.conf");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("missing.conf: cannot read it"), "{}", refused.stderr);
}

#[test]
fn what_is_included_belongs_to_it_and_what_is_not_there_is_said() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    folder.write("nginx.conf", "http {\n  include conf.d/*.conf;\n  include missing.conf;\n}\n");
    folder.write(
        "conf.d/b.conf",
        "server {\n  listen 81;\n  location / {\n    odd on;\n    \
        proxy_pass http://10.0.0.1;\n  }\n}\n",
    );
    folder.write("conf.d/ignored.bak", "}");
    let converted = convert(&folder, "nginx", "nginx.conf");
    assert_eq!(converted.code, Some(1));
    assert!(
        converted.stdout.contains("servers = [\"http://10.0.0.1:80\"]"),
        "{}",
        converted.stdout
    );
    for expected in ["nginx.conf:3: include missing.conf", "conf.d/b.conf:4: odd on"] {
        assert!(converted.stderr.contains(expected), "{}", converted.stderr);
    }
}

/// What guards a place in the source and is not carried over leaves it closed, not open.
#[test]
fn what_cannot_be_guarded_is_closed() {
    let folder = Folder::new();
    for guard in ["auth_basic members;", "auth_request /x;", "auth_jwt realm;", "deny all;"] {
        let location = format!("location /in/ {{ {guard} proxy_pass http://10.0.0.1; }}");
        folder.write("nginx.conf", format!("server {{ {location} }}"));
        let converted = convert(&folder, "nginx", "nginx.conf");
        let (_, route) = converted.stdout.split_once("path = \"/in/*\"").expect("a route");
        let route = route.split("\n[").next().unwrap_or_default();
        assert!(route.contains("respond = { status = 403 }"), "{guard}: {route}");
    }
    for (kind, file, name) in
        [("kong", "transformed.yml", "login"), ("traefik", "guarded.yml", "dashboard")]
    {
        folder.write(file, std::fs::read(example(kind, file)).unwrap());
        let converted = convert(&folder, kind, file);
        let (_, route) = converted.stdout.split_once(&format!("[routes.{name}]")).expect("a route");
        let route = route.split("\n[").next().unwrap_or_default();
        assert!(route.contains("respond = { status = 403 }"), "{file}: {route}");
    }
}

/// What nginx refuses the gateway refuses, too: the servers, the host and the path of a request.
/// `PASS` is a `proxy_pass` to the upstream, `OPEN` a location for everything else.
const CLOSED: &[(&str, &str, &str)] = &[
    ("server { location ~ ^/(admin|ops)/ { deny all; } OPEN }", "a.test", "/ops/x"),
    (
        "server { location ~ ^/adm { return 403; } location /adm/api/ { PASS } }",
        "a.test",
        "/adm/api/x",
    ),
    ("server { location ~ ^/a/ { deny all; } location ~ ^/a/b/ { PASS } }", "a.test", "/a/b/c"),
    ("server { location / { if ($http_x = y) { return 403; } PASS } }", "a.test", "/x"),
    ("server { if ($bad) { return 444; } OPEN }", "a.test", "/x"),
    ("server { location / { if ($x) { return 403; } return 200 secret; } }", "a.test", "/x"),
    ("server { location / { SecRulesEnabled; PASS } }", "a.test", "/x"),
    ("server { location / { valid_referers none; PASS } }", "a.test", "/x"),
    ("server { location / { my_oauth_check on; PASS } }", "a.test", "/x"),
    ("server { location / { include guards.conf; PASS } }", "a.test", "/x"),
    ("server { include guards/*/all.conf; OPEN }", "a.test", "/x"),
    (
        "server { rewrite ^/old/(.*)$ /new/$1 last; location /new/ { deny all; PASS } OPEN }",
        "a.test",
        "/old/x",
    ),
    (
        "server { location /app/ { rewrite ^/(.*)$ /v1/$1 break; PASS } location / { deny all; } }",
        "a.test",
        "/x",
    ),
    (
        "server { set_real_ip_from 10.0.0.0/8; real_ip_header X-Real-IP; \
         location / { allow 127.0.0.0/8; deny all; PASS } }",
        "a.test",
        "/x",
    ),
    ("server { location / { satisfy any; allow all; auth_basic x; PASS } }", "a.test", "/x"),
    (
        "server { listen 80; OPEN } server { listen 127.0.0.1:8081; server_name b.test; OPEN }",
        "b.test",
        "/x",
    ),
    (
        "server { listen 127.0.0.1:8081; OPEN } \
         server { server_name b.test; location /b/ { PASS } }",
        "a.test",
        "/x",
    ),
];

#[test]
fn what_was_closed_stays_closed() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let pass = format!("proxy_pass http://{};", upstream.address());
    for (source, host, path) in CLOSED {
        let folder = Folder::new();
        let text = source.replace("OPEN", "location / { PASS }").replace("PASS", &pass);
        folder.write("nginx.conf", text);
        let converted = convert(&folder, "nginx", "nginx.conf");
        let text = converted
            .stdout
            .replace(", \"127.0.0.1:8081\"", "")
            .replace("\"127.0.0.1:8081\", ", "")
            .replace("0.0.0.0:80", "127.0.0.1:0")
            .replace("127.0.0.1:9901", "127.0.0.1:0");
        let gateway = Gateway::start_in(folder, &text);
        let reply = Client::get(gateway.public, path).header("Host", *host).send();
        assert!(matches!(reply.status, 403 | 404), "{source}: {}\n{text}", reply.status);
        assert_eq!(upstream.seen(), 0, "{source}");
    }
}

/// An expression that no pattern says must not close the whole site: what it refuses is said first.
#[test]
fn an_expression_that_cannot_be_written_closes_no_site() {
    let folder = Folder::new();
    let pass = "proxy_pass http://10.0.0.1;";
    for (guarded, said) in [
        (r"location ~ /\.  { deny all; }", r"location ~ /\."),
        (r"location ~ \.php$ { deny all; }", r"location ~ \.php$"),
        (r"location ~ \.php$ { auth_basic x; }", r"location ~ \.php$"),
    ] {
        folder.write("nginx.conf", format!("server {{ {guarded} location / {{ {pass} }} }}"));
        let converted = convert(&folder, "nginx", "nginx.conf");
        assert_eq!(converted.code, Some(1), "{guarded}");
        assert!(!converted.stdout.contains("status = 403"), "{guarded}: {}", converted.stdout);
        let mut lines = converted.stderr.lines().skip(1);
        let first = lines.next().unwrap_or_default();
        let expected = format!("open now: {said}: no pattern says this; location / has its paths");
        assert!(first.contains(&expected), "{guarded}: {}", converted.stderr);
        assert_eq!(lines.next(), Some("    help: have the upstream refuse them"), "{guarded}");
    }
    // What lies wholly where the expression begins stays closed.
    let within = r"location ~ ^/admin/.*\.php$ { deny all; } location /admin/";
    folder
        .write("nginx.conf", format!("server {{ {within} {{ {pass} }} location / {{ {pass} }} }}"));
    let converted = convert(&folder, "nginx", "nginx.conf").stdout;
    let route = |path: &str| {
        let (_, route) = converted.split_once(&format!("path = \"{path}\"")).expect("a route");
        route.split("\n[").next().unwrap_or_default().to_owned()
    };
    assert!(route("/admin/*").contains("status = 403"), "{converted}");
    assert!(!route("/*").contains("status = 403"), "{converted}");
    // Where nothing else has its paths, what has them is closed: nothing opens by being converted.
    for within in [r"^/admin/.*\.php$", "^/admin/?.*", "^/admin/[0-9]+$"] {
        let text =
            format!("server {{ location ~ {within} {{ deny all; }} location / {{ {pass} }} }}");
        folder.write("nginx.conf", text);
        let converted = convert(&folder, "nginx", "nginx.conf").stdout;
        assert!(converted.contains("status = 403"), "{within}: {converted}");
    }
}

#[test]
fn what_is_closed_where_it_goes_is_not_said_to_be_open() {
    let folder = Folder::new();
    let closed = "location / { auth_request /x; proxy_pass http://a; }";
    let half = "location / { allow 10.0.0.0/8; deny all; auth_basic x; proxy_pass http://a; }";
    for others in [closed, half] {
        let text = format!("server {{ location /secret {{ deny all; }} {others} }}");
        folder.write("nginx.conf", text);
        let said = convert(&folder, "nginx", "nginx.conf").stderr;
        assert!(!said.contains("open now"), "{said}");
    }
}

#[test]
fn calls_of_grpc_go_to_an_upstream_that_speaks_it() {
    let folder = Folder::new();
    let block = "server { listen 80 http2; location /shop.Products/ { grpc_pass PASS; } }";
    for (pass, server) in [
        ("grpc://10.0.0.1:50051", "http://10.0.0.1:50051"),
        ("grpcs://10.0.0.1:50051", "https://10.0.0.1:50051"),
        ("10.0.0.1:50051", "http://10.0.0.1:50051"),
    ] {
        folder.write("nginx.conf", block.replace("PASS", pass));
        let converted = convert(&folder, "nginx", "nginx.conf");
        let (said, text) = (&converted.stderr, &converted.stdout);
        assert!(!said.contains("grpc_pass") && !said.contains("files"), "{said}");
        for line in [&*format!("servers = [\"{server}\"]"), "protocol = \"h2\"", "grpc = {"] {
            assert!(text.contains(line), "{pass}: {line} is not in {text}");
        }
        folder.write("gateway.toml", text);
        let checked = run(&folder, &["check"]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
    // What cannot go anywhere is named for what it is.
    for (handler, expected) in [
        ("grpc_pass $where;", "grpc_pass $where: it is made of variables"),
        ("js_content main.hello;", "js_content main.hello: programs do not run here"),
        ("fastcgi_pass 127.0.0.1:9000;", "upstreams speak HTTP here"),
    ] {
        folder.write("nginx.conf", format!("server {{ location / {{ {handler} }} }}"));
        let said = convert(&folder, "nginx", "nginx.conf").stderr;
        assert!(said.contains(expected) && !said.contains("serves no files"), "{said}");
    }
}

#[test]
fn certificates_are_found_from_nginxs_folder_and_the_first_server_has_unknown_names() {
    let folder = stocked();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    for name in ["site.pem", "site.key"] {
        std::fs::rename(folder.path().join(name), folder.path().join("etc").join(name)).unwrap();
    }
    let server = |more: &str| {
        format!(
            "server {{ listen 443 ssl{more}; ssl_certificate site.pem; ssl_certificate_key \
             site.key; location / {{ proxy_pass http://10.0.0.1; }} }}"
        )
    };
    folder.write("etc/nginx.conf", server(""));
    let converted = convert(&folder, "nginx", "etc/nginx.conf").stdout;
    let folder_of = folder.path().canonicalize().unwrap();
    let is_there = |name: &str| {
        let whole = folder.path().join("etc").join(name);
        let known = [whole.clone(), folder_of.join("etc").join(name)];
        known.iter().any(|it| converted.contains(&format!("\"{}\"", it.display())))
    };
    assert!(is_there("site.pem") && is_there("site.key"), "{converted}");
    assert!(!converted.contains("put the files there"), "{converted}");
    assert!(converted.contains("default = true"), "{converted}");
    // The gateway's own file may lie anywhere.
    std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
    folder.write("elsewhere/gateway.toml", &converted);
    let checked = run(&folder, &["check", "--config", "elsewhere/gateway.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let rejects = "server { listen 443 ssl; ssl_reject_handshake on; } ".to_owned() + &server("");
    folder.write("etc/nginx.conf", rejects);
    let converted = convert(&folder, "nginx", "etc/nginx.conf").stdout;
    assert!(!converted.contains("default = true"), "{converted}");
}

/// What cannot stay closed heads the list.
#[test]
fn what_is_open_now_is_said_first() {
    let folder = Folder::new();
    for (guarded, expected) in [
        ("location /secret { deny all; }", "open now: /secret.php and the like"),
        ("location ~* ^/secret/ { deny all; }", "open now: /secret/ in capital letters"),
        ("location /secret { auth_basic x; }", "open now: /secret.php and the like"),
        ("location /secret { allow 10.0.0.0/8; deny all; }", "open now: /secret.php and the like"),
    ] {
        let text = format!("server {{ {guarded} location / {{ odd x; proxy_pass http://a; }} }}");
        folder.write("nginx.conf", text);
        let converted = convert(&folder, "nginx", "nginx.conf");
        assert_eq!(converted.code, Some(1), "{guarded}");
        let second = converted.stderr.lines().nth(1).unwrap_or_default();
        assert!(second.contains(expected), "{}", converted.stderr);
    }
}

#[test]
fn hosts_that_cannot_be_written_are_said_first_where_their_server_guards() {
    let folder = Folder::new();
    let open = "location / { proxy_pass http://a; }";
    for (guard, is_first) in [("deny all;", true), ("auth_basic x;", true), ("", false)] {
        let text = format!("server {{ {open} }} server {{ server_name ~^adm; {guard} {open} }}");
        folder.write("nginx.conf", text);
        let said = convert(&folder, "nginx", "nginx.conf").stderr;
        let second = said.lines().nth(1).unwrap_or_default();
        assert_eq!(second.contains("open now: hosts that cannot"), is_first, "{said}");
    }
}

/// What the source told servers of callers a client must not tell them itself.
#[test]
fn fields_that_cannot_be_written_are_taken_away() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let folder = Folder::new();
    folder.write(
        "nginx.conf",
        format!(
            "server {{ location / {{ proxy_set_header X-User $remote_user; {} }} }}",
            format_args!("proxy_pass http://{};", upstream.address())
        ),
    );
    let converted = convert(&folder, "nginx", "nginx.conf");
    assert!(converted.stderr.contains("the field is taken away"), "{}", converted.stderr);
    let text = converted
        .stdout
        .replace("0.0.0.0:80", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0");
    let gateway = Gateway::start_in(folder, &text);
    let reply = Client::get(gateway.public, "/x").header("X-User", "root").send();
    assert_eq!(reply.status, 200);
    assert_eq!(upstream.recorded()[0].header("x-user"), None);
}

/// Kong tells servers who a consumer is, and nobody else can.
#[test]
fn fields_of_consumers_are_taken_away() {
    let folder = Folder::new();
    folder.write(
        "kong.yml",
        "services: [ { name: a, url: 'http://a', routes: [ { name: a, paths: [/] } ] } ]\n\
         plugins: [ { name: key-auth } ]\n",
    );
    let converted = convert(&folder, "kong", "kong.yml");
    assert!(converted.stdout.contains("\"x-consumer-username\""), "{}", converted.stdout);
}

/// Whoever is kept out by an entry of the list knows which status it is.
#[test]
fn an_entry_of_what_is_closed_says_its_status() {
    let folder = Folder::new();
    for guard in ["auth_basic x", "auth_request /x", "limit_except GET { deny all; }", "odd_auth x"]
    {
        let guard = if guard.ends_with('}') { guard.to_owned() } else { format!("{guard};") };
        let text = format!("server {{ location / {{ {guard} proxy_pass http://a; }} }}");
        folder.write("nginx.conf", text);
        let said = convert(&folder, "nginx", "nginx.conf").stderr;
        assert!(said.contains("what it guards answers 403"), "{said}");
    }
    for plugin in ["acl", "basic-auth", "odd", "jwt"] {
        let text = format!(
            "services: [ {{ name: a, url: 'http://a', routes: [ {{ name: a, paths: [/] }} ] }} ]\n\
             plugins: [ {{ name: {plugin} }} ]\n"
        );
        folder.write("kong.yml", text);
        let said = convert(&folder, "kong", "kong.yml").stderr;
        assert!(said.contains("answer 403"), "{plugin}: {said}");
    }
    for middleware in ["basicAuth", "forwardAuth", "odd"] {
        let text = format!(
            "http: {{ routers: {{ a: {{ rule: 'PathPrefix(`/`)', service: a, middlewares: [m] }} \
             }}, services: {{ a: {{ loadBalancer: {{ servers: [ {{ url: 'http://a' }} ] }} }} }}, \
             middlewares: {{ m: {{ {middleware}: {{ a: b }} }} }} }}"
        );
        folder.write("traefik.yml", text);
        let said = convert(&folder, "traefik", "traefik.yml").stderr;
        assert!(said.contains("answer 403"), "{middleware}: {said}");
    }
}
