//! One question, from its parts to its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::cut::{Cut, Placed};
use super::part::{Origin, Part};
use super::spread::{self, Replies};
use crate::base::boxed;
use crate::config::LimitOutage;
use crate::store::{
    Answers, ChargedAt, Purge, Questions, Reply, RevocationStatus, StoreError, WantedLock,
};

impl RedisStore {
    /// See [`crate::store::Store::ask`].
    pub async fn ask(&self, questions: &Questions<'_>) -> Box<Answers> {
        // Before anything is read, so that a change on its way is not overwritten with what was.
        let mark = questions.cached.and_then(|asked| self.tracker.get()?.mark(asked.epochs));
        let mut answers = self.exchange(questions).await;
        if let (Some(follower), Some(asked)) = (self.follower.get(), questions.revocation)
            && let Some(Ok(status)) = &mut answers.revocation
        {
            follower.add_to(status, asked);
        }
        if !questions.pending_purges.is_empty() {
            self.forget(questions.pending_purges.iter().map(String::as_str));
        }
        self.learn(mark, questions, &answers);
        answers
    }

    async fn exchange(&self, questions: &Questions<'_>) -> Box<Answers> {
        let deadline = self.topology.deadline();
        let by_script = self.hashes.load(Ordering::Relaxed);
        let revocation = questions.revocation.map(|_| Ok(RevocationStatus::default()));
        let mut answers = Box::new(Answers { revocation, ..Answers::default() });
        let parts = Part::of(questions, by_script);
        let cut;
        let next = if self.topology.is_spread() {
            cut = Cut::of(questions, &|key: &str| self.topology.place(key));
            boxed::pin(|| self.answer_spread(&cut, &parts, deadline, &mut answers)).await
        } else {
            self.answer(&parts, deadline, &mut answers).await
        };
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
                let from = Origin { now_ms: self.now_ms(), place: None };
                let mut next = Vec::new();
                each(parts, &mut replies, |part, own| {
                    next.extend(part.next(own));
                    part.read(own, from, answers);
                });
                next
            }
            Err(error) => {
                parts.iter().for_each(|part| part.fail(&error, answers));
                Vec::new()
            }
        }
    }

    /// The same where keys lie on several servers: one exchange with each, all at once. A part that
    /// is not answered leaves the others as they are.
    async fn answer_spread<'a>(
        &self,
        cut: &'a Cut,
        whole: &[Part<'a>],
        deadline: Instant,
        answers: &mut Answers,
    ) -> Vec<Part<'a>> {
        let mut parts = cut.parts(whole, &|key: &str| self.topology.place(key));
        let mut replies = match parts.first().map(|placed| placed.part) {
            Some(Part::Purges(keys)) => {
                parts.remove(0);
                Box::pin(self.behind_purges(keys, &parts, deadline, answers)).await
            }
            _ => self.ask_each(&parts, deadline).await,
        };
        let next = replies.find(&parts, |_, part, own| part.next(own));
        let torn = spread::torn(&parts, &mut replies);
        let mut parts: Vec<Placed<'_>> = parts;
        if !torn.is_empty() {
            Box::pin(self.ask_by_key(&mut parts, &mut replies, &torn, deadline)).await;
        }
        let refused = replies.find(&parts, |_, part, own| part.has_refused(own).then_some(*part));
        let now_ms = self.now_ms();
        let (mut taken, mut failed) = (Vec::new(), Vec::new());
        for (at, &Placed { part, place }) in parts.iter().enumerate() {
            match replies.to(at, &part) {
                // One limit that refuses is enough, whatever the others would have said.
                Ok(own) if part.is_judged_by(&refused) && own.iter().any(is_error) => {
                    part.pass(answers);
                }
                Ok(own) => {
                    taken.extend(part.taken_at(own, place).map(|at| (part, at)));
                    part.read(own, Origin { now_ms, place: Some(place) }, answers);
                }
                Err(_) if part.is_judged_by(&refused) => part.pass(answers),
                Err(error) => failed.push((part, error)),
            }
        }
        for (part, error) in failed {
            let refuses =
                |status: &RevocationStatus| status.listed || status.gone || status.replayed;
            let is_judged = matches!(&answers.revocation, Some(Ok(status)) if refuses(status));
            // One key that revokes is enough, whatever the others would have said.
            if !(part.is_of_revocation() && is_judged) {
                part.fail(&error, answers);
            }
        }
        cut.restore(answers);
        self.give_back(taken, answers, deadline).await;
        next
    }

    /// The replies to each part, of which those of the cache are read behind the purges: servers
    /// have no order among them. What else is asked waits for no purge, whose server may be silent.
    async fn behind_purges(
        &self,
        keys: &[String],
        parts: &[Placed<'_>],
        deadline: Instant,
        answers: &mut Answers,
    ) -> Replies {
        let purges: Vec<Purge> = keys.iter().cloned().map(Purge::hard).collect();
        let of_cache = parts.iter().position(|placed| placed.part.is_of_cache());
        let (others, cached) = parts.split_at(of_cache.unwrap_or(parts.len()));
        let (purged, mut replies) =
            tokio::join!(self.change_epochs(&purges, deadline), self.ask_each(others, deadline));
        answers.settled = purged.is_ok();
        replies.extend(match purged {
            Ok(()) => self.ask_each(cached, deadline).await,
            Err(error) => Replies::none(cached.len(), error),
        });
        replies
    }

    /// Gives back what was taken in one place, where another one refused, or where another one did
    /// not answer and the request is refused for that, counted by this node, or done without. Slots
    /// without an answer are given back by who asked for them, and so is a lock that may have been
    /// taken. All of it at once; what `deadline` does not leave the time for goes on behind it.
    async fn give_back(
        &self,
        taken: Vec<(Part<'_>, ChargedAt)>,
        answers: &Answers,
        deadline: Instant,
    ) {
        let is_void = self.topology.settings.on_outage.limits != LimitOutage::Allow;
        let mut pipeline = Pipeline::new();
        for (part, at) in taken {
            match (part, &answers.charges, &answers.leases, &answers.cached) {
                (Part::Charges(asked), Some(reply), ..)
                    if reply.as_ref().map_or(is_void, |reply| !reply.allowed) =>
                {
                    match Cut::by_key(&part) {
                        // In a slot that is moving, several keys may be in two places.
                        Some(cut) => {
                            cut.charges(asked)
                                .for_each(|one| self.put_refund(&mut pipeline, one, &at));
                        }
                        None => self.put_refund(&mut pipeline, asked, &at),
                    }
                }
                (Part::Leases(asked), _, Some(Ok(reply)), _) if !reply.allowed => {
                    for key in asked.keys {
                        pipeline.cmd("ZREM").arg(key).arg(asked.holder);
                    }
                }
                (Part::Entry(asked), .., Some(Err(error))) if *error != StoreError::Timeout => {
                    let call = |wanted: WantedLock<'_>| self.relock_call(wanted.lock, 0);
                    asked.lock.map(call).into_iter().for_each(|call| {
                        pipeline.add_command(call);
                    });
                }
                _ => {}
            }
        }
        if pipeline.is_empty() {
            return;
        }
        // What it takes is the request's, as all of the question is.
        let _waiting = self.topology.wait(deadline);
        let topology = Arc::clone(&self.topology);
        let given = tokio::spawn(async move {
            let deadline = topology.deadline();
            // What cannot be given back ends by itself; nothing is admitted in its stead.
            topology.run_apart(&mut pipeline, deadline).await
        });
        let _ = tokio::time::timeout_at(deadline, given).await;
    }

    fn written(&self, parts: &[Part<'_>]) -> Reply<Pipeline> {
        // With room for a second command of two of them, and the seal.
        let mut pipeline = Pipeline::with_capacity(parts.len() + 3);
        for part in parts {
            part.write(&mut pipeline, &self.topology.scripts)?;
        }
        Ok(pipeline)
    }

    /// The replies to the commands of parts, one part after another.
    async fn replies(
        &self,
        parts: &[Part<'_>],
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = self.written(parts)?;
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

fn is_error(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(_))
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
