//! The sample API behind the demo: products that can be listed, read and created, and what it is
//! told of its caller. It knows nothing of the gateway.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
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
                async move { Ok::<_, Infallible>(answer(&products, request).await) }
            });
            // The gateway may close a connection at any time; that is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(products: &Products, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/products") => {
            let list = lock(products).iter().map(product).collect();
            reply(StatusCode::OK, &Value::Array(list))
        }
        (&Method::POST, "/products") => create(products, request).await,
        (&Method::GET, "/me") => reply(StatusCode::OK, &seen(&request)),
        (&Method::POST, "/login") => reply(StatusCode::OK, &json!({ "welcome": "back" })),
        (&Method::GET, path) => {
            let id = path.strip_prefix("/products/").and_then(|id| id.parse().ok());
            match lock(products).iter().find(|(known, _)| Some(*known) == id) {
                Some(found) => reply(StatusCode::OK, &product(found)),
                None => reply(StatusCode::NOT_FOUND, &json!({ "error": "no such product" })),
            }
        }
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "not supported" })),
    }
}

async fn create(products: &Products, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(name) = sent.get("name").and_then(Value::as_str) else {
        return reply(StatusCode::BAD_REQUEST, &json!({ "error": "send {\"name\": \"…\"}" }));
    };
    let mut products = lock(products);
    let id = products.last().map_or(1, |(id, _)| id + 1);
    let created = (id, name.to_owned());
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
