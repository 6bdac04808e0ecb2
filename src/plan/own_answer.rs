//! Routes on which the gateway itself answers: what they cannot have beside that.

use crate::config::{self, Problems};

/// Refuses what a route says of an upstream, or of its answers.
pub(super) fn alone(
    written: &config::Route,
    at: &impl Fn(&str) -> String,
    problems: &mut Problems,
) {
    for key in beside(written) {
        let what = "the gateway itself answers on this route".to_owned();
        problems.push(at(key), what, "remove it, or answers".to_owned());
    }
}

/// The keys of a route that say something of an upstream, or of its answers, and are written.
fn beside(written: &config::Route) -> impl Iterator<Item = &'static str> {
    let others = [
        ("cache", written.cache.is_some()),
        ("grpc", written.grpc.is_some()),
        ("upgrade", written.tunnel.is_some()),
        ("respond", written.respond.is_some()),
        ("split", written.split.is_some()),
        ("mirror", written.mirror.is_some()),
        ("deliver", written.deliver.is_some()),
        ("rewrite", written.rewrite.is_some()),
        ("upstream", !written.upstream.is_empty()),
        ("subject", written.subject.is_some()),
        ("idempotency", written.idempotency.is_some()),
        ("invalidates", !written.invalidates.is_empty()),
        ("assertion", written.assertion.is_some()),
        ("issues", written.login.issues.is_some()),
    ];
    others.into_iter().filter_map(|(key, is_written)| is_written.then_some(key))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;
    use crate::plan::Plan;

    /// Of a route of either kind, the keys that are refused.
    fn refused(answers: &str) -> Vec<String> {
        let text = format!(
            "[routes.own]\npath = \"/own/{{id}}\"\n{answers}\nidempotency = {{}}\n\
             invalidates = [\"/x\"]\nsubject = \"s\"\n"
        );
        let loaded = config::parse("t.toml", Path::new("."), &text, &|_| None).expect("TOML");
        let Err(problems) = Plan::compile(loaded.config) else { panic!("{answers} is taken") };
        problems.iter().map(|problem| problem.path.clone()).collect()
    }

    #[test]
    fn a_key_that_would_do_nothing_is_refused() {
        for answers in [
            "answers = \"deliveries\"",
            "answers = \"events\"\nevents = [\"e\"]",
            "answers = \"jwks\"",
            "answers = \"refresh\"",
            "answers = \"session\"",
            "answers = \"logout\"",
        ] {
            let refused = refused(answers);
            for key in ["idempotency", "invalidates", "subject"] {
                let path = format!("routes.own.{key}");
                assert!(refused.contains(&path), "{answers}: {path} in {refused:?}");
            }
        }
    }
}
