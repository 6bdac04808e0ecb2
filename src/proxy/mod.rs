//! The life of one request.
//!
//! `handle` is the frame: it opens the record, asks `answer`, turns a rejection into a response,
//! closes the record. `answer` is the walk: read it top to bottom. Each line is one room, `?` is
//! the way out. A room that needs the store appears twice: where its question joins the others, and
//! where it judges the answer.

mod asked;
mod body;
mod caching;
mod exchange;
mod explain;
mod forward;
mod parts;
mod rejection;
mod unparsed;
mod why;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

pub use self::body::{Body, Fault as BodyFault};
pub use self::explain::{Described, explain};
pub use self::rejection::Rejection;
pub use self::unparsed::Unparsed;
pub use self::why::without_credentials;

use self::asked::Asked;
use self::body::Content;
use self::caching::Found;
use self::exchange::Exchange;
use self::forward::Arrival;
use crate::base::expect::Gate;
use crate::base::facts::{ClientAddr, Peer};
use crate::base::interim::Interim;
use crate::forwarding::{client, fields};
use crate::guard::Inspected;
use crate::limit::{LimitNotes, Outcome, Receipt};
use crate::plan::Plan;
use crate::runtime::{Gateway, Running};
use crate::store::Answers;
use crate::upstream::OnInterim;
use crate::{auth, cache, guard, limit, session};

/// What the requests of one client connection share. Each takes a count of this, not of what all
/// connections share: two cores that count the same thing take turns.
#[derive(Debug)]
pub struct Connection {
    gateway: Arc<Gateway>,
    peer: Peer,
    /// The plan in force when the last request came, and its generation.
    snapshot: Mutex<(u64, Snapshot)>,
    interim: Arc<Interim>,
}

/// A plan, counted for one connection alone.
type Snapshot = Arc<Arc<Running>>;

impl Connection {
    /// A connection without requests yet.
    pub fn new(gateway: &Arc<Gateway>, peer: Peer) -> Arc<Self> {
        let snapshot = Mutex::new((gateway.generation(), Arc::new(gateway.running())));
        Arc::new(Self { gateway: Arc::clone(gateway), peer, snapshot, interim: Arc::default() })
    }

    /// The way of interim responses to the client, past hyper.
    pub fn interim(&self) -> &Arc<Interim> {
        &self.interim
    }

    /// The gateway that serves it.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The client's end of the socket.
    pub fn address(&self) -> ClientAddr {
        self.peer.address
    }

    /// Opens the way of interim responses for one request. There is none unless the client speaks
    /// HTTP/1.1: HTTP/1.0 has no such responses (RFC 9110 §15.2), and hyper cannot send them over
    /// HTTP/2.
    fn open_interim(&self, version: Version, plan: &Plan) -> Option<Arc<Interim>> {
        let most = plan.config.server.limits.interim_responses;
        if most == 0 || version != Version::HTTP_11 {
            return None;
        }
        self.interim.open(most);
        Some(Arc::clone(&self.interim))
    }

    /// The rules of now. A reload never changes them under a request.
    fn running(&self) -> Snapshot {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.gateway.generation();
        if snapshot.0 != generation {
            *snapshot = (generation, Arc::new(self.gateway.running()));
        }
        Arc::clone(&snapshot.1)
    }
}

/// Passes interim responses on to a client; a 100 opens the way of its body, if it waits for one.
fn offering(interim: Option<Arc<Interim>>, gate: Option<Arc<Gate>>) -> Option<impl OnInterim> {
    let is_wanted = interim.is_some() || gate.is_some();
    let offer = move |status, fields: &HeaderMap| {
        if let (StatusCode::CONTINUE, Some(gate)) = (status, &gate) {
            gate.open();
        }
        if let Some(interim) = interim.as_ref().filter(|interim| interim.is_open())
            && let Some(head) = fields::interim(status, fields)
        {
            interim.offer(&head);
        }
    };
    is_wanted.then_some(offer)
}

/// Answers one request. There is always a response: whatever goes wrong becomes one.
pub async fn handle(connection: &Arc<Connection>, request: Request<Incoming>) -> Response<Body> {
    let mut exchange = Exchange::open(connection, &request);
    let response = match answer(connection, &mut exchange, request).await {
        Ok(response) => response,
        Err(rejection) => rejection.respond(&mut exchange),
    };
    exchange.close_with(response)
}

