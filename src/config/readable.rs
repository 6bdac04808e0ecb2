//! Files of secrets that others of this machine may read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A password, a token, or another secret: a group may be the one of those who need it.
    Secret,
    /// A private key. A group may read one of root's, which the gateway could not read otherwise.
    Key,
}

/// Bits of a mode: what the group of a file may, and what everybody may.
const GROUP: u32 = 0o070;
const GROUP_READS: u32 = 0o040;
const OTHERS: u32 = 0o007;
/// Those of a folder that let them pass.
const OTHERS_PASS: u32 = 0o001;
const GROUP_PASSES: u32 = 0o011;
/// Folders of secrets that were put there for this process alone: those of containers and of
/// systemd. Their modes are not the choice of whoever wrote the file.
const MOUNTED: [&str; 3] = ["/run/secrets", "/var/run/secrets", "/run/credentials"];

/// What is to be said of a file that others may read, and what to do; nothing where nobody else
/// can, or where nothing is known of it.
pub(super) fn by_others(path: &Path, holds: Holds) -> Option<(String, String)> {
    if MOUNTED.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let path = std::fs::canonicalize(path).ok()?;
    let metadata = std::fs::metadata(&path).ok()?;
    let mode = metadata.mode() & 0o777;
    let wide = match holds {
        Holds::Secret => OTHERS,
        Holds::Key if metadata.uid() == 0 => (GROUP & !GROUP_READS) | OTHERS,
        Holds::Key => GROUP | OTHERS,
    };
    let wide = mode & wide;
    let let_pass = |bits: u32| {
        let is_open = |it: std::io::Result<Metadata>| it.map_or(true, |it| it.mode() & bits != 0);
        path.ancestors().skip(1).all(|folder| is_open(std::fs::metadata(folder)))
    };
    let is_for_others = wide & OTHERS != 0 && let_pass(OTHERS_PASS);
    let is_for_group = wide & GROUP != 0 && let_pass(GROUP_PASSES);
    if is_mounted(&path) || !(is_for_others || is_for_group) {
        return None;
    }
    let shown = path.display();
    let who = if is_for_others { "everybody on this machine" } else { "the group of its file" };
    let (noun, closed) = match holds {
        Holds::Secret => ("secret", "0640"),
        Holds::Key => ("private key", "0600"),
    };
    let what = format!("this {noun} is open to {who}: the mode of {shown} is 0{mode:o}");
    Some((what, format!("chmod {closed} {shown}, and have the gateway's user own it")))
}

/// Whether Kubernetes has put a file there: it keeps each version in a folder `..DATE`.
fn is_mounted(path: &Path) -> bool {
    let is_version = |part: Component<'_>| match part {
        Component::Normal(name) => name.as_encoded_bytes().starts_with(b".."),
        _ => false,
    };
    MOUNTED.iter().any(|folder| path.starts_with(folder)) || path.components().any(is_version)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn has(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_for_its_owner_and_a_key_too() {
        let folder = std::env::temp_dir().join(format!("portcullis-open-{}", std::process::id()));
        let versions = folder.join("..2026_01_01");
        std::fs::create_dir_all(&versions).unwrap();
        for folder in [&folder, &versions] {
            has(folder, 0o755);
        }
        let (secret, mounted) = (folder.join("secret"), versions.join("secret"));
        let link = folder.join("link");
        for file in [&secret, &mounted] {
            std::fs::write(file, "hunter2").unwrap();
        }
        std::os::unix::fs::symlink(&mounted, &link).unwrap();
        let is_roots = std::fs::metadata(&secret).unwrap().uid() == 0;
        for (mode, of_secret, of_key) in [
            (0o600, false, false),
            (0o400, false, false),
            (0o640, false, !is_roots),
            (0o660, false, true),
            (0o644, true, true),
            (0o604, true, true),
        ] {
            has(&secret, mode);
            has(&mounted, mode);
            for (holds, expected) in [(Holds::Secret, of_secret), (Holds::Key, of_key)] {
                let said = by_others(&secret, holds);
                assert_eq!(said.is_some(), expected, "{mode:o} {holds:?} {said:?}");
                // Whose mode nobody has chosen.
                assert_eq!(by_others(&link, holds), None, "{mode:o}");
            }
        }
        has(&secret, 0o644);
        let (what, remedy) = by_others(&secret, Holds::Secret).unwrap();
        assert!(what.contains("open to everybody") && what.ends_with("is 0644"), "{what}");
        assert!(remedy.contains("chmod 0640"), "{remedy}");
        has(&folder, 0o700);
        assert_eq!(by_others(&secret, Holds::Key), None, "nobody else comes there");
        assert_eq!(by_others(&folder.join("none"), Holds::Key), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
