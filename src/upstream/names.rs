//! What is known of the names among the servers of an upstream: which addresses each has, for how
//! long, and when it is to be asked for again. Pure but for the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::resolver::{Answer, Unknown, sort};
use crate::config::{self, Lookup};
use crate::observe::NameNow;

/// Shortest time from one question for a name to the next, whatever happens.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: Vec<Name>,
    /// Whether others have taken over what is known: what is answered from now on is theirs to ask.
    are_handed_over: bool,
}

/// One name.
#[derive(Debug)]
struct Name {
    written: config::Endpoint,
    /// What was answered last; empty where that is too long ago.
    servers: Vec<config::Endpoint>,
    answered_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// When it is asked for again.
    due: Instant,
    /// Whether somebody asks.
    is_asked: bool,
    /// Why there was no answer, the last time.
    fault: Option<String>,
    /// The targets of a service that the last answer says nothing of.
    unanswered: Vec<Unanswered>,
}

/// A target of a service that nobody answers for.
#[derive(Debug, Clone)]
struct Unanswered {
    unknown: Unknown,
    /// When somebody did last.
    answered_at: Instant,
}

impl Unanswered {
    fn has(&self, server: &config::Endpoint) -> bool {
        server.name.as_ref() == Some(&self.unknown.target) && server.port == self.unknown.port
    }

    fn is_about(&self, unknown: &Unknown) -> bool {
        (&self.unknown.target, self.unknown.port) == (&unknown.target, unknown.port)
    }
}

impl Name {
    /// What nobody answers for from now on. What the answer before had nothing of either, has not
    /// been answered for since longer.
    fn note_unanswered(&mut self, unknown: Vec<Unknown>, now: Instant) {
        let former = std::mem::take(&mut self.unanswered);
        for unknown in unknown {
            let before = former.iter().find(|it| it.is_about(&unknown)).map(|it| it.answered_at);
            let answered_at = before.or(self.answered_at).unwrap_or(now);
            self.unanswered.push(Unanswered { unknown, answered_at });
        }
    }

    /// Its answer says nothing of some targets, and this was known of these: whoever was asked may
    /// have known nothing before.
    fn remember(&mut self, former: &Self) {
        let servers = former.servers_as(&self.written);
        for target in &mut self.unanswered {
            if let Some(at) = former.answered_at_of(&target.unknown) {
                target.answered_at = target.answered_at.min(at);
            }
            self.servers.extend(servers.iter().filter(|server| target.has(server)).cloned());
        }
        sort(&mut self.servers);
    }

    /// When somebody has answered for this target, the last time.
    fn answered_at_of(&self, unknown: &Unknown) -> Option<Instant> {
        let found = self.unanswered.iter().find(|it| it.is_about(unknown));
        found.map(|it| it.answered_at).or(self.answered_at)
    }

    /// What operators are told of what was not answered, the last time: of each target once.
    fn fault(&self) -> Option<String> {
        let of_targets: BTreeMap<_, _> =
            self.unanswered.iter().map(|it| (&it.unknown.target, &it.unknown.why)).collect();
        let told = of_targets.iter().map(|(target, why)| format!("{target}: {why}"));
        let told = (!of_targets.is_empty()).then(|| told.collect::<Vec<_>>().join("; "));
        self.fault.clone().or(told)
    }

    /// Forgets what was answered last before the `stale` time, and is not answered any more.
    /// Returns which name, and which targets, have no server for that.
    fn forget(&mut self, now: Instant, stale: Duration) -> Vec<String> {
        let is_old = |at: Instant| now > at + stale;
        if self.servers.is_empty() {
            return Vec::new();
        }
        if self.fault.is_some() && self.answered_at.is_some_and(is_old) {
            self.servers.clear();
            return vec![self.written.host.clone()];
        }
        let mut gone = Vec::new();
        for target in self.unanswered.iter().filter(|it| is_old(it.answered_at)) {
            let before = self.servers.len();
            self.servers.retain(|server| !target.has(server));
            if self.servers.len() < before {
                gone.push(format!("{}:{}", target.unknown.target, target.unknown.port));
            }
        }
        gone
    }

    /// Whether its answer is good for this server, too: not where weights are part of the answer
    /// and another one is written.
    fn leads_to_the_same(&self, server: &config::Endpoint) -> bool {
        let own = &self.written;
        (own.lookup, &own.host, own.port, &own.tls)
            == (server.lookup, &server.host, server.port, &server.tls)
            && (own.lookup != Lookup::Services || own.weight == server.weight)
    }

