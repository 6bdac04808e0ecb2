//! Who takes a request of an upstream with readers: its servers or its readers. A caller who has
//! written lately reads what he wrote, on whichever gateway and from whichever device.
//!
//! A caller has several names, because not every route knows all of them: the subject that a
//! verifier vouches for, his session, and his address. A write is marked by all of them. A read
//! with a subject looks for that, and for what somebody without one wrote from its address, as a
//! log-in is. Any other read looks for all that was written from its address.

use std::sync::{Arc, OnceLock};

use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::affinity;
use super::edged::{Reading, Side, WhyServers};
use super::request::Request;
use crate::base::units::duration_text;
use crate::plan::Pool;
use crate::runtime::Wrote;
use crate::store::{Mark, MarkKeys, MarksReply, Reply};
use crate::upstream::Foreseen;

/// What a read asks of marks.
#[derive(Debug)]
pub(super) struct Asked {
    caller: Vec<String>,
    /// Whether anybody has written: where it matters to all what is stored.
    anybody: Option<String>,
}

impl Asked {
    /// `session` is the id that the request names. Nothing where its upstream has no readers, or
    /// nobody's reads follow his writes.
    pub(super) fn of(
        request: &Request<'_>,
        fields: &HeaderMap,
        session: Option<&str>,
    ) -> Option<Box<Self>> {
        let pool = request.pool()?;
        if pool.stick.is_zero() || !is_read(request, fields) {
            return None;
        }
        let (upstream, _) = request.plan().upstreams.get(request.upstream())?;
        let names = Names::of(request, session);
        let caller = match names.subject {
            Some(_) => [names.subject(upstream), Some(names.anonymous(upstream))],
            None => [names.session(upstream), Some(names.address(upstream))],
        };
        let anybody = request.route.cache.as_ref().map(|_| names.anybody(upstream));
        Some(Box::new(Self { caller: caller.into_iter().flatten().collect(), anybody }))
    }

    /// The question.
    pub(super) fn question(&self) -> MarkKeys<'_> {
        MarkKeys { caller: &self.caller, anybody: self.anybody.as_deref() }
    }
}

/// The names of a caller.
struct Names<'r> {
    request: &'r Request<'r>,
    /// Whose it is, and who says so.
    subject: Option<(&'r str, &'r str)>,
    session: Option<&'r str>,
    address: String,
}

impl<'r> Names<'r> {
    fn of(request: &'r Request<'r>, session: Option<&'r str>) -> Self {
        let subject = request.caller.as_deref().and_then(|identity| {
            let subject = identity.subject.as_deref()?;
            Some((&*identity.verifier, subject))
        });
        Self { request, subject, session, address: affinity::address(request) }
    }

    fn key(&self, who: &[&str]) -> String {
        self.request.plan().keys.wrote(who)
    }

    fn subject(&self, upstream: &str) -> Option<String> {
        let (verifier, subject) = self.subject?;
        Some(self.key(&[upstream, "subject", verifier, subject]))
    }

    fn session(&self, upstream: &str) -> Option<String> {
        Some(self.key(&[upstream, "session", self.session?]))
    }

    fn address(&self, upstream: &str) -> String {
        self.key(&[upstream, "address", &self.address])
    }

    fn anonymous(&self, upstream: &str) -> String {
        self.key(&[upstream, "anonymous", &self.address])
    }

    fn anybody(&self, upstream: &str) -> String {
        self.request.plan().keys.anybody_wrote(upstream)
    }

    /// By what a write to this upstream is marked.
    fn all(&self, upstream: &str) -> impl Iterator<Item = String> {
        let is_anonymous = self.subject.is_none();
        let caches = self.request.running().caches();
        [
            self.subject(upstream),
            self.session(upstream),
            Some(self.address(upstream)),
            is_anonymous.then(|| self.anonymous(upstream)),
            caches.then(|| self.anybody(upstream)),
        ]
        .into_iter()
        .flatten()
    }
}

/// The mark that anybody has written to the upstream of a request; nothing where nobody is marked.
pub(super) fn anybody(request: &Request<'_>) -> Option<Arc<str>> {
    request.pool().filter(|pool| !pool.stick.is_zero())?;
    let (upstream, _) = request.plan().upstreams.get(request.upstream())?;
    Some(request.plan().keys.anybody_wrote(upstream).into())
}

/// Whether a request may go to readers at all. What opens a tunnel writes whenever it likes, and a
/// body can be sent once.
fn is_read(request: &Request<'_>, fields: &HeaderMap) -> bool {
    let opens_tunnel = request.route.written.tunnel.is_some() && fields.contains_key(UPGRADE);
    let is_get = matches!(request.received.method, Method::GET | Method::HEAD);
    is_get && !request.has_body && !opens_tunnel
}

/// Notes by what a write is marked: while there is a head, which may name the session.
pub(super) fn note_writer(request: &Request<'_>, session: Option<&str>) {
    let edge = request.route.edge.as_ref();
    let (Some(pools), Some(edged)) =
        (edge.and_then(|edge| edge.pools.as_ref()), &request.resolved.edged)
    else {
        return;
    };
    if pools.stick.is_zero() || request.received.method.is_safe() {
        return;
    }
    let own = request.plan().upstreams.get(request.upstream()).map(|(name, _)| name);
    let names = Names::of(request, session);
    let keys = pools.upstreams.iter().flat_map(|upstream| {
        let is_own = own == Some(upstream);
        names.all(upstream).map(move |key| (key, is_own))
    });
    let _ = edged.writer.set(keys.collect());
}

