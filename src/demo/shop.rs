//! The sample API behind the demo: products that can be listed, searched, read and changed, and
//! what it is told of its caller. Of the gateway it knows that answers may be tagged.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Most products; the oldest make room.
const PRODUCTS_MAX: usize = 100;
/// Largest body, in bytes.
const BODY_BYTES_MAX: usize = 4096;

type Products = Arc<Mutex<Vec<(u64, String)>>>;

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener) {
    let products: Products =
        Arc::new(Mutex::new(vec![(1, "teapot".to_owned()), (2, "cup".to_owned())]));
    while let Ok((stream, _)) = listener.accept().await {
        let products = Arc::clone(&products);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let products = Arc::clone(&products);
                async move { Ok::<_, Infallible>(conditionally(&products, request).await) }
            });
            // The gateway may close a connection at any time; that is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The answer, or a 304 where the caller has it (RFC 9110 §13.1.2).
async fn conditionally(products: &Products, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let known = request.headers().get(IF_NONE_MATCH).cloned();
    let mut response = answer(products, request).await;
    if known.is_some() && known.as_ref() == response.headers().get(ETAG) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Full::default();
    }
    response
}

async fn answer(products: &Products, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/products") => list(products, |_| true),
        (&Method::GET, "/search") => {
            let query = request.uri().query().unwrap_or_default();
            let wanted = query.strip_prefix("q=").unwrap_or_default().to_owned();
            list(products, |name| name.contains(&wanted))
        }
        (&Method::POST, "/products") => create(products, request).await,
        (&Method::GET, "/me") => reply(StatusCode::OK, &seen(&request)),
        (&Method::POST, "/login") => reply(StatusCode::OK, &json!({ "welcome": "back" })),
        (method, path) if path.starts_with("/products/") => {
            let method = method.clone();
            let id = path.strip_prefix("/products/").and_then(|id| id.parse().ok());
            let name = if method == Method::PUT { name(request).await } else { None };
            of_one(products, &method, id, name)
        }
        (&Method::GET, _) => not_found(),
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "not supported" })),
    }
}

/// Products by their names, tagged with each of them: one that changes makes the list stale.
fn list(products: &Products, is_wanted: impl Fn(&str) -> bool) -> Response<Full<Bytes>> {
    let products = lock(products);
    let found: Vec<_> = products.iter().filter(|(_, name)| is_wanted(name)).collect();
    let list = found.iter().map(|found| product(found)).collect();
    tagged(reply(StatusCode::OK, &Value::Array(list)), found.iter().map(|(id, _)| *id))
}

/// Reads, changes or deletes one product.
fn of_one(
    products: &Products,
    method: &Method,
    id: Option<u64>,
    name: Option<String>,
) -> Response<Full<Bytes>> {
    let mut products = lock(products);
    let Some(at) = products.iter().position(|(known, _)| Some(*known) == id) else {
        return not_found();
    };
    match (method, products.get_mut(at), name) {
        (&Method::GET, Some(found), _) => {
            tagged(reply(StatusCode::OK, &product(found)), std::iter::once(found.0))
        }
        (&Method::PUT, Some(found), Some(name)) => {
            found.1 = name;
            reply(StatusCode::OK, &product(found))
        }
        (&Method::PUT, _, None) => nameless(),
        (&Method::DELETE, ..) => {
            products.remove(at);
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "not supported" })),
    }
}

/// The name that a request sends.
async fn name(request: Request<Incoming>) -> Option<String> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    sent.get("name").and_then(Value::as_str).map(str::to_owned)
}

async fn create(products: &Products, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(name) = name(request).await else { return nameless() };
    let mut products = lock(products);
    let id = products.last().map_or(1, |(id, _)| id + 1);
    let created = (id, name);
    let mut response = reply(StatusCode::CREATED, &product(&created));
    if let Ok(location) = HeaderValue::try_from(format!("/products/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    products.push(created);
    if products.len() > PRODUCTS_MAX {
        products.remove(0);
    }
    response
}

/// The headers in which the gateway told who is calling.
fn seen(request: &Request<Incoming>) -> Value {
    let interesting =
        |name: &str| name.starts_with("x-") || matches!(name, "authorization" | "forwarded");
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .filter(|(name, _)| interesting(name.as_str()))
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into())
        })
        .collect();
    json!({ "the_api_saw": headers })
}

fn nameless() -> Response<Full<Bytes>> {
    reply(StatusCode::BAD_REQUEST, &json!({ "error": "send {\"name\": \"…\"}" }))
}

fn not_found() -> Response<Full<Bytes>> {
    reply(StatusCode::NOT_FOUND, &json!({ "error": "no such product" }))
}

/// With the tags by which the copies of these products can be withdrawn.
fn tagged(
    mut response: Response<Full<Bytes>>,
    ids: impl Iterator<Item = u64>,
) -> Response<Full<Bytes>> {
    let tags: Vec<String> = ids.map(|id| format!("product-{id}")).collect();
    if let Ok(tags) = HeaderValue::try_from(tags.join(" ")) {
        response.headers_mut().insert("surrogate-key", tags);
    }
    response
}

fn product((id, name): &(u64, String)) -> Value {
    json!({ "id": id, "name": name })
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let text = format!("{body}\n");
    let etag =
        format!("\"{:x}\"", text.bytes().fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(b)));
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn lock(products: &Products) -> std::sync::MutexGuard<'_, Vec<(u64, String)>> {
    products.lock().unwrap_or_else(PoisonError::into_inner)
}
