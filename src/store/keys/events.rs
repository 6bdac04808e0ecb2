//! Keys of events: who reads them, and which webhooks were taken lately.

use super::{Keys, hex_digest};

impl Keys {
    /// The lock of who reads the events of this name.
    pub fn events_reader(&self, name: &str) -> String {
        format!("{}:events:{{{name}}}:reader", self.prefix)
    }

    /// The group that reads a stream for the events of this name: several may read one stream.
    pub fn events_group(&self, name: &str) -> String {
        format!("{}:events:{name}", self.prefix)
    }

    /// Says that the webhook with this id was taken for these events.
    pub fn events_taken(&self, name: &str, id: &str) -> String {
        format!("{}:events:{{{name}}}:taken:{}", self.prefix, hex_digest(id.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUse;
    use crate::store::keys::usage;

    #[test]
    fn an_id_stands_as_its_digest_and_all_lie_in_the_main_store() {
        let keys = Keys::new("app");
        let taken = keys.events_taken("products", "msg_1:{x}");
        assert!(taken.starts_with("app:events:{products}:taken:"), "{taken}");
        assert!(!taken.contains("msg_1"), "{taken}");
        assert_eq!(keys.events_reader("products"), "app:events:{products}:reader");
        assert_eq!(keys.events_group("products"), "app:events:products");
        for key in [taken, keys.events_reader("products")] {
            assert_eq!(usage(&key), StoreUse::Main, "{key}");
        }
    }
}
