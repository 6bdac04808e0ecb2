//! What operators did through the admin API.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;

use super::counter::Words;
use super::series::{Described, family};

/// An operation, by the words of the API's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operated {
    /// Its path, in which `{…}` stands for what its sender chose;
    /// `unknown` where it leads nowhere.
    pub path: &'static str,
    /// Its method; empty where its path leads nowhere.
    pub method: &'static str,
    /// What came of it.
    pub result: &'static str,
}

/// Counts operations that change something.
#[derive(Debug, Default)]
pub struct OperationMeter {
    operations: Mutex<BTreeMap<Operated, u64>>,
    revocations: Words,
    purges: Words,
}

impl OperationMeter {
    /// One has ended.
    pub fn operated(&self, what: Operated) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        *operations.entry(what).or_default() += 1;
    }

    /// Something of this kind was revoked.
    pub fn revoked(&self, kind: &'static str) {
        self.revocations.count(kind);
    }

    /// Stored responses of this scope were withdrawn.
    pub fn purged(&self, scope: &'static str) {
        self.purges.count(scope);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let operations = operations.into_iter().map(|(it, count)| {
            let operation = format!("{} {}", it.method, it.path).trim_start().to_owned();
            let labels = [("operation", operation), ("result", it.result.to_owned())];
            (labels, ConstCounter::new(count))
        });
        let help = "Operations of the admin API that change something, and those with a wrong \
                    token, by what came of them.";
        family(encoder, &Described::new("admin_operations", help), operations)?;
        let by = |label, words: &Words| {
            words.all().into_iter().map(move |(word, count)| ([(label, word)], count))
        };
        let help = "Revocations by the admin API, by what they name.";
        let revocations = by("kind", &self.revocations);
        family(encoder, &Described::new("revocations", help), revocations)?;
        let help = "Purges by the admin API, by what they withdraw.";
        family(encoder, &Described::new("cache_purges", help), by("scope", &self.purges))
    }
}
