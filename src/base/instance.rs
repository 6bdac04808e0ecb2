//! What this process is called where several gateways are told apart.

use std::sync::OnceLock;

/// Most bytes of the host's name in it.
const HOST_BYTES_MAX: usize = 64;

/// The host's name and the process id, such as `web1-4711`: letters, digits, `-`, `.` and `_`.
pub fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        // Where it is another file, the process id alone must do.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}-{}", plain(host.trim()), std::process::id())
    })
}

/// The same, told apart where hosts and process ids are the same in two containers.
pub fn unique() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{}-{:08x}", name(), fastrand::u32(..)))
}

fn plain(host: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let plain = host.chars().take(HOST_BYTES_MAX).map(|c| if is_plain(c) { c } else { '_' });
    let plain: String = plain.collect();
    if plain.is_empty() { "host".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_that_redis_or_a_log_could_misread() {
        assert_eq!(plain("web1.example_x"), "web1.example_x");
        assert_eq!(plain("a b\n\u{e9}:"), "a_b___");
        assert_eq!(plain(""), "host");
        assert!(name().ends_with(&format!("-{}", std::process::id())));
    }
}
