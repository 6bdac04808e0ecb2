//! One question, from its parts to its answers.

use std::sync::atomic::Ordering;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::part::Part;
use crate::store::{Answers, Questions, RevocationStatus, StoreError};

impl RedisStore {
    /// See [`crate::store::Store::ask`].
    pub async fn ask(&self, questions: &Questions<'_>) -> Answers {
        // Before anything is read, so that a change on its way is not overwritten with what was.
        let mark = questions.cached.and_then(|_| self.tracker.get()?.mark());
        let answers = self.exchange(questions).await;
        if !questions.pending_purges.is_empty() {
            self.forget(questions.pending_purges.iter().map(String::as_str));
        }
        self.learn(mark, questions, &answers);
        answers
    }

    async fn exchange(&self, questions: &Questions<'_>) -> Answers {
        let deadline = self.topology.deadline();
        let by_script = self.hashes.load(Ordering::Relaxed);
        let revocation = questions.revocation.map(|_| Ok(RevocationStatus::default()));
        let mut answers = Answers { revocation, ..Answers::default() };
        let parts = Part::of(questions, by_script);
        let next = self.answer(&parts, deadline, &mut answers).await;
        for part in next {
            if let Part::AnySession(_) = part {
                // The first hash: the next session is read by the script at once.
                self.hashes.store(true, Ordering::Relaxed);
            }
            // Seldom, so that it may cost its own exchange.
            if part.is_open(&answers) {
                Box::pin(self.answer(&[part], deadline, &mut answers)).await;
            }
        }
        answers
    }

    /// Asks parts in one exchange: what is to be asked behind them.
    async fn answer<'a>(
        &self,
        parts: &[Part<'a>],
        deadline: Instant,
        answers: &mut Answers,
    ) -> Vec<Part<'a>> {
        match self.replies(parts, deadline).await {
            Ok(mut replies) => {
                let now_ms = self.now_ms();
                let mut next = Vec::new();
                each(parts, &mut replies, |part, own| {
                    next.extend(part.next(own));
                    part.read(own, now_ms, answers);
                });
                next
            }
            Err(error) => {
                parts.iter().for_each(|part| part.fail(&error, answers));
                Vec::new()
            }
        }
    }

    /// The replies to the commands of parts, one part after another.
    async fn replies(
        &self,
        parts: &[Part<'_>],
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        // With room for a second command of some, and the seal.
        let mut pipeline = Pipeline::with_capacity(parts.len() + 4);
        for part in parts {
            part.write(&mut pipeline, &self.topology.scripts)?;
        }
        let mut replies = self.topology.run(&mut pipeline, deadline).await?;
        let mut foreign = None;
        each(parts, &mut replies, |part, own| {
            if !part.fits(own) {
                foreign = Some(part.key());
            }
        });
        match foreign {
            Some(key) => Err(self.topology.distrust(key)),
            None => Ok(replies),
        }
    }
}

/// Gives each part the replies to its own commands.
fn each<'p, 'a>(
    parts: &'p [Part<'a>],
    mut replies: &mut [Value],
    mut take: impl FnMut(&'p Part<'a>, &mut [Value]),
) {
    for part in parts {
        // The connection has counted them.
        let (own, rest) = replies.split_at_mut(part.commands().min(replies.len()));
        take(part, own);
        replies = rest;
    }
}
