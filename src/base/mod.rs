//! Words that everybody uses: units, facts about a request, bodies. Knows nothing of the project's
//! other modules.

pub mod authority;
pub mod body;
pub mod claim;
pub mod cookie;
pub mod facts;
pub mod interim;
pub mod path;
pub mod shard;
pub mod units;
