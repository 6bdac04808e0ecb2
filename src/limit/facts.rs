//! What a limit looks at: the facts of one request.

use http::{HeaderMap, Method};

use crate::base::facts::{Caller, ClientAddr};

/// What a key, a tier and a cost may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address.
    pub address: ClientAddr,
    /// The verified caller.
    pub caller: &'a Caller,
    /// The request's method.
    pub method: &'a Method,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The session's id.
    pub session: Option<&'a str>,
    /// The route's name.
    pub route: &'a str,
}
