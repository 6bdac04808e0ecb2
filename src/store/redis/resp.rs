//! What Redis sends (RESP3), read as the bytes arrive. Pure: whoever reads the bytes feeds them.
//!
//! How much a reply costs is known from its heads, before its bytes are kept: what is too long,
//! nested too deeply or no RESP3 at all never reaches memory. Forms are those of
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use redis::{PushInfo, PushKind, Value};

/// How many values may be put behind those of an array, which need not move for that.
pub(super) const SIGNED: usize = 2;
/// Longest line with its end, in bytes: a number, a status or an error.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting; a look at the stream has six levels.
const DEPTH_MAX: usize = 16;
/// What an element costs beside its bytes, because it has a value of its own in memory.
const ELEMENT_BYTES: u64 = 64;

const END: &[u8; 2] = b"\r\n";

/// Why bytes are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// More than was agreed on.
    #[error("a reply longer than reply_bytes")]
    TooLong,
    /// Not what RESP3 allows here.
    #[error("a reply that is no RESP3")]
    Garbled,
    /// Nobody had asked.
    #[error("a reply to no command")]
    Unasked,
}

/// One whole value.
#[derive(Debug)]
pub(super) enum Message {
    /// What a command is answered with.
    Reply(Value),
    /// What the server says by itself.
    Push(PushInfo),
}

/// How far a stream of RESP3 was read.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Most bytes of one value, its elements counted with what they cost.
    most: u64,
    /// What the value in progress costs so far.
    cost: u64,
    /// Aggregates of which elements are still to come, the outermost first.
    open: Vec<Aggregate>,
    /// A string of which bytes are still to come.
    string: Option<PartialString>,
}

#[derive(Debug)]
struct Aggregate {
    kind: u8,
    expected: usize,
    elements: Vec<Value>,
}

#[derive(Debug)]
struct PartialString {
    kind: u8,
    length: usize,
    bytes: Vec<u8>,
}

/// Bytes that were used, and the element that ended with them, if one did.
type Step = Result<(usize, Option<Value>), Fault>;

