//! The servers of an upstream as they are now. Where all are written by their addresses, that is
//! what is written; names are looked up again and again, and each of their addresses is a server.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use rustls::ClientConfig;

use super::directory::Directory;
use super::endpoints::Endpoints;
use super::names::Names;
use crate::config;
use crate::observe::NameNow;

/// See the module.
#[derive(Debug)]
pub(super) enum Servers {
    /// All are written by their addresses.
    Fixed(Endpoints),
    /// Some are written by names.
    Named(Arc<Named>),
}

/// What is looked up.
pub(super) struct Named {
    directory: Directory,
    tls: Option<Arc<ClientConfig>>,
    endpoints: ArcSwap<Endpoints>,
    /// Whether a server took no connection: its name may lead elsewhere by now.
    is_doubted: Arc<AtomicBool>,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Named")
            .field("upstream", &self.directory.upstream())
            .finish_non_exhaustive()
    }
}

/// The servers at one moment.
pub(super) enum Current<'s> {
    /// For as long as the upstream.
    Fixed(&'s Endpoints),
    /// Until a name leads elsewhere: for a look, not for as long as a request takes.
    Named(Guard<Arc<Endpoints>>),
    /// The same, for as long as whoever has it likes.
    Kept(Arc<Endpoints>),
}

impl Deref for Current<'_> {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        match self {
            Self::Fixed(endpoints) => endpoints,
            Self::Named(endpoints) => endpoints,
            Self::Kept(endpoints) => endpoints,
        }
    }
}

impl Servers {
    /// Those of a new upstream. `ahead` is what is known of its names.
    pub(super) fn new(
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        ahead: &Names,
    ) -> Self {
        let names = Names::of(&settings.servers, ahead, &Names::default());
        let now = config::Upstream { servers: names.expand(&settings.servers), ..settings.clone() };
        Self::of(name, settings, tls, (names, Endpoints::new(name, &now, tls)))
    }

    /// Those that other settings of the same upstream name. What was looked up stays known; until
    /// something is known of a name that is new, and where nothing else is left, the servers of
    /// before stay.
    pub(super) fn with(
        &self,
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        ahead: &Names,
    ) -> Self {
        let names = match self {
            Self::Fixed(_) => Names::of(&settings.servers, ahead, &Names::default()),
            Self::Named(named) => {
                let mut names = named.directory.names();
                names.hand_over();
                Names::of(&settings.servers, ahead, &names)
            }
        };
        let current = self.now();
        let mut servers = names.expand(&settings.servers);
        if servers.is_empty() && names.has_new() {
            servers.clone_from(&current.settings().servers);
        }
        let now = config::Upstream { servers, ..settings.clone() };
        Self::of(name, settings, tls, (names, current.with(name, &now, tls)))
    }

    fn of(
        name: &str,
        settings: &config::Upstream,
        tls: Option<&Arc<ClientConfig>>,
        (names, endpoints): (Names, Endpoints),
    ) -> Self {
        if names.is_empty() {
            return Self::Fixed(endpoints);
        }
        let is_doubted = Arc::<AtomicBool>::default();
        Self::Named(Arc::new(Named {
            directory: Directory::new(name, settings, names),
            tls: tls.cloned(),
            endpoints: ArcSwap::from_pointee(endpoints.doubting(&is_doubted)),
            is_doubted,
        }))
    }

    /// What the names of these settings lead to, before they are in force. What `former` knows is
    /// not asked for again, unless others are asked by now.
    pub(super) async fn look_ahead(
        name: &str,
        settings: &config::Upstream,
        former: Option<&Self>,
    ) -> Names {
        let none = Names::default();
        let names = match former {
            Some(Self::Named(named))
                if named.directory.settings().dns_servers == settings.dns_servers =>
            {
                Names::of(&settings.servers, &none, &named.directory.names())
            }
            _ => Names::of(&settings.servers, &none, &none),
        };
        if names.has_new() {
            Directory::new(name, settings, names).look_ahead().await
        } else {
            names
        }
    }

    /// What was configured.
    pub(super) fn written(&self) -> &config::Upstream {
        match self {
            Self::Fixed(endpoints) => endpoints.settings(),
            Self::Named(named) => named.directory.settings(),
        }
    }

