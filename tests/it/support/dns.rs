//! A name server on loopback that says what a test wants (RFC 1035 §4, RFC 2782), over UDP.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
/// An answer, with recursion desired and available.
const ANSWER: u16 = 0x8180;
const NAME_ERROR: u16 = 3;
const HEADER_BYTES: usize = 12;

/// One record's data.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    /// An address.
    Address(Ipv4Addr),
    /// Priority, weight, port and target of a service.
    Service(u16, u16, u16, &'static str),
}

#[derive(Debug, Default)]
struct Zone {
    /// By name: seconds of TTL, and the records. A name that is not here does not exist.
    names: Mutex<HashMap<String, (u32, Vec<Record>)>>,
    /// Names about which nothing is said.
    silent: Mutex<HashSet<String>>,
    /// How many questions have come.
    asked: AtomicUsize,
    ended: AtomicBool,
}

/// See the module.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Zone>,
}

impl NameServer {
    /// One that knows no name yet.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("its address");
        let zone = Arc::new(Zone::default());
        let shared = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(answer) = shared.answer(&query[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, zone }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a name has these records.
    pub(crate) fn set(&self, name: &str, ttl: u32, records: &[Record]) {
        self.zone.silent.lock().unwrap().remove(name);
        self.zone.names.lock().unwrap().insert(name.to_owned(), (ttl, records.to_vec()));
    }

    /// From now on, until it is set again, questions for a name get no answer at all.
    pub(crate) fn silence(&self, name: &str) {
        self.zone.silent.lock().unwrap().insert(name.to_owned());
    }

    /// How many questions have come, answered or not.
    pub(crate) fn asked(&self) -> usize {
        self.zone.asked.load(Ordering::SeqCst)
    }

    /// From now on there is no such name.
    pub(crate) fn remove(&self, name: &str) {
        self.zone.names.lock().unwrap().remove(name);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.zone.ended.store(true, Ordering::SeqCst);
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|it| it.send_to(&[0], self.address));
    }
}

impl Zone {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut at = HEADER_BYTES;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
        let question = query.get(HEADER_BYTES..at + 4)?;
        let name = labels.join(".");
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.silent.lock().unwrap().contains(&name) {
            return None;
        }
        let known = self.names.lock().unwrap().get(&name).cloned();
        let code = if known.is_some() { ANSWER } else { ANSWER | NAME_ERROR };
        let (ttl, records) = known.unwrap_or_default();
        let data: Vec<Vec<u8>> = records.iter().filter_map(|record| record.data(kind)).collect();
        let mut out = query.get(..2)?.to_vec();
        let count = u16::try_from(data.len()).ok()?;
        for field in [code, 1, count, 0, 0] {
            out.extend(field.to_be_bytes());
        }
        out.extend(question);
        for data in data {
            // A pointer to the name in the question.
            out.extend([0xC0, 0x0C]);
            out.extend(kind.to_be_bytes());
            out.extend(CLASS_IN.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            out.extend(data);
        }
        Some(out)
    }
}

impl Record {
    /// What it says to a question of this type.
    fn data(&self, kind: u16) -> Option<Vec<u8>> {
        match self {
            Self::Address(address) if kind == TYPE_A => Some(address.octets().to_vec()),
            Self::Service(priority, weight, port, target) if kind == TYPE_SRV => {
                let mut data: Vec<u8> =
                    [priority, weight, port].into_iter().flat_map(|it| it.to_be_bytes()).collect();
                for label in target.split('.') {
                    data.push(u8::try_from(label.len()).ok()?);
                    data.extend(label.as_bytes());
                }
                data.push(0);
                Some(data)
            }
            _ => None,
        }
    }
}
