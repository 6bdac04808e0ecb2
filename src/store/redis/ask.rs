//! One question, from its parts to its answers.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::cut::Cut;
use super::part::{Origin, Part};
use super::torn::is_torn;
use crate::config::LimitOutage;
use crate::store::{
    Answers, ChargedAt, Purge, Questions, Release, Reply, RevocationStatus, StoreError,
};

impl RedisStore {
    /// See [`crate::store::Store::ask`].
    pub async fn ask(&self, questions: &Questions<'_>) -> Answers {
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
        let all = self.replies_spread(rest, deadline).await;
        let open = |(part, own): (&Part<'a>, &Reply<Vec<Value>>)| part.next(own.as_ref().ok()?);
        let next = rest.iter().zip(&all).filter_map(open).collect();
        let torn = torn(rest, &all);
        let all = self.key_by_key(rest, all, &torn, deadline).await;
        let (mut taken, mut failed) = (Vec::new(), Vec::new());
        let refused = |(part, own): &(Part<'_>, Reply<Vec<Value>>)| {
            own.as_ref().is_ok_and(|own| part.has_refused(own))
        };
        let refused: Vec<_> = all.iter().filter(|it| refused(it)).map(|(part, _)| *part).collect();
        for (part, replies) in all {
            let place = self.topology.place(part.key());
            match replies {
                // One limit that refuses is enough, whatever the others would have said.
                Ok(own) if part.is_judged_by(&refused) && own.iter().any(is_error) => {
                    part.pass(answers);
                }
                Ok(mut own) => {
                    taken.extend(part.taken_at(&own, place).map(|at| (part, at)));
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

    /// Asks key by key what no server carried out, because its slot is moving: parts that name one
    /// key each, in their place.
    async fn key_by_key<'a>(
        &self,
        parts: &[Part<'a>],
        all: Vec<Reply<Vec<Value>>>,
        torn: &'a [Option<Cut>],
        deadline: Instant,
    ) -> Vec<(Part<'a>, Reply<Vec<Value>>)> {
        if torn.is_empty() {
            return parts.iter().copied().zip(all).collect();
        }
        let cuts = parts.iter().zip(torn).filter_map(|(part, cut)| Some((part, cut.as_ref()?)));
        let by_key: Vec<Vec<Part<'a>>> =
            cuts.map(|(part, cut)| cut.parts(&[*part], &|key| self.topology.place(key))).collect();
        let singles = by_key.concat();
        let mut answered = self.replies_spread(&singles, deadline).await.into_iter();
        let mut by_key = by_key.into_iter();
        let mut pairs = Vec::with_capacity(parts.len() + singles.len());
        for ((part, own), cut) in parts.iter().zip(all).zip(torn) {
            match cut {
                None => pairs.push((*part, own)),
                Some(_) => {
                    pairs.extend(
                        by_key.next().unwrap_or_default().into_iter().map(|one| {
                            (one, answered.next().unwrap_or(Err(StoreError::Unavailable)))
                        }),
                    )
                }
            }
        }
        pairs
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

/// How the parts are cut that no server carried out because their slot is moving; nothing where
/// there are none, as a rule.
fn torn(parts: &[Part<'_>], all: &[Reply<Vec<Value>>]) -> Vec<Option<Cut>> {
    let is_torn = |own: &Reply<Vec<Value>>| own.as_ref().is_ok_and(|own| own.iter().any(is_torn));
    if !all.iter().any(is_torn) {
        return Vec::new();
    }
    parts.iter().zip(all).map(|(part, own)| Cut::by_key(part).filter(|_| is_torn(own))).collect()
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
