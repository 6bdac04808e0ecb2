//! What a route answers by itself: a redirect, a notice of maintenance, a fixed text.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::base::facts::Target;
use crate::config::{self, Problems};
use crate::route::{Location, Matcher, Template};

/// An answer without an upstream.
#[derive(Debug)]
pub struct Respond {
    /// The status.
    pub status: StatusCode,
    /// The content.
    pub body: Bytes,
    /// The fields that are always the same.
    fields: HeaderMap,
    location: Option<Location>,
}

impl Respond {
    pub(super) fn compile(
        respond: &config::Respond,
        (written, matcher): (&config::Route, &Matcher),
        at: &impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut fields = HeaderMap::new();
        if !respond.body.is_empty() {
            fields.insert(CONTENT_TYPE, respond.content_type.clone());
        }
        if let Some(after) = respond.retry_after {
            fields.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        let route = (&*written.path, &matcher.path);
        let template = |path: &str| Template::parse(path, route, matcher.reading);
        let location = match respond.location.as_ref().map(|text| Location::parse(text, template)) {
            None => None,
            Some(Ok(location)) => Some(location),
            Some(Err(help)) => {
                let what = "clients cannot be sent there".to_owned();
                problems.push(at("respond.location"), what, help.to_owned());
                return None;
            }
        };
        let body = Bytes::from(respond.body.clone());
        Some(Self { status: respond.status, body, fields, location })
    }

    /// The fields of the answer to a request for this.
    ///
    /// # Errors
    /// There is no place that a client who asked for it could be sent to.
    pub fn fields(&self, target: &Target) -> Result<HeaderMap, &'static str> {
        let mut fields = self.fields.clone();
        if let Some(location) = &self.location {
            fields.insert(LOCATION, location.of(target)?);
        }
        Ok(fields)
    }
}
