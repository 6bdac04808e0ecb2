//! One problem per mistake: each key, each wrong value, each key that is not built yet.

use super::{read, report};

/// Verifier, limit, upstream and route without a mistake; a test adds one line to one of them.
fn with(table: &str, line: &str) -> String {
    let mut text = String::new();
    for (name, body) in [
        ("[server]", ""),
        ("[server.limits]", ""),
        ("[log]", ""),
        ("[admin]", ""),
        ("[store]", ""),
        ("[store.on_outage]", ""),
        ("[telemetry]", ""),
        ("[telemetry.traces]", ""),
        ("[auth.v]", "algorithms = ['HS256']\nissuer = 'i'\n"),
        ("[session]", ""),
        ("[limits.l]", ""),
        ("[upstreams.u]", ""),
        ("[routes.r]", ""),
    ] {
        if name == table {
            text += &format!("{name}\n{line}\n{body}");
        }
    }
    let has = |key: &str| line.split([' ', '.']).next() == Some(key);
    for (name, key, body) in [
        ("[auth.v]", "secret", "secret = 'x'\n"),
        ("[session]", "id_from", "id_from = ['cookie:sid']\n"),
        ("[limits.l]", "key", "key = ['address']\n"),
        ("[limits.l]", "allow", "allow = ['1/1s']\n"),
        ("[upstreams.u]", "servers", "servers = ['http://a']\n"),
        ("[routes.r]", "path", "path = '/'\n"),
        ("[routes.r]", "upstream", "upstream = 'u'\n"),
    ] {
        let other_key = ["jwks_file", "jwks_url", "public_key_file"].into_iter().any(has);
        let replaced = has(key) || (key == "secret" && other_key);
        if name == table && !replaced {
            text += body;
        }
    }
    text
}

