//! What is told of the store, as metrics have it.

use crate::observe::StoreNow;
use crate::store::{Asked, Rung, Store};

/// What `[store]` is called among stores.
const MAIN: &str = "main";
/// The names of all rungs.
const RUNGS: [&str; Rung::ALL.len()] = {
    let [a, b, c, d] = Rung::ALL;
    [a.name(), b.name(), c.name(), d.name()]
};

/// The store, where it is Redis.
pub(super) fn store(store: &Store) -> Option<StoreNow> {
    let state = store.state()?;
    let nodes = state.nodes.into_iter().filter(|node| node.is_primary);
    let Asked { answered, missed, failed, cancelled, shed, open, .. } = state.asked;
    let questions = [
        ("answered", answered),
        ("timeout", missed),
        ("failed", failed),
        ("cancelled", cancelled),
        ("shed", shed),
        ("open", open),
    ];
    Some(StoreNow {
        name: MAIN,
        nodes: nodes.map(|node| (node.name, node.rung.name())).collect(),
        rungs: &RUNGS,
        questions: questions.to_vec(),
        shed,
        checks: state.checks,
        redirects: state.redirects.to_vec(),
    })
}