    /// What it has, as it is written now.
    fn servers_as(&self, written: &config::Endpoint) -> Vec<config::Endpoint> {
        let backup = written.backup;
        let one = |server: &config::Endpoint| match written.lookup {
            Lookup::Services => config::Endpoint { backup, ..server.clone() },
            _ => config::Endpoint { backup, weight: written.weight, ..server.clone() },
        };
        self.servers.iter().map(one).collect()
    }
}

/// What an answer changes, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The name has these servers now.
    Servers(Vec<String>),
    /// There was no answer for all of it, after there had been one; what was known stays.
    Fault(String),
    /// There has been none for so long that no server is left.
    Gone,
}

impl Names {
    /// Those among these servers. `ahead` was asked for them last, and `former` knows of some
    /// from before that.
    pub(super) fn of(servers: &[config::Endpoint], ahead: &Self, former: &Self) -> Self {
        let named = servers.iter().filter(|server| server.lookup != Lookup::Never);
        let one = |written: &config::Endpoint| {
            let (ahead, former) = (ahead.find(written), former.find(written));
            let asked = ahead.or(former);
            // Meanwhile the former one may have learned more: nothing is older than no answer.
            let known = former.into_iter().chain(ahead).max_by_key(|name| name.answered_at);
            let mut name = Name {
                written: written.clone(),
                servers: known.map(|known| known.servers_as(written)).unwrap_or_default(),
                answered_at: known.and_then(|known| known.answered_at),
                asked_at: None,
                due: asked.map_or_else(Instant::now, |asked| {
                    known.map_or(asked.due, |known| known.due.min(asked.due))
                }),
                is_asked: false,
                fault: asked.and_then(|asked| asked.fault.clone()),
                unanswered: known.map(|known| known.unanswered.clone()).unwrap_or_default(),
            };
            if let Some(former) = former {
                name.remember(former);
            }
            name
        };
        Self { all: named.map(one).collect(), are_handed_over: false }
    }

    fn find(&self, written: &config::Endpoint) -> Option<&Name> {
        self.all.iter().find(|name| name.leads_to_the_same(written))
    }

    /// Others have taken over what is known.
    pub(super) fn hand_over(&mut self) {
        self.are_handed_over = true;
    }

    /// Whether others have.
    pub(super) fn are_handed_over(&self) -> bool {
        self.are_handed_over
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether something of what is written has not been answered or refused yet.
    pub(super) fn has_new(&self) -> bool {
        self.all.iter().any(|name| name.answered_at.is_none() && name.fault.is_none())
    }

    /// All servers: those that are written by their addresses, and what is known of names.
    pub(super) fn expand(&self, servers: &[config::Endpoint]) -> Vec<config::Endpoint> {
        let mut all: Vec<config::Endpoint> = Vec::with_capacity(servers.len());
        for server in servers {
            let known = self.all.iter().find(|name| name.written == *server);
            let found = known.map_or(std::slice::from_ref(server), |name| &name.servers);
            for server in found {
                // Two names may lead to the same address.
                let is_there = all.iter().any(|it| {
                    (&it.host, it.port, &it.tls) == (&server.host, server.port, &server.tls)
                });
                if !is_there {
                    all.push(server.clone());
                }
            }
        }
        all
    }

    /// The names to ask for now, by their numbers; they are asked for from now on. With `at_once`,
    /// all that have not been asked for a moment ago.
    pub(super) fn due(&mut self, at_once: bool) -> Vec<(usize, config::Endpoint)> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (at, name) in self.all.iter_mut().enumerate() {
            let is_quick = name.asked_at.is_some_and(|asked| now < asked + AGAIN);
            if !name.is_asked && !is_quick && (at_once || now >= name.due) {
                name.is_asked = true;
                name.asked_at = Some(now);
                due.push((at, name.written.clone()));
            }
        }
        due
    }

