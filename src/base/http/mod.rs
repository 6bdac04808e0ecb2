//! The parts of HTTP messages that several rooms read or write, each in one way.

pub mod authority;
pub mod cookie;
pub mod credentials;
pub mod fields;
pub mod form;
pub mod hex;
pub mod path;
pub mod percent;
