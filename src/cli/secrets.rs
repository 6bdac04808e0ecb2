//! `--without-secrets`: looks at a configuration whose secrets are on another machine.

use std::collections::BTreeMap;

use clap::Args;

use crate::config::Secrets;

/// Options of commands that look at files and serve nothing.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WithoutSecrets {
    /// Take it for no mistake that files and variables of secrets are not here (file:PATH,
    /// env:NAME, ${NAME}, certificates with their keys), and say which were not looked at.
    #[arg(long)]
    without_secrets: bool,
}

impl WithoutSecrets {
    pub(super) fn is_given(self) -> bool {
        self.without_secrets
    }

    /// What it says of secrets.
    pub(super) fn word(self) -> Secrets {
        if self.without_secrets { Secrets::MayBeElsewhere } else { Secrets::Here }
    }
}

/// A line for each secret that is not here, by its key.
pub(super) fn not_looked_at(unseen: &BTreeMap<String, String>) -> String {
    unseen.iter().map(|(key, place)| format!("not looked at: {key} ({place})\n")).collect()
}
