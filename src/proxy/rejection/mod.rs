//! Every way in which the gateway itself ends a request. `kind` has them. `rows` is the table of
//! what each is: status, stable code, whose fault it was, what the client reads, the key that
//! bounds it. `row` writes one, and `answer` is what others ask of a refusal. A new kind does not
//! compile until it has a row.

mod answer;
mod delivery_rows;
mod event_rows;
mod kind;
mod login_rows;
mod oidc_rows;
mod row;
mod rows;
mod signed_rows;

pub use self::kind::Rejection;
pub(super) use self::row::{Bound, whole_seconds};
