//! What is told of the store, as metrics have it.

use crate::config::StoreUse;
use crate::observe::StoreNow;
use crate::store::{Asked, Rung, Store};

/// The names of all rungs.
const RUNGS: [&str; Rung::ALL.len()] = {
    let [a, b, c, d] = Rung::ALL;
    [a.name(), b.name(), c.name(), d.name()]
};

/// The stores that are Redis.
pub(super) fn stores(store: &Store) -> Vec<StoreNow> {
    store.uses().filter_map(|usage| now(store, usage)).collect()
}

fn now(store: &Store, usage: StoreUse) -> Option<StoreNow> {
    let state = store.state(usage)?;
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
        name: usage.word(),
        nodes: nodes.map(|node| (node.name, node.rung.name())).collect(),
        rungs: &RUNGS,
        questions: questions.to_vec(),
        shed,
        checks: state.checks,
        redirects: state.redirects.to_vec(),
    })
}
