//! Looks at a Redis Cluster, each second and when something shows that it has changed.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::{Cluster, node};
use super::connect_error::ConnectError;
use super::dial::{Call, Purpose};
use super::map::{Known, Map};
use super::mismatch;
use super::reply::server_error;
use super::slots::{Address, Calling, View};
use crate::config::StoreUrl;

/// Pause between two looks at the cluster when nothing asks for one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Least pause between two looks; it doubles while they find nothing new, up to the next one.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The same while a server is lost: its successor may be chosen any time.
const LOOK_PAUSE_LOST: Duration = Duration::from_millis(100);
/// How many servers are asked in one look.
const ASKED_MAX: usize = 3;

impl Cluster {
    /// Asks some servers how the cluster is. False when nothing was learned.
    async fn look(&self) -> bool {
        let map = self.map.load_full();
        let mut up: Vec<_> = map.servers.iter().filter(|it| it.server.home().is_up()).collect();
        fastrand::shuffle(&mut up);
        up.truncate(ASKED_MAX);
        let views = up.into_iter().map(|known| self.view_of(known));
        let views = join_all(views).await.into_iter().flatten();
        let views = views.filter(|view| self.is_of_this(&map, view));
        // One that is older than the map is the last to be believed, though it may say that all is
        // well.
        let (now, older): (Vec<_>, Vec<_>) = views.partition(|view| !map.is_newer_than(view));
        let (best, older) = (best(now.into_iter()), best(older.into_iter()));
        // Where nobody of the known ones is left, seeds are who the operator calls the cluster.
        let seeds = self.seeds.iter().map(|seed| (seed, false));
        let others = map.replicas.iter().map(|it| (&it.member.address, true)).chain(seeds);
        let others = others.map(async |(address, is_known)| {
            let view = self.view_from(address).await;
            view.filter(|view| !is_known || self.is_of_this(&map, view))
        });
        first_of(best, others, older).await.is_some_and(|view| self.adopt(&view))
    }

    /// Whether a view is of the cluster that is known. An address may have been given to a server
    /// of another one.
    fn is_of_this(&self, map: &Map, view: &View) -> bool {
        let is_of_this = map.is_of(view);
        if !is_of_this && !self.is_another_told.swap(true, Ordering::Relaxed) {
            let other = view.primaries.first().map(|member| &member.address);
            tracing::warn!(
                ?other,
                "a known address answers as another Redis Cluster, which is not believed"
            );
        }
        is_of_this
    }

    /// What a server that is connected says.
    async fn view_of(&self, Known { member, server, .. }: &Known) -> Option<View> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let replies = server.home().examine(&mut questions(), deadline).await.ok()?;
        self.view(&replies, &member.address)
    }

    /// What one says that is not.
    async fn view_from(&self, address: &Address) -> Option<View> {
        let (node, material) = (&node(address, &self.common), &self.common.credentials.now());
        let call = Call { settings: &self.settings, node, material, purpose: Purpose::Map };
        let asked = async {
            let connection = call.dial(|_| {}).await?;
            connection.send(&questions()).await.map_err(ConnectError::from)
        };
        let replies = tokio::time::timeout(self.settings.connect_timeout, asked).await;
        let replies = match replies.unwrap_or(Err(ConnectError::Timeout)) {
            Ok(replies) => replies,
            Err(error) => {
                self.tell_of_seed(address, &error).await;
                return None;
            }
        };
        if let Some(error) = replies.iter().find_map(server_error) {
            tracing::warn!(%error, node = %format_args!("{}:{}", address.0, address.1),
                "a server does not say how its Redis Cluster is");
        }
        self.view(&replies, address)
    }

    /// Says once why nothing is known of the cluster: nobody else would.
    async fn tell_of_seed(&self, (host, port): &Address, error: &ConnectError) {
        if !self.map.load().servers.is_empty() || self.is_seed_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let url = StoreUrl::Redis { host: host.clone(), port: *port, db: 0 };
        let condition = match error.condition() {
            Some(condition) => Some(condition),
            None => mismatch::find(&self.settings, &url).await,
        };
        let help = condition.map(|condition| condition.text(self.common.table));
        let (what, help) =
            help.unwrap_or(("it cannot be reached".into(), "see to it that it runs".into()));
        tracing::warn!(
            %error,
            server = %format_args!("{host}:{port}"),
            "no server of the Redis Cluster is known yet: {what}\n    help: {help}"
        );
    }

    fn view(&self, replies: &[Value], asked: &Address) -> Option<View> {
        // A certificate is for a name, as a rule; with one for all, any address will do.
        let by_name = self.settings.tls.as_ref().is_some_and(|tls| tls.server_name.is_none());
        let calling = Calling { asked, by_name, map: &self.settings.address_map };
        View::read(replies.first()?, replies.get(1)?, calling)
    }

    fn is_whole(&self) -> bool {
        self.map.load().servers.iter().all(|known| known.server.home().is_up())
    }
}

/// Begins to keep the map of a cluster. Must be called within a tokio runtime that outlives all
/// threads that ask.
pub(super) fn start(cluster: &Arc<Cluster>) {
    tokio::spawn(keep_map(Arc::downgrade(cluster), Arc::clone(&cluster.look)));
}

/// Looks at the cluster again and again. Ends when it is dropped.
async fn keep_map(cluster: Weak<Cluster>, look: Arc<Notify>) {
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let is_new = strong.look().await;
        let longest = if strong.is_whole() { LOOK_PAUSE } else { LOOK_PAUSE_LOST };
        drop(strong);
        pause = if is_new { LOOK_PAUSE_MIN } else { (pause * 2).min(longest) };
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(longest.saturating_sub(pause)) => {}
        }
    }
}

fn questions() -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.cmd("CLUSTER").arg("INFO");
    pipeline.cmd("CLUSTER").arg("SLOTS");
    pipeline
}

/// What is to be believed: the best of what is known, or what the first of others says, who are
/// asked one after the other; and only where nobody else says anything, what is older.
async fn first_of<T>(
    best: Option<T>,
    others: impl Iterator<Item = impl Future<Output = Option<T>>>,
    older: Option<T>,
) -> Option<T> {
    if best.is_some() {
        return best;
    }
    for said in others {
        let said = said.await;
        if said.is_some() {
            return said;
        }
    }
    older
}

fn best(views: impl Iterator<Item = View>) -> Option<View> {
    views.reduce(|best, view| if view.beats(&best) { view } else { best })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_older_is_believed_last_and_nobody_is_asked_in_vain() {
        let asked = RefCell::new(Vec::new());
        let first = |best, says: [Option<u8>; 3]| {
            asked.borrow_mut().clear();
            let others = says.into_iter().enumerate().map(async |(at, said)| {
                asked.borrow_mut().push(at);
                said
            });
            first_of(best, others, Some(9)).now_or_never().expect("nothing is waited for")
        };
        assert_eq!(first(Some(1), [Some(2), None, None]), Some(1));
        assert!(asked.borrow().is_empty());
        assert_eq!(first(None, [None, Some(2), Some(3)]), Some(2));
        assert_eq!(*asked.borrow(), [0, 1]);
        assert_eq!(first(None, [None; 3]), Some(9));
        assert_eq!(*asked.borrow(), [0, 1, 2]);
    }
}
