//! What lies in the store of a head: the head, how the content beside it lies there, and what is
//! asked once more before it is sent. A head that needs none of that lies there by itself.

use bytes::Bytes;

use super::recheck::Recheck;
use crate::base::packed::{Magic, Packer, Unpacker};

/// Version 1 of the layout.
const MAGIC: Magic = *b"dle\x01";

/// How content lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// As it came.
    Plain = 0,
    /// Compressed (zstd, RFC 8878).
    Zstd = 1,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// How the content lies beside it.
    pub form: Form,
    /// Bytes of the content as it came; nothing where that is not written.
    pub length: Option<u64>,
    /// What is asked once more.
    pub recheck: Option<Recheck>,
    /// The head.
    pub head: Bytes,
}

impl Envelope {
    /// The bytes of it.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::begin(MAGIC, self.head.len() + 128);
        packer.put(&[self.form as u8, u8::from(self.recheck.is_some())]);
        packer.put(&self.length.unwrap_or(u64::MAX).to_le_bytes());
        if let Some(recheck) = &self.recheck {
            recheck.put(&mut packer);
        }
        packer.put(&self.head);
        packer.seal()
    }

    /// What [`Self::pack`] made; of any other bytes, these as a head that lies by itself. Nothing
    /// where it was damaged.
    pub fn unpack(bytes: &Bytes) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            let head = bytes.clone();
            return Some(Self { form: Form::Plain, length: None, recheck: None, head });
        }
        let mut read = Unpacker::open(MAGIC, bytes)?;
        let [form, is_asked] = read.array()?;
        let form = match form {
            0 => Form::Plain,
            1 => Form::Zstd,
            _ => return None,
        };
        let length = Some(u64::from_le_bytes(read.array()?)).filter(|length| *length < u64::MAX);
        let recheck = if is_asked == 1 { Some(Recheck::read(&mut read)?) } else { None };
        Some(Self { form, length, recheck, head: read.rest() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            head in proptest::collection::vec(any::<u8>(), 0..50),
            is_compressed: bool,
            length in proptest::option::of(0..u64::MAX),
            keys in proptest::option::of((
                proptest::collection::vec("[!-~]{0,20}", 0..3),
                proptest::option::of("[!-~]{1,20}"),
                proptest::option::of("[!-~]{1,20}"),
                any::<Option<i64>>(),
            )),
        ) {
            let recheck = keys.map(|(blacklist, not_before, record, issued_at)| {
                Recheck { blacklist, not_before, record, issued_at }
            });
            let form = if is_compressed { Form::Zstd } else { Form::Plain };
            let envelope = Envelope { form, length, recheck, head: head.into() };
            let packed = Bytes::from(envelope.pack());
            prop_assert_eq!(Envelope::unpack(&packed), Some(envelope));
            for at in 4..packed.len() {
                prop_assert_eq!(Envelope::unpack(&packed.slice(..at)), None);
            }
        }
    }

    #[test]
    fn a_head_of_before_lies_by_itself() {
        let head = Bytes::from_static(b"dlv\x01 and so on");
        let read = Envelope::unpack(&head).expect("a head");
        let plain = Envelope { form: Form::Plain, length: None, recheck: None, head };
        assert_eq!(read, plain);
    }
}
