//! What one request says of the things that only some routes look at.

use http::HeaderMap;
use http::header::IF_NONE_MATCH;
use http::request::Parts;

use crate::encode::{Asked, Coding};

/// What is known of a request beside what every request has.
#[derive(Debug)]
pub(super) struct Edged {
    pub(super) asked: Asked,
    /// Its `If-None-Match`.
    pub(super) conditions: HeaderMap,
    /// The coding that its response has.
    pub(super) coding: Option<Coding>,
}

impl Edged {
    /// What this request's head says.
    pub(super) fn of(head: &Parts) -> Box<Self> {
        let tags = head.headers.get_all(IF_NONE_MATCH).iter();
        let conditions = tags.map(|value| (IF_NONE_MATCH, value.clone())).collect();
        Box::new(Self { asked: Asked::of(head), conditions, coding: None })
    }
}
