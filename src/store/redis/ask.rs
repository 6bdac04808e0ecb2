//! One question, from its parts to its answers.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::cut::Cut;
use super::part::{Origin, Part};
use crate::config::LimitOutage;
use crate::store::{
    Answers, ChargedAt, Purge, Questions, Release, Reply, RevocationStatus, StoreError,
};

impl RedisStore {
    /// See [`crate::store::Store::ask`].
    pub async fn ask(&self, questions: &Questions<'_>) -> Answers {
        // Before anything is read, so that a change on its way is not overwritten with what was.
        let mark = questions.cached.and_then(|_| self.tracker.get()?.mark());
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

    async fn exchange(&self, questions: &Questions<'_>) -> Answers {
        let deadline = self.topology.deadline();
        let by_script = self.hashes.load(Ordering::Relaxed);
        let revocation = questions.revocation.map(|_| Ok(RevocationStatus::default()));
        let mut answers = Answers { revocation, ..Answers::default() };
        let parts = Part::of(questions, by_script);
        let cut;
        let next = if self.topology.is_spread() {
            cut = Cut::of(questions, &|key: &str| self.topology.place(key));
            Box::pin(self.answer_spread(&cut, &parts, deadline, &mut answers)).await
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
        let parts = cut.parts(whole, &|key: &str| self.topology.place(key));
        let mut rest = parts.as_slice();
        // What is read must be read behind the purges, and servers have no order among them.
        if let [Part::Purges(keys), others @ ..] = rest {
            let purges: Vec<Purge> = keys.iter().cloned().map(Purge::hard).collect();
            answers.settled = self.change_epochs(&purges).await.is_ok();
            rest = others;
        }
        let (mut next, mut taken, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let all = self.replies_spread(rest, deadline).await;
        let refused: Vec<Part<'_>> = rest
            .iter()
            .zip(&all)
            .filter(|(part, own)| own.as_ref().is_ok_and(|own| part.has_refused(own)))
            .map(|(part, _)| *part)
            .collect();
        for (part, replies) in rest.iter().zip(all) {
            let place = self.topology.place(part.key());
            match replies {
                // One limit that refuses is enough, whatever the others would have said.
                Ok(own) if part.is_judged_by(&refused) && own.iter().any(is_error) => {
                    part.pass(answers);
                }
                Ok(mut own) => {
                    next.extend(part.next(&own));
                    taken.extend(part.taken_at(&own, place).map(|at| (*part, at)));
                    let from = Origin { now_ms: self.now_ms(), place: Some(place) };
                    part.read(&mut own, from, answers);
                }
                Err(_) if part.is_judged_by(&refused) => part.pass(answers),
                Err(error) => failed.push((part, error)),
            }
        }
        for (part, error) in failed {
            let refuses = |status: &RevocationStatus| status.listed || status.gone;
            let is_judged = matches!(&answers.revocation, Some(Ok(status)) if refuses(status));
            // One key that revokes is enough, whatever the others would have said.
            if !(part.is_of_revocation() && is_judged) {
                part.fail(&error, answers);
            }
        }
        cut.restore(answers);
        self.give_back(taken, answers).await;
        next
    }

    /// Gives back what was taken in one place, where another one refused, or where another one did
    /// not answer and the request is refused for that, or counted by this node. Slots without an
    /// answer are given back by who asked for them.
    async fn give_back(&self, taken: Vec<(Part<'_>, ChargedAt)>, answers: &Answers) {
        let is_void = self.topology.settings.on_outage.limits != LimitOutage::Allow;
        for (part, at) in taken {
            // What cannot be given back ends by itself; nothing is admitted in its stead.
            let _ = match (part, &answers.charges, &answers.leases) {
                (Part::Charges(asked), Some(Ok(reply)), _) if !reply.allowed => {
                    self.refund(asked, &at).await
                }
                (Part::Charges(asked), Some(Err(_)), _) if is_void => self.refund(asked, &at).await,
                (Part::Leases(asked), _, Some(Ok(reply))) if !reply.allowed => {
                    let release = Release {
                        keys: asked.keys.to_vec(),
                        limits: asked.limits.to_vec(),
                        holder: asked.holder.to_owned(),
                        in_doubt: false,
                    };
                    self.release(&[release]).await
                }
                _ => Ok(()),
            };
        }
    }

    /// The replies to each part, or why there are none.
    async fn replies_spread(
        &self,
        parts: &[Part<'_>],
        deadline: Instant,
    ) -> Vec<Reply<Vec<Value>>> {
        let mut servers: Vec<(usize, Vec<usize>)> = Vec::new();
        for (position, part) in parts.iter().enumerate() {
            let server = self.topology.server(self.topology.place(part.key()));
            match servers.iter_mut().find(|(known, _)| *known == server) {
                Some((_, positions)) => positions.push(position),
                None => servers.push((server, vec![position])),
            }
        }
        let asked = servers.iter().map(async |(_, positions)| {
            let own: Vec<Part<'_>> = positions.iter().map(|at| parts[*at]).collect();
            self.replies_apart(&own, deadline)
                .await
                .unwrap_or_else(|error| vec![Err(error); own.len()])
        });
        let mut all = vec![Err(StoreError::Unavailable); parts.len()];
        for ((_, positions), replies) in servers.iter().zip(join_all(asked).await) {
            for (position, replies) in positions.iter().zip(replies) {
                all[*position] = replies;
            }
        }
        all
    }

    /// The replies to each of some parts of one server. It may send some of them on, and what
    /// becomes of those is their affair.
    async fn replies_apart(
        &self,
        parts: &[Part<'_>],
        deadline: Instant,
    ) -> Reply<Vec<Reply<Vec<Value>>>> {
        let mut pipeline = self.written(parts)?;
        let mut replies = self.topology.run_apart(&mut pipeline, deadline).await.into_iter();
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            let own: Vec<Reply<Value>> = replies.by_ref().take(part.commands()).collect();
            let own: Reply<Vec<Value>> = own.into_iter().collect();
            if own.as_ref().is_ok_and(|own| !part.fits(own)) {
                return Err(self.topology.distrust(part.key()));
            }
            all.push(own);
        }
        Ok(all)
    }

    fn written(&self, parts: &[Part<'_>]) -> Reply<Pipeline> {
        // With room for a second command of some, and the seal.
        let mut pipeline = Pipeline::with_capacity(parts.len() + 4);
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
