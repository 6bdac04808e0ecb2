//! What follows when a request of a queue ends: the request that undoes it, in another queue, and
//! who is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::names::names;
use super::pools::Described;
use super::route::Route;
use super::upstream_tls;
use crate::base::facts::Target;
use crate::base::http::authority::Authority;
use crate::config::{self, CALLBACKS, Callback, Config, OrderBy, Problems, StoreUrl, StoreUse};
use crate::route::{Matcher, PathPattern};

/// Why some keys are of no use on a Redis Cluster.
const TWO_SLOTS: &str = "two queues change in one step, which a Redis Cluster cannot do: they lie \
                         in different slots";
/// What the names of upstreams of callbacks end with, behind the queue. No name in the file has a
/// colon.
const OF_CALLBACK: &str = ":callback";

/// The upstream that is told how requests of this queue ended.
pub fn callback_upstream(queue: &str) -> String {
    format!("{queue}{OF_CALLBACK}")
}

/// Who an upstream of this name stands for, if he is to be told how requests ended.
pub fn callback_of<'c>(config: &'c Config, upstream: &str) -> Option<&'c Callback> {
    let queue = config.queues.get(upstream.strip_suffix(OF_CALLBACK)?)?;
    queue.ends.callback.as_deref()
}

/// The request that undoes one which could not be delivered.
#[derive(Debug, Clone)]
pub struct Undo {
    /// The queue that gets it.
    pub queue: String,
    /// The route that it is of.
    pub route: String,
    /// The upstream of that.
    pub upstream: String,
    /// Its method.
    pub method: Method,
    /// What its upstream is asked for.
    pub target: PathAndQuery,
    /// The path of its route, which it makes stale in the cache.
    pub path: String,
    /// The host that its upstream is asked for; nothing is that of the request that it undoes.
    pub host: Option<HeaderValue>,
}

/// What undoes requests, by the queues that these are of.
pub(super) fn undos(
    config: &Config,
    routes: &[(Matcher, Arc<Route>)],
    problems: &mut Problems,
) -> BTreeMap<String, Undo> {
    for (name, queue) in &config.queues {
        if queue.ends.template.is_some() {
            template(config, name, &format!("queues.{name}.template.route"), problems);
        }
        // What undoes requests stands in their lines.
        let undoes = || config.queues.values().any(|it| it.ends.on_dead.as_ref() == Some(name));
        if queue.ends.holds_line && queue.order_by.is_none() && !undoes() {
            let what = "\"stop\" is of no use without order_by: there are no lines";
            let remedy = "write order_by = \"claim:sub\", or remove it";
            problems.push(format!("queues.{name}.on_dead_line"), what, remedy);
        }
        if queue.ends.holds_line && matches!(queue.order_by, Some(OrderBy::Header(_))) {
            let what = "anybody may write that field, and could hold up somebody else's line";
            let remedy = "write order_by = \"claim:sub\", or remove on_dead_line";
            problems.push(format!("queues.{name}.on_dead_line"), what, remedy);
        }
    }
    let mut all = BTreeMap::new();
    for (name, queue) in &config.queues {
        let Some(on_dead) = &queue.ends.on_dead else { continue };
        let at = format!("queues.{name}.on_dead");
        let before = problems.len();
        check(config, (name, on_dead), &at, problems);
        if problems.len() > before {
            continue;
        }
        let has_template = config.queues.get(on_dead).is_some_and(|it| it.ends.template.is_some());
        // What is wrong with a template that is written is told once, there.
        let mut told = Problems::default();
        let told = if has_template { &mut told } else { &mut *problems };
        let Some((route, written)) = template(config, on_dead, &at, told) else { continue };
        // A route that is not there has problems of its own.
        let found = routes.iter().find(|(_, it)| it.name == *route).map(|(_, it)| it);
        let Some(found) = found else { continue };
        match undo(on_dead, written, found) {
            Some(undo) => drop(all.insert(name.clone(), undo)),
            None => {
                let what = format!("nothing can be sent to the path of routes.{route}");
                problems.push(at, what, "write a path that a URL can have");
            }
        }
    }
    all
}

