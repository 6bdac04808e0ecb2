//! Where a browser goes once it has logged in: a path of the origin that it came from, and nothing
//! that any browser could take for another one (RFC 9700 §4.11).

/// Longest path, in bytes: it is kept for as long as the log-in takes.
const PATH_BYTES_MAX: usize = 2048;

/// The path, if it is one of the same origin; `/` where there is none, or another.
///
/// Browsers read `\` as `/`, drop tabs and line feeds, and take what follows two slashes for
/// a host.
pub fn return_to(asked: Option<&str>) -> &str {
    asked.filter(|asked| is_of_this_origin(asked)).unwrap_or("/")
}

fn is_of_this_origin(path: &str) -> bool {
    let mut bytes = path.bytes();
    path.len() <= PATH_BYTES_MAX
        && bytes.next() == Some(b'/')
        && bytes.next() != Some(b'/')
        && path.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && !matches!(byte, b'\\' | b'#'))
        && !leads_elsewhere(path)
}

/// Whether a browser that resolves `.` and `..` is left with two slashes at the begin.
fn leads_elsewhere(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    })
}
