//! Where a message stands in its stream and for its consumer: JetStream writes that into the
//! subject of the acknowledgement.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// How often it was delivered, this time included.
    pub delivered: u64,
    /// Its number in the stream.
    pub stream_seq: u64,
    /// The number of this delivery, of all by this consumer.
    pub consumer_seq: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// How many more wait for this consumer.
    pub pending: u64,
}

impl Position {
    /// Reads the subject of an acknowledgement; nothing of another subject.
    ///
    /// `$JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.TIME.PENDING`, or since domains
    /// are written into it `$JS.ACK.DOMAIN.ACCOUNT.STREAM.…`, with more behind it.
    pub fn of(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let tokens: Vec<&str> = rest.split('.').collect();
        let numbers = match tokens.len() {
            7 => tokens.get(2..7)?,
            9.. => tokens.get(4..9)?,
            _ => return None,
        };
        let number = |index: usize| numbers.get(index)?.parse().ok();
        Some(Self {
            delivered: number(0)?,
            stream_seq: number(1)?,
            consumer_seq: number(2)?,
            stored_ns: number(3)?,
            pending: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_acknowledgement_are_read_and_nothing_else() {
        let expected =
            Position { delivered: 2, stream_seq: 70, consumer_seq: 9, stored_ns: 17, pending: 3 };
        for reply in [
            "$JS.ACK.JOBS.worker.2.70.9.17.3",
            "$JS.ACK._.hash.JOBS.worker.2.70.9.17.3",
            "$JS.ACK.hub.hash.JOBS.worker.2.70.9.17.3.random",
        ] {
            assert_eq!(Position::of(reply), Some(expected), "{reply}");
        }
        for reply in [
            "",
            "_INBOX.a.1",
            "$JS.ACK",
            "$JS.ACK.JOBS.worker.2.70.9.17",
            "$JS.ACK.JOBS.worker.2.70.9.17.3.4",
            "$JS.ACK.JOBS.worker.two.70.9.17.3",
            "$JS.ACK.JOBS.worker.2.70.9.17.-3",
        ] {
            assert_eq!(Position::of(reply), None, "{reply}");
        }
    }
}
