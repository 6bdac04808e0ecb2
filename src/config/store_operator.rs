//! `[store.operator]`: the user by which operators look at Redis. No request is asked as this user.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::value::{duration_or_zero, text};
use crate::base::units::Secret;

/// How often INFO is asked for where the file does not say.
const INFO: Duration = Duration::from_secs(15);

/// `[store.operator]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOperator {
    /// ACL user.
    pub username: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The file that the password is read from anew for each connection.
    pub password_file: Option<PathBuf>,
    /// How often INFO is asked for, for the metrics; zero: never.
    pub info: Duration,
}

impl StoreOperator {
    /// The same without what its file holds.
    pub(super) fn fixed(&self) -> Self {
        let password = self.password.clone().filter(|_| self.password_file.is_none());
        Self { password, ..self.clone() }
    }
}

/// Reads the table.
pub(super) fn read(operator: &mut Section<'_>) -> StoreOperator {
    let (password, password_file) = operator.secret_of_file("password").unzip();
    if !operator.has("password") {
        // Without one, whoever connects is somebody else: the default user.
        operator.problem("password", "is missing", "write password = \"env:OPERATOR_PASSWORD\"");
    }
    StoreOperator {
        username: operator.need("username", "\"operator\"", text).unwrap_or_default(),
        password,
        password_file: password_file.flatten(),
        info: operator.or("info", INFO, duration_or_zero),
    }
}
