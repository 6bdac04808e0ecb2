//! Connections that have changed to WebSocket (RFC 6455): what is between the two sockets once the
//! handshake is over. Knows neither who may open one nor how.
//!
//! Both directions and the clock are one future (`pump`). A direction (`pipe`) writes what it has
//! read before it reads more. Payloads are not looked at; the headers of frames are (`flow`), so
//! that messages can be counted and a Close of our own stands between two frames.

mod control;
mod end;
mod flow;
mod frame;
mod key;
mod pace;
mod pipe;
mod pump;

pub use control::Control;
pub use end::End;
pub use flow::Refusal;
pub use key::{accept, fresh as fresh_key};
pub use pump::{Begun, Carrier, Pump, Report, Rules};
