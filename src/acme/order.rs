//! One order, from the first request to the certificate (RFC 8555 §7.4). It goes on where another
//! gateway left it: what it needs for that is stored before each step that cannot be undone.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::answers::Answers;
use super::client;
use super::failure::Failure;
use super::records;
use super::served::Served;
use super::vault::{Vault, bytes};
use crate::config::{self, Challenge};
use crate::store::{ChargedAt, Charges, HeldLock, Store, Window, WindowSet};

/// How long an order in progress is remembered. Authorities keep them for days.
const ORDER_TTL: Duration = Duration::from_secs(24 * 3600);
/// The pause before the first look at what the authority is doing; each is longer than the last.
const POLL_FIRST: Duration = Duration::from_millis(250);
const POLL_GROWTH: f32 = 1.3;

/// What came of an order.
pub(super) struct Obtained {
    /// In PEM.
    pub(super) chain: String,
    /// In PKCS#8.
    pub(super) key: Vec<u8>,
}

/// An order that the authority has taken.
struct Begun {
    order: Order,
    /// Of its certificate, in PKCS#8.
    key: Vec<u8>,
    /// When it was charged.
    charged_us: u64,
}

/// What an order is charged to.
#[derive(Debug, Clone, Copy)]
enum Budget {
    /// `orders`
    All,
    /// `same_orders`
    Same,
}

/// One order's share of some budgets.
struct Charge {
    keys: Vec<String>,
    set: WindowSet,
    budgets: Vec<Budget>,
}

impl Charge {
    /// Takes it, or says which budget is used up; when it was taken.
    async fn take(&self, store: &Store) -> Result<u64, Failure> {
        let reply = store.take(Charges { set: &self.set, keys: &self.keys }).await?;
        if reply.allowed {
            return Ok(reply.at.micros());
        }
        let over = reply.windows.iter().position(|state| state.retry_ms > 0);
        Err(Failure::Budget(match over.and_then(|at| self.budgets.get(at)) {
            Some(Budget::Same) => "same_orders",
            _ => "orders",
        }))
    }

    /// Gives back what came to nothing. Where the store is away it is lost.
    async fn give_back(&self, store: &Store, at_us: u64) {
        let charges = Charges { set: &self.set, keys: &self.keys };
        let _ = store.refund(charges, &ChargedAt::of(at_us)).await;
    }
}

/// Where an order is made.
pub(super) struct Desk<'a> {
    pub(super) settings: &'a config::Acme,
    pub(super) vault: &'a Vault,
    pub(super) answers: &'a Answers,
    pub(super) served: &'a Served,
    /// The set of names.
    pub(super) at: usize,
    pub(super) names: &'a [String],
    pub(super) lease: &'a HeldLock,
    pub(super) account: &'a Account,
    /// Most wanted first.
    pub(super) challenges: &'a [Challenge],
    /// The certificate that is renewed (RFC 9773 §5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

