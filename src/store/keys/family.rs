//! Keys of refresh tokens: one family, and the index of its user's families.

use super::{Keys, part};

/// Where one family of refresh tokens stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyKeys {
    /// Of the family.
    pub family: String,
    /// The families of its user.
    pub index: String,
    /// Its name, as the index has it.
    pub id: String,
}

impl Keys {
    /// A family of refresh tokens, a hash. All that changes with it lies under this one key.
    pub fn token_family(&self, id: &str) -> String {
        format!("{}:auth:refresh:{{{id}}}", self.prefix)
    }

    /// The families of one user, a sorted set: their names, scored by the Unix seconds of their
    /// begin.
    pub fn token_families_of(&self, sub: &str) -> String {
        format!("{}:auth:refresh-of:{}", self.prefix, part(sub))
    }

    /// What stands around its name in the key of a family.
    pub fn around_family(&self) -> [String; 2] {
        [format!("{}:auth:refresh:{{", self.prefix), "}".to_owned()]
    }

    /// Where a family of a user stands.
    pub fn family_keys(&self, id: &str, sub: &str) -> FamilyKeys {
        FamilyKeys {
            family: self.token_family(id),
            index: self.token_families_of(sub),
            id: id.to_owned(),
        }
    }

    /// Whether this may be the name of a family: nothing else gets into a key.
    pub fn is_family_id(id: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=64).contains(&id.len()) && id.bytes().all(is_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_its_name_in_an_index() {
        let keys = Keys::new("app");
        let [before, behind] = keys.around_family();
        assert_eq!(format!("{before}fam-1{behind}"), keys.token_family("fam-1"));
        assert_eq!(keys.token_family("fam-1"), "app:auth:refresh:{fam-1}");
        assert_eq!(keys.token_families_of("42"), "app:auth:refresh-of:42");
        assert!(Keys::is_family_id("aB-_9"));
        for id in ["", "a}b", "a:b", "é", &"x".repeat(65)] {
            assert!(!Keys::is_family_id(id), "{id}");
        }
    }
}
