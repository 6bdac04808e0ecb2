//! Routes whose requests are stored in a stream of JetStream, and what makes no sense there.

use super::queues::later;
use crate::config::{self, Config, Problems};

/// How the requests of a route are stored in a stream.
#[derive(Debug, Clone)]
pub struct Streamed {
    /// The stream.
    pub stream: String,
    /// Whether requests must have an `Idempotency-Key`.
    pub is_key_required: bool,
    /// Longest body, in bytes.
    pub max_body: u64,
}

impl Streamed {
    pub(super) fn compile(
        config: &Config,
        written: &config::Route,
        at: &impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Box<Self>> {
        let deliver = written.deliver.as_ref()?;
        let stream = deliver.jetstream.as_ref()?;
        let mut problem = |key: &str, what: &str, remedy: &str| {
            problems.push(at(key), what.to_owned(), remedy.to_owned());
        };
        later(config, written, &mut problem);
        if !written.invalidates.is_empty() {
            let what = "the gateway does not learn when what a stream stores is carried out";
            let remedy = "remove it; the consumer can tell by [events.NAME] what has changed";
            problem("invalidates", what, remedy);
        }
        let over_http =
            config.upstreams.get(&written.upstream).filter(|upstream| upstream.nats.is_none());
        if over_http.is_some() && written.subject.is_none() {
            let remedy = "name an upstream with nats, and a subject of the stream";
            problem("deliver.jetstream", "is for messages, and the upstream has none", remedy);
        }
        Some(Box::new(Self {
            stream: stream.clone(),
            is_key_required: deliver.is_key_required,
            max_body: deliver.max_body,
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::problems_of;

    const BASE: &str = "[upstreams.bus]\nnats = [\"nats://127.0.0.1:1\"]\n\
                        [upstreams.other]\nnats = [\"nats://127.0.0.1:2\"]\n\
                        [upstreams.shop]\nservers = [\"http://127.0.0.1:1\"]\n\
                        [auth.users]\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                        algorithms = [\"HS256\"]\nforward_token = true\n\
                        [routes.r]\npath = \"/r\"\ndeliver = { jetstream = \"JOBS\" }\n";

    /// The problems of a route, by their keys.
    fn problems(route: &str) -> Vec<String> {
        problems_of(&format!("{BASE}{route}"))
    }

    #[test]
    fn what_makes_no_sense_for_a_stream_is_refused() {
        const BUS: &str = "methods = [\"POST\"]\nupstream = \"bus\"\nsubject = \"jobs.new\"\n";
        let none: [&str; 0] = [];
        assert_eq!(problems(BUS), none);
        for (key, line) in [
            ("idempotency", "idempotency = {}"),
            ("invalidates", "invalidates = [\"/a\"]"),
            ("cache", "cache = { ttl = \"1s\" }"),
            ("deadline", "deadline = \"1s\""),
            ("deliver", "auth = \"users\""),
            ("mirror", "mirror = { upstream = \"shop\" }"),
        ] {
            assert_eq!(problems(&format!("{BUS}{line}")), [format!("routes.r.{key}")], "{line}");
        }
        let split = "methods = [\"POST\"]\nsubject = \"jobs.new\"\n\
                     split = [{ upstream = \"bus\", weight = 1 }, \
                     { upstream = \"other\", weight = 1 }]\n";
        assert_eq!(problems(split), ["routes.r.split"]);
        let any = BUS.replace("methods = [\"POST\"]\n", "");
        assert_eq!(problems(&any), ["routes.r.methods"]);
        let shop = "methods = [\"POST\"]\nupstream = \"shop\"\n";
        assert_eq!(problems(shop), ["routes.r.deliver.jetstream"]);
        let bare = "methods = [\"POST\"]\nupstream = \"bus\"\n";
        assert_eq!(problems(bare), ["routes.r.subject"]);
    }
}