/// Whether this request is a write that is to be marked.
pub(super) fn is_writer(request: &Request<'_>) -> bool {
    request.resolved.edged.as_ref().is_some_and(|edged| edged.writer.get().is_some())
}

/// What is to be marked once a write has this answer; nothing of what is none, and where it has
/// failed, so that nothing was written.
pub(super) fn wrote(
    request: &Request<'_>,
    answer: Option<(StatusCode, &HeaderMap)>,
) -> Option<Wrote> {
    let keys = request.resolved.edged.as_ref()?.writer.get()?;
    if answer.is_some_and(|(status, _)| status.is_client_error()) {
        return None;
    }
    let from = request.pool().and_then(|pool| Some(&pool.position.as_ref()?.from));
    let position = from.zip(answer).and_then(|(from, (_, headers))| headers.get(from));
    let own = Mark::of_write(position.map(HeaderValue::as_bytes));
    // Another upstream of a split route has a log of its own.
    let mark = |is_own: bool| if is_own { own.clone() } else { Mark::Wrote };
    let marks = keys.iter().map(|(key, is_own)| (key.clone(), mark(*is_own))).collect();
    Some(Wrote { marks, stick: request.route.stick() })
}

/// Chooses who takes a request, once it is known whether its caller has written. `looks_only`: it
/// is not sent.
pub(super) fn choose(
    request: &Request<'_>,
    fields: &HeaderMap,
    marks: Option<(&Asked, Reply<MarksReply>)>,
    looks_only: bool,
) {
    if let (Some(pool), Some(edged)) = (request.pool(), &request.resolved.edged) {
        let side = if is_read(request, fields) {
            side(request, pool, marks, looks_only)
        } else {
            Side::Servers(WhyServers::Write)
        };
        let _ = edged.side.set(side);
    }
}

fn side(
    request: &Request<'_>,
    pool: &Pool,
    marks: Option<(&Asked, Reply<MarksReply>)>,
    looks_only: bool,
) -> Side {
    let pools = &request.gateway().pools;
    // What the store does not know of him, this node may.
    let without_store = |asked: &Asked| {
        let has_written = pools.holds_any(&asked.caller);
        Side::Servers(if has_written { WhyServers::Wrote } else { WhyServers::Unknown })
    };
    let reply = match marks {
        None if pool.stick.is_zero() => MarksReply::default(),
        None => return Side::Servers(WhyServers::Unknown),
        Some((asked, Err(error))) => {
            if !looks_only {
                pools.note_failure(&error);
            }
            return without_store(asked);
        }
        // Where marks may be missing, one that is there is not: nothing older is an answer.
        Some((asked, Ok(reply))) if pools.is_in_doubt(pool.stick) => {
            return match reply.caller {
                Mark::None => without_store(asked),
                Mark::Wrote | Mark::At(_) => Side::Servers(WhyServers::Wrote),
            };
        }
        Some((_, Ok(reply))) => reply,
    };
    let position = match (reply.caller, &pool.position) {
        (Mark::None, _) => None,
        (Mark::At(position), Some(fields)) => {
            HeaderValue::from_maybe_shared(position).ok().map(|value| (fields.to.clone(), value))
        }
        _ => return Side::Servers(WhyServers::Wrote),
    };
    Side::Readers(Arc::new(Reading {
        upstream: pool.readers,
        position,
        may_be_stored: !reply.anybody,
        followed: OnceLock::new(),
    }))
}

/// What `explain` tells of it: the pool and why, and the reader that would be asked. Nothing where
/// the upstream has no readers.
pub(super) fn foresee(
    request: &Request<'_>,
    key: Option<u64>,
) -> Option<((&'static str, String), Option<Foreseen>)> {
    let stick = duration_text(request.pool()?.stick);
    let servers = |why: String| (("servers", why), None);
    Some(match request.resolved.side()? {
        Side::Servers(WhyServers::Wrote) => {
            servers(format!("its caller has written within {stick}"))
        }
        Side::Servers(WhyServers::Unknown) => servers(format!(
            "the store does not say whether its caller has written, or may lack marks: it was \
             away, or readers were added, within {stick}"
        )),
        Side::Servers(_) => servers("only GET and HEAD without a body go to readers".to_owned()),
        Side::Readers(reading) => {
            match request.running().upstreams.get(reading.upstream)?.foresee(key) {
                Err(failure) => servers(format!("no reader can be asked: {failure}")),
                Ok(foreseen) => {
                    let why = match &reading.position {
                        Some((name, value)) => {
                            let value = value.to_str().unwrap_or_default();
                            format!("its caller has written, and they are told {name}: {value}")
                        }
                        None => "it is a read, and its caller has not written lately".to_owned(),
                    };
                    (("readers", why), Some(foreseen))
                }
            }
        }
    })
}

/// Whether the caller has written, so that nothing that was stored before may answer him.
pub(super) fn has_written(request: &Request<'_>) -> bool {
    match request.resolved.side() {
        Some(Side::Servers(why)) => matches!(why, WhyServers::Wrote),
        Some(Side::Readers(reading)) => reading.position.is_some(),
        None => false,
    }
}
