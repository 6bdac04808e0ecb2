//! Upstreams with readers: these are upstreams of their own, behind those that the file names.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::config::{self, Config, Position, Problems};
use crate::forwarding::rules;

/// What holds for reads of one upstream.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The index of its readers.
    pub readers: usize,
    /// For how long a caller's reads follow his writes.
    pub stick: Duration,
    /// How servers tell how far they are.
    pub position: Option<Position>,
}

/// The upstreams of a route that have readers.
#[derive(Debug, Clone)]
pub struct RoutePools {
    /// Their names.
    pub upstreams: Vec<String>,
    /// The longest of their `stick`.
    pub stick: Duration,
}

/// All upstreams, and what belongs to each, by its index.
pub(super) struct Upstreams {
    pub(super) named: Vec<(String, config::Upstream)>,
    pub(super) tls: Vec<Option<Arc<ClientConfig>>>,
    pub(super) pools: Vec<Option<Pool>>,
}

/// An upstream, its name, and what speaks TLS with it.
pub(super) type Described = (String, config::Upstream, Option<Arc<ClientConfig>>);

/// The upstreams of the file, then those that readers are, and then `more`. No name in the file has
/// a colon.
pub(super) fn upstreams(
    config: &Config,
    mut tls: Vec<Option<Arc<ClientConfig>>>,
    more: Vec<Described>,
) -> Upstreams {
    let mut named: Vec<_> = config.upstreams.clone().into_iter().collect();
    let mut pools = vec![None; named.len()];
    for (index, (name, upstream)) in config.upstreams.iter().enumerate() {
        let Some(readers) = upstream.of_readers() else { continue };
        if let Some(pool) = pools.get_mut(index) {
            let config::Pools { stick, position } = upstream.pools.clone();
            *pool = Some(Pool { readers: named.len(), stick, position });
        }
        named.push((format!("{name}:readers"), readers));
        tls.push(tls.get(index).cloned().flatten());
    }
    for (name, upstream, client) in more {
        named.push((name, upstream));
        tls.push(client);
    }
    Upstreams { named, tls, pools }
}

/// Those of a route; nothing where there are none.
pub(super) fn of_route(config: &Config, written: &config::Route) -> Option<RoutePools> {
    let all = written.upstreams().filter_map(|name| config.upstreams.get_key_value(name));
    let with_readers: Vec<_> = all.filter(|(_, upstream)| !upstream.readers.is_empty()).collect();
    let stick = with_readers.iter().map(|(_, upstream)| upstream.pools.stick).max()?;
    let upstreams = with_readers.iter().map(|(name, _)| (*name).clone()).collect();
    Some(RoutePools { upstreams, stick })
}

/// The fields by which readers are told how far they must be.
pub(super) fn told(config: &Config) -> impl Iterator<Item = (&String, &Position)> {
    let all = config.upstreams.iter();
    all.filter_map(|(name, upstream)| Some((name, upstream.pools.position.as_ref()?)))
}

/// Fields for that which mean something else. `owned`: see [`rules::forbidden_in_requests`].
pub(super) fn check(config: &Config, owned: &[String], problems: &mut Problems) {
    for (name, position) in told(config) {
        if let Some(why) = rules::forbidden_in_requests(owned, &position.to) {
            let what = format!("{:?} {why}", position.to.as_str());
            let remedy = "choose a name of your own, such as \"x-min-position\"".to_owned();
            problems.push(format!("upstreams.{name}.position.to"), what, remedy);
        }
    }
}
