//! The life of one request: only this room knows the order of things. `walk` has it, from the head
//! to the response.

mod affinity;
mod arm;
mod asking;
mod body;
mod challenge;
mod checks;
mod connection;
mod content;
mod degraded;
mod deliver;
mod dispatch;
mod edge;
mod edged;
mod events;
mod explain;
mod faults;
mod forecast;
mod grpc;
mod in_head;
mod invalidation;
mod mirror;
mod pools;
mod record;
mod rejection;
mod request;
mod resolve;
mod settle;
mod standing;
mod transaction;
mod transport;
mod tunnel;
mod unparsed;
mod upgrade;
mod walk;
mod why;
mod without_store;

pub use self::body::Body;
pub use self::connection::Connection;
pub use self::content::Fault as BodyFault;
pub use self::explain::{Described, explain};
pub use self::rejection::Rejection;
pub use self::tunnel::Tunnel;
pub use self::unparsed::{Unparsed, log_turned_away, log_unparsed};
pub use self::walk::handle;
pub use self::why::without_credentials;