impl Decoder {
    /// At the beginning of a stream, of which no value may have more than `most` bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, cost: 0, open: Vec::new(), string: None }
    }

    /// Reads up to the end of one value: how many bytes were used, and the value if it is whole.
    /// Without a value, the bytes that are left are the beginning of a line; they are to be given
    /// again, with more behind them.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Message>), Fault> {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let (step, element) = self.element(rest)?;
            used += step;
            if let Some(element) = element {
                if let Some(message) = self.close(element)? {
                    return Ok((used, Some(message)));
                }
            } else if step == 0 {
                break;
            }
        }
        Ok((used, None))
    }

    fn element(&mut self, bytes: &[u8]) -> Step {
        if self.string.is_some() {
            return self.continue_string(bytes);
        }
        let kind = bytes.first().copied().unwrap_or_default();
        if !b"$:+*-_=!%~>,#(".contains(&kind) {
            return Err(Fault::Garbled);
        }
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            let is_endless = bytes.len() >= LINE_BYTES_MAX;
            return if is_endless { Err(Fault::TooLong) } else { Ok((0, None)) };
        };
        let used = end + END.len();
        if used > LINE_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        self.pay(used as u64)?;
        let line = bytes.get(1..end).unwrap_or_default();
        let element = match kind {
            b'$' | b'=' | b'!' => return self.begin_string(kind, line, bytes, used),
            b'*' | b'%' | b'~' | b'>' => self.begin_aggregate(kind, line)?,
            b':' => Some(Value::Int(signed(line).ok_or(Fault::Garbled)?)),
            b'+' if line == b"OK" => Some(Value::Okay),
            b'_' if line.is_empty() => Some(Value::Nil),
            b'_' => return Err(Fault::Garbled),
            // Seldom, and an error can only be made by the library.
            _ => Some(parse(bytes.get(..used).unwrap_or_default())?),
        };
        Ok((used, element))
    }

    /// Begins a string behind its head, which has `used` bytes.
    fn begin_string(&mut self, kind: u8, line: &[u8], bytes: &[u8], used: usize) -> Step {
        let length = match number(line).ok_or(Fault::Garbled)? {
            -1 if kind == b'$' => return Ok((used, Some(Value::Nil))),
            length => u64::try_from(length).map_err(|_| Fault::Garbled)?,
        };
        self.pay(length)?;
        let length = usize::try_from(length).map_err(|_| Fault::TooLong)?;
        let rest = bytes.get(used..).unwrap_or_default();
        // Nearly all are there as a whole.
        if let Some((text, end)) = rest.split_at_checked(length)
            && let Some(end) = end.first_chunk()
        {
            let element = string(kind, text.to_vec(), *end)?;
            return Ok((used + length + END.len(), Some(element)));
        }
        self.string = Some(PartialString { kind, length, bytes: Vec::with_capacity(length) });
        Ok((used, None))
    }

    fn continue_string(&mut self, bytes: &[u8]) -> Step {
        let Some(mut partial) = self.string.take() else { return Ok((0, None)) };
        let left = partial.length.saturating_sub(partial.bytes.len());
        let (text, end) = bytes.split_at(left.min(bytes.len()));
        partial.bytes.extend_from_slice(text);
        if partial.bytes.len() == partial.length
            && let Some(end) = end.first_chunk()
        {
            let element = string(partial.kind, partial.bytes, *end)?;
            return Ok((text.len() + END.len(), Some(element)));
        }
        self.string = Some(partial);
        Ok((text.len(), None))
    }

    /// Begins an aggregate; it is an element at once when it has none.
    fn begin_aggregate(&mut self, kind: u8, line: &[u8]) -> Result<Option<Value>, Fault> {
        let length = match number(line).ok_or(Fault::Garbled)? {
            -1 if kind == b'*' => return Ok(Some(Value::Nil)),
            length => u64::try_from(length).map_err(|_| Fault::Garbled)?,
        };
        // What is pushed stands in no reply, and says what it is.
        if kind == b'>' && (length == 0 || !self.open.is_empty()) {
            return Err(Fault::Garbled);
        }
        let expected = if kind == b'%' { length.saturating_mul(2) } else { length };
        self.pay(expected.saturating_mul(ELEMENT_BYTES))?;
        let expected = usize::try_from(expected).map_err(|_| Fault::TooLong)?;
        if expected == 0 {
            return Ok(Some(aggregate(kind, Vec::new())));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::TooLong);
        }
        let elements = Vec::with_capacity(expected.saturating_add(SIGNED));
        self.open.push(Aggregate { kind, expected, elements });
        Ok(None)
    }

    /// An element has ended, and with it the aggregates whose last one it was.
    fn close(&mut self, mut element: Value) -> Result<Option<Message>, Fault> {
        loop {
            let Some(innermost) = self.open.last_mut() else {
                self.cost = 0;
                return Ok(Some(Message::Reply(element)));
            };
            innermost.elements.push(element);
            if innermost.elements.len() < innermost.expected {
                return Ok(None);
            }
            let Some(Aggregate { kind, elements, .. }) = self.open.pop() else { return Ok(None) };
            if kind == b'>' {
                self.cost = 0;
                return Ok(Some(Message::Push(push(elements)?)));
            }
            element = aggregate(kind, elements);
        }
    }

    fn pay(&mut self, bytes: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(bytes);
        if self.cost > self.most { Err(Fault::TooLong) } else { Ok(()) }
    }
}

/// A string with what stands where it should end.
fn string(kind: u8, bytes: Vec<u8>, end: [u8; 2]) -> Result<Value, Fault> {
    if end != *END {
        return Err(Fault::Garbled);
    }
    if kind == b'$' {
        return Ok(Value::BulkString(bytes));
    }
    let head = format!("{}{}\r\n", char::from(kind), bytes.len());
    parse(&[head.as_bytes(), &bytes, END].concat())
}

