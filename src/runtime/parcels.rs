//! How what a queue keeps lies in its store: content compressed where that is worth it, as cached
//! text is, and all of it sealed where the queue has keys.

use bytes::Bytes;

use crate::cache;
use crate::config::{Queue, SealKey};
use crate::deliver::{Envelope, Form, Recheck, Why};
use crate::sealing::{Part, Place, is_sealed, open, seal};
use crate::store::queue::DeliveryId;

/// Longest content for which nothing else waits, in bytes; a longer one is worked on beside.
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Longest content that comes back, in bytes: none that is kept is longer.
const CONTENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The request or the answer of one delivery, and where it lies.
#[derive(Debug, Clone)]
pub struct Parcels {
    queue: String,
    keys: Vec<SealKey>,
    id: DeliveryId,
    /// The parts that head and content are.
    parts: (Part, Part),
}

/// A head and its content as they came.
#[derive(Debug)]
pub struct Loose {
    /// The head.
    pub head: Vec<u8>,
    /// The content.
    pub body: Bytes,
    /// Whether it is likely to become shorter.
    pub is_text: bool,
    /// What is asked once more before it is sent.
    pub recheck: Option<Recheck>,
}

/// The same as they lie in the store.
#[derive(Debug)]
pub struct Packed {
    /// The head.
    pub head: Bytes,
    /// The content.
    pub body: Bytes,
}

/// The same as they came, of what lay there.
#[derive(Debug)]
pub struct Opened {
    /// The head.
    pub head: Bytes,
    /// The content.
    pub body: Bytes,
    /// What is asked once more.
    pub recheck: Option<Recheck>,
}

impl Parcels {
    /// Of the request of this delivery.
    pub fn of_request(name: &str, queue: &Queue, id: DeliveryId) -> Self {
        let parts = (Part::Head, Part::Body);
        Self { queue: name.to_owned(), keys: queue.seal.clone(), id, parts }
    }

    /// Of the answer to it.
    pub fn of_answer(name: &str, queue: &Queue, id: DeliveryId) -> Self {
        let parts = (Part::AnswerHead, Part::AnswerBody);
        Self { parts, ..Self::of_request(name, queue, id) }
    }

    fn place(&self, part: Part) -> Place<'_> {
        Place { of: &self.queue, id: self.id.as_str(), part }
    }

    /// What lies in the store of this; nothing where it could not be sealed.
    pub async fn pack(&self, loose: Loose) -> Option<Packed> {
        let this = self.clone();
        beside(loose.body.len(), move || this.pack_now(loose)).await.flatten()
    }

    fn pack_now(&self, loose: Loose) -> Option<Packed> {
        let Loose { head, body, is_text, recheck } = loose;
        let shorter = if is_text { cache::compress(&body) } else { None };
        let form = if shorter.is_some() { Form::Zstd } else { Form::Plain };
        let is_bare = shorter.is_none() && recheck.is_none() && self.keys.is_empty();
        let mut head = Bytes::from(head);
        if !is_bare {
            let length = Some(body.len() as u64);
            head = Envelope { form, length, recheck, head }.pack().into();
        }
        let mut body = shorter.map_or(body, Bytes::from);
        if let Some(key) = self.keys.first() {
            head = seal(key, self.place(self.parts.0), &head).ok()?.into();
            // What is empty is not written; its length is sealed with the head.
            if !body.is_empty() {
                body = seal(key, self.place(self.parts.1), &body).ok()?.into();
            }
        }
        Some(Packed { head, body })
    }

    /// What was packed.
    ///
    /// # Errors
    /// No key opens it, or it was damaged.
    pub async fn open(&self, head: &Bytes, body: Bytes) -> Result<Opened, Why> {
        let (this, head) = (self.clone(), head.clone());
        let opened = beside(body.len(), move || this.open_now(&head, &body)).await;
        opened.unwrap_or(Err(Why::Unreadable))
    }

    fn open_now(&self, head: &Bytes, body: &Bytes) -> Result<Opened, Why> {
        let Envelope { form, length, recheck, head: inner } = self.open_head(head)?;
        let body = if is_sealed(head) && !body.is_empty() {
            open(&self.keys, self.place(self.parts.1), body).map_err(|_| Why::Unsealable)?
        } else {
            body.clone()
        };
        let body = match (form, length) {
            (Form::Plain, None) => body,
            (Form::Plain, Some(length)) if length == body.len() as u64 => body,
            (Form::Zstd, Some(length)) if length <= CONTENT_BYTES_MAX => {
                let length = usize::try_from(length).map_err(|_| Why::Unreadable)?;
                cache::expand(&body, length).ok_or(Why::Unreadable)?
            }
            (Form::Plain | Form::Zstd, _) => return Err(Why::Unreadable),
        };
        Ok(Opened { head: inner, body, recheck })
    }

    /// The head alone.
    ///
    /// # Errors
    /// No key opens it, or it was damaged.
    pub fn open_head(&self, head: &Bytes) -> Result<Envelope, Why> {
        let envelope = if is_sealed(head) {
            let place = self.place(self.parts.0);
            Envelope::unpack(&open(&self.keys, place, head).map_err(|_| Why::Unsealable)?)
        } else {
            Envelope::unpack(head)
        };
        envelope.ok_or(Why::Unreadable)
    }
}

