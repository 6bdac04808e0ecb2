//! Questions to the store besides the one that most requests ask.

use crate::limit::Debt;
use crate::observe::Took;
use crate::runtime::Gateway;
use crate::store::{Answers, ConcurrencyLimit, Questions, WindowSet};

/// What replaces the limits' questions where the store only looks.
pub(super) struct Peek {
    pub(super) windows: Option<WindowSet>,
    pub(super) limits: Vec<ConcurrencyLimit>,
}

/// Asks behind what was waited for before, or beside a debt: that is sent first, so that the store
/// has counted it when it judges.
pub(super) async fn ask_behind(
    gateway: &Gateway,
    debt: Option<Debt>,
    questions: &Questions<'_>,
) -> (Box<Answers>, Option<Took>) {
    match debt {
        Some(debt) => tokio::join!(gateway.limits.pay(debt), gateway.ask(questions)).1,
        None => gateway.ask(questions).await,
    }
}

/// Of the questions, those of limits.
pub(super) fn of_limits(all: Questions<'_>) -> Questions<'_> {
    Questions { charges: all.charges, leases: all.leases, ..Questions::default() }
}
