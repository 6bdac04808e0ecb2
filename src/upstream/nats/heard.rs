//! What was heard and waits for who listens: bounded by its number and by its bytes. What is beyond
//! that is lost, and so is the connection then: whoever listens anew knows that some was missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::HEARD_MAX;
use super::link::Live;

/// Most bytes of them; one alone may be longer.
const HEARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    receiver: mpsc::Receiver<Heard>,
    bytes: Arc<AtomicUsize>,
}

/// The end of it where messages come in.
#[derive(Debug)]
struct Entry {
    sender: mpsc::Sender<Heard>,
    bytes: Arc<AtomicUsize>,
}

impl Heard {
    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len()
    }
}

impl From<Message> for Heard {
    fn from(message: Message) -> Self {
        Self { subject: message.subject.to_string(), payload: message.payload }
    }
}

impl Queue {
    fn new() -> (Entry, Self) {
        let (sender, receiver) = mpsc::channel(HEARD_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        (Entry { sender, bytes: Arc::clone(&bytes) }, Self { receiver, bytes })
    }

    /// One that is filled by a subscription until that, or this, is gone.
    pub(super) fn fill(live: &Arc<Live>, subscriber: Subscriber) -> Self {
        let (entry, queue) = Self::new();
        tokio::spawn(fill(Arc::clone(live), subscriber, entry));
        queue
    }

    /// The next messages, at most `most`: none where none has come for so long. Nothing once all
    /// was taken and no more will come.
    pub(super) async fn take(&mut self, most: usize, patience: Duration) -> Option<Vec<Heard>> {
        let Ok(first) = timeout(patience, self.receiver.recv()).await else {
            return Some(Vec::new());
        };
        let mut all = vec![first?];
        while all.len() < most
            && let Ok(next) = self.receiver.try_recv()
        {
            all.push(next);
        }
        self.bytes.fetch_sub(all.iter().map(Heard::bytes).sum(), Ordering::AcqRel);
        Some(all)
    }
}

impl Entry {
    /// Whether there was room for it.
    fn put(&self, heard: Heard) -> bool {
        let bytes = heard.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let has_room = before == 0 || before.saturating_add(bytes) <= HEARD_BYTES_MAX;
        has_room && self.sender.try_send(heard).is_ok()
    }
}

async fn fill(live: Arc<Live>, mut subscriber: Subscriber, entry: Entry) {
    loop {
        tokio::select! {
            biased;
            () = entry.sender.closed() => return,
            () = live.lost.cancelled() => break,
            message = subscriber.next() => {
                let Some(message) = message else { break };
                if !entry.put(message.into()) {
                    break;
                }
            }
        }
    }
    // What came before the loss is heard; what did not find room is the loss.
    if live.lost.is_cancelled() {
        for _ in 0..HEARD_MAX {
            let Some(Some(message)) = subscriber.next().now_or_never() else { return };
            if !entry.put(message.into()) {
                return;
            }
        }
    }
    live.lost.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: usize) -> Heard {
        Heard { subject: String::new(), payload: vec![b'x'; bytes].into() }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_number_and_bytes_and_is_heard_before_its_end() {
        let (entry, mut queue) = Queue::new();
        for _ in 0..HEARD_MAX {
            assert!(entry.put(heard(1)));
        }
        assert!(!entry.put(heard(1)), "as many as may wait do");
        drop(entry);
        assert_eq!(queue.take(HEARD_MAX - 1, Duration::ZERO).await.unwrap().len(), HEARD_MAX - 1);
        assert_eq!(queue.take(HEARD_MAX, Duration::ZERO).await.unwrap().len(), 1);
        assert_eq!(queue.take(1, Duration::ZERO).await, None);

        let (entry, mut queue) = Queue::new();
        assert!(entry.put(heard(HEARD_BYTES_MAX + 1)), "one alone may be longer");
        assert_eq!(queue.take(9, Duration::ZERO).await.unwrap().len(), 1);
        assert!(entry.put(heard(HEARD_BYTES_MAX - 1)) && entry.put(heard(1)));
        assert_eq!(queue.take(1, Duration::ZERO).await.unwrap().len(), 1, "there is room again");
        assert!(entry.put(heard(HEARD_BYTES_MAX - 1)));
        assert!(!entry.put(heard(1)));
    }
}