    /// What was answered. `retry`: when to ask again where nothing was. It is of no use to anybody
    /// where others have taken over. Returns what is new.
    pub(super) fn learn(
        &mut self,
        at: usize,
        answer: Result<Answer, String>,
        retry: Duration,
    ) -> Vec<News> {
        let Some(name) = self.all.get_mut(at).filter(|_| !self.are_handed_over) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        let now = Instant::now();
        name.is_asked = false;
        match answer {
            Ok(mut answer) => {
                let before = name.fault();
                name.note_unanswered(answer.unknown, now);
                let is_kept = |server: &&config::Endpoint| {
                    name.unanswered.iter().any(|target| target.has(server))
                };
                answer.servers.extend(name.servers.iter().filter(is_kept).cloned());
                sort(&mut answer.servers);
                name.due = now + answer.holds_for;
                name.answered_at = Some(now);
                name.fault = None;
                if name.servers != answer.servers {
                    name.servers = answer.servers;
                    let hosts = name.servers.iter().map(|it| format!("{}:{}", it.host, it.port));
                    news.push(News::Servers(hosts.collect()));
                }
                news.extend(name.fault().filter(|_| before.is_none()).map(News::Fault));
            }
            Err(why) => {
                name.due = now + retry;
                if name.fault.is_none() {
                    news.push(News::Fault(why.clone()));
                }
                name.fault = Some(why);
            }
        }
        news
    }

    /// Forgets what was last answered longer than `stale` ago. Returns which names and targets of
    /// services that are.
    pub(super) fn forget(&mut self, stale: Duration) -> Vec<String> {
        let now = Instant::now();
        self.all.iter_mut().flat_map(|name| name.forget(now, stale)).collect()
    }

