//! What follows when a delivery ends: the requests that other queues get for it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, FORWARDED, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;

use crate::base::http::authority::Authority;
use crate::base::trace::Trace;
use crate::cache;
use crate::config::{CALLBACKS, Callback, Config, Queue};
use crate::deliver::{Head, Why, kept_fields};
use crate::forwarding::fields;
use crate::plan::{Route, Undo, callback_upstream, queue_bounds};
use crate::runtime::{Loose, Packed, Parcels, Running};
use crate::store::keys::{QueueKeys, shard_of};
use crate::store::queue::{Claim, DeliveryId, FollowUp, Outcome, Settle};

/// What is told of a target at most, in bytes, so that all of it fits.
const TARGET_BYTES_MAX: usize = 32 << 10;
/// Fields that are kept of the request which is undone, beside those that the gateway owns.
const KEPT: [HeaderName; 6] = [
    HOST,
    FORWARDED,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
];

/// Something that follows could not be made now: the system has no random bytes, say.
#[derive(Debug)]
pub(super) struct Unmade;

/// A request that follows, with all that it is made of.
pub(super) struct Following {
    /// Name of the queue that gets it.
    pub(super) queue: String,
    keys: QueueKeys,
    id: DeliveryId,
    key: String,
    key_ttl: Duration,
    head: Vec<u8>,
    body: Bytes,
    owner: String,
    keeps_order: bool,
    max_age: Duration,
    ttl: Duration,
}

impl Following {
    /// The same as it lies in the store, by the same configuration.
    ///
    /// # Errors
    /// It could not be sealed.
    pub(super) async fn packed(self, config: &Config) -> Result<Self, Unmade> {
        let queue = config.queues.get(&self.queue).ok_or(Unmade)?;
        let parcels = Parcels::of_request(&self.queue, queue, self.id);
        let loose = Loose { head: self.head, body: self.body, is_text: false, recheck: None };
        let Some(Packed { head, body }) = parcels.pack(loose).await else {
            tracing::error!(queue = self.queue, "what follows could not be sealed");
            return Err(Unmade);
        };
        Ok(Self { head: head.into(), body, ..self })
    }

    /// The same for the store.
    pub(super) fn follow_up(&self) -> FollowUp<'_> {
        FollowUp {
            keys: &self.keys,
            id: self.id,
            key: &self.key,
            key_ttl: self.key_ttl,
            head: &self.head,
            body: &self.body,
            owner: &self.owner,
            keeps_order: self.keeps_order,
            max_age: self.max_age,
            ttl: self.ttl,
        }
    }
}

/// What undoes a request is told of it.
#[derive(Serialize)]
struct Died<'a> {
    id: &'a str,
    queue: &'a str,
    route: Option<&'a str>,
    method: Option<&'a str>,
    target: Option<&'a str>,
    key: &'a str,
    status: Option<u16>,
    error: &'a str,
    attempts: u32,
    accepted_at: Option<String>,
    dead_at: Option<String>,
}

/// What is told of a request that has ended.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: String,
    timestamp: Option<&'a str>,
    data: Ended<'a>,
}

#[derive(Serialize)]
struct Ended<'a> {
    id: &'a str,
    queue: &'a str,
    state: &'static str,
    status: Option<u16>,
    error: &'a str,
    attempts: u32,
    accepted_at: Option<&'a str>,
    ended_at: Option<&'a str>,
    key: &'a str,
}

/// A delivery of a queue that may end now.
pub(super) struct Ending<'a> {
    pub(super) running: &'a Running,
    /// The queue's name.
    pub(super) name: &'a str,
    pub(super) queue: &'a Queue,
    /// Unix ms of the store's clock.
    pub(super) now_ms: u64,
}

