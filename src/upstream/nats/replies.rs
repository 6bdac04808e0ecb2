//! The requests that wait for messages on one connection, by their tokens. A message that comes too
//! late finds nobody, and is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;
use tokio::sync::mpsc;

use super::{MESSAGE_BYTES_MAX, REPLIES_MAX};

/// What a request hears.
#[derive(Debug)]
pub(super) enum Reply {
    /// A message.
    Message(Message),
    /// More messages, or longer ones, than one answer may have.
    TooMuch,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replies {
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whether the connection is lost.
    is_closed: bool,
    all: HashMap<u64, Place>,
}

/// Where one request hears of messages.
#[derive(Debug)]
struct Place {
    sender: mpsc::Sender<Reply>,
    /// How many more messages there may be, and bytes in them.
    left: (usize, usize),
}

/// Why a request cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The connection is lost.
    Closed,
    /// As many as may wait do.
    Full,
}

/// A request that waits. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Waiter {
    replies: Arc<Replies>,
    token: u64,
    receiver: mpsc::Receiver<Reply>,
}

impl Replies {
    /// A place among at most `most` requests.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn wait(self: &Arc<Self>, most: usize) -> Result<Waiter, NoPlace> {
        // One more than there may be, for saying so.
        let (sender, receiver) = mpsc::channel(REPLIES_MAX + 1);
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(NoPlace::Closed);
        }
        if waiting.all.len() >= most {
            return Err(NoPlace::Full);
        }
        waiting.all.insert(token, Place { sender, left: (REPLIES_MAX, MESSAGE_BYTES_MAX) });
        Ok(Waiter { replies: Arc::clone(self), token, receiver })
    }

    /// Brings a message to whoever waits for it. `token` is the last part of its subject.
    pub(super) fn tell(&self, token: &str, message: Message) {
        let Ok(token) = token.parse() else { return };
        let mut waiting = self.waiting();
        let Some(place) = waiting.all.get_mut(&token) else { return };
        let (messages, bytes) = &mut place.left;
        let next = (messages.checked_sub(1), bytes.checked_sub(message.payload.len()));
        let (reply, is_last) = match next {
            (Some(messages), Some(bytes)) => {
                place.left = (messages, bytes);
                (Reply::Message(message), false)
            }
            _ => (Reply::TooMuch, true),
        };
        if place.sender.try_send(reply).is_err() || is_last {
            waiting.all.remove(&token);
        }
    }

    /// The connection is lost: nobody hears of anything any more.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.all.clear();
    }

    /// How many wait.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.waiting().all.len()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// The last part of the subject to which its messages go.
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// The next message; nothing where the connection is lost.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        self.receiver.recv().await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.replies.waiting().all.remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            subject: "_INBOX.x.0".into(),
            reply: None,
            payload: Bytes::from(vec![b'x'; bytes]),
            headers: None,
            status: None,
            description: None,
            length: bytes,
        }
    }

    #[tokio::test]
    async fn a_message_reaches_who_waits_for_it_and_nobody_else() {
        let replies = Arc::<Replies>::default();
        let mut waiters = [replies.wait(2).unwrap(), replies.wait(2).unwrap()];
        assert_eq!(replies.wait(2).unwrap_err(), NoPlace::Full);
        let tokens = waiters.each_ref().map(Waiter::token);
        for (token, bytes) in [(tokens[1], 2), (tokens[0], 1), (99, 3)] {
            replies.tell(&token.to_string(), message(bytes));
        }
        replies.tell("", message(1));
        replies.tell("*", message(1));
        for (waiter, bytes) in waiters.iter_mut().zip([1, 2]) {
            let Some(Reply::Message(message)) = waiter.next().await else { panic!("a message") };
            assert_eq!(message.payload.len(), bytes);
        }
        drop(waiters);
        assert_eq!(replies.count(), 0);
        replies.tell(&tokens[0].to_string(), message(1));
    }

    #[tokio::test]
    async fn who_gets_too_much_hears_so_and_who_loses_the_connection_hears_nothing() {
        let replies = Arc::<Replies>::default();
        let mut many = replies.wait(2).unwrap();
        for _ in 0..=REPLIES_MAX {
            replies.tell(&many.token().to_string(), message(0));
        }
        for _ in 0..REPLIES_MAX {
            assert!(matches!(many.next().await, Some(Reply::Message(_))));
        }
        assert!(matches!(many.next().await, Some(Reply::TooMuch)));
        let mut long = replies.wait(2).unwrap();
        replies.tell(&long.token().to_string(), message(MESSAGE_BYTES_MAX + 1));
        assert!(matches!(long.next().await, Some(Reply::TooMuch)));
        let mut lost = replies.wait(2).unwrap();
        replies.close();
        assert!(lost.next().await.is_none());
        assert_eq!(replies.wait(2).unwrap_err(), NoPlace::Closed);
    }
}
