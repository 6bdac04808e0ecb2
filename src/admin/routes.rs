//! The admin API in one table. The router, the refusals and the audit know each operation by it,
//! and so does the test that looks for it in the documentation.

use http::Method;

use self::Access::{Login, Operate, Read};
use self::Operation as Op;
use self::QueueOperation as Queue;

/// What an operation may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only looks.
    Read,
    /// It lets somebody in or out, who may be one who only looks.
    Login,
    /// It changes something, or is work for Redis.
    Operate,
}

/// Each operation, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Status,
    ListRevocations,
    TakeBack,
    Revoke,
    Purge,
    ShowCache,
    ShowEntry,
    TopUrls,
    Walk,
    Warm,
    ShowSession,
    WriteSession,
    EndSession,
    ListSessions,
    EndSessions,
    ListKeys,
    CreateKey,
    ShowKey,
    EndKey,
    ListFamilies,
    BeginFamily,
    EndFamily,
    ShowLimit,
    ResetLimit,
    ListPressed,
    ListRefused,
    Explain,
    ListTunnels,
    CloseTunnels,
    ListUpstreams,
    EjectServer,
    RestoreServers,
    ListCanaries,
    StopCanary,
    ResetCanary,
    ListEvents,
    Queues(QueueOperation),
    ListCertificates,
    ShowStore,
    Doctor,
    Reload,
    LogIn,
    LogOut,
    MakeCode,
    Me,
    Series,
    Overview,
    ListRequests,
    ListOperations,
    ShowConfig,
    CompareConfig,
    SetLevel,
    Live,
}

/// What is done to queues of deliveries, and to deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueOperation {
    List,
    Show,
    Items,
    Pause,
    Resume,
    RequeueDead,
    DropDead,
    Delivery,
    Body,
    Requeue,
    Cancel,
}

/// One row.
#[derive(Debug)]
pub struct Route {
    pub(super) operation: Operation,
    /// Its method.
    pub method: Method,
    /// Its path, in which `{…}` stands for one segment.
    pub path: &'static str,
    /// What it may do.
    pub access: Access,
    /// What a client sends: the target and, behind a space, the body where there is one.
    pub example: &'static str,
}

const fn row(
    operation: Operation,
    method: Method,
    path: &'static str,
    access: Access,
    example: &'static str,
) -> Route {
    Route { operation, method, path, access, example }
}

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

const REVOCATIONS: &str = "/v1/revocations";
/// One session.
pub(super) const SESSION: &str = "/v1/sessions/{id}";
/// Those of a user.
pub(super) const SESSIONS: &str = "/v1/users/{sub}/sessions";
const KEYS: &str = "/v1/keys";
/// One API key.
pub(super) const KEY: &str = "/v1/keys/{id}";
const FAMILIES: &str = "/v1/families";
/// One family of refresh tokens.
pub(super) const FAMILY: &str = "/v1/families/{sid}";
const LIMITS: &str = "/v1/limits";
const TUNNELS: &str = "/v1/tunnels";
/// What is done to one queue has paths below it.
pub(super) const QUEUES: &str = "/v1/queues/";
const QUEUE: &str = "/v1/queues/{queue}";
/// One delivery; the same.
pub(super) const DELIVERY: &str = "/v1/deliveries/{id}";
/// Where a session of the dashboard begins and ends.
pub(super) const LOGIN: &str = "/v1/login";
/// Where a code for that is made.
pub(super) const LOGIN_CODE: &str = "/v1/login/code";

