//! Where replies of Redis begin and end, and how large they are, told from their heads alone as the
//! bytes arrive. Pure: whoever reads the bytes feeds them.
//!
//! The library's parser collects a whole reply before it hands it over. What is too long, nested
//! too deeply or no RESP3 at all must be known before that, or it would be held in memory.

/// Longest line: a number, a status or an error.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Deepest nesting; a look at the stream has six levels.
const DEPTH_MAX: usize = 16;
/// What an element costs beside its bytes, because it has a value of its own in memory.
const ELEMENT_BYTES: u64 = 64;
/// Digits of a length, its sign and its type.
const HEAD_BYTES: usize = 24;

/// Digits that fit into a number whatever they are.
const SHORT_DIGITS: usize = 18;

/// Why bytes are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// More than was agreed on.
    #[error("a reply longer than store.reply_bytes")]
    TooLong,
    /// Not what RESP3 allows here.
    #[error("a reply that is no RESP3")]
    Garbled,
    /// Nobody had asked.
    #[error("a reply to no command")]
    Unasked,
}

/// How far a stream of RESP3 was read.
#[derive(Debug)]
pub(super) struct Framing {
    /// Most bytes of one value, its elements counted with what they cost.
    most: u64,
    state: State,
    /// Elements still to come of each aggregate that is open, the outermost first.
    open: Vec<u64>,
    /// What the value in progress costs so far.
    cost: u64,
    /// Whether the value in progress is pushed, and no reply.
    is_push: bool,
}

#[derive(Debug)]
enum State {
    /// In a line: its first bytes, how many there were, and whether the last was `\r`.
    Line { head: [u8; HEAD_BYTES], count: u64, is_return: bool },
    /// In a string: bytes to come, with the end of its line.
    Text(u64),
}

const LINE: State = State::Line { head: [0; HEAD_BYTES], count: 0, is_return: false };

impl Framing {
    /// At the beginning of a stream, of which no value may have more than `most` bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, state: LINE, open: Vec::new(), cost: 0, is_push: false }
    }

    /// Takes the next bytes: how many replies end in them. What is pushed is none.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<u64, Fault> {
        let mut ended = 0;
        while !bytes.is_empty() {
            let (used, is_element) = match &mut self.state {
                State::Text(left) => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= used as u64;
                    if *left == 0 {
                        self.state = LINE;
                    }
                    (used, matches!(self.state, State::Line { .. }))
                }
                State::Line { count: 0, .. } => self.begin(bytes)?,
                State::Line { .. } => self.line(bytes)?,
            };
            bytes = bytes.get(used..).unwrap_or_default();
            if is_element {
                ended += u64::from(self.ends());
            }
        }
        Ok(ended)
    }

    /// Reads the beginning of an element: how many bytes of it there were, and whether it ended.
    fn begin(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let Some((used, kind, number)) = short_line(bytes) else { return self.line(bytes) };
        // A string that is there as a whole, as nearly all are, takes one step.
        if kind == b'$'
            && let Some(end) = usize::try_from(number).ok().and_then(|it| it.checked_add(used + 2))
            && end <= bytes.len()
        {
            self.pay(end as u64)?;
            return Ok((end, true));
        }
        self.pay(used as u64)?;
        Ok((used, self.head(kind, Some(number))?))
    }

    /// Reads on in a line: how many bytes of it there were, and whether an element ended with it.
    fn line(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let State::Line { head, count, is_return } = &mut self.state else { return Ok((0, false)) };
        for (index, byte) in bytes.iter().enumerate() {
            let at = usize::try_from(*count).unwrap_or(usize::MAX);
            if let Some(kept) = head.get_mut(at) {
                *kept = *byte;
            }
            *count += 1;
            if *byte == b'\n' && *is_return {
                let (head, count) = (*head, *count);
                self.pay(count)?;
                self.state = LINE;
                return Ok((index + 1, self.head(head[0], number(&head, count))?));
            }
            *is_return = *byte == b'\r';
            if *count > LINE_BYTES_MAX {
                return Err(Fault::TooLong);
            }
        }
        Ok((bytes.len(), false))
    }

    /// A whole line was read: its type, and its number where it has one. True when it is an element
    /// by itself.
    fn head(&mut self, kind: u8, number: Option<i64>) -> Result<bool, Fault> {
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Ok(true),
            kind @ (b'$' | b'=' | b'!') => match number.ok_or(Fault::Garbled)? {
                -1 if kind == b'$' => Ok(true),
                length => {
                    let length = u64::try_from(length).map_err(|_| Fault::Garbled)?;
                    self.pay(length)?;
                    self.state = State::Text(length + 2);
                    Ok(false)
                }
            },
            kind @ (b'*' | b'%' | b'~' | b'>') => {
                let length = number.ok_or(Fault::Garbled)?;
                if kind == b'>' && self.open.is_empty() {
                    self.is_push = true;
                }
                let each = if kind == b'%' { 2 } else { 1 };
                match length {
                    0 => Ok(true),
                    -1 if kind == b'*' => Ok(true),
                    length => {
                        let length = u64::try_from(length).map_err(|_| Fault::Garbled)?;
                        let elements = length.saturating_mul(each);
                        self.pay(elements.saturating_mul(ELEMENT_BYTES))?;
                        if self.open.len() >= DEPTH_MAX {
                            return Err(Fault::TooLong);
                        }
                        self.open.push(elements);
                        Ok(false)
                    }
                }
            }
            _ => Err(Fault::Garbled),
        }
    }

    fn pay(&mut self, bytes: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(bytes);
        if self.cost > self.most { Err(Fault::TooLong) } else { Ok(()) }
    }

    /// An element has ended, and with it the aggregates whose last one it was. True when nothing is
    /// open any more and the value was a reply.
    fn ends(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        self.cost = 0;
        !std::mem::take(&mut self.is_push)
    }
}

