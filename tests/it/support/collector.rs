//! A collector of spans: it takes what is exported by OTLP over HTTP, and reads the protobuf by
//! itself, so that what the gateway's library writes is judged by another reader.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Upstream, eventually, response};

/// What the collector's own upstream has recorded, as traces.
pub(crate) struct Collector {
    server: Upstream,
    /// Requests that are still to be refused.
    refusals: Arc<AtomicUsize>,
}

/// A span, as it was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    /// `internal`, `server` or `client`.
    pub(crate) kind: &'static str,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Trace and span of each link.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) has_failed: bool,
    pub(crate) flags: u64,
    /// The attributes of its resource.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty where there is none.
    pub(crate) fn note(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::refusing(0, "")
    }

    /// One that answers so many requests with this head first.
    pub(crate) fn refusing(count: usize, head: &'static str) -> Self {
        let refusals = Arc::new(AtomicUsize::new(count));
        let left = Arc::clone(&refusals);
        let server = Upstream::with(move |_, connection: &mut TcpStream| {
            let less = |left: usize| left.checked_sub(1);
            let is_refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
            let answer = response(if is_refused { head } else { "200 OK" }, "");
            let _ = connection.write_all(answer.as_bytes());
        });
        Self { server, refusals }
    }

    /// The table that names it, with more keys.
    pub(crate) fn table(&self, more: &str) -> String {
        format!("\n[telemetry.traces]\nendpoint = \"{}\"\n{more}\n", self.server.url())
    }

    /// What was asked of it.
    pub(crate) fn server(&self) -> &Upstream {
        &self.server
    }

    /// How many requests it is still to refuse.
    pub(crate) fn refuses(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    /// All spans that were sent, the refused ones too, in their order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.server.recorded().iter().flat_map(|request| read(&request.body)).collect()
    }

    /// The same without those of clients that take their time, which depends on the machine; once
    /// there are so many: no more, and no fewer.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Span> {
        let spans = || -> Vec<Span> {
            self.spans().into_iter().filter(|span| span.kind != "internal").collect()
        };
        eventually("the spans are exported", || spans().len() >= count);
        let spans = spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// The value of one field of a message.
enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a message, by their numbers, in their order.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Number(u64::from_le_bytes(taken(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Field::Bytes(taken(&mut message, length))
            }
            5 => {
                let number = u32::from_le_bytes(taken(&mut message, 4).try_into().unwrap());
                Field::Number(number.into())
            }
            wire => panic!("{wire} is no type of a field"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for place in 0..10 {
        let byte = taken(message, 1)[0];
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number of more than ten bytes");
}

fn taken<'m>(message: &mut &'m [u8], count: usize) -> &'m [u8] {
    let (taken, rest) = message.split_at(count);
    *message = rest;
    taken
}

/// The messages in this field.
fn messages(message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let of = |(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(of).collect()
}

/// Of an `ExportTraceServiceRequest`.
fn read(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in messages(request, 1) {
        let resource = messages(of_resource, 1).into_iter().flat_map(|it| attributes(it, 1));
        let resource: BTreeMap<_, _> = resource.collect();
        let scopes = messages(of_resource, 2).into_iter();
        for span in scopes.flat_map(|scope| messages(scope, 2)) {
            spans.push(Span { resource: resource.clone(), ..span_of(span) });
        }
    }
    spans
}

fn span_of(message: &[u8]) -> Span {
    let mut span = Span { attributes: attributes(message, 9).collect(), ..Span::default() };
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Bytes(id)) => span.trace = hex(id),
            (2, Field::Bytes(id)) => span.id = hex(id),
            (4, Field::Bytes(id)) => span.parent = hex(id),
            (5, Field::Bytes(name)) => span.name = text(name),
            (6, Field::Number(kind)) => {
                span.kind = ["", "internal", "server", "client"][usize::try_from(kind).unwrap()];
            }
            (7, Field::Number(began)) => span.began = began,
            (8, Field::Number(ended)) => span.ended = ended,
            (13, Field::Bytes(link)) => {
                let id = |number| messages(link, number).first().map(|id| hex(id)).unwrap();
                span.links.push((id(1), id(2)));
            }
            (15, Field::Bytes(status)) => {
                let is_error = |(number, field): &(u64, Field<'_>)| {
                    matches!((number, field), (3, Field::Number(2)))
                };
                span.has_failed = fields(status).iter().any(is_error);
            }
            (16, Field::Number(flags)) => span.flags = flags,
            _ => {}
        }
    }
    span
}

fn attributes(message: &[u8], number: u64) -> impl Iterator<Item = (String, String)> {
    messages(message, number).into_iter().map(|pair| {
        let value = messages(pair, 2).into_iter().map(value).next();
        (text(messages(pair, 1)[0]), value.unwrap_or_default())
    })
}

/// Of an `AnyValue`.
fn value(message: &[u8]) -> String {
    match fields(message).into_iter().next() {
        Some((1, Field::Bytes(string))) => text(string),
        Some((2, Field::Number(flag))) => (flag != 0).to_string(),
        Some((3, Field::Number(number))) => number.cast_signed().to_string(),
        Some((5, Field::Bytes(list))) => {
            let values: Vec<_> = messages(list, 1).into_iter().map(value).collect();
            values.join(" ")
        }
        _ => String::new(),
    }
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).expect("text of protobuf is UTF-8").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