fn aggregate(kind: u8, elements: Vec<Value>) -> Value {
    match kind {
        b'%' => {
            let mut pairs = Vec::with_capacity(elements.len() / 2);
            let mut elements = elements.into_iter();
            while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
        b'~' => Value::Set(elements),
        _ => Value::Array(elements),
    }
}

fn push(elements: Vec<Value>) -> Result<PushInfo, Fault> {
    let mut elements = elements.into_iter();
    let kind = match elements.next() {
        Some(Value::BulkString(kind)) => String::from_utf8(kind).map_err(|_| Fault::Garbled)?,
        Some(Value::SimpleString(kind)) => kind,
        _ => return Err(Fault::Garbled),
    };
    // Nobody here asks for any other.
    let kind = if kind == "invalidate" { PushKind::Invalidate } else { PushKind::Other(kind) };
    Ok(PushInfo { kind, data: elements.collect() })
}

/// One scalar, whole, as the library reads it.
fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    redis::parse_redis_value(bytes).map_err(|_| Fault::Garbled)
}

/// A number that may have a plus sign: nothing but digits follows that.
fn signed(line: &[u8]) -> Option<i64> {
    match line.strip_prefix(b"+") {
        Some([b'-', ..]) => None,
        Some(digits) => number(digits),
        None => number(line),
    }
}

