//! Keys of certificates that the fleet shares. All carry one hash tag, so that a script which looks
//! at a lease and writes a certificate touches one slot of a cluster. Names are of hosts, in lower
//! case, and tokens of base64url: neither needs escaping.

use super::Keys;

impl Keys {
    fn tls(&self, family: &str, name: &str) -> String {
        [&*self.prefix, ":{tls}:", family, name].concat()
    }

    /// A certificate with its wrapped key, by its first name.
    pub fn tls_certificate(&self, name: &str) -> String {
        self.tls("cert:", name)
    }

    /// The account with the authority, with its wrapped key.
    pub fn tls_account(&self) -> String {
        self.tls("account", "")
    }

    /// Who makes the account.
    pub fn tls_account_lease(&self) -> String {
        self.tls("account-lease", "")
    }

    /// Who orders the certificate of a name.
    pub fn tls_lease(&self, name: &str) -> String {
        self.tls("lease:", name)
    }

    /// An order in progress, with the wrapped key of its certificate.
    pub fn tls_order(&self, name: &str) -> String {
        self.tls("order:", name)
    }

    /// Until when nobody orders again, after a failure.
    pub fn tls_pause(&self, name: &str) -> String {
        self.tls("pause:", name)
    }

    /// When the authority wants a certificate renewed.
    pub fn tls_renewal(&self, name: &str) -> String {
        self.tls("renewal:", name)
    }

    /// What the authority is answered: by token over HTTP, by name in a handshake.
    pub fn tls_answer(&self, token_or_name: &str) -> String {
        self.tls("answer:", token_or_name)
    }

    /// Changes with every certificate.
    pub fn tls_version(&self) -> String {
        self.tls("version", "")
    }

    /// The wrapped key of the fleet's tickets in an epoch.
    pub fn tls_tickets(&self, epoch: u64) -> String {
        self.tls("tickets:", &epoch.to_string())
    }

    /// The window of all orders.
    pub fn tls_orders(&self) -> String {
        self.tls("orders", "")
    }

    /// The window of the orders of one name.
    pub fn tls_same_orders(&self, name: &str) -> String {
        self.tls("orders:", name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_one_slot() {
        let keys = Keys::new("app");
        assert_eq!(keys.tls_certificate("a.test"), "app:{tls}:cert:a.test");
        assert_eq!(keys.tls_account(), "app:{tls}:account");
        assert_eq!(keys.tls_lease("a.test"), "app:{tls}:lease:a.test");
        assert_eq!(keys.tls_answer("a.test"), "app:{tls}:answer:a.test");
        assert_eq!(keys.tls_version(), "app:{tls}:version");
        assert_eq!(keys.tls_tickets(41_000), "app:{tls}:tickets:41000");
        assert_eq!(keys.tls_orders(), "app:{tls}:orders");
        assert_eq!(keys.tls_same_orders("a.test"), "app:{tls}:orders:a.test");
    }
}