/// Table, line with one mistake in it, part of the problem, part of the remedy.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("[server]", "listen = '0.0.0.0:80'", "must be a list, is a string", "[ … ]"),
    (
        "[server]",
        "listen = [':80']",
        "server.listen[0]: \":80\" is not an address",
        "\"0.0.0.0:80\"",
    ),
    ("[server]", "listen = ['env:UNSET']", "\"UNSET\" is not set", "before the gateway starts"),
    ("[server]", "listen = ['env:SET']", "\"SET\" has no usable value", "0.0.0.0:8080"),
    ("[admin]", "listen = 'env:EMPTY'", "\"EMPTY\" has no usable value", "8080"),
    ("[store]", "url = 'env:SET'", "\"SET\" has no usable value", "redis://"),
    ("[upstreams.u]", "servers = ['env:SET']", "\"SET\" has no usable value", "http://"),
    ("[server]", "listen = []", "is an empty list", "name at least one"),
    ("[server]", "trusted_proxies = ['10/8']", "is not a network", "10.0.0.0/8"),
    ("[server]", "proxy_protocol_from = ['lb']", "is not a network", "10.0.0.0/8"),
    ("[server]", "drain = 30", "must be a string, is an integer", "\"30s\""),
    ("[server]", "drain_delay = 5", "must be a string, is an integer", "\"30s\""),
    ("[server]", "park_after = 1", "must be a string, is an integer", "\"30s\""),
    ("[server]", "park_after = '0s'", "is not a valid duration", "more than zero"),
    ("[server]", "park_after = '99ms'", "out of range", "\"100ms\" to \"1h\""),
    ("[server]", "park_after = '2h'", "out of range", "\"100ms\" to \"1h\""),
    ("[server]", "limit = {}", "unknown key", "did you mean `limits`?"),
    ("[server]", "colour = 'red'", "unknown key", "the keys here are: listen, "),
    ("[server.limits]", "header_bytes = '4KiB'", "out of range", "\"8KiB\" to \"1MiB\""),
    ("[server.limits]", "header_bytes = 2097152", "out of range", "\"8KiB\" to \"1MiB\""),
    ("[server.limits]", "body_bytes = '10MB'", "is not a size", "10MiB"),
    ("[server.limits]", "headers = 0", "out of range", "from 1 to"),
    ("[server.limits]", "headers = '100'", "must be a whole number, is a string", "without quotes"),
    ("[server.limits]", "streams = -1", "out of range", "from 1 to"),
    ("[server.limits]", "idle_timeout = '0s'", "is not a valid duration", "more than zero"),
    ("[server.limits]", "encoded_slash = 'yes'", "must be true or false", "without quotes"),
    ("[log]", "access = 'text'", "\"text\" is not a choice", "\"json\" or \"ecs\""),
    ("[log]", "access_to = ''", "is empty", "write a value"),
    ("[log]", "rotate = { size = '1MiB' }", "in no file", "access_to"),
    ("[log]", "rotate = { size = '1B' }\naccess_to = 'a'", "out of range", "\"1KiB\""),
    ("[log]", "rotate = { keep = 0 }\naccess_to = 'a'", "out of range", "from 1 to 1000"),
    ("[log]", "rotate = '100MiB'\naccess_to = 'a'", "must be a table", "rotate = {"),
    ("[log]", "sample = '1'", "is not a share", "0.25%"),
    ("[log]", "sample = '101%'", "is not a share", "100%"),
    ("[log]", "slow = 1", "must be a string, is an integer", "\"30s\""),
    ("[log]", "query = 'some'", "is not a choice", "\"names\""),
    ("[log]", "client = 'none'", "is not a choice", "\"prefix\""),
    ("[log]", "subject = 'none'", "is not a choice", "\"hash\""),
    ("[log]", "subject_secret = '0123456789abcdef'", "no subject is hashed", "\"hash\""),
    ("[log]", "subject_secret = 'short'\nsubject = 'hash'", "can be guessed", "openssl rand"),
    ("[log]", "headers = 'referer'", "must be a list", "[ … ]"),
    ("[log]", "headers = ['a b']", "cannot be a header name", "x-user-id"),
    ("[log]", "headers = ['Cookie']", "\"cookie\" carries credentials", "could use them"),
    ("[log]", "headers = ['x-api-key']", "\"x-api-key\" carries credentials", "remove it"),
    ("[log]", "format = 'xml'", "is not a choice", "\"json\""),
    ("[log]", "level = 'trace'", "\"trace\" is not a choice", "\"debug\""),
    ("[telemetry.traces]", "endpoint = 'localhost:4318'", "not the URL of a collector", "4318"),
    ("[telemetry.traces]", "endpoint = 'http://c/?a=1'", "not the URL of a collector", "4318"),
    ("[telemetry.traces]", "endpoint = 'http://u:p@c'", "a user or a password", "traces.headers"),
    ("[telemetry.traces]", "endpoint = 'env:UNSET'", "variable \"UNSET\" is not set", "set it"),
    ("[telemetry.traces]", "sample = '101%'", "is not a share", "\"100%\""),
    ("[telemetry.traces]", "sample = 0.05", "must be a string", "\"0.25%\""),
    ("[telemetry.traces]", "trust_parent = true", "must be", "\"never\""),
    ("[telemetry.traces]", "errors = '10/m'", "not a number of traces", "\"10/s\""),
    ("[telemetry.traces]", "errors = '10001/s'", "not a number of traces", "\"10/s\""),
    ("[telemetry.traces]", "headers = { host = 'a' }", "the exporter sets", "remove it"),
    ("[telemetry.traces]", "headers = { a = 'env:UNSET' }", "is not set", "file:PATH"),
    ("[telemetry.traces]", "resource = { a = '' }", "is empty", "write a value"),
    ("[telemetry]", "metrics = {}", "unknown key", "traces"),
    ("[admin]", "token = 'env:UNSET'", "variable \"UNSET\" is not set", "file:PATH"),
    ("[admin]", "token = 'env:EMPTY'", "variable \"EMPTY\" is empty", "give it a value"),
    ("[admin]", "mute = ['cache_*']", "ids are taken whole", "cache_poor_search"),
    ("[admin]", "token = ''", "the secret is empty", "give it a value"),
    ("[admin]", "token = 'file:no'", "cannot read \"/nonexistent/no\"", "may read"),
    ("[store]", "url = 'postgres://h'", "not the address of a store", "redis://"),
    ("[store]", "url = 'redis://u:pw@h'", "has a user or a password", "username and password"),
    ("[store]", "url = 'redis://h:port'", "not the address of a Redis", "127.0.0.1:6379"),
    ("[store]", "url = 'redis://h:0'", "not the address of a Redis", "127.0.0.1:6379"),
    ("[store]", "url = 'redis://h/x'", "not the address of a Redis", "127.0.0.1:6379"),
    ("[store]", "url = 'redis+unix:r.sock'", "not the path of a socket", "absolute path"),
    ("[store]", "prefix = 'a:b'", "cannot be a key prefix", "1 to 64"),
    ("[store]", "prefix = ''", "cannot be a key prefix", "1 to 64"),
    ("[store]", "memory_limit_keys = 1.5", "must be a whole number, is a float", "from 1 to"),
    ("[routes.r]", "compress = 1", "must be true, false", "\"private\""),
    ("[routes.r]", "compress = 'public'", "is not a choice", "\"private\""),
    ("[routes.r]", "compress.types = ['html']", "is no type of content", "\"text/*\""),
    ("[routes.r]", "compress.types = ['a/*/b']", "is no type of content", "\"text/*\""),
    ("[routes.r]", "compress.level = 9", "unknown key", "private"),
    ("[routes.r]", "request_headers.set.'a b' = 'x'", "cannot be a header name", "x-user-id"),
    ("[routes.r]", "response_headers.set.a = 'é'", "cannot be the value", "ASCII"),
    ("[routes.r]", "response_headers.add.a = 1", "must be a string", ""),
    (
        "[routes.r]",
        "response_headers = { set = { a = 'x' }, remove = ['A'] }",
        "set as well",
        "one of",
    ),
    ("[server]", "response_headers.sets = {}", "unknown key", "set"),
    ("[server]", "via = 'two words'", "cannot be the name of a gateway", "one word"),
    ("[routes.r]", "rewrite = {}", "changes nothing", "strip_prefix"),
    ("[routes.r]", "rewrite = { strip_prefix = '/a', replace = '/b' }", "beside replace", "one of"),
    ("[routes.r]", "respond = { status = 99 }", "out of range", "200 to 599"),
    ("[routes.r]", "respond = { status = 302 }", "says not where", "location"),
    ("[routes.r]", "respond = { status = 200, location = '/' }", "is for 301", "308"),
    ("[routes.r]", "respond = { status = 204, body = 'x' }", "without content", "remove it"),
    ("[routes.r]", "body_bytes = 0", "out of range", "1B"),
    ("[routes.r]", "deadline = '0s'", "not a valid duration", "more than zero"),
    ("[store]", "cache_compression = true", "must be a string", "\"zstd\""),
    ("[store]", "cache_compression = 'gzip'", "is not a choice", "\"off\" or \"zstd\""),
    ("[store.on_outage]", "cache = 'serve'", "is not a choice", "\"bypass\""),
    ("[store.on_outage]", "session = 'allow'", "is not a choice", "\"without\""),
    ("[store.on_outage]", "nodes = 0", "out of range", "from 1 to"),
    ("[auth.v]", "audience = ''", "must be a list", "[ … ]"),
    ("[auth.v]", "from = ['body:x']", "not a place for tokens", "header:authorization"),
    ("[auth.v]", "from = ['cookie:a b']", "cannot be a cookie name", "cookie:sid"),
    ("[auth.v]", "from = ['query:a b']", "cannot be the name of a query", "query:access_token"),
    ("[auth.v]", "audience_match = 'each'", "is not a choice", "\"any\" or \"all\""),
    ("[auth.v]", "jwks_url = 'login.test/jwks'", "not the URL of a JWK set", "https://login"),
    ("[auth.v]", "jwks_url = 'ftp://a/jwks'", "not the URL of a JWK set", "https://login"),
    ("[auth.v]", "jwks_url = 'https:///jwks'", "not the URL of a JWK set", "https://login"),
    ("[auth.v]", "jwks_url = 'https://a/#x'", "not the URL of a JWK set", "https://login"),
    ("[auth.v]", "jwks_url = 'https://u:pw@a/'", "has a user or a password", "https://login"),
    ("[auth.v]", "jwks_url = 'http://a/jwks'", "fetch keys in clear", "https://"),
    ("[auth.v]", "jwks_url = 'http://127.0.0.1.a/'", "fetch keys in clear", "https://"),
    (
        "[auth.v]",
        "jwks_url = 'http://login.example/jwks'\njwks.allow_http = true",
        "fetch keys in clear",
        "private addresses and names",
    ),
    ("[auth.v]", "jwks_url = 'http://10.0.0.7/jwks'", "fetch keys in clear", "allow_http = true"),
    ("[auth.v]", "jwks = { refresh = '1h' }", "nothing says from where", "add jwks_url"),
    ("[auth.v]", "leeway = '2h'", "more than an hour", "at most 1h"),
    ("[auth.v]", "jwks_file = 'no.json'", "cannot read", "may read"),
    ("[auth.v]", "public_key_file = 3", "must be a string", "path of a file"),
    ("[auth.v]", "claims_to_headers = { 'a b' = 'c' }", "cannot be a header name", "x-user-id"),
    ("[auth.v]", "claims_to_headers = { A = 'x', a = 'y' }", "in another spelling", "remove one"),
    ("[auth.v]", "claims_to_headers = { a = 1 }", "must be a string", "quotes"),
    ("[session]", "id_from = ['query:x']", "not a place for session ids", "header:x-session-id"),
    ("[session]", "id_from = ['header:x y']", "cannot be a header name", "x-user-id"),
    (
        "[session]",
        "rolling_timeout = '2h'\nabsolute_timeout = '1h'",
        "longer than absolute_timeout",
        "a shorter one",
    ),
    (
        "[session]",
        "idle_timeout = '2h'\nabsolute_timeout = '1h'",
        "longer than absolute_timeout",
        "a shorter one",
    ),
    ("[session]", "max_per_user = 0", "is out of range", "from 1 to 1000"),
    ("[session]", "created_field = ''", "is empty", "write a value"),
    ("[session]", "header = 'x y'", "cannot be a header name", "x-user-id"),
    ("[limits.l]", "allow = ['100']", "\"100\" is not a limit", "100/15m"),
    ("[limits.l]", "allow = ['0/1s']", "is not a limit", "from 1 to"),
    ("[limits.l]", "allow = ['1/1s', '2/1000ms']", "two limits for a window of 1s", "smaller"),
    ("[limits.l]", "key = ['user']", "\"user\" cannot be counted by", "claim:NAME"),
    ("[limits.l]", "key = ['route', 'route']", "same part twice", "remove one"),
    ("[limits.l]", "tiers = { by = 'claim:plan' }", "names no tier", "or remove tiers"),
    ("[limits.l]", "cost = {}", "does not say", "{ methods = { POST = 5 } }"),
    ("[limits.l]", "scope = 'global'", "is not a choice", "\"shared\" or \"local\""),
    ("[upstreams.u]", "servers = ['a:80']", "is not a server", "http://127.0.0.1:3000"),
    ("[upstreams.u]", "servers = ['http://a/b']", "has a path", "a path goes into `rewrite` of"),
    ("[upstreams.u]", "servers = ['http://a_b:c/d']", "is not a server", "host and port alone"),
    ("[upstreams.u]", "servers = ['http://u@a']", "has a user", "host and port alone"),
    ("[upstreams.u]", "servers = ['https://a/b']", "has a path", "a path goes into"),
    ("[upstreams.u]", "servers = ['https://a..b']", "is not a server", "host and port alone"),
    ("[upstreams.u]", "protocol = 'h3'", "is not a choice", "\"h2\" or \"auto\""),
    ("[upstreams.u]", "max_requests = 300", "more than max_connections", "raise max_connections"),
    ("[upstreams.u]", "tls = {}", "would be asked in clear", "https://"),
    ("[upstreams.u]", "servers = [{ weight = 2 }]", "servers[0].url: is missing", "write url ="),
    ("[upstreams.u]", "servers = [{ url = 'http://a', weight = 0 }]", "out of range", "from 1"),
    ("[upstreams.u]", "client_share = '0%'", "is not a share", "\"1%\" to \"100%\""),
    ("[upstreams.u]", "client_share = '+5%'", "is not a share", "\"1%\" to \"100%\""),
    ("[upstreams.u]", "client_share = 0", "out of range", "from 1"),
    ("[upstreams.u]", "servers = ['srv+http://a:80']", "does not name SRV", "without a port"),
    ("[upstreams.u]", "servers = ['srv+http://10.0.0.1']", "does not name SRV", "without a port"),
    ("[upstreams.u]", "dns_refresh = '500ms'", "500ms is out of range", "\"1s\" to \"5m\""),
    ("[upstreams.u]", "dns_refresh = '6m'", "6m is out of range", "\"1s\" to \"5m\""),
    ("[upstreams.u]", "dns_servers = ['10.0.0.2']", "is not an address", "write one"),
    (
        "[upstreams.u]",
        "servers = [{ url = 'http://a', backup = true }]",
        "every server is a backup",
        "used first",
    ),
    ("[upstreams.u]", "balance = 'random'", "is not a choice", "\"p2c\", \"round-robin\""),
    ("[upstreams.u]", "balance = 'hash:claim'", "nothing that requests go by", "hash:claim:sub"),
    ("[upstreams.u]", "balance = 'hash:x:y'", "nothing that requests go by", "hash:path"),
    ("[upstreams.u]", "balance = 'hash:header:a b'", "cannot be", "x-user-id"),
    ("[upstreams.u]", "panic = 50", "must be a string, is an integer", "\"0%\" to \"100%\""),
    ("[upstreams.u]", "panic = '101%'", "is not a percentage", "\"0%\" to \"100%\""),
    ("[upstreams.u]", "panic = '+5%'", "is not a percentage", "\"0%\" to \"100%\""),
    ("[upstreams.u]", "slow_start = 10", "must be a string", "\"30s\""),
    ("[upstreams.u]", "health = {}", "does not say what servers are asked", "path = \"/health\""),
    ("[upstreams.u]", "health = { path = '/', grpc = '' }", "names two questions", "remove the"),
    ("[upstreams.u]", "health.path = 'health'", "\"health\" is not a path", "\"/health\""),
    ("[upstreams.u]", "health.path = '/a b'", "\"/a b\" is not a path", "\"/health\""),
    ("[upstreams.u]", "health.path = '/a#b'", "\"/a#b\" is not a path", "\"/health\""),
    ("[upstreams.u]", "health.grpc = ''", "needs HTTP/2", "protocol = \"h2\""),
    (
        "[upstreams.u]",
        "health.grpc = 'a b'\nprotocol = 'h2'",
        "is not the name of a service",
        "\"shop.Orders\"",
    ),
    (
        "[upstreams.u]",
        "health = { path = '/', timeout = '6s' }",
        "is longer than interval",
        "at most interval",
    ),
    ("[upstreams.u]", "health = { path = '/', down = 0 }", "out of range", "from 1 to"),
    ("[upstreams.u]", "eject.ratio = '0%'", "is not a percentage", "\"1%\" to \"100%\""),
    ("[upstreams.u]", "eject.failures = 0", "out of range", "from 1 to"),
    ("[upstreams.u]", "eject.failure = 5", "unknown key", "did you mean `failures`?"),
    ("[upstreams.u]", "breaker.failures = 5", "must be a string", "\"1%\" to \"100%\""),
    ("[upstreams.u]", "breaker.window = '500ms'", "shorter than 1s", "\"1s\" or more"),
    ("[upstreams.u]", "breaker.probes = 64", "out of range", "from 1 to 63"),
    ("[upstreams.u]", "breaker.fallback = { status = 302 }", "elsewhere", "200 or 503"),
    ("[upstreams.u]", "breaker.fallback = { status = 204, body = 'x' }", "content", "remove it"),
    ("[upstreams.u]", "retry = 1", "must be a table", "write"),
    ("[upstreams.u]", "retry.attempts = 1", "out of range", "from 2 to 10"),
    ("[upstreams.u]", "retry.on = ['302']", "is no reason", "\"connect\", \"refused\""),
    ("[upstreams.u]", "retry.on = []", "is an empty list", ""),
    ("[upstreams.u]", "retry.body = '2MiB'", "out of range", "1MiB"),
    ("[upstreams.u]", "retry.budget = '0%'", "is not a percentage", "\"1%\" to \"100%\""),
    ("[upstreams.u]", "hedge = 'p95'", "the budget of retry", "[upstreams.NAME.retry]"),
    ("[upstreams.u]", "hedge = '95'\nretry = {}", "is not a percentile", "\"p50\" to \"p99\""),
    ("[routes.r]", "methods = ['get']", "is not a method", "upper case"),
    ("[routes.r]", "auth = { optional = true }", "auth.by: is missing", "write by ="),
    ("[routes.r]", "auth = []", "is an empty list", "name at least one"),
    ("[routes.r]", "auth = ['a', 1]", "must be a string, is an integer", "quotes"),
    ("[routes.r]", "session = 'yes'", "is not a choice", "\"required\""),
    ("[routes.r]", "session = 1", "is an integer", "\"required\""),
    ("[routes.r]", "require = { role = 'admin' }", "must be a list", "[ … ]"),
    ("[routes.r]", "cors = {}", "cors.origins: is missing", "https://shop.example.com"),
    ("[routes.r]", "cors = { origins = [] }", "is an empty list", "name at least one"),
    ("[routes.r]", "cors = { origins = ['shop.test'] }", "is no origin", "https://"),
    ("[routes.r]", "cors = { origins = ['null'] }", "is no origin", "https://"),
    ("[routes.r]", "cors = { origins = ['*'], credentials = true }", "every page", "name the"),
    ("[routes.r]", "cors = { origins = ['*'], max_age = '3h' }", "browsers", "\"2h\""),
    ("[routes.r]", "cors = { origins = ['*'], headers = ['a b'] }", "header name", "x-user-id"),
    ("[routes.r]", "cors = { origins = ['*'], expose = ['*,'] }", "header name", "x-user-id"),
    ("[routes.r]", "cors = { origins = ['https://a:443'] }", "never match", "without the"),
    (
        "[routes.r]",
        "cors = { origins = ['https://a'], credentials = true, expose = ['*'] }",
        "browsers read as a name",
        "name the fields",
    ),
    ("[routes.r]", "cache = true", "must be a table, is a boolean", "cache = { … }, or [routes.r."),
    ("[routes.r]", "cache = { time = '5m' }", "r.cache.time: unknown key", "ttl, "),
    ("[routes.r]", "cache = { partition = ['role'] }", "cannot part a cache", "claim:NAME"),
    ("[routes.r]", "cache = { set_cookie = 'keep' }", "is not a choice", "\"explicit\""),
    ("[routes.r]", "cache = { negative = { '302' = '5s' } }", "not a status", "404"),
    ("[routes.r]", "cache = { negative = { '0404' = '5s' } }", "not a status", "404"),
    ("[routes.r]", "cache = { negative = { '431' = '5s' } }", "everybody's", "remove it"),
    ("[routes.r]", "cache = { negative = { '404' = 5 } }", "must be", "\"30s\""),
    ("[routes.r]", "cache = { query = {} }", "r.cache.query: names nothing", "sort = true"),
    ("[routes.r]", "cache = { query = { sort = false } }", "names nothing", "or remove it"),
    ("[routes.r]", "cache = { query = { sort = 1 } }", "sort: must be", "true"),
    ("[routes.r]", "cache = { query = { ignore = [] } }", "is an empty list", "at least one"),
    ("[routes.r]", "cache = { query = { ignore = ['a=b'] } }", "name of a query", "utm_*"),
    ("[routes.r]", "cache = { query = { keep = ['*'] } }", "name of a query", "utm_*"),
    ("[routes.r]", "cache = { query = { keep = ['a*b'] } }", "name of a query", "utm_*"),
    (
        "[routes.r]",
        "cache = { query = { keep = [], ignore = ['a'] } }",
        "another way",
        "remove one",
    ),
    ("[routes.r]", "cache = { refresh_ahead = '0%' }", "not a percentage", "10%"),
    ("[routes.r]", "cache = { refresh_ahead = '100%' }", "not a percentage", "10%"),
    ("[routes.r]", "cache = { refresh_ahead = '+5%' }", "not a percentage", "10%"),
    ("[routes.r]", "cache = { refresh_ahead = '10' }", "not a percentage", "10%"),
    ("[routes.r]", "cache = { refresh_ahead = 0.1 }", "must be", "10%"),
];