/// Does work on so many bytes, in a thread of its own where it takes long. Nothing where it came to
/// no end.
async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::parse(format!("{byte:02x}").repeat(32).as_bytes()).expect("a key")
    }

    fn queue(seal: &[SealKey]) -> Queue {
        Queue { seal: seal.to_vec(), ..Queue::default() }
    }

    fn id() -> DeliveryId {
        DeliveryId::parse(&"0".repeat(26)).expect("an id")
    }

    fn loose(body: &Bytes, is_text: bool) -> Loose {
        Loose { head: b"the head".to_vec(), body: body.clone(), is_text, recheck: None }
    }

    #[tokio::test]
    async fn what_is_packed_opens_again_in_any_form() {
        let long = Bytes::from(b"words that come again, ".repeat(20_000));
        let short = Bytes::from_static(b"a");
        for keys in [&[][..], &[key(1)], &[key(2), key(1)]] {
            let parcels = Parcels::of_request("mail", &queue(keys), id());
            for (body, is_text) in
                [(&Bytes::new(), true), (&short, true), (&long, true), (&long, false)]
            {
                let packed = parcels.pack(loose(body, is_text)).await.expect("packed");
                let is_shorter = packed.body.len() < body.len() / 10;
                assert_eq!(is_shorter, is_text && body.len() > 10_000);
                assert_eq!(is_sealed(&packed.head), !keys.is_empty());
                assert_eq!(packed.body.is_empty(), body.is_empty());
                let opened = parcels.open(&packed.head, packed.body).await.expect("opened");
                assert_eq!((&opened.head[..], &opened.body), (&b"the head"[..], body));
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_as_it_was_packed_does_not_open() {
        let long = Bytes::from(b"words that come again, ".repeat(200));
        let open = async |keys: &[SealKey], head: &Bytes, body: Bytes| {
            Parcels::of_request("mail", &queue(keys), id()).open(head, body).await.err()
        };
        let plain = Parcels::of_request("mail", &queue(&[]), id());
        let packed = plain.pack(loose(&long, true)).await.expect("packed");
        assert_eq!(open(&[], &packed.head, packed.body.slice(1..)).await, Some(Why::Unreadable));
        assert_eq!(open(&[], &packed.head, long.clone()).await, Some(Why::Unreadable));

        let own = [key(1)];
        let sealed = Parcels::of_request("mail", &queue(&own), id());
        let packed = sealed.pack(loose(&long, true)).await.expect("packed");
        let answer = Parcels::of_answer("mail", &queue(&own), id());
        let other = answer.pack(loose(&long, true)).await.expect("packed");
        for (keys, head, body) in [
            (&[][..], &packed.head, &packed.body),
            (&[key(2)], &packed.head, &packed.body),
            (&own, &other.head, &packed.body),
            (&own, &packed.head, &other.body),
            (&own, &packed.head, &long),
        ] {
            assert_eq!(open(keys, head, body.clone()).await, Some(Why::Unsealable));
        }
        // Nobody takes a body away without being noticed.
        assert_eq!(open(&own, &packed.head, Bytes::new()).await, Some(Why::Unreadable));
    }

    #[tokio::test]
    async fn what_was_kept_before_a_queue_had_keys_opens_on() {
        let short = Bytes::from_static(b"a");
        let plain = Parcels::of_request("mail", &queue(&[]), id());
        let packed = plain.pack(loose(&short, true)).await.expect("packed");
        assert_eq!((&packed.head[..], &packed.body), (&b"the head"[..], &short));
        let sealed = Parcels::of_request("mail", &queue(&[key(1)]), id());
        let opened = sealed.open(&packed.head, packed.body).await.expect("opened");
        assert_eq!((&opened.head[..], &opened.body), (&b"the head"[..], &short));
    }
}