/// Whether one queue may undo what is dead in another.
fn check(config: &Config, (name, on_dead): (&str, &str), at: &str, problems: &mut Problems) {
    let mut problem = |what: String, remedy: String| problems.push(at.to_owned(), what, remedy);
    if !config.queues.contains_key(on_dead) {
        let known = names(config.queues.keys(), "[queues.NAME]");
        problem(format!("no queue is named {on_dead:?}"), format!("name one of {known}"));
        return;
    }
    if is_draining(config, on_dead) {
        let what = format!("[queues.{on_dead}] takes nothing more: drain_only");
        problem(what, "name another queue, or remove drain_only there".to_owned());
    }
    if lies_in_clear(config, name, on_dead) {
        let remedy = format!("write seal in [queues.{on_dead}], or remove on_dead");
        problem(in_clear(on_dead), remedy);
    }
    let next = |queue: &str| config.queues.get(queue)?.ends.on_dead.as_deref();
    let mut behind = std::iter::successors(Some(on_dead), |queue| next(queue));
    // A circle that this queue is not in is told where it is.
    if behind.by_ref().take(config.queues.len()).any(|queue| queue == name) {
        let what = "what undoes a request would be undone by this queue itself, without an end";
        problem(what.to_owned(), "name a queue whose own on_dead does not lead back".to_owned());
    }
    if let Some(remedy) = two_slots(config) {
        problem(TWO_SLOTS.to_owned(), format!("{remedy}, or remove on_dead"));
    }
}

/// The upstreams that are told how requests ended.
pub(super) fn callbacks(config: &Config, problems: &mut Problems) -> Vec<Described> {
    let mut all = Vec::new();
    for (name, queue) in &config.queues {
        let Some(callback) = &queue.ends.callback else { continue };
        let at = format!("queues.{name}.callback");
        if name == CALLBACKS {
            let what = "who is told would be told of that, without an end";
            problems.push(&*at, what, "remove it: this queue is the one that others tell by");
            continue;
        }
        if is_draining(config, CALLBACKS) {
            let what = "[queues.callbacks] takes nothing more: drain_only";
            problems.push(&*at, what, "remove callback, or drain_only there");
        }
        if lies_in_clear(config, name, CALLBACKS) {
            let remedy = "write seal in [queues.callbacks], or remove callback";
            problems.push(&*at, in_clear(CALLBACKS), remedy);
        }
        if let Some(remedy) = two_slots(config) {
            problems.push(&*at, TWO_SLOTS, format!("{remedy}, or remove callback"));
        }
        let tls = upstream_tls::of(&at, &callback.upstream, problems);
        all.push((callback_upstream(name), callback.upstream.clone(), tls));
    }
    all
}

/// Whether nothing more is put into a queue.
fn is_draining(config: &Config, queue: &str) -> bool {
    config.queues.get(queue).is_some_and(|queue| queue.drain_only)
}

/// Whether a queue seals what it keeps, and the other one does not.
fn lies_in_clear(config: &Config, queue: &str, other: &str) -> bool {
    let seals = |name: &str| config.queues.get(name).map(|queue| !queue.seal.is_empty());
    seals(queue) == Some(true) && seals(other) == Some(false)
}

/// What is wrong with that.
fn in_clear(other: &str) -> String {
    format!("what is sealed here would lie in clear in [queues.{other}], which has no seal")
}

/// What to do where two queues cannot change in one step; nothing where they can.
fn two_slots(config: &Config) -> Option<&'static str> {
    let is_cluster = matches!(config.store.used_for(StoreUse::Queue).url, StoreUrl::Cluster { .. });
    is_cluster.then_some("name one Redis, or one behind sentinels, in store.queue_url")
}