/// The bounds of a fetch, beside a URL.
const FETCH_MISTAKES: &[(&str, &str, &str)] = &[
    ("refresh = '500ms'", "would burden the issuer", "at least 1s"),
    ("refresh = 600", "must be a string", "\"30s\""),
    ("cooldown = '0s'", "is not a valid duration", "more than zero"),
    ("timeout = '2m'", "hold up the start", "at most 1m"),
    ("max_bytes = '8MiB'", "out of range", "\"1KiB\" to \"4MiB\""),
    ("ca_file = 'no.pem'", "cannot read", "may read"),
    ("period = '1h'", "unknown key", "refresh"),
];

#[test]
fn each_mistake_in_the_bounds_of_a_fetch_is_one_problem() {
    for (line, what, remedy) in FETCH_MISTAKES {
        let table = format!("jwks_url = 'https://a/jwks'\njwks.{line}");
        let loaded = read(&with("[auth.v]", &table));
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{line}: {report}");
        assert!(report.contains(what) && report.contains(remedy), "{line}: {report}");
    }
}

#[test]
fn what_is_said_of_tokens_is_a_mistake_beside_api_keys() {
    let loaded = read("[auth.v]\napi_keys = true\ntoken_bytes = '1KiB'\nrevocation = true\n");
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    let verifier = &loaded.config.auth["v"];
    let place = crate::config::TokenSource::Header(http::HeaderName::from_static("x-api-key"));
    assert_eq!(verifier.from, [place]);
    for line in [
        "issuer = 'i'",
        "audience = ['a']",
        "audience_match = 'all'",
        "algorithms = ['HS256']",
        "leeway = '1s'",
        "max_age = '1h'",
        "secret = 'x'",
        "jwks_url = 'https://a/jwks'",
        "jwks.refresh = '1m'",
    ] {
        let loaded = read(&format!("[auth.v]\napi_keys = true\n{line}\n"));
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{line}: {report}");
        assert!(report.contains("is about tokens"), "{line}: {report}");
    }
}