/// The number in a line that was collected from several pieces.
fn number(head: &[u8; HEAD_BYTES], count: u64) -> Option<i64> {
    let end = usize::try_from(count).ok()?.checked_sub(2)?;
    let digits = head.get(1..end)?;
    // Rust reads a plus sign too, which RESP3 has in no length.
    if digits.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A line that is a number, where all of it is there: its length with its end, its type and the
/// number. Nearly every line is one, and there are dozens to a question.
fn short_line(bytes: &[u8]) -> Option<(usize, u8, i64)> {
    let (kind, rest) = bytes.split_first()?;
    let is_negative = rest.first() == Some(&b'-');
    let digits = rest.get(usize::from(is_negative)..)?;
    let mut number = 0;
    for (index, byte) in digits.iter().enumerate().take(SHORT_DIGITS) {
        if byte.is_ascii_digit() {
            number = number * 10 + i64::from(byte - b'0');
            continue;
        }
        let is_whole = index > 0 && *byte == b'\r' && digits.get(index + 1) == Some(&b'\n');
        let used = 1 + usize::from(is_negative) + index + 2;
        return is_whole.then_some((used, *kind, if is_negative { -number } else { number }));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, Fault> {
        Framing::new(1000).read(bytes)
    }

    #[test]
    fn replies_are_counted_wherever_the_bytes_are_cut() {
        let stream: &[u8] = b"+OK\r\n:1\r\n$3\r\nfoo\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n_\r\n#t\r\n\
            ,1.5\r\n-ERR a\rb\nc\r\n*2\r\n$2\r\n\r\n\r\n*1\r\n:3\r\n%1\r\n+a\r\n*2\r\n:1\r\n\
            :2\r\n~1\r\n:1\r\n=6\r\ntxt:ab\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n(123\r\n";
        const REPLIES: u64 = 16;
        assert_eq!(read(stream), Ok(REPLIES));
        for size in 1..=7 {
            let mut framing = Framing::new(1000);
            let parts = stream.chunks(size).map(|part| framing.read(part));
            assert_eq!(parts.sum::<Result<u64, Fault>>(), Ok(REPLIES), "{size}");
        }
        for cut in 0..stream.len() {
            let mut framing = Framing::new(1000);
            let before = framing.read(&stream[..cut]).unwrap();
            assert_eq!(before + framing.read(&stream[cut..]).unwrap(), REPLIES, "{cut}");
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
            let mut framing = Framing::new(1000);
            let first = framing.read(head.as_bytes());
            let rest = [&[b'x'; 500][..], b"\r\n$500\r\n"].concat();
            let all = first.and_then(|_| framing.read(&rest));
            assert_eq!(all, Err(Fault::TooLong), "{head:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        assert_eq!(Framing::new(u64::MAX).read(deep.as_bytes()), Err(Fault::TooLong));
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
        ] {
            assert_eq!(read(garbage.as_bytes()), Err(Fault::Garbled), "{garbage:?}");
        }
    }
}
