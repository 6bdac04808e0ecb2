//! What the answer to a HEAD says about the stored answer to a GET, RFC 9111 §4.3.5.

use std::sync::Arc;

use http::Response;

use super::fetch::{Fetch, Times};
use super::keep::Keeper;
use crate::cache::{self, HeadNews, Stored};
use crate::upstream::Download;

impl Fetch {
    /// Takes the news in: an entry that is confirmed is fresh again, one that is contradicted ends.
    pub(super) async fn learn(&self, stale: &Stored, response: &Response<Download>, times: Times) {
        let (gateway, site) = (&self.gateway, &self.errand.site);
        let (policy, asked) = (&self.errand.policy, self.asked(times));
        let (status, headers) = (response.status(), response.headers());
        match cache::head_news(stale, status, headers, policy, (&asked, times.answered_ms)) {
            HeadNews::Confirmed(fresh) if fresh.keep.is_ok() => {
                let (gateway, policy) = (Arc::clone(gateway), Arc::clone(policy));
                let site = site.clone();
                let keeper = Keeper { gateway, policy, site, replaces: None, lease: None };
                // Kept or not: nobody waits for it.
                let _ = keeper.keep(fresh.stored, &self.fields).await;
            }
            HeadNews::Outdated if stale.remaining_ms(times.answered_ms) > 0 => {
                // Its variants are answers of the same resource: they are as old. Waited for, since
                // nothing else is read from the cache while an invalidation is under way.
                gateway.invalidate(vec![site.place.path_epoch().to_owned()]).await;
            }
            HeadNews::Confirmed(_) | HeadNews::Outdated | HeadNews::None => {}
        }
    }
}
