//! What lies in the store. Private keys in it are wrapped (`vault`).

use serde::{Deserialize, Serialize};

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificate {
    /// Its names as they were ordered.
    pub(super) names: Vec<String>,
    /// Whose it is.
    pub(super) directory: String,
    /// In PEM, its own certificate first.
    pub(super) chain: String,
    /// In PKCS#8, wrapped.
    pub(super) key: String,
    /// Its dates, in Unix seconds.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// Differs from one certificate to the next.
    pub(super) version: String,
}

/// The account with an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) directory: String,
    /// In PKCS#8, wrapped.
    pub(super) key: String,
    /// The authority's name for it; nothing until it has answered. The key is stored first, so that
    /// a gateway which dies in between leaves no account that nobody knows.
    pub(super) id: Option<String>,
}

/// An order in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) names: Vec<String>,
    pub(super) directory: String,
    /// The account that ordered.
    pub(super) account: String,
    pub(super) url: String,
    /// When it was charged, on the store's clock of windows, in microseconds.
    pub(super) charged_us: u64,
    /// The certificate's key in PKCS#8, wrapped.
    pub(super) key: String,
}

/// Why nobody orders now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// In a row.
    pub(super) failures: u32,
    /// Unix seconds when somebody may again.
    pub(super) until: i64,
    pub(super) why: String,
}

/// When the authority wants a certificate renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// Of which version; what is said of another one does not count.
    pub(super) version: String,
    /// Unix seconds; nothing where the authority says nothing.
    pub(super) at: Option<i64>,
    /// Unix seconds when it is asked again.
    pub(super) ask_at: i64,
}