/// The route that what other queues put into this one is like; `at` is the key that is wrong where
/// there is none.
fn template<'c>(
    config: &'c Config,
    queue: &str,
    at: &str,
    problems: &mut Problems,
) -> Option<(&'c String, &'c config::Route)> {
    let delivers = |route: &config::Route| {
        route.deliver.as_ref().is_some_and(|deliver| deliver.queue == queue)
    };
    let all: Vec<_> = config.routes.iter().filter(|(_, route)| delivers(route)).collect();
    let named = config.queues.get(queue).and_then(|queue| queue.ends.template.as_ref());
    let mut problem = |what: String, remedy: String| problems.push(at.to_owned(), what, remedy);
    let found = match named {
        Some(named) => all.iter().find(|(name, _)| *name == named).copied(),
        None if all.len() == 1 => all.first().copied(),
        None => None,
    };
    let Some((name, route)) = found else {
        let known = names(all.iter().map(|(name, _)| *name), "[routes.NAME]");
        match named {
            Some(named) => problem(
                format!("no route named {named:?} delivers into {queue}"),
                format!("name one that does, of {known}"),
            ),
            None => problem(
                format!("{} routes deliver into {queue}, so none says what is sent", all.len()),
                format!(
                    "write template = {{ route = \"NAME\" }} in [queues.{queue}], with a route \
                         that delivers into it"
                ),
            ),
        }
        return None;
    };
    let literal = PathPattern::parse(&route.path).ok().and_then(|path| path.literal());
    if literal.is_none_or(|(_, and_below)| and_below) && !route.path.is_empty() {
        problem(
            format!("the path of routes.{name} is no literal one, so nothing can be sent to it"),
            format!("name a route without {{placeholders}} and * in [queues.{queue}] template"),
        );
        return None;
    }
    Some((name, route))
}

