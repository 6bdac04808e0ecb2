//! How browsers log in at an OpenID provider (OpenID Connect Core 1.0, RFC 6749, RFC 9700): what is
//! asked of it, what comes back, and what must hold of that. Pure: whoever calls has the answers,
//! and says what time it is. Signatures are verified elsewhere. It must not know routes, the store,
//! nor sessions.

mod attempt;
mod authorization;
mod callback;
mod fault;
mod id_token;
mod logout_token;
mod metadata;
mod return_to;
mod token_endpoint;
mod userinfo;

#[cfg(test)]
mod tests;

pub use self::attempt::{
    Attempt, LOGIN_COOKIES_MAX, Secrets, binding_of, digest_of, strip_cookies,
};
pub use self::authorization::authorization_url;
pub use self::callback::{Callback, Outcome};
pub use self::fault::Fault;
pub use self::id_token::{Expected, Header, LoggedIn};
pub use self::logout_token::{LoggedOut, logged_out, logout_token};
pub use self::metadata::Metadata;
pub use self::return_to::return_to;
pub use self::token_endpoint::{Grant, Tokens, client_credentials, form, tokens};
pub use self::userinfo::userinfo;
