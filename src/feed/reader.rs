//! One source of events on one node: it waits for the lock, reads while it has it, and gives it up
//! when the source is another one or the gateway ends.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{EventSource, Nats, UpstreamTls};
use crate::plan::{EventRule, Plan};
use crate::runtime::{EventsSeen, Gateway};
use crate::store::{HeldLock, Unread};
use crate::upstream::Bus;

/// How long the lock outlives its last renewal: so long nobody reads after a node has died. Two who
/// read do no harm: all that events do may be done twice.
const LOCK: Duration = Duration::from_millis(1500);
/// How often it is renewed, or asked for.
const RENEWAL: Duration = Duration::from_millis(400);
/// Pause between two looks where there is nothing new, or no store.
pub(super) const POLL: Duration = Duration::from_millis(150);

/// Why reading has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Somebody else has the lock, or nobody can tell.
    Lost,
    /// It is not to be read any more, or not here.
    Over,
}

/// Who tells over NATS: the name of the upstream, its servers and who the gateway is to them.
type Told = (String, Option<Arc<Nats>>, Option<Arc<UpstreamTls>>);

/// See the module.
pub(super) struct Reader {
    gateway: Weak<Gateway>,
    pub(super) name: String,
    pub(super) from: EventSource,
    /// The upstream over NATS that tells of them, as it was when reading began.
    nats: Option<Told>,
    pub(super) seen: Arc<EventsSeen>,
    /// How many entries the stream had ever had when this node last looked; 0: it never did.
    pub(super) added: AtomicU64,
    /// Why nothing was read, where what that means is done and the stream is still to be begun.
    pub(super) done: Mutex<Option<Unread>>,
}

impl Reader {
    pub(super) fn new(gateway: &Arc<Gateway>, name: &str, rule: &EventRule) -> Self {
        Self {
            gateway: Arc::downgrade(gateway),
            name: name.to_owned(),
            from: rule.from.clone(),
            nats: nats(&gateway.running().plan, rule),
            seen: gateway.events.of(name),
            added: AtomicU64::new(0),
            done: Mutex::default(),
        }
    }

    /// The gateway, while this source is read and the gateway does not end.
    pub(super) fn gateway(&self) -> Option<Arc<Gateway>> {
        let gateway = self.gateway.upgrade()?;
        let running = gateway.running();
        let is_same =
            |rule: &EventRule| rule.from == self.from && nats(&running.plan, rule) == self.nats;
        let is_read = running.plan.events.get(&self.name).is_some_and(is_same);
        (is_read && !gateway.is_draining()).then_some(gateway)
    }

    /// A connection of its own with who tells over NATS; nothing where the source is another one.
    pub(super) fn bus(&self) -> Option<Bus> {
        let gateway = self.gateway()?;
        let (name, ..) = self.nats.as_ref()?;
        let running = gateway.running();
        let index = running.plan.upstreams.iter().position(|(known, _)| known == name)?;
        running.upstreams.get(index)?.bus(&format!("events.{}", self.name))
    }

    /// Waits for the lock, and works while it has it, until that is over.
    pub(super) async fn hold<W: Future<Output = ()>>(&self, work: impl Fn() -> W) {
        let Some(key) = self.gateway().map(|it| it.running().plan.keys.events_reader(&self.name))
        else {
            return;
        };
        let lock = HeldLock { key, token: format!("{:032x}", fastrand::u128(..)) };
        loop {
            let Some(gateway) = self.gateway() else { return };
            let has_lock = gateway.store.lock(&lock, LOCK).await;
            drop(gateway);
            match has_lock {
                Ok(true) => {
                    self.seen.reads(true);
                    let ended = tokio::select! {
                        () = work() => Ended::Over,
                        ended = self.renew(&lock) => ended,
                    };
                    self.seen.reads(false);
                    if ended == Ended::Over {
                        break;
                    }
                }
                Ok(false) => {}
                Err(error) => self.fails(&error),
            }
            tokio::time::sleep(RENEWAL).await;
        }
        // Where it cannot be given back it ends by itself.
        if let Some(gateway) = self.gateway.upgrade() {
            let _ = gateway.store.unlock(&lock).await;
        }
    }

    /// Ends when the lock has passed to somebody else, or may have, or nothing is read any more.
    async fn renew(&self, lock: &HeldLock) -> Ended {
        let mut held = Instant::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            let Some(gateway) = self.gateway() else { return Ended::Over };
            let asked = Instant::now();
            match gateway.store.extend_lock(lock, LOCK).await {
                Ok(true) => held = asked,
                Ok(false) => return Ended::Lost,
                // The store is away for everybody, until it is known otherwise.
                Err(_) if held.elapsed() < LOCK => {}
                Err(_) => return Ended::Lost,
            }
        }
    }

    /// The source cannot be read; said once.
    pub(super) fn fails(&self, error: &dyn std::error::Error) {
        if self.seen.fails(Some(error.to_string())) {
            tracing::warn!(
                events = self.name,
                %error,
                "events cannot be read; trying on (docs/events.md names the rights that the \
                 gateway needs)"
            );
        }
    }

    /// It can be read.
    pub(super) fn succeeds(&self) {
        if self.seen.fails(None) {
            tracing::info!(events = self.name, "events are read again");
        }
    }
}

fn nats(plan: &Plan, rule: &EventRule) -> Option<Told> {
    let name = rule.upstream.as_ref()?;
    let settings = plan.config.upstreams.get(name)?;
    Some((name.clone(), settings.nats.clone(), settings.tls.clone()))
}