#[test]
fn what_is_said_of_tokens_is_a_mistake_beside_certificates() {
    let certificate = "[auth.v]\ncertificate = true\n";
    let good = "revocation = false\nclaims_to_headers = { x-device = 'sub' }\n";
    let loaded = read(&format!("{certificate}{good}"));
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    assert_eq!(loaded.config.auth["v"].from, []);
    for (line, what) in [
        ("issuer = 'i'", "is about tokens"),
        ("algorithms = ['HS256']", "is about tokens"),
        ("secret = 'x'", "is about tokens"),
        ("jwks_url = 'https://a/jwks'", "is about tokens"),
        ("from = ['header:authorization']", "is about tokens"),
        ("token_bytes = '1KiB'", "is about tokens"),
        ("forward_token = true", "is about tokens"),
        ("api_keys = true", "not both"),
    ] {
        let loaded = read(&format!("{certificate}{line}\n"));
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{line}: {report}");
        assert!(report.contains(what), "{line}: {report}");
    }
}

#[test]
fn what_is_said_of_readers_needs_some() {
    let of = |lines: &str| {
        let servers = "[upstreams.u]\nservers = ['http://a']\n";
        read(&format!("{servers}{lines}\n"))
    };
    let good = of("readers = ['https://b', { url = 'http://c', weight = 2 }]\nstick = '0s'");
    assert!(good.problems.is_empty(), "{}", good.source.render(&good.problems));
    let upstream = &good.config.upstreams["u"];
    let readers = upstream.of_readers().unwrap();
    assert_eq!((readers.servers.len(), readers.readers.len(), readers.care.panic), (2, 0, 0));
    assert!(readers.gives_way && readers.of_readers().is_none() && !upstream.gives_way);
    assert!(upstream.tls.is_some(), "one of them speaks TLS");
    let position = "position = { from = 'x-a', to = 'x-b' }";
    for (lines, what) in [
        ("readers = []".to_owned(), "upstreams.u.readers"),
        ("readers = [{ url = 'http://b', backup = true }]".to_owned(), "every server is a backup"),
        ("readers = ['b']".to_owned(), "is not a server"),
        ("stick = '3s'".to_owned(), "there are no readers"),
        (position.to_owned(), "there are no readers"),
        ("readers = ['http://b']\nstick = '2h'".to_owned(), "out of range"),
        (format!("readers = ['http://b']\nstick = '0s'\n{position}"), "is of no use"),
        ("readers = ['http://b']\nposition = { from = 'x-a' }".to_owned(), "is missing"),
        ("readers = ['http://b']\nposition = { from = 'x a', to = 'x-b' }".to_owned(), "header"),
    ] {
        let loaded = of(&lines);
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{lines}: {report}");
        assert!(report.contains(what), "{lines}: {report}");
    }
}

