//! What one request says of the things that only some routes look at.

use std::sync::{Arc, OnceLock};

use http::header::{CONTENT_LENGTH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::in_head::in_head;
use super::rejection::Rejection;
use crate::base::addressed::Addressed;
use crate::base::facts::Target;
use crate::encode::{Asked, Coding};
use crate::guard::Malformed;
use crate::plan::RouteEdge;
use crate::route::NoRoute;

/// What is known of a request beside what every request has.
#[derive(Debug)]
pub(super) struct Edged {
    /// What it says of codings, where the route has any.
    pub(super) asked: Option<Asked>,
    /// Its `If-None-Match`, if that is so.
    pub(super) conditions: HeaderMap,
    /// The coding that its response has.
    pub(super) coding: Option<Coding>,
    /// What the upstream is asked for, where that is something else. Whatever is decided here is
    /// decided by what the client asked for.
    pub(super) rewritten: Option<Target>,
    /// Where it goes as a message, where it does.
    pub(super) addressed: Option<Arc<Addressed>>,
    /// When its response must have begun.
    pub(super) deadline: Option<Instant>,
    /// The upstream that takes it, where its route is split, once that is known.
    pub(super) chosen: OnceLock<Chosen>,
    /// What it is told by, for each field and cookie by which its route's upstreams choose servers.
    pub(super) keys: Vec<Option<u64>>,
    /// Who takes it, where its upstream has readers, once that is known.
    pub(super) side: OnceLock<Side>,
    /// The keys by which it is marked if it writes, and whether they are of its own upstream.
    pub(super) writer: OnceLock<Vec<(String, bool)>>,
}

/// Who of an upstream with readers takes a request.
#[derive(Debug)]
pub(super) enum Side {
    /// Its servers.
    Servers(WhyServers),
    /// Its readers, unless they cannot.
    Readers(Arc<Reading>),
}

/// A request that readers take.
#[derive(Debug)]
pub(super) struct Reading {
    /// The index of the upstream that they are.
    pub(super) upstream: usize,
    /// What they are told of how far they must be.
    pub(super) position: Option<(HeaderName, HeaderValue)>,
    /// Whether what they answer may be stored for others.
    pub(super) may_be_stored: bool,
    /// Why servers have taken it after all.
    pub(super) followed: OnceLock<WhyServers>,
}

/// Why servers take a request, and no reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhyServers {
    /// It may write.
    Write,
    /// Its caller has written lately.
    Wrote,
    /// The store does not say whether he has.
    Unknown,
    /// What it is answered is stored for all, and somebody has written lately.
    Stored,
    /// The reader says that it is behind.
    Behind,
    /// No reader takes it.
    Out,
}

impl Side {
    /// The word for the log: who has answered.
    pub(super) fn word(&self) -> &'static str {
        let why = match self {
            Self::Servers(why) => Some(why),
            Self::Readers(reading) => reading.followed.get(),
        };
        why.map_or("readers", |why| why.word())
    }
}

impl WhyServers {
    fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Wrote => "wrote",
            Self::Unknown => "unknown",
            Self::Stored => "stored",
            Self::Behind => "behind",
            Self::Out => "out",
        }
    }
}

/// The upstream that takes a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    /// Its number in the split.
    pub(super) arm: usize,
    /// Its index in the plan.
    pub(super) upstream: usize,
    pub(super) why: Why,
}

/// Why it takes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    /// A trusted proxy says so.
    Forced,
    /// The number of its caller.
    Bucket(u16),
    /// A number that was drawn.
    Drawn,
}

impl Edged {
    /// What this request's head says. `target` is what would be sent on.
    ///
    /// # Errors
    /// It may not pass the route.
    pub(super) fn of(
        edge: &RouteEdge,
        head: &Parts,
        target: &Target,
        started: Instant,
    ) -> Result<Box<Self>, Rejection> {
        if edge.via.as_ref().is_some_and(|via| via.has_passed(&head.headers)) {
            return Err(Rejection::Loop);
        }
        if edge.body_bytes.is_some_and(|most| announced(head) > most) {
            return Err(Malformed::BodyTooLarge.into());
        }
        let rewritten = edge.rewrite.as_ref().map(|rewrite| rewrite.apply(target));
        let addressed = edge.subject.as_ref().map(|subject| {
            let addressed = subject.fill(target.path()).map(Arc::new);
            addressed.ok_or(Rejection::NoRoute(NoRoute::NotFound))
        });
        let asked = edge.compress.as_ref().map(|_| Asked::of(head));
        let tags = head.headers.get_all(IF_NONE_MATCH).iter().filter(|_| asked.is_some());
        Ok(Box::new(Self {
            asked,
            conditions: tags.map(|value| (IF_NONE_MATCH, value.clone())).collect(),
            coding: None,
            rewritten: rewritten.transpose().map_err(Malformed::Path)?,
            addressed: addressed.transpose()?,
            deadline: edge.deadline.map(|deadline| started + deadline),
            chosen: OnceLock::new(),
            keys: edge
                .hash_by
                .iter()
                .map(|by| in_head(by, &head.headers).map(|value| xxh3_64(&value)))
                .collect(),
            side: OnceLock::new(),
            writer: OnceLock::new(),
        }))
    }
}

/// The length of the body, as far as the head says it; it has been found to be a number.
fn announced(head: &Parts) -> u64 {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