    /// What operators see.
    pub(super) fn now(&self) -> Vec<NameNow> {
        let all = self.all.iter().map(|name| NameNow {
            name: name.written.host.clone(),
            servers: name.servers.len(),
            age: name.answered_at.map(|at| at.elapsed()),
            fault: name.fault(),
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(5);
    const STALE: Duration = Duration::from_secs(3600);

    fn server(host: &str, lookup: Lookup) -> config::Endpoint {
        config::Endpoint {
            host: host.to_owned(),
            port: 80,
            tls: None,
            weight: 1,
            backup: false,
            lookup,
            name: None,
        }
    }

    fn answer(hosts: &[&str]) -> Result<Answer, String> {
        let servers = hosts.iter().map(|host| server(host, Lookup::Never)).collect();
        Ok(Answer { servers, unknown: Vec::new(), holds_for: REFRESH })
    }

    /// A server of a service.
    fn at(host: &str, target: &str) -> config::Endpoint {
        config::Endpoint { name: Some(target.to_owned()), ..server(host, Lookup::Never) }
    }

    fn unknown_at(target: &str, port: u16) -> Unknown {
        Unknown { target: target.to_owned(), port, why: "late".to_owned() }
    }

    /// An answer about a service that says nothing of these targets.
    fn part(servers: &[config::Endpoint], unknown: &[&str]) -> Answer {
        let unknown = unknown.iter().map(|target| unknown_at(target, 80)).collect();
        Answer { servers: servers.to_vec(), unknown, holds_for: REFRESH }
    }

    fn of(written: &[config::Endpoint], former: &Names) -> Names {
        Names::of(written, &Names::default(), former)
    }

    fn hosts(names: &Names, written: &[config::Endpoint]) -> Vec<String> {
        names.expand(written).into_iter().map(|server| server.host).collect()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn asked(names: &mut Names, at_once: bool) -> Vec<usize> {
        names.due(at_once).into_iter().map(|(at, _)| at).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_nobody_answers_for_keeps_its_servers_for_a_while() {
        let written = [server("_http._tcp.shop", Lookup::Services)];
        let mut names = of(&written, &Names::default());
        let both = vec![at("10.0.0.1", "a.test"), at("10.0.0.2", "b.test")];
        names.learn(0, Ok(part(&both, &[])), REFRESH);
        let part_of = || part(&both[..1], &["b.test"]);
        pass(1).await;
        let fault = "b.test: late".to_owned();
        assert_eq!(names.learn(0, Ok(part_of()), REFRESH), [News::Fault(fault.clone())]);
        // A reload begins no new time, and neither does another answer.
        let mut names = of(&written, &names);
        pass(3599).await;
        assert_eq!(names.learn(0, Ok(part_of()), REFRESH), []);
        assert!(names.forget(STALE).is_empty());
        assert_eq!(hosts(&names, &written), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(names.now()[0].fault.as_ref(), Some(&fault));
        pass(1).await;
        assert_eq!(names.forget(STALE), ["b.test:80"]);
        assert!(names.forget(STALE).is_empty());
        names.learn(0, Ok(part_of()), REFRESH);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
        assert_eq!(names.now()[0].fault.as_ref(), Some(&fault));
        // Where none is left it is as with any name.
        names.learn(0, Err("gone".to_owned()), REFRESH);
        pass(3601).await;
        assert_eq!(names.forget(STALE), ["_http._tcp.shop"]);
        assert!(hosts(&names, &written).is_empty());
        names.learn(0, Ok(part(&both, &[])), REFRESH);
        assert_eq!(hosts(&names, &written), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(names.now()[0].fault, None);
        // It has no address any more, and somebody has said so.
        names.learn(0, Ok(part(&both[..1], &[])), REFRESH);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_answer_that_is_a_part_is_told_with_what_it_lacks() {
        let written = [server("_http._tcp.shop", Lookup::Services)];
        let mut names = of(&written, &Names::default());
        let a_part = || Ok(part(&[at("10.0.0.1", "a.test")], &["b.test"]));
        let servers = News::Servers(vec!["10.0.0.1:80".to_owned()]);
        let fault = News::Fault("b.test: late".to_owned());
        assert_eq!(names.learn(0, a_part(), REFRESH), [servers, fault]);
        assert_eq!(names.learn(0, a_part(), REFRESH), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_told_apart_by_its_port() {
        let written = [server("_http._tcp.shop", Lookup::Services)];
        let at = |port: u16| config::Endpoint { port, ..at("10.0.0.1", "a.test") };
        let ports = |names: &Names| -> Vec<u16> {
            names.expand(&written).into_iter().map(|server| server.port).collect()
        };
        let mut names = of(&written, &Names::default());
        let all: Vec<_> = (1..=20).map(at).collect();
        names.learn(0, Ok(part(&all, &[])), REFRESH);
        pass(1).await;
        // Of the lookups of one name some were lost; the last port is none of the service any more.
        let lost = |ports: &[u16]| Answer {
            unknown: ports.iter().map(|port| unknown_at("a.test", *port)).collect(),
            ..part(&all[2..19], &[])
        };
        names.learn(0, Ok(lost(&[1, 2])), REFRESH);
        assert_eq!(ports(&names), (1..=19).collect::<Vec<_>>());
        assert_eq!(names.now()[0].fault.as_deref(), Some("a.test: late"));
        pass(1).await;
        names.learn(0, Ok(lost(&[2])), REFRESH);
        assert_eq!(ports(&names), (2..=19).collect::<Vec<_>>());
        assert_eq!(names.forget(Duration::ZERO), ["a.test:2"]);
        assert_eq!(ports(&names), (3..=19).collect::<Vec<_>>());
        // Each has a time of its own.
        names.learn(0, Ok(part(&all, &[])), REFRESH);
        pass(1).await;
        let without = Answer { unknown: vec![unknown_at("a.test", 1)], ..part(&all[1..], &[]) };
        names.learn(0, Ok(without), REFRESH);
        pass(1).await;
        names.learn(0, Ok(lost(&[1, 2])), REFRESH);
        assert_eq!(names.forget(Duration::from_secs(1)), ["a.test:1"]);
    }

    /// A reload asks others, who know nothing yet.
    #[tokio::test(start_paused = true)]
    async fn a_target_that_those_asked_ahead_do_not_answer_for_keeps_its_servers() {
        let written = [server("_http._tcp.shop", Lookup::Services)];
        let both = vec![at("10.0.0.1", "a.test"), at("10.0.0.2", "b.test")];
        let mut former = of(&written, &Names::default());
        former.learn(0, Ok(part(&both, &[])), REFRESH);
        pass(1000).await;
        let mut ahead = of(&written, &Names::default());
        ahead.learn(0, Ok(part(&both[..1], &["b.test"])), REFRESH);
        let mut names = Names::of(&written, &ahead, &former);
        assert_eq!(hosts(&names, &written), ["10.0.0.1", "10.0.0.2"]);
        // Nor does another one begin a new time.
        names = Names::of(&written, &Names::of(&written, &ahead, &Names::default()), &names);
        pass(2600).await;
        assert!(names.forget(STALE).is_empty());
        pass(1).await;
        assert_eq!(names.forget(STALE), ["b.test:80"]);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
        // What was forgotten stays so.
        let names = Names::of(&written, &ahead, &names);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_have_asked_the_later_answer_counts() {
        let written = [server("shop", Lookup::Addresses)];
        let mut former = of(&written, &Names::default());
        former.learn(0, answer(&["10.0.0.1"]), REFRESH);
        let ahead = of(&written, &former);
        pass(1).await;
        former.learn(0, answer(&["10.0.0.2"]), REFRESH);
        assert_eq!(hosts(&Names::of(&written, &ahead, &former), &written), ["10.0.0.2"]);
        assert_eq!(hosts(&Names::of(&written, &former, &ahead), &written), ["10.0.0.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_asked_for_when_their_answers_are_old_or_a_connection_fails() {
        let written = [server("10.0.0.9", Lookup::Never), server("shop", Lookup::Addresses)];
        let mut names = of(&written, &Names::default());
        assert!(names.has_new());
        assert_eq!(hosts(&names, &written), ["10.0.0.9"]);
        assert_eq!(asked(&mut names, false), [0]);
        // Somebody asks already.
        assert!(asked(&mut names, true).is_empty());
        let news = names.learn(0, answer(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]), REFRESH);
        assert!(matches!(&news[..], [News::Servers(hosts)] if hosts.len() == 3));
        assert_eq!(hosts(&names, &written), ["10.0.0.9", "10.0.0.1", "10.0.0.2"]);
        // Once per second at most.
        assert!(asked(&mut names, true).is_empty());
        pass(1).await;
        assert!(asked(&mut names, false).is_empty());
        assert_eq!(asked(&mut names, true), [0]);
        assert_eq!(names.learn(0, answer(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]), REFRESH), []);
        pass(5).await;
        assert_eq!(asked(&mut names, false), [0]);
        // A reload knows what was known, and asks when that is old.
        let mut reloaded = of(&written, &names);
        assert!(!reloaded.has_new());
        assert_eq!(hosts(&reloaded, &written).len(), 3);
        let heavier = [config::Endpoint { weight: 7, ..written[1].clone() }];
        let servers = of(&heavier, &names).expand(&heavier);
        assert_eq!(servers.iter().map(|it| it.weight).collect::<Vec<_>>(), [7, 7, 7]);
        assert_eq!(asked(&mut reloaded, false), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_stays_for_a_while() {
        let written = [server("shop", Lookup::Addresses)];
        let mut names = of(&written, &Names::default());
        names.due(false);
        names.learn(0, answer(&["10.0.0.1"]), REFRESH);
        pass(5).await;
        names.due(false);
        let failed = |names: &mut Names| names.learn(0, Err("gone".to_owned()), REFRESH);
        assert_eq!(failed(&mut names), [News::Fault("gone".to_owned())]);
        assert_eq!(failed(&mut names), []);
        pass(3595).await;
        assert!(names.forget(STALE).is_empty());
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
        assert_eq!(names.now()[0].fault.as_deref(), Some("gone"));
        pass(1).await;
        assert_eq!(names.forget(STALE), ["shop"]);
        assert!(names.forget(STALE).is_empty());
        assert!(hosts(&names, &written).is_empty());
        names.learn(0, answer(&["10.0.0.2"]), REFRESH);
        assert_eq!(hosts(&names, &written), ["10.0.0.2"]);
    }

    /// A reload has asked somebody else, and what it was told stands before what was known.
    #[tokio::test(start_paused = true)]
    async fn what_was_asked_ahead_counts_and_what_it_does_not_know_stays() {
        let written = [server("shop", Lookup::Addresses)];
        let mut former = of(&written, &Names::default());
        former.due(false);
        former.learn(0, answer(&["10.0.0.1"]), REFRESH);
        let mut ahead = of(&written, &Names::default());
        ahead.due(false);
        // Nobody has answered yet: it is asked for at once.
        let mut names = Names::of(&written, &ahead, &former);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
        assert_eq!(asked(&mut names, false), [0]);
        ahead.learn(0, Err("no".to_owned()), REFRESH);
        let mut names = Names::of(&written, &ahead, &former);
        assert_eq!(hosts(&names, &written), ["10.0.0.1"]);
        assert_eq!(names.now()[0].fault.as_deref(), Some("no"));
        assert!(asked(&mut names, false).is_empty());
        ahead.learn(0, answer(&["10.0.0.2"]), REFRESH);
        former.learn(0, answer(&["10.0.0.3"]), REFRESH);
        assert_eq!(hosts(&Names::of(&written, &ahead, &former), &written), ["10.0.0.2"]);
        // Who has handed over learns nothing more.
        former.hand_over();
        assert_eq!(former.learn(0, answer(&["10.0.0.4"]), REFRESH), []);
        assert_eq!(hosts(&former, &written), ["10.0.0.3"]);
    }
}
