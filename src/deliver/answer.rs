//! The answer to a delivery, as it is kept for its owner.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderMap, Response, StatusCode};

use crate::base::http::fields::is_of_connection;
use crate::base::packed::{Magic, Packer, Unpacker};

/// Version 1 of the layout.
const MAGIC: Magic = *b"dla\x01";

/// What is kept of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of the connection, and without cookies: whoever reads it later is
    /// not on the connection that they were meant for.
    pub fields: HeaderMap,
    /// Its content; nothing where that was longer than is kept, or broke off.
    pub body: Option<Bytes>,
}

impl Kept {
    /// Of an answer with this head.
    pub fn new(status: StatusCode, fields: &HeaderMap, body: Option<Bytes>) -> Self {
        let mut kept = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields {
            let is_gone = is_of_connection(name.as_str())
                || [CONTENT_LENGTH, SET_COOKIE].contains(name)
                || name.as_str() == "x-request-id";
            if !is_gone {
                kept.append(name.clone(), value.clone());
            }
        }
        Self { status, fields: kept, body }
    }

    /// The bytes of its head; its content is kept beside them.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::begin(MAGIC, 256);
        packer.put(&self.status.as_u16().to_le_bytes());
        packer.put(&[u8::from(self.body.is_some())]);
        packer.headers(&self.fields);
        packer.seal()
    }

    /// What [`Self::pack`] made, and the content; nothing of anything else.
    pub fn unpack(head: &Bytes, body: Bytes) -> Option<Self> {
        let mut read = Unpacker::open(MAGIC, head)?;
        let status = StatusCode::from_u16(u16::from_le_bytes(read.array()?)).ok()?;
        let [has_body] = read.array()?;
        let fields = read.headers()?;
        Some(Self { status, fields, body: (has_body == 1).then_some(body) })
    }

    /// The answer again; one without its content where that was not kept.
    pub fn response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body.unwrap_or_default());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields;
        response
    }
}