/// The operations under `/v1/`. Those of one path stand together, in the order of its `Allow`.
pub static ROUTES: [Route; 63] = [
    row(Op::Status, GET, "/v1/status", Read, "/v1/status"),
    row(Op::ListRevocations, GET, REVOCATIONS, Read, "/v1/revocations?kind=sub&limit=100"),
    row(Op::TakeBack, DELETE, REVOCATIONS, Operate, "/v1/revocations?sub=42"),
    row(Op::Revoke, POST, REVOCATIONS, Operate, r#"/v1/revocations {"sub": "42"}"#),
    row(Op::ShowCache, GET, "/v1/cache", Read, "/v1/cache?route=products"),
    row(
        Op::ShowEntry,
        GET,
        "/v1/cache/entry",
        Read,
        "/v1/cache/entry?url=http://shop.test/products/1",
    ),
    row(Op::TopUrls, GET, "/v1/cache/top", Read, "/v1/cache/top?by=misses"),
    row(
        Op::Walk,
        POST,
        "/v1/cache/walk",
        Operate,
        r#"/v1/cache/walk {"cursor": "0", "match": "/products/", "steps": 5}"#,
    ),
    row(Op::Purge, POST, "/v1/cache/purge", Operate, r#"/v1/cache/purge {"path": "/products/*"}"#),
    row(Op::Warm, POST, "/v1/cache/warm", Operate, r#"/v1/cache/warm {"route": "products"}"#),
    row(Op::ShowSession, GET, SESSION, Read, "/v1/sessions/phone"),
    row(Op::WriteSession, PUT, SESSION, Operate, r#"/v1/sessions/phone?user=42&ttl=30m {"n": 1}"#),
    row(Op::EndSession, DELETE, SESSION, Operate, "/v1/sessions/phone"),
    row(Op::ListSessions, GET, SESSIONS, Read, "/v1/users/42/sessions"),
    row(Op::EndSessions, DELETE, SESSIONS, Operate, "/v1/users/42/sessions"),
    row(Op::ListKeys, GET, KEYS, Read, "/v1/keys?owner=acme"),
    row(Op::CreateKey, POST, KEYS, Operate, r#"/v1/keys {"owner": "acme", "tier": "gold"}"#),
    row(Op::ShowKey, GET, KEY, Read, "/v1/keys/0123456789abcdef"),
    row(Op::EndKey, DELETE, KEY, Operate, "/v1/keys/0123456789abcdef"),
    row(Op::ListFamilies, GET, FAMILIES, Read, "/v1/families?sub=42"),
    row(
        Op::BeginFamily,
        POST,
        FAMILIES,
        Operate,
        r#"/v1/families {"sub": "42", "claims": {"role": "user"}}"#,
    ),
    row(Op::EndFamily, DELETE, FAMILY, Operate, "/v1/families/AAECAwQFBgcICQoLDA0ODw"),
    row(Op::ShowLimit, GET, LIMITS, Read, "/v1/limits?policy=api&key=claim:sub=42"),
    row(Op::ResetLimit, DELETE, LIMITS, Operate, "/v1/limits?policy=api&key=claim:sub=42"),
    row(Op::ListPressed, GET, "/v1/limits/pressed", Read, "/v1/limits/pressed?min=0.8"),
    row(Op::ListRefused, GET, "/v1/limits/refused", Read, "/v1/limits/refused"),
    row(Op::Explain, POST, "/v1/explain", Read, r#"/v1/explain {"path": "/products?page=2"}"#),
    row(Op::ListTunnels, GET, TUNNELS, Read, "/v1/tunnels?sub=42"),
    row(Op::CloseTunnels, DELETE, TUNNELS, Operate, "/v1/tunnels?sub=42"),
    row(Op::ListUpstreams, GET, "/v1/upstreams", Read, "/v1/upstreams"),
    row(
        Op::EjectServer,
        POST,
        "/v1/upstreams/eject",
        Operate,
        r#"/v1/upstreams/eject {"upstream": "shop", "server": "http://127.0.0.1:3000"}"#,
    ),
    row(
        Op::RestoreServers,
        POST,
        "/v1/upstreams/restore",
        Operate,
        r#"/v1/upstreams/restore {"upstream": "shop"}"#,
    ),
    row(Op::ListCanaries, GET, "/v1/canary", Read, "/v1/canary"),
    row(
        Op::StopCanary,
        POST,
        "/v1/canary/stop",
        Operate,
        r#"/v1/canary/stop {"route": "products"}"#,
    ),
    row(
        Op::ResetCanary,
        POST,
        "/v1/canary/reset",
        Operate,
        r#"/v1/canary/reset {"route": "products"}"#,
    ),
    row(Op::ListEvents, GET, "/v1/events", Read, "/v1/events"),
    row(Op::Queues(Queue::List), GET, "/v1/queues", Read, "/v1/queues"),
    row(Op::Queues(Queue::Show), GET, QUEUE, Read, "/v1/queues/mail"),
    row(
        Op::Queues(Queue::Items),
        GET,
        "/v1/queues/{queue}/items",
        Read,
        "/v1/queues/mail/items?state=dead",
    ),
    row(
        Op::Queues(Queue::Pause),
        POST,
        "/v1/queues/{queue}/pause",
        Operate,
        r#"/v1/queues/mail/pause {"why": "the mail server is moved"}"#,
    ),
    row(
        Op::Queues(Queue::Resume),
        POST,
        "/v1/queues/{queue}/resume",
        Operate,
        "/v1/queues/mail/resume {}",
    ),
    row(
        Op::Queues(Queue::RequeueDead),
        POST,
        "/v1/queues/{queue}/requeue",
        Operate,
        r#"/v1/queues/mail/requeue {"error": "exhausted", "limit": 100}"#,
    ),
    row(
        Op::Queues(Queue::DropDead),
        DELETE,
        "/v1/queues/{queue}/dead",
        Operate,
        "/v1/queues/mail/dead",
    ),
    row(
        Op::Queues(Queue::Delivery),
        GET,
        DELIVERY,
        Read,
        "/v1/deliveries/00000000000000000000000000",
    ),
    row(
        Op::Queues(Queue::Body),
        POST,
        "/v1/deliveries/{id}/body",
        Operate,
        "/v1/deliveries/00000000000000000000000000/body {}",
    ),
    row(
        Op::Queues(Queue::Requeue),
        POST,
        "/v1/deliveries/{id}/requeue",
        Operate,
        "/v1/deliveries/00000000000000000000000000/requeue {}",
    ),
    row(
        Op::Queues(Queue::Cancel),
        POST,
        "/v1/deliveries/{id}/cancel",
        Operate,
        "/v1/deliveries/00000000000000000000000000/cancel {}",
    ),
    row(Op::ListCertificates, GET, "/v1/certificates", Read, "/v1/certificates"),
    row(Op::ShowStore, GET, "/v1/store", Read, "/v1/store"),
    row(Op::Doctor, POST, "/v1/doctor", Operate, "/v1/doctor {}"),
    row(Op::ShowConfig, GET, "/v1/config", Read, "/v1/config?section=routes"),
    row(Op::CompareConfig, GET, "/v1/config/diff", Read, "/v1/config/diff"),
    row(Op::Reload, POST, "/v1/config/reload", Operate, "/v1/config/reload {}"),
    row(Op::LogIn, POST, LOGIN, Login, r#"/v1/login {"token": "…"}"#),
    row(Op::LogOut, DELETE, LOGIN, Login, LOGIN),
    row(Op::MakeCode, POST, LOGIN_CODE, Login, "/v1/login/code {}"),
    row(Op::Me, GET, "/v1/me", Read, "/v1/me"),
    row(Op::Series, GET, "/v1/series", Read, "/v1/series?window=15m&route=products"),
    row(Op::Live, GET, "/v1/live", Read, "/v1/live"),
    row(Op::Overview, GET, "/v1/overview", Read, "/v1/overview"),
    row(Op::ListRequests, GET, "/v1/requests", Read, "/v1/requests?refused=true&subject=42"),
    row(Op::ListOperations, GET, "/v1/operations", Read, "/v1/operations?before=17"),
    row(Op::SetLevel, PUT, "/v1/log", Operate, r#"/v1/log {"level": "debug", "for": "1s"}"#),
];

impl Route {
    /// Its method, as it is counted.
    pub(super) fn method_word(&'static self) -> &'static str {
        self.method.as_str()
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'p> {
    /// The path without what its sender chose.
    pub(super) template: &'static str,
    /// What its sender chose, as it came; empty where there is nothing to choose.
    pub(super) name: &'p str,
}

impl Found<'_> {
    /// The operation that a method is.
    pub(super) fn on(&self, method: &Method) -> Option<&'static Route> {
        self.routes().find(|route| route.method == *method)
    }

    /// The methods that the path takes, as `Allow` lists them.
    pub(super) fn allow(&self) -> String {
        let methods: Vec<&str> = self.routes().map(|route| route.method.as_str()).collect();
        methods.join(", ")
    }

    fn routes(&self) -> impl Iterator<Item = &'static Route> {
        let template = self.template;
        ROUTES.iter().filter(move |route| route.path == template)
    }
}

/// What stands at a path, if anything.
pub(super) fn find(path: &str) -> Option<Found<'_>> {
    ROUTES.iter().find_map(|route| {
        let name = name(route.path, path)?;
        Some(Found { template: route.path, name })
    })
}

/// What a path has in the place of a template's `{…}`.
fn name<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = template.split_once('{') else {
        return (template == path).then_some("");
    };
    let (_, after) = rest.split_once('}')?;
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// All of them, as whoever asks for something else is told.
pub(super) fn known() -> String {
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    let told = paths.into_iter().map(|template| {
        let methods = Found { template, name: "" }.allow();
        format!("{methods} {template}")
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_its_segments() {
        for (path, expected) in [
            ("/v1/status", Some(("/v1/status", ""))),
            ("/v1/keys", Some(("/v1/keys", ""))),
            ("/v1/keys/ab%2F", Some(("/v1/keys/{id}", "ab%2F"))),
            ("/v1/users/a/sessions", Some(("/v1/users/{sub}/sessions", "a"))),
            ("/v1/users/sessions", None),
            ("/v1/users//sessions", None),
            ("/v1/users/a/b/sessions", None),
            ("/v1/keys/", None),
            ("/v1/keys/a/b", None),
            ("/v1/keysx", None),
            ("/v1/status/", None),
        ] {
            let found = find(path).map(|found| (found.template, found.name));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn no_operation_stands_twice_and_those_of_a_path_stand_together() {
        let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let together = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), together, "{paths:?}");
        for (index, route) in ROUTES.iter().enumerate() {
            let before = &ROUTES[..index];
            let is_new = |it: &Route| (it.path, &it.method) != (route.path, &route.method);
            assert!(before.iter().all(is_new), "{route:?}");
            assert!(before.iter().all(|it| it.operation != route.operation), "{route:?}");
        }
    }
}
