//! Parts of a question whose keys lie on several servers: one exchange with each server, all at
//! once, and which replies belong to which part.

use std::ops::Range;

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::RedisStore;
use super::cut::{Cut, Placed};
use super::errand::Came;
use super::part::Part;
use super::torn::is_torn;
use crate::store::{Reply, StoreError};

/// What goes to one server.
struct Exchange {
    /// See [`super::topology::Topology::server`].
    server: usize,
    place: u16,
    pipeline: Pipeline,
}

/// The replies of several servers.
#[derive(Debug)]
pub(super) struct Replies {
    exchanges: Vec<Reply<Vec<Value>>>,
    /// For each part: in which exchange its replies stand, and where they begin.
    starts: Vec<(usize, usize)>,
}

impl Replies {
    /// Those to the part that stands at `at`.
    ///
    /// # Errors
    /// Its server did not answer.
    pub(super) fn to(&mut self, at: usize, part: &Part<'_>) -> Result<&mut [Value], StoreError> {
        let (exchange, start) = self.starts.get(at).copied().unwrap_or((usize::MAX, 0));
        match self.exchanges.get_mut(exchange) {
            Some(Ok(values)) => {
                let end = (start + part.commands()).min(values.len());
                Ok(values.get_mut(start..end).unwrap_or_default())
            }
            Some(Err(error)) => Err(error.clone()),
            None => Err(StoreError::Unavailable),
        }
    }

    /// What `find` finds in the replies to parts that were answered.
    pub(super) fn find<'p, 'a, T>(
        &mut self,
        parts: &'p [Placed<'a>],
        mut find: impl FnMut(usize, &'p Part<'a>, &[Value]) -> Option<T>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        for (at, Placed { part, .. }) in parts.iter().enumerate() {
            found.extend(self.to(at, part).ok().and_then(|own| find(at, part, own)));
        }
        found
    }

    /// To so many parts, none of which was answered.
    pub(super) fn none(parts: usize, error: StoreError) -> Self {
        Self { exchanges: vec![Err(error)], starts: vec![(0, 0); parts] }
    }

    /// Puts the replies to further parts behind these.
    pub(super) fn extend(&mut self, others: Self) {
        let end = self.starts.len();
        self.replace(end..end, others);
    }

    /// Puts the replies to other parts in the place of some.
    fn replace(&mut self, places: Range<usize>, others: Self) {
        let before = self.exchanges.len();
        self.exchanges.extend(others.exchanges);
        let starts = others.starts.into_iter().map(|(exchange, start)| (exchange + before, start));
        self.starts.splice(places, starts);
    }
}

impl RedisStore {
    /// Asks each part at its server.
    pub(super) async fn ask_each(&self, parts: &[Placed<'_>], deadline: Instant) -> Replies {
        let mut exchanges: Vec<Exchange> = Vec::with_capacity(4);
        let mut starts = Vec::with_capacity(parts.len());
        for &Placed { part, place } in parts {
            let server = self.topology.server(place);
            let known = exchanges.iter().position(|known| known.server == server);
            let at = known.unwrap_or(exchanges.len());
            if known.is_none() {
                // With room for a second command of some, and the seal.
                let pipeline = Pipeline::with_capacity(parts.len() + 4);
                exchanges.push(Exchange { server, place, pipeline });
            }
            let pipeline = &mut exchanges[at].pipeline;
            starts.push((at, pipeline.len()));
            if let Err(error) = part.write(pipeline, &self.topology.scripts) {
                return Replies::none(parts.len(), error);
            }
        }
        let run = async |Exchange { place, pipeline, .. }: &mut Exchange| {
            self.topology.run_at(*place, pipeline, deadline).await
        };
        let came = match exchanges.as_mut_slice() {
            [only] => vec![run(only).await],
            all => join_all(all.iter_mut().map(run)).await,
        };
        self.sorted(parts, starts, came)
    }

    /// The replies of servers. Those that are in no form in which their part is answered are none.
    fn sorted(
        &self,
        parts: &[Placed<'_>],
        starts: Vec<(usize, usize)>,
        came: Vec<Reply<Came>>,
    ) -> Replies {
        let mut replies = Replies { exchanges: Vec::with_capacity(came.len()), starts };
        let mut apart = Vec::new();
        for (exchange, came) in came.into_iter().enumerate() {
            replies.exchanges.push(match came {
                Ok(Came::Whole(values)) => Ok(values),
                Ok(Came::Apart(all)) => {
                    apart.push((exchange, all));
                    Ok(Vec::new())
                }
                Err(error) => Err(error),
            });
        }
        for (exchange, all) in apart {
            let own = parts.iter().zip(&mut replies.starts).filter(|(_, at)| at.0 == exchange);
            for (Placed { part, .. }, at) in own {
                let own = all.iter().skip(at.1).take(part.commands()).cloned().collect();
                *at = (replies.exchanges.len(), 0);
                replies.exchanges.push(own);
            }
        }
        for (at, Placed { part, .. }) in parts.iter().enumerate() {
            if replies.to(at, part).is_ok_and(|own| !part.fits(own)) {
                let error = self.topology.distrust(part.key());
                if let Some((exchange, _)) = replies.starts.get(at) {
                    replies.exchanges[*exchange] = Err(error);
                }
            }
        }
        replies
    }

    /// Asks key by key what no server carried out because its slot is moving: parts that name one
    /// key each, in their place. `torn` is what [`torn`] found.
    pub(super) async fn ask_by_key<'a>(
        &self,
        parts: &mut Vec<Placed<'a>>,
        replies: &mut Replies,
        torn: &'a [(usize, Cut)],
        deadline: Instant,
    ) {
        let place = |key: &str| self.topology.place(key);
        let whole = |at: usize| parts.get(at).map(|placed| placed.part);
        let singles: Vec<Vec<Placed<'a>>> =
            torn.iter().map(|(at, cut)| cut.parts(whole(*at).as_slice(), &place)).collect();
        let asked = singles.iter().map(|singles| self.ask_each(singles, deadline));
        let answered = join_all(asked).await;
        // From the last to the first, so that those before stay where they are.
        for (((at, _), singles), answered) in torn.iter().zip(singles).zip(answered).rev() {
            parts.splice(at..=at, singles);
            replies.replace(*at..at + 1, answered);
        }
    }
}

/// How the parts are cut that no server carried out because their slot is moving, and where they
/// stand; nothing where there are none, as a rule.
pub(super) fn torn(parts: &[Placed<'_>], replies: &mut Replies) -> Vec<(usize, Cut)> {
    if !replies.exchanges.iter().flatten().flatten().any(is_torn) {
        return Vec::new();
    }
    replies.find(
        parts,
        |at, part, own| {
            if own.iter().any(is_torn) { Some((at, Cut::by_key(part)?)) } else { None }
        },
    )
}