/// What is sent in the way of a route.
fn undo(queue: &str, written: &config::Route, route: &Route) -> Option<Undo> {
    let path_and_query = PathAndQuery::try_from(&written.path).ok()?;
    // Of a request that comes from nobody: only its path is looked at.
    let authority = Authority::parse(b"localhost")?;
    let target = Target { authority, path_and_query };
    let rewrite = route.edge.as_ref().and_then(|edge| edge.rewrite.as_ref());
    let rewritten = rewrite.map(|rewrite| rewrite.apply(&target)).transpose().ok()?;
    let of_route = written.host.as_ref().filter(|host| !host.contains('*'));
    let of_rewrite = rewrite.and_then(|rewrite| rewrite.host.as_ref()).map(Authority::to_header);
    let unsafe_one = written.methods.iter().find(|method| !method.is_safe());
    Some(Undo {
        queue: queue.to_owned(),
        route: route.name.clone(),
        upstream: written.upstream.clone(),
        method: unsafe_one.cloned().unwrap_or(Method::POST),
        path: target.path().to_owned(),
        target: rewritten.unwrap_or(target).path_and_query,
        host: of_rewrite.or_else(|| HeaderValue::try_from(of_route?).ok()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Plan;
    use crate::plan::tests::problems_of;

    const BASE: &str = "[upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n\
                        [routes.rest]\npath = \"/rest\"\nupstream = \"shop\"\n";

    /// A route that delivers into a queue.
    fn route(name: &str, path: &str, queue: &str) -> String {
        format!(
            "[routes.{name}]\npath = \"{path}\"\nmethods = [\"POST\"]\nupstream = \"shop\"\n\
             deliver = {{ queue = \"{queue}\" }}\n"
        )
    }

    fn queue(name: &str, lines: &str) -> String {
        format!("[queues.{name}]\ndurable = false\n{lines}")
    }

    fn problems(parts: &[String]) -> Vec<String> {
        problems_of(&format!("{BASE}{}", parts.concat()))
    }

    #[test]
    fn what_undoes_a_request_is_like_the_one_route_of_its_queue_or_a_named_one() {
        let none: [&str; 0] = [];
        let mail = queue("mail", "on_dead = \"undo\"\n");
        let named = |name: &str| queue("undo", &format!("template = {{ route = \"{name}\" }}\n"));
        let [a, b] = [route("a", "/a", "undo"), route("b", "/b", "undo")];
        let (open, other) = (route("open", "/c/{id}", "undo"), route("other", "/o", "mail"));
        let below = route("below", "/c/*", "undo");
        let plain = queue("undo", "");
        for (parts, expected) in [
            (vec![&plain, &a], &none[..]),
            (vec![&plain], &["queues.mail.on_dead"]),
            (vec![&plain, &a, &b], &["queues.mail.on_dead"]),
            (vec![&plain, &open], &["queues.mail.on_dead"]),
            (vec![&plain, &below], &["queues.mail.on_dead"]),
            (vec![&named("b"), &a, &b], &none),
            (vec![&named("open"), &a, &open], &["queues.undo.template.route"]),
            (vec![&named("other"), &a, &other], &["queues.undo.template.route"]),
            (vec![&named("z"), &a], &["queues.undo.template.route"]),
        ] {
            let parts: Vec<String> = [&mail].into_iter().chain(parts).cloned().collect();
            assert_eq!(problems(&parts), expected, "{parts:?}");
        }
        assert_eq!(problems(&[mail]), ["queues.mail.on_dead"]);
    }

    #[test]
    fn whoever_is_told_is_an_upstream_and_is_told_of_no_telling() {
        const TOLD: &str = "callback = { url = \"https://hooks.test/a\", \
                            secret = \"0123456789abcdef01234567\" }\n";
        let text = format!("{BASE}{}{}", queue("mail", TOLD), route("a", "/a", "mail"));
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).unwrap();
        assert!(!loaded.config.queues["callbacks"].durable, "as the other one");
        let plan = Plan::compile(loaded.config).unwrap();
        let names: Vec<_> = plan.upstreams.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, plan.upstream_tls.len()), (vec!["shop", "mail:callback"], 2));
        assert!(plan.upstream_tls[1].is_some());
        let callback = callback_of(&plan.config, "mail:callback").expect("one");
        assert_eq!(
            (callback.target.as_str(), callback.host.as_bytes()),
            ("/a", &b"hooks.test"[..])
        );
        assert!(callback_of(&plan.config, "shop:callback").is_none());
        assert!(callback_of(&plan.config, "mail").is_none());
        assert_eq!(problems(&[queue("callbacks", TOLD)]), ["queues.callbacks.callback"]);
        let cluster = "[store]\nurl = \"redis-cluster://127.0.0.1:1\"\n";
        assert_eq!(problems_of(&format!("{cluster}{text}")), ["queues.mail.callback"]);
    }

    #[test]
    fn a_line_is_held_only_where_there_is_one() {
        let stop = "on_dead_line = \"stop\"\n";
        let ordered = format!("{stop}order_by = \"claim:sub\"\n");
        let of_anybody = format!("{stop}order_by = \"header:x-order-id\"\n");
        assert_eq!(problems(&[queue("mail", stop)]), ["queues.mail.on_dead_line"]);
        assert_eq!(problems(&[queue("mail", &ordered)]), [""; 0]);
        assert_eq!(problems(&[queue("mail", &of_anybody)]), ["queues.mail.on_dead_line"]);
        let undone = queue("mail", "on_dead = \"undo\"\n");
        let all = [undone, queue("undo", stop), route("a", "/a", "undo")];
        assert_eq!(problems(&all), [""; 0]);
    }

    /// What tells of a sealed request says as much as that.
    #[test]
    fn what_follows_from_what_is_sealed_is_sealed() {
        const CALLBACK: &str = "callback = { url = \"https://hooks.test/a\", \
                                secret = \"0123456789abcdef01234567\" }\n";
        let load = |parts: &[String]| {
            let text = format!("{BASE}{}", parts.concat());
            let key = |name: &str| Some(name.repeat(32));
            config::parse("t.toml", Path::new("."), &text, &key).unwrap().config
        };
        let of = |parts: &[String]| match Plan::compile(load(parts)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|it| it.path.clone()).collect::<Vec<_>>(),
        };
        let none: [&str; 0] = [];
        let seal = |keys: &str| format!("seal = [{keys}]\n");
        let mail = queue("mail", &format!("on_dead = \"undo\"\n{}", seal("\"env:11\"")));
        let undo = route("a", "/a", "undo");
        assert_eq!(of(&[mail.clone(), queue("undo", ""), undo.clone()]), ["queues.mail.on_dead"]);
        let sealed = queue("undo", &seal("\"env:22\""));
        assert_eq!(of(&[mail, sealed, undo]), none);
        let told = |name: &str, keys: &str| queue(name, &format!("{}{CALLBACK}", seal(keys)));
        let mail = told("mail", "\"env:11\"");
        assert_eq!(of(&[mail.clone(), queue("callbacks", "")]), ["queues.mail.callback"]);
        let all = [mail, queue("open", CALLBACK), told("post", "\"env:22\", \"env:11\"")];
        let config = load(&all);
        let ids = |name: &str| {
            config.queues[name].seal.iter().map(config::SealKey::id).collect::<Vec<_>>()
        };
        let (mail, post) = (ids("mail"), ids("post"));
        assert_eq!(ids("callbacks"), [mail[0], post[0]]);
        assert_eq!(of(&all), none);
    }

    #[test]
    fn nothing_is_put_into_a_queue_that_only_drains() {
        const CALLBACK: &str = "callback = { url = \"https://hooks.test/a\", \
                                secret = \"0123456789abcdef01234567\" }\n";
        const DRAINS: &str = "drain_only = true\n";
        let undone = queue("mail", "on_dead = \"undo\"\n");
        let undo = queue("undo", DRAINS);
        assert_eq!(problems(&[queue("mail", DRAINS)]), [""; 0]);
        let all = [undone, undo, route("a", "/a", "undo"), route("b", "/b", "mail")];
        assert_eq!(problems(&all), ["routes.a.deliver.queue", "queues.mail.on_dead"]);
        let told = [queue("mail", CALLBACK), queue("callbacks", DRAINS)];
        assert_eq!(problems(&told), ["queues.mail.callback"]);
    }

    #[test]
    fn no_queue_undoes_itself() {
        let to = |name: &str, next: &str| queue(name, &format!("on_dead = \"{next}\"\n"));
        let routes: String =
            ["a", "b", "c"].map(|name| route(name, &format!("/{name}"), name)).concat();
        let circle = [to("a", "b"), to("b", "c"), to("c", "b"), routes.clone()];
        assert_eq!(problems(&circle), ["queues.b.on_dead", "queues.c.on_dead"]);
        assert_eq!(
            problems(&[to("a", "a"), queue("b", ""), queue("c", ""), routes.clone()]),
            ["queues.a.on_dead"]
        );
        let chain = [to("a", "b"), to("b", "c"), queue("c", ""), routes];
        assert_eq!(problems(&chain), [""; 0]);
    }

    #[test]
    fn two_queues_do_not_change_in_one_step_on_a_cluster() {
        let mail = queue("mail", "on_dead = \"undo\"\n");
        let all = [mail, queue("undo", ""), route("a", "/a", "undo")].concat();
        let with = |store: &str| problems_of(&format!("[store]\n{store}\n{BASE}{all}"));
        let cluster = "url = \"redis-cluster://127.0.0.1:1\"";
        assert_eq!(with(cluster), ["queues.mail.on_dead"]);
        let apart = format!("{cluster}\nqueue_url = \"redis://127.0.0.1:2\"");
        assert_eq!(with(&apart), [""; 0]);
    }
}