impl Ending<'_> {
    /// What follows when it ends so. The end may be told again, with the same.
    /// `head` reads that of the request, where it can be read.
    ///
    /// # Errors
    /// Some of it could not be made.
    pub(super) fn following(
        &self,
        claim: &Claim,
        settle: &Settle<'_>,
        head: impl FnOnce() -> Option<Head>,
    ) -> Result<Vec<Following>, Unmade> {
        let state = match settle.outcome {
            Outcome::Done => "done",
            Outcome::Dead | Outcome::DeadInDoubt => "dead",
            Outcome::Retry { .. } | Outcome::Back { .. } => return Ok(Vec::new()),
        };
        // A wrong key of this node says nothing of the request, and nobody knows what to undo.
        let is_unread = [Why::Unsealable, Why::Unreadable].map(Why::word).contains(&settle.error);
        let is_undone = state == "dead" && !is_unread;
        let undo = self.running.plan.undos.get(self.name).filter(|_| is_undone);
        let callback = self.queue.ends.callback.as_deref();
        if undo.is_none() && callback.is_none() {
            return Ok(Vec::new());
        }
        let head = head();
        let mut following = Vec::new();
        if let Some(undo) = undo {
            following.extend(self.undo(undo, (claim, settle), head.clone())?);
        }
        if let Some(callback) = callback {
            following.extend(self.tell((callback, state), (claim, settle), head.as_ref())?);
        }
        Ok(following)
    }

    /// What undoes it: its caller's, in the line of its order key.
    fn undo(
        &self,
        undo: &Undo,
        (claim, settle): (&Claim, &Settle<'_>),
        head: Option<Head>,
    ) -> Result<Option<Following>, Unmade> {
        let died = self.died(claim, settle, head.as_ref());
        let body = serde_json::to_vec(&died).map_err(|_| Unmade)?;
        let key = format!("{}:undo", claim.hold.id);
        let undoing = self.undoing(undo, &key, head);
        // Whatever has one order key lies in one shard.
        let digest = claim.order.as_ref().unwrap_or(&key).clone();
        let following = self.put_into(&undo.queue, (key, &digest), (undoing, body.into()))?;
        let owner = claim.owner.clone();
        Ok(following.map(|following| Following { owner, keeps_order: true, ..following }))
    }

    /// What tells of it. Nobody's, so that its caller cannot cancel it.
    fn tell(
        &self,
        (callback, state): (&Callback, &'static str),
        (claim, settle): (&Claim, &Settle<'_>),
        head: Option<&Head>,
    ) -> Result<Option<Following>, Unmade> {
        let died = self.died(claim, settle, head);
        let ended_at = time(self.now_ms);
        let told = Told {
            kind: format!("delivery.{state}"),
            timestamp: ended_at.as_deref(),
            data: Ended {
                id: died.id,
                queue: self.name,
                state,
                status: died.status,
                error: died.error,
                attempts: died.attempts,
                accepted_at: died.accepted_at.as_deref(),
                ended_at: ended_at.as_deref(),
                key: died.key,
            },
        };
        let body = serde_json::to_vec(&told).map_err(|_| Unmade)?;
        let key = format!("{}:{state}", claim.hold.id);
        let (client, trace) = origin(head);
        let fields = [
            (HOST, callback.host.clone()),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ];
        let telling = Head {
            // That of no route.
            route: String::new(),
            upstream: callback_upstream(self.name),
            method: Method::POST,
            // Where it goes is put in when it is sent: its path may be a secret.
            target: PathAndQuery::from_static("/"),
            fields: fields.into_iter().collect(),
            key: Some(key.clone()),
            client,
            trace,
            stale: Vec::new(),
            accepted_ms: self.now_ms,
            due_ms: self.now_ms,
        };
        let digest = key.clone();
        self.put_into(CALLBACKS, (key, &digest), (telling, body.into()))
    }

    /// A request for the shard of another queue that a digest is of; nobody's, and in no line.
    /// Nothing where that queue is gone.
    fn put_into(
        &self,
        name: &str,
        (key, digest): (String, &str),
        (head, body): (Head, Bytes),
    ) -> Result<Option<Following>, Unmade> {
        let plan = &self.running.plan;
        let Some(queue) = plan.config.queues.get(name) else {
            tracing::warn!(queue = name, key, "this queue is configured no more: nothing follows");
            return Ok(None);
        };
        let shard = shard_of(digest, queue.shards);
        let Some(id) = DeliveryId::new(shard, self.now_ms) else {
            tracing::error!(queue = name, key, "the system has no random bytes");
            return Err(Unmade);
        };
        Ok(Some(Following {
            queue: name.to_owned(),
            keys: plan.keys.queue(name, shard),
            id,
            key,
            // As long as the request that it follows from can be tried again, and longer.
            key_ttl: self.queue.keep_dead + self.queue.max_age + queue.max_age + queue.keep_dead,
            head: head.pack(),
            body,
            owner: String::new(),
            keeps_order: false,
            max_age: queue.max_age,
            ttl: queue_bounds(queue, shard).ttl,
        }))
    }

    fn died<'a>(
        &'a self,
        claim: &'a Claim,
        settle: &'a Settle<'_>,
        head: Option<&'a Head>,
    ) -> Died<'a> {
        let id = claim.hold.id.as_str();
        let is_counted = settle.is_failure() || matches!(settle.outcome, Outcome::Done);
        Died {
            id,
            queue: self.name,
            route: head.map(|head| &*head.route),
            method: head.map(|head| head.method.as_str()),
            target: head.map(|head| shortened(head.target.as_str())),
            key: head.and_then(|head| head.key.as_deref()).unwrap_or(id),
            status: Some(settle.status).filter(|status| *status > 0),
            error: settle.error,
            attempts: claim.failures.saturating_add(u32::from(is_counted)),
            accepted_at: time(claim.accepted_ms),
            dead_at: time(self.now_ms),
        }
    }

    /// The head of the request that undoes one with this head, which may be unreadable.
    fn undoing(&self, undo: &Undo, key: &str, head: Option<Head>) -> Head {
        let plan = &self.running.plan;
        let (client, trace) = origin(head.as_ref());
        let mut fields = head.map(|head| head.fields).unwrap_or_default();
        let is_kept =
            |name: &HeaderName| KEPT.contains(name) || fields::is_owned(&plan.headers, name);
        let gone: Vec<HeaderName> = fields.keys().filter(|it| !is_kept(it)).cloned().collect();
        for name in gone {
            fields.remove(name);
        }
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let host = undo.host.clone().or_else(|| fields.get(HOST).cloned());
        if let Some(host) = host.or_else(|| self.host_of(&undo.upstream)) {
            fields.insert(HOST, host);
        }
        let fields = self.written(undo, fields);
        Head {
            route: undo.route.clone(),
            upstream: undo.upstream.clone(),
            method: undo.method.clone(),
            target: undo.target.clone(),
            stale: self.stale(undo, &fields),
            fields,
            key: Some(key.to_owned()),
            client,
            trace,
            accepted_ms: self.now_ms,
            due_ms: self.now_ms,
        }
    }

    /// The fields with what its route and the server write, as far as that may be kept.
    fn written(&self, undo: &Undo, mut fields: HeaderMap) -> HeaderMap {
        let edge = self.route_of(undo).and_then(|route| route.edge.as_ref());
        let Some(edge) = edge else { return fields };
        edge.requests.apply(&mut fields);
        let Some(deferred) = &edge.deferred else { return fields };
        let named = (&*deferred.kept_fields, deferred.written.delay_from.as_ref());
        kept_fields(fields, named, |name| fields::is_owned(&self.running.plan.headers, name))
    }

    /// The route that it is of.
    fn route_of(&self, undo: &Undo) -> Option<&Route> {
        let plan = &self.running.plan;
        let index = plan.route_names().position(|name| *name == undo.route)?;
        plan.route(index).map(|route| &**route)
    }

    /// The host of an upstream, where nobody says another one.
    fn host_of(&self, upstream: &str) -> Option<HeaderValue> {
        let server = self.running.plan.config.upstreams.get(upstream)?.servers.first()?;
        HeaderValue::try_from(format!("{}:{}", server.host, server.port)).ok()
    }

    /// The epochs of what it makes stale in the cache: its own path and what its route names.
    fn stale(&self, undo: &Undo, fields: &HeaderMap) -> Vec<String> {
        if !self.running.caches() {
            return Vec::new();
        }
        let plan = &self.running.plan;
        let authority = fields.get(HOST).and_then(Authority::of_header);
        let site = authority.as_ref().map(Authority::site).unwrap_or_default();
        let route = self.route_of(undo);
        let also = route.iter().flat_map(|route| &route.invalidates);
        let also = also.map(|scope| (&*scope.path, scope.and_below));
        let scopes = std::iter::once((&*undo.path, false)).chain(also);
        let epoch = |(path, below)| {
            let names = plan.names_of(path).into_iter();
            let epochs = names.map(|name| cache::scope(&plan.keys, &site, &name, below));
            epochs.collect::<Vec<_>>()
        };
        scopes.flat_map(epoch).collect()
    }
}

/// Who a request came from, and as part of which trace: nobody, where its head is unreadable.
fn origin(head: Option<&Head>) -> (IpAddr, HeaderValue) {
    let nobody = || (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Trace::begin().to_header());
    head.map_or_else(nobody, |head| (head.client, head.trace.clone()))
}

/// As much of a target as is told.
fn shortened(target: &str) -> &str {
    target.get(..TARGET_BYTES_MAX).unwrap_or(target)
}

/// A time of the store in RFC 3339.
fn time(unix_ms: u64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    Some(format!("{at:.3}"))
}