async fn answer(
    Connection { gateway, peer, .. }: &Connection,
    exchange: &mut Exchange,
    request: Request<Incoming>,
) -> Result<Response<Content>, Rejection> {
    let running = Arc::clone(&exchange.running);
    let plan = &running.plan;
    let (head, body) = request.into_parts();

    // Who asks for what? Local, no waiting.
    let client = client::identify(&plan.client, peer, &head.headers);
    exchange.client = client.address;
    let target = match guard::inspect(&plan.guard, peer.local, &head)? {
        Inspected::Route(target) => exchange.target.insert(target).clone(),
        Inspected::ServerOptions => return Ok(body::server_options()),
    };
    let route = plan.routes.find(target.authority.host(), target.path(), &head.method)?;
    (exchange.route, exchange.upstream) = (Some(route.index), Some(route.upstream));
    let forwarded = auth::forwarded(route.auth.as_ref(), &target);
    let forwarded = cache::forwarded(route.cache.as_deref(), &head.method, forwarded);
    let has_body = !http_body::Body::is_end_stream(&body);
    let (running, client) = (&*running, &client);
    let arrival = Arrival { running, route, peer, client, target: &forwarded, has_body };
    let mut told = LimitNotes::new(plan.config.server.ratelimit_fields);
    let origin = arrival.origin(&head);
    limit::flood(&route.limits, &gateway.limits.state, &plan.keys, &origin, &mut told)?;

    // A bad token is refused only after its address was charged: guessing must cost something. Only
    // a token whose key is new here waits, for one fetch from its issuer, and an API key whose
    // record is, for the store.
    let identified = gateway.identify(running, route, &target, &head.headers).await;
    exchange.note_caller(&identified.caller);
    let mut asked = Asked::collect(exchange, &arrival, &identified.caller, &head, &mut told)?;

    // What must the store tell us? One round trip, whatever the route asks for.
    let mut answers = match identified.outage {
        None => gateway.ask(&asked.questions(), &mut exchange.store_time).await,
        // It has just not answered, and no request waits for it twice.
        Some(error) => Answers::failed(&asked.questions(), &error),
    };
    asked.heard(&arrival, &head, &mut answers, (gateway, &mut exchange.store_time)).await;
    exchange.note_outage(&answers);

    // May it pass? In the order of precedence: 401 and 403, revoked, 429, a cached answer, the
    // upstream.
    let caller = match identified.caller {
        Ok(caller) => caller,
        Err(denied) => {
            let (receipt, _) = asked.admit(&answers, plan, gateway, &mut told)?;
            let refused = Err(denied.into());
            settle(gateway, receipt, &refused, false);
            return refused;
        }
    };
    asked.confirm(&caller, &mut answers, plan, gateway)?;
    asked.charge_by_session(&arrival, &head, &answers, gateway, &mut told)?;
    let (receipt, place) = asked.admit(&answers, plan, gateway, &mut told)?;
    exchange.hold(place);
    exchange.note_over(&told.over);
    let mut is_cached = false;
    let response = async {
        let found = (answers.session.take(), answers.session_end.take());
        let session = session::attach(route.session.as_ref(), found, SystemTime::now())?;
        gateway.renew(asked.session.as_ref(), session.renew);
        let identity = (&caller, session.headers, told.marks);
        match asked.cached(answers.cached.take(), &head, gateway, exchange).await? {
            Found::Answer(response) => {
                is_cached = true;
                Ok(response)
            }
            Found::Refresh(response, errand) => {
                is_cached = true;
                arrival.refresh(gateway, exchange, head, identity, errand);
                Ok(response)
            }
            Found::Nothing(errand) => {
                arrival.forward(gateway, exchange, (head, body), identity, errand).await
            }
        }
    };
    let response = response.await;
    settle(gateway, receipt, &response, is_cached);
    let mut response = response?;
    told.quota.stamp(response.headers_mut(), SystemTime::now());
    Ok(response)
}

/// However a request ended, its end decides what stays charged to the limits that look at it.
fn settle(
    gateway: &Arc<Gateway>,
    receipt: Option<Receipt<'_>>,
    response: &Result<Response<Content>, Rejection>,
    is_cached: bool,
) {
    let Some(receipt) = receipt else { return };
    let outcome = match response {
        Ok(response) => Outcome {
            status: response.status(),
            headers: Some(response.headers()),
            failed: response.status().is_server_error(),
            cached: is_cached,
        },
        Err(rejection) => Outcome {
            status: rejection.status(),
            headers: None,
            failed: matches!(rejection, Rejection::Upstream(_)),
            cached: false,
        },
    };
    gateway.limits.correct(receipt.settle(&outcome));
}

/// Writes the one access line of a head that never became a request.
pub fn log_unparsed(connection: &Connection, unparsed: Unparsed) {
    exchange::write_unparsed(&connection.gateway, &connection.peer, unparsed);
}

/// Writes the access line of a connection that was turned away with a 503.
pub fn log_turned_away(gateway: &Arc<Gateway>, peer: &Peer, unparsed: Unparsed) {
    exchange::write_unparsed(gateway, peer, unparsed);
}
