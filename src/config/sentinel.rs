//! `redis-sentinel://` and `[store.sentinel]`: who tells where the primary is, and how they are
//! spoken to.

use std::path::PathBuf;

use super::reader::Section;
use super::store_tls::{self, StoreTls};
use super::value::{Mistake, Read, host_and_port, no_credentials, text};
use crate::base::units::Secret;

/// Most sentinels that are spoken to, named or found.
pub const SENTINELS_MAX: usize = 15;
/// Where a sentinel listens when its port is left out.
const SENTINEL_PORT: u16 = 26_379;
/// Longest name of a primary, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// `[store.sentinel]`: sentinels have users, passwords and certificates of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSentinel {
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The file that the password is read from anew when it is refused.
    pub password_file: Option<PathBuf>,
    /// `[store.sentinel.tls]`; in clear without it.
    pub tls: Option<StoreTls>,
}

impl StoreSentinel {
    /// Whether connections are made in the same way, whatever the files of secrets hold.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        let fixed = |it: &Self| Self {
            tls: None,
            password: it.password.clone().filter(|_| it.password_file.is_none()),
            ..it.clone()
        };
        store_tls::name_the_same(self.tls.as_ref(), other.tls.as_ref())
            && fixed(self) == fixed(other)
    }
}

/// Reads the table.
pub(super) fn read(sentinel: &mut Section<'_>) -> StoreSentinel {
    let (password, password_file) = sentinel.secret_of_file("password").unzip();
    StoreSentinel {
        username: sentinel.get("username", text),
        password,
        password_file: password_file.flatten(),
        tls: sentinel.optional("tls", store_tls::read),
    }
}

/// Some sentinels, and the name that they watch the primary by.
type Watch = (Vec<(String, u16)>, String);

/// `host:port,host:port/name`, each with port 26379 when it is left out.
pub(super) fn url(rest: &str) -> Read<Watch> {
    const EXAMPLE: &str = "write some of its sentinels and the name that they watch the primary \
                           by, such as \"redis-sentinel://s1:26379,s2:26379/main\"";
    no_credentials(rest)?;
    let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
    let sentinels = hosts.split(',').map(|host| host_and_port(host.trim(), SENTINEL_PORT));
    let sentinels = sentinels.collect::<Option<Vec<_>>>();
    let Some(sentinels) = sentinels.filter(|sentinels| sentinels.len() <= SENTINELS_MAX) else {
        let what = format!("does not name 1 to {SENTINELS_MAX} sentinels");
        return Err(Mistake::new(what, EXAMPLE));
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if let Some((_, database)) = name.split_once('/')
        && database.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(Mistake::new(
            "names a database, and Sentinel's are all used as number 0",
            "leave out what stands behind the name; store.prefix keeps applications apart",
        ));
    }
    if name.is_empty() {
        return Err(Mistake::new("does not say by which name the primary is watched", EXAMPLE));
    }
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let what = "has a name of the primary that Sentinel does not take";
        return Err(Mistake::new(what, "use letters, digits, `.`, `_` and `-`, as Sentinel does"));
    }
    Ok((sentinels, name.to_owned()))
}