impl Desk<'_> {
    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    fn place(&self) -> String {
        self.vault.keys.tls_order(self.name())
    }

    /// Gets a certificate, by the order that was begun or by a new one.
    ///
    /// # Errors
    /// See [`Failure`]. An order that may still come to a good end is taken up again the next time.
    pub(super) async fn obtain(&self) -> Result<Obtained, Failure> {
        let Begun { mut order, key, charged_us } = match self.begun_before().await? {
            Some(begun) => begun,
            None => self.begin().await?,
        };
        let mut answered = Vec::new();
        let chain = self.finish(&mut order, &key, &mut answered).await;
        for of in answered {
            self.answers.take_away(self.lease, &of).await;
        }
        // A valid order has a certificate, also where it could not be fetched: it is fetched later.
        if order.state().status == OrderStatus::Invalid && chain.is_err() {
            // No certificate came of it, and only those count for the same names.
            let charge = self.charge_of(&[Budget::Same]);
            charge.give_back(&self.vault.store, charged_us).await;
            let _ = self.vault.store.delete(&self.place()).await;
        }
        Ok(Obtained { chain: chain?, key })
    }

    /// An order that a gateway began and did not finish.
    async fn begun_before(&self) -> Result<Option<Begun>, Failure> {
        let place = self.place();
        let Some(record) = self.vault.read::<records::Order>(&place).await? else {
            return Ok(None);
        };
        let is_ours = record.names == self.names
            && record.directory == self.settings.directory
            && record.account == self.account.id();
        let Some(key) = self.vault.wrapping.unwrap(&place, &record.key).ok().filter(|_| is_ours)
        else {
            return Ok(None);
        };
        let mut order = match self.account.order(record.url.clone()).await {
            Ok(order) => order,
            // The authority does not know it. Any other refusal is of this attempt alone.
            Err(Error::Api(problem)) if problem.status == Some(404) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if order.state().status == OrderStatus::Invalid {
            return Ok(None);
        }
        self.served.note(self.at, "ordered", "an order that was begun before goes on");
        Ok(Some(Begun { order, key, charged_us: record.charged_us }))
    }

    async fn begin(&self) -> Result<Begun, Failure> {
        let charge = self.charge_of(&[Budget::All, Budget::Same]);
        let charged_us = charge.take(&self.vault.store).await?;
        let key = KeyPair::generate().map_err(|_| Failure::Crypto("making a key"))?;
        let key = key.serialize_der();
        let identifiers: Vec<Identifier> =
            self.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let mut placed = self.place_order(&identifiers, self.replaces.clone()).await;
        if self.replaces.is_some() && matches!(placed, Err(Error::Api(_))) {
            // It was replaced already, or the authority does not know it: a plain order will do.
            placed = self.place_order(&identifiers, None).await;
        }
        let order = match placed {
            Ok(order) => order,
            Err(error) => {
                // What may stand with the authority counts there too.
                if client::is_undone(&error) {
                    charge.give_back(&self.vault.store, charged_us).await;
                }
                return Err(error.into());
            }
        };
        let place = self.place();
        let record = records::Order {
            names: self.names.to_vec(),
            directory: self.settings.directory.clone(),
            account: self.account.id().to_owned(),
            url: order.url().to_owned(),
            charged_us,
            key: self.vault.wrapping.wrap(&place, &key)?,
        };
        self.vault.put_fenced(self.lease, &[(place, bytes(&record), ORDER_TTL)]).await?;
        self.served.note(self.at, "ordered", "the authority has taken the order");
        Ok(Begun { order, key, charged_us })
    }

    async fn place_order(
        &self,
        identifiers: &[Identifier],
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Error> {
        let mut new = NewOrder::new(identifiers);
        if let Some(profile) = &self.settings.profile {
            new = new.profile(profile);
        }
        if let Some(replaces) = replaces {
            new = new.replaces(replaces);
        }
        self.account.new_order(&new).await
    }

    /// What an order costs of the fleet's budgets: authorities count too, and lock out for longer.
    fn charge_of(&self, budgets: &[Budget]) -> Charge {
        let keys = &self.vault.keys;
        let of = |budget: &Budget| match budget {
            Budget::All => (keys.tls_orders(), self.settings.orders),
            Budget::Same => (keys.tls_same_orders(self.name()), self.settings.same_orders),
        };
        let (keys, rates): (Vec<_>, Vec<_>) = budgets.iter().map(of).unzip();
        let windows = rates.iter().map(|rate| Window::new(rate.limit, rate.window)).collect();
        Charge { keys, set: WindowSet::new(windows), budgets: budgets.to_vec() }
    }

    /// Takes an order from wherever it is to its certificate.
    async fn finish(
        &self,
        order: &mut Order,
        key: &[u8],
        answered: &mut Vec<String>,
    ) -> Result<String, Failure> {
        let retries = RetryPolicy::new()
            .initial_delay(POLL_FIRST)
            .backoff(POLL_GROWTH)
            .timeout(self.settings.order_timeout);
        if order.state().status == OrderStatus::Pending {
            self.prove(order, answered).await?;
            match order.poll_ready(&retries).await {
                Ok(OrderStatus::Ready) => {}
                Ok(_) | Err(Error::Api(_)) => return Err(self.unproved(order).await),
                Err(error) => return Err(error.into()),
            }
        }
        if order.state().status == OrderStatus::Ready {
            order.finalize_csr(&self.request(key)?).await?;
        }
        let chain = order.poll_certificate(&retries).await?;
        self.served.note(self.at, "issued", "the authority has issued it");
        Ok(chain)
    }

    /// The request for the certificate (PKCS#10).
    fn request(&self, key: &[u8]) -> Result<Vec<u8>, Failure> {
        let failed = |_| Failure::Crypto("making a request for a certificate");
        let key = KeyPair::try_from(key).map_err(failed)?;
        let mut params = CertificateParams::new(self.names.to_vec()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key).map_err(failed)?.der().to_vec())
    }

    /// Answers for every name that is not proved yet.
    async fn prove(&self, order: &mut Order, answered: &mut Vec<String>) -> Result<(), Failure> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization.identifier().to_string();
            let offered = |kind: &ChallengeType| {
                authorization.challenges.iter().any(|challenge| challenge.r#type == *kind)
            };
            let kind = self.challenges.iter().map(kind_of).find(offered);
            let Some(mut challenge) = kind.and_then(|kind| authorization.challenge(kind)) else {
                return Err(Failure::NoChallenge(name));
            };
            let whole = challenge.key_authorization();
            let of = match challenge.r#type {
                ChallengeType::Http01 => challenge.token.clone(),
                _ => name,
            };
            // The store has it before the authority is told: it may ask another gateway at once.
            let ttl = self.settings.order_timeout;
            self.answers.put(self.lease, &of, whole.as_str(), ttl).await?;
            answered.push(of);
            self.served.note(self.at, "answered", "all gateways have the answer");
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await?;
            }
        }
        Ok(())
    }

    /// Why the authority has given an order up.
    async fn unproved(&self, order: &Order) -> Failure {
        let none =
            |why: &str| Failure::Unproved { name: self.name().to_owned(), why: why.to_owned() };
        let Ok(mut order) = self.account.order(order.url().to_owned()).await else {
            return none("it gives no reason");
        };
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            let error = authorization.challenges.iter().find_map(|it| it.error.as_ref());
            if let Some(error) = error {
                let name = authorization.identifier().to_string();
                return Failure::Unproved { name, why: error.to_string() };
            }
        }
        none("it gives no reason")
    }
}

fn kind_of(challenge: &Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http => ChallengeType::Http01,
        Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
    }
}