/// A number, which has no plus sign where it is a length.
fn number(line: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match line.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, line),
    };
    if digits.is_empty() {
        return None;
    }
    // Below zero, where there is one number more.
    let mut number: i64 = 0;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_sub(digit)?;
    }
    if is_negative { Some(number) } else { number.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes bytes as they come, and keeps what is no whole line.
    struct Feed {
        decoder: Decoder,
        unread: Vec<u8>,
    }

    impl Feed {
        fn new(most: u64) -> Self {
            Self { decoder: Decoder::new(most), unread: Vec::new() }
        }

        /// How many replies end in these bytes.
        fn read(&mut self, bytes: &[u8]) -> Result<u64, Fault> {
            self.unread.extend_from_slice(bytes);
            let mut replies = 0;
            loop {
                let (used, message) = self.decoder.read(&self.unread)?;
                self.unread.drain(..used);
                match message {
                    Some(Message::Reply(_)) => replies += 1,
                    Some(Message::Push(_)) => {}
                    None => return Ok(replies),
                }
            }
        }
    }

    fn read(bytes: &[u8]) -> Result<u64, Fault> {
        Feed::new(1000).read(bytes)
    }

    #[test]
    fn values_are_what_the_library_reads() {
        for text in [
            "+OK\r\n",
            "+PONG\r\n",
            ":-9223372036854775808\r\n",
            ":+7\r\n",
            "$3\r\na\rb\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "%0\r\n",
            "_\r\n",
            "#f\r\n",
            ",1.5\r\n",
            "(123\r\n",
            "-NOPERM no\r\n",
            "-EXTRA no\r\n",
            "!8\r\nERR a\r\nb\r\n",
            "=6\r\ntxt:ab\r\n",
            "*3\r\n$1\r\nk\r\n%1\r\n+a\r\n~2\r\n:1\r\n:2\r\n-ERR x\r\n",
        ] {
            let library = redis::parse_redis_value(text.as_bytes()).expect(text);
            let (used, ours) = Decoder::new(1000).read(text.as_bytes()).expect(text);
            let Some(Message::Reply(ours)) = ours else { panic!("{text:?} is no reply") };
            assert_eq!((used, ours), (text.len(), library), "{text:?}");
        }
    }

    #[test]
    fn what_is_pushed_is_told_from_replies() {
        let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
        let (used, message) = Decoder::new(1000).read(push).unwrap();
        let Some(Message::Push(PushInfo { kind, data })) = message else { panic!("no push") };
        assert_eq!((used, kind), (push.len(), PushKind::Invalidate));
        assert_eq!(data, [Value::Array(vec![Value::BulkString(b"k".to_vec())])]);
    }

    #[test]
    fn replies_are_counted_wherever_the_bytes_are_cut() {
        let stream: &[u8] = b"+OK\r\n:1\r\n$3\r\nfoo\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n_\r\n#t\r\n\
            ,1.5\r\n-ERR a\rb\nc\r\n*2\r\n$2\r\n\r\n\r\n*1\r\n:3\r\n%1\r\n+a\r\n*2\r\n:1\r\n\
            :2\r\n~1\r\n:1\r\n=6\r\ntxt:ab\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n(123\r\n";
        const REPLIES: u64 = 16;
        assert_eq!(read(stream), Ok(REPLIES));
        for size in 1..=7 {
            let mut feed = Feed::new(1000);
            let parts = stream.chunks(size).map(|part| feed.read(part));
            assert_eq!(parts.sum::<Result<u64, Fault>>(), Ok(REPLIES), "{size}");
        }
        for cut in 0..stream.len() {
            let mut feed = Feed::new(1000);
            let before = feed.read(&stream[..cut]).unwrap();
            assert_eq!(before + feed.read(&stream[cut..]).unwrap(), REPLIES, "{cut}");
        }
    }

    #[test]
    fn what_is_too_long_is_known_from_its_head() {
        for head in [
            "$1001\r\n",
            "$900000000\r\n",
            "$9223372036854775807\r\n",
            "*1000000\r\n",
            "*9223372036854775807\r\n",
            "%9223372036854775807\r\n",
            "*2\r\n$500\r\n",
            ">100\r\n",
            "=5000\r\n",
        ] {
            let mut feed = Feed::new(1000);
            let first = feed.read(head.as_bytes());
            let rest = [&[b'x'; 500][..], b"\r\n$500\r\n"].concat();
            let all = first.and_then(|_| feed.read(&rest));
            assert_eq!(all, Err(Fault::TooLong), "{head:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        assert_eq!(Feed::new(u64::MAX).read(deep.as_bytes()), Err(Fault::TooLong));
        let endless = vec![b'x'; 70_000];
        assert_eq!(read(&[b"+", &endless[..]].concat()), Err(Fault::TooLong));
        assert_eq!(read(&[b"$", &endless[..]].concat()), Err(Fault::TooLong));
        // Lines cost what they hold, too.
        for kind in ["+", "-", "(", ","] {
            let lines = format!("{kind}{}\r\n", "1".repeat(600)).repeat(2);
            assert_eq!(read(lines.as_bytes()), Ok(2), "each by itself is short");
            let nested = format!("*2\r\n{lines}");
            assert_eq!(read(nested.as_bytes()), Err(Fault::TooLong), "{kind}");
        }
    }

    #[test]
    fn each_reply_has_the_whole_bound() {
        let reply = [b"$900\r\n", &[b'x'; 900][..], b"\r\n"].concat();
        assert_eq!(read(&reply.repeat(5)), Ok(5));
    }

    #[test]
    fn what_is_no_resp_is_refused_at_once() {
        for garbage in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "\0\0\r\n",
            "$-2\r\n",
            "$x\r\n",
            "$\r\n",
            "$1 \r\n",
            "$+1\r\n",
            "$?\r\n",
            "*?\r\n",
            "*-2\r\n",
            "%-1\r\n",
            "|1\r\n+a\r\n+b\r\n+c\r\n",
            "$99999999999999999999999999\r\n",
            "=-1\r\n",
            "$1\r\nab\r\n",
            ":1x\r\n",
            ":+-7\r\n",
            ":++7\r\n",
            ":-+7\r\n",
            ":+\r\n",
            "_junk\r\n",
            "*2\r\n_ \r\n:1\r\n",
            ">0\r\n",
            "*1\r\n>1\r\n+invalidate\r\n",
        ] {
            assert_eq!(read(garbage.as_bytes()), Err(Fault::Garbled), "{garbage:?}");
        }
    }
}
