//! Which program this is.

/// Its version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from; `unknown` where the build was not told.
pub const COMMIT: &str = env!("PORTCULLIS_COMMIT");
/// Both, as `portcullis --version` says them.
pub const VERSION_AND_COMMIT: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("PORTCULLIS_COMMIT"), ")");
