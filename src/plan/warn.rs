//! What may be served, but deserves a second look: said by `check` and in the log, never a refusal.

use crate::config::{Config, KeySource, Problems};

/// The secret that `gateway.toml` shows. It is public, so whoever has read it can sign tokens.
const EXAMPLE_SECRET: &[u8] = b"example-only-replace-me-with-32-random-bytes";

/// Everything in the file that deserves a second look.
pub(super) fn warnings(config: &Config) -> Problems {
    let mut warnings = Problems::default();
    example_secrets(config, &mut warnings);
    bodies_without_room(config, &mut warnings);
    warnings
}

fn bodies_without_room(config: &Config, warnings: &mut Problems) {
    let most = config.store.body_bytes_max();
    for (name, route) in &config.routes {
        if route.cache.as_ref().is_some_and(|cache| cache.max_bytes > most) {
            let what = format!(
                "bodies above {most} bytes are not kept: the embedded store has \
                 memory_cache_bytes = {} for all of them",
                config.store.memory_cache_bytes
            );
            let remedy = "raise store.memory_cache_bytes to twice max_bytes or more, lower \
                          max_bytes, or use Redis";
            warnings.push(format!("routes.{name}.cache.max_bytes"), what, remedy);
        }
    }
}

fn example_secrets(config: &Config, warnings: &mut Problems) {
    for (name, verifier) in &config.auth {
        if let Some(KeySource::Secret(secret)) = &verifier.keys
            && secret.expose() == EXAMPLE_SECRET
        {
            let what = "this is the secret of the example, and everybody can read it";
            let remedy = "replace it with 32 random bytes, such as `openssl rand -hex 32` prints, \
                          in an environment variable: secret = \"env:NAME\"";
            warnings.push(format!("auth.{name}.secret"), what, remedy);
        }
    }
}