    /// The servers now.
    pub(super) fn now(&self) -> Current<'_> {
        match self {
            Self::Fixed(endpoints) => Current::Fixed(endpoints),
            Self::Named(named) => Current::Named(named.endpoints.load()),
        }
    }

    /// The servers now, for a request: others that look meanwhile are not to wait for its end.
    pub(super) fn keep(&self) -> Current<'_> {
        match self {
            Self::Fixed(endpoints) => Current::Fixed(endpoints),
            Self::Named(named) => Current::Kept(named.endpoints.load_full()),
        }
    }

    /// What is known of names.
    pub(super) fn names(&self) -> Vec<NameNow> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Named(named) => named.directory.names().now(),
        }
    }

    /// Looks up what is old. To be called regularly, outside the serving threads.
    pub(super) fn tick(&self) {
        let Self::Named(named) = self else { return };
        named.directory.forget();
        named.settle();
        let at_once = named.is_doubted.swap(false, Ordering::Relaxed);
        let due = named.directory.names().due(at_once);
        if at_once && due.is_empty() {
            // It was asked a moment ago.
            named.is_doubted.store(true, Ordering::Relaxed);
        }
        for (at, written) in due {
            tokio::spawn(Arc::clone(named).look_up(at, written));
        }
    }

    /// Looks up all names, and waits for the answers. They are of use also when nobody waits any
    /// more.
    pub(super) async fn look_up(&self) {
        let Self::Named(named) = self else { return };
        let due = named.directory.names().due(false).into_iter();
        let one = |(at, written)| tokio::spawn(Arc::clone(named).look_up(at, written));
        let lookups: Vec<_> = due.map(one).collect();
        for lookup in lookups {
            let _ = lookup.await;
        }
    }
}

impl Named {
    async fn look_up(self: Arc<Self>, at: usize, written: config::Endpoint) {
        if self.directory.look_up(at, written).await {
            self.settle();
        }
    }

    /// Puts in force what is known now, if that is something else than before.
    fn settle(&self) {
        // Held until it is in force: two answers may come at once.
        let names = self.directory.names();
        if names.are_handed_over() {
            // What it knows against servers is told by other settings now.
            return;
        }
        let written = self.directory.settings();
        let servers = names.expand(&written.servers);
        let current = self.endpoints.load();
        if servers == current.settings().servers || (servers.is_empty() && names.has_new()) {
            return;
        }
        let settings = config::Upstream { servers, ..written.clone() };
        let next = current.with(self.directory.upstream(), &settings, self.tls.as_ref());
        self.endpoints.store(Arc::new(next.doubting(&self.is_doubted)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::resolver::Answer;
    use super::super::retry::Outcome;
    use super::*;

    fn settings(more: &str) -> config::Upstream {
        let text = format!("[upstreams.a]\nservers = [\"http://shop.test\"]\n{more}\n");
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert_eq!(loaded.source.render(&loaded.problems), "0 problems in t.toml\n", "{text}");
        loaded.config.upstreams["a"].clone()
    }

    /// The name leads to this address now.
    fn learn(servers: &Servers, host: &str) {
        let Servers::Named(named) = servers else { panic!("a name") };
        let (host, name) = (host.to_owned(), named.directory.settings().servers[0].clone());
        let server = config::Endpoint { host, lookup: config::Lookup::Never, ..name };
        let answer = Answer {
            servers: vec![server],
            unknown: Vec::new(),
            holds_for: Duration::from_secs(5),
        };
        named.directory.names().learn(0, Ok(answer), Duration::from_secs(5));
        named.settle();
    }

    fn urls(servers: &Servers) -> Vec<String> {
        servers.now().all().iter().map(|server| server.transport().url()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_looked_up_for_former_settings_changes_no_server() {
        let none = Names::default();
        let former = Servers::new("a", &settings("eject = {}"), None, &none);
        learn(&former, "192.0.2.1");
        let next = former.with("a", &settings("eject = {}\nretry = {}"), None, &none);
        assert_eq!(urls(&next), ["http://192.0.2.1:80"]);
        // Its answer was on its way.
        learn(&former, "192.0.2.2");
        assert_eq!(urls(&former), ["http://192.0.2.1:80"]);
        next.now().retry().unwrap().spend(1).unwrap().ends(Outcome::Good);
        learn(&next, "192.0.2.3");
        assert_eq!(urls(&next), ["http://192.0.2.3:80"]);
        // What is sent again goes on being counted.
        assert_eq!(next.now().retry().unwrap().outcomes(), [1, 0, 0, 0]);
    }
}
