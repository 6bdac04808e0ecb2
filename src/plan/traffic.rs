//! Which upstreams a route's requests are split among, and which one gets copies of them.

use super::names::names;
use crate::config::{self, Config, Problems};

/// The upstreams of a split, by their index; the base is the first. Nothing where there is none, or
/// something is wrong with it.
pub(super) fn arms(
    config: &Config,
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Vec<usize>> {
    let split = written.split.as_ref()?;
    let base = config.upstreams.get(&written.upstream).map(|upstream| upstream.paths);
    let mut arms = Vec::new();
    for arm in &split.arms {
        // Of the base it is told where every route's upstream is looked up.
        let is_base = arm.upstream == written.upstream;
        match index_of(config, &arm.upstream) {
            Some(index) => arms.push(index),
            None if is_base => {}
            None => unknown(config, at("split"), &arm.upstream, problems),
        }
        let paths = config.upstreams.get(&arm.upstream).map(|upstream| upstream.paths);
        if let (Some(paths), Some(base)) = (paths, base)
            && paths != base
        {
            let name = &arm.upstream;
            let what = format!("{name} reads paths in another way than {}", written.upstream);
            let remedy = "write the same `paths` in both: a route is matched in one way".to_owned();
            problems.push(at("split"), what, remedy);
        }
    }
    (arms.len() == split.arms.len()).then_some(arms)
}

/// The upstream that gets copies, by its index.
pub(super) fn mirror(
    config: &Config,
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<usize> {
    let mirror = written.mirror.as_ref()?;
    let index = index_of(config, &mirror.upstream);
    if index.is_none() {
        unknown(config, at("mirror.upstream"), &mirror.upstream, problems);
    }
    let mut arms = written.split.iter().flat_map(|split| &split.arms);
    if mirror.upstream == written.upstream || arms.any(|arm| arm.upstream == mirror.upstream) {
        let what = "the upstream gets the requests themselves already".to_owned();
        let remedy = "name another one: copies must not take the places of requests".to_owned();
        problems.push(at("mirror.upstream"), what, remedy);
    }
    index
}

fn index_of(config: &Config, name: &str) -> Option<usize> {
    config.upstreams.keys().position(|it| it == name)
}

fn unknown(config: &Config, place: String, name: &str, problems: &mut Problems) {
    let known = names(config.upstreams.keys(), "[upstreams.NAME]");
    let what = format!("no upstream is named {name:?}");
    problems.push(place, what, format!("name one of {known}"));
}