/// The mistake is the only problem, at its line and with its remedy.
pub(super) fn one_problem((table, line, what, remedy): (&str, &str, &str, &str)) {
    let loaded = read(&with(table, line));
    let report = loaded.source.render(&loaded.problems);
    assert_eq!(loaded.problems.len(), 1, "{line}: {report}");
    assert!(report.starts_with("gateway.toml:2:"), "{line}: {report}");
    let (head, help) = report.split_once("help: ").unwrap();
    assert!(head.contains(what), "{line}: {report}");
    assert!(help.contains(remedy), "{line}: {report}");
}

#[test]
fn each_mistake_gives_one_problem_with_its_line_and_remedy() {
    MISTAKES.iter().for_each(|mistake| one_problem(*mistake));
}

#[test]
fn what_has_no_default_is_missed() {
    let report = report(
        "[auth.v]\n[session]\n[limits.l]\n[upstreams.u]\n[routes.r]\n\
         [routes.'a b']\npath='/'\nupstream='u'\n",
    );
    for line in [
        "1:7: auth.v.algorithms: is missing",
        "1:7: auth.v: has no key to verify with",
        "2:2: session.id_from: is missing",
        "3:9: limits.l.key: is missing",
        "3:9: limits.l.allow: is missing",
        "4:12: upstreams.u.servers: is missing",
        "5:9: routes.r.path: is missing",
        "5:9: routes.r.upstream: is missing",
        "6:9: routes.\"a b\": \"a b\" cannot be a name",
        "9 problems in gateway.toml",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
}

#[test]
fn ten_mistakes_give_ten_problems() {
    let loaded = read(
        r#"
        [server]
        listen = ["nowhere"]
        drian = "1s"
        limits = { headers = 0, streams = "many" }
        [log]
        level = "loud"
        [store]
        timeout = "50"
        [auth.users]
        algorithms = ["none"]
        secret = "env:UNSET"
        [limits.api]
        key = []
        allow = ["1"]
        "#,
    );
    let report = loaded.source.render(&loaded.problems);
    assert_eq!(loaded.problems.len(), 10, "{report}");
    assert!(report.ends_with("10 problems in gateway.toml\n"), "{report}");
}

#[test]
fn what_is_included_is_named_in_a_list() {
    let report = report("[include]\n");
    assert!(report.contains("include: must be a list, is a table"), "{report}");
    assert!(report.ends_with("1 problem in gateway.toml\n"), "{report}");
}

#[test]
fn events_say_where_they_are_heard_and_what_they_change() {
    for (text, expected) in [
        ("purge = [\"/a\"]", "from"),
        ("from = \"stream:\"\npurge = [\"/a\"]", "names nothing"),
        ("from = \"kafka:a\"\npurge = [\"/a\"]", "is no source of events"),
        ("from = \"nats:a..b\"\npurge = [\"/a\"]", "is no subject"),
        ("from = \"nats:a.>.b\"\npurge = [\"/a\"]", "is no subject"),
        ("from = \"nats:a b\"\npurge = [\"/a\"]", "holds a space"),
        ("from = \"jetstream:JOBS\"\npurge = [\"/a\"]", "is no stream and its consumer"),
        ("from = \"jetstream:a.b/c\"\npurge = [\"/a\"]", "is no stream and its consumer"),
        ("from = \"jetstream:a/b/c\"\npurge = [\"/a\"]", "is no stream and its consumer"),
        ("from = \"stream:a\"", "an event would change nothing"),
        ("from = \"stream:a\"\npurge = [\"/a\"]\nagain = \"2h\"", "is out of range"),
    ] {
        let report = report(&format!("[events.a]\n{text}\n"));
        assert!(report.contains(expected) && report.contains("help: "), "{text}: {report}");
    }
}

#[test]
fn a_stream_has_a_name_and_no_keys_of_a_queue() {
    for (text, expected) in [
        ("jetstream = \"a.b\"", "is no name of a stream"),
        ("jetstream = \"\"", "is no name of a stream"),
        ("jetstream = \"JOBS\"\nqueue = \"mail\"", "is beside queue"),
        ("jetstream = \"JOBS\"\nmax_wait = \"1s\"", "has no meaning beside jetstream"),
        ("jetstream = \"JOBS\"\nmax_delay = \"1s\"", "has no meaning beside jetstream"),
        ("jetstream = \"JOBS\"\nmax_body = \"9MiB\"", "out of range"),
        ("queue = \"mail\"\nmax_body = \"1KiB\"", "is for what JetStream stores"),
    ] {
        let route = "path = \"/\"\nupstream = \"u\"\n";
        let report = report(&format!("[routes.r]\n{route}[routes.r.deliver]\n{text}\n"));
        assert!(report.contains(expected) && report.contains("help: "), "{text}: {report}");
        assert!(report.ends_with("1 problem in gateway.toml\n"), "{text}: {report}");
    }
}

#[test]
fn keys_are_fetched_in_clear_only_where_it_is_said_and_private() {
    for (host, is_private) in [
        ("10.0.0.7", true),
        ("192.168.1.1:8080", true),
        ("172.16.0.1", true),
        ("[fd00::7]", true),
        ("[::ffff:10.0.0.7]", true),
        ("100.64.0.1", true),
        ("0.1.2.3", true),
        ("224.0.0.1", true),
        ("[64:ff9b::a00:7]", true),
        ("[fec0::7]", true),
        ("[ff02::1]", true),
        ("100.128.0.1", false),
        ("[64:ff9b::c000:201]", false),
        ("keycloak:8080", true),
        ("login.internal", true),
        ("keycloak.auth.svc.cluster.local", true),
        ("LOGIN.Internal", true),
        ("172.32.0.1", false),
        ("192.0.2.1", false),
        ("[2001:db8::1]", false),
        ("login.example.com", false),
        ("internal.example.com", false),
        ("10.0.0.7.example.com", false),
    ] {
        for allowed in [true, false] {
            let url = format!("jwks_url = 'http://{host}/jwks'\njwks.allow_http = {allowed}\n");
            let loaded = read(&format!("[auth.v]\nalgorithms = ['ES256']\n{url}"));
            assert_eq!(loaded.problems.is_empty(), is_private && allowed, "{host} {allowed}");
        }
    }
}

#[test]
fn addresses_come_from_the_environment() {
    let env = |name: &str| match name {
        "PUBLIC" => Some("127.0.0.1:8081".to_owned()),
        "ADMIN" => Some("127.0.0.1:8082".to_owned()),
        "REDIS" => Some("redis://redis.internal:6380/2".to_owned()),
        "ONE" => Some("http://one:81".to_owned()),
        "TWO" => Some("http://two:82".to_owned()),
        _ => None,
    };
    let text = "[server]\nlisten = ['env:PUBLIC', '127.0.0.1:8083']\n\
                [admin]\nlisten = 'env:ADMIN'\n[store]\nurl = 'env:REDIS'\n\
                [upstreams.u]\nservers = ['env:ONE', { url = 'env:TWO', weight = 2 }]\n";
    let loaded = super::parse("gateway.toml", std::path::Path::new(""), text, &env).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.source.render(&loaded.problems));
    let config = loaded.config;
    let listen: Vec<String> = config.server.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:8081", "127.0.0.1:8083"]);
    assert_eq!(config.admin.listen.port(), 8082);
    let redis = super::StoreUrl::Redis { host: "redis.internal".to_owned(), port: 6380, db: 2 };
    assert_eq!(config.store.url, redis);
    let servers = config.upstreams["u"].servers.iter();
    let servers: Vec<_> = servers.map(|s| (s.host.as_str(), s.port, s.weight)).collect();
    assert_eq!(servers, [("one", 81, 1), ("two", 82, 2)]);
}

#[test]
fn a_wrong_value_from_the_environment_is_not_shown() {
    let report = report("[server]\nlisten = ['env:SET']\n");
    assert!(!report.contains("correct horse"), "{report}");
}
