//! RESP3, read as it arrives: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::{Buf, Bytes, BytesMut};
use redis::Value;

/// Aggregates within aggregates; Redis' answers have four at most.
const DEEPEST: usize = 32;
/// Values that are allotted before they have arrived.
const MOST_ALLOTTED: usize = 1_024;

#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Value(Value),
    /// Its kind first.
    Push(Vec<Value>),
}

/// Reads a reply that was handed out as its bytes, without copying strings.
pub(in crate::storage::redis) struct Raw {
    rest: Bytes,
}

impl Raw {
    pub(in crate::storage::redis) fn new(reply: Bytes) -> Self {
        Self { rest: reply }
    }

    /// The elements that follow.
    pub(in crate::storage::redis) fn array(&mut self) -> Option<usize> {
        self.length(b'*')
    }

    pub(in crate::storage::redis) fn string(&mut self) -> Option<Bytes> {
        let length = self.length(b'$')?;
        if self.rest.len() < length.checked_add(2)? {
            return None;
        }
        let string = self.rest.split_to(length);
        self.rest.advance(2);
        Some(string)
    }

    fn length(&mut self, sign: u8) -> Option<usize> {
        let end = line_end(&self.rest)?;
        let (&first, digits) = self.rest.get(..end)?.split_first()?;
        let length = number(digits).filter(|_| first == sign)?;
        self.rest.advance(end + 2);
        usize::try_from(length).ok()
    }
}

/// The server does not speak RESP3.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("an answer is not RESP3: {0}")]
pub(super) struct Malformed(&'static str);

const ENDLESS: Malformed = Malformed("a string without end");

/// Takes bytes in [`Parser::buffer`], gives replies. Keeps its place within a reply, so that each byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Parser {
    pub(super) buffer: BytesMut,
    /// The aggregates that the next value is within, the outermost first.
    open: Vec<Aggregate>,
    scan: Scan,
}

/// How far a reply was looked at that is handed out as it is.
#[derive(Debug, Default)]
struct Scan {
    bytes: usize,
    /// Values that are still to come; 0 between replies.
    missing: usize,
}

#[derive(Debug)]
struct Aggregate {
    kind: Kind,
    missing: usize,
    values: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Array,
    Set,
    Map,
    Push,
    /// Belongs to the value that follows it, and is not for us.
    Attribute,
}

/// What a piece of the buffer was.
enum Element {
    Value(Value),
    Opened(Kind, usize),
}

impl Parser {
    /// How many more bytes are certainly needed for the next value, 1 where it is not known.
    pub(super) fn missing(&self) -> usize {
        let rest = self.buffer.get(self.scan.bytes..).unwrap_or_default();
        let Some(end) = line_end(rest) else { return 1 };
        match (rest.first(), number(rest.get(1..end).unwrap_or_default())) {
            (Some(b'$' | b'=' | b'!'), Some(length)) => {
                let length = usize::try_from(length).unwrap_or(0);
                (end + 2).saturating_add(length).saturating_add(2).saturating_sub(rest.len()).max(1)
            }
            _ => 1,
        }
    }

    /// The next reply as its bytes, for [`Raw`]; `None` until more has arrived. Pushes are not expected here.
    pub(super) fn next_raw(&mut self) -> Result<Option<Bytes>, Malformed> {
        if self.scan.missing == 0 {
            self.scan = Scan { bytes: 0, missing: 1 };
        }
        while self.scan.missing > 0 {
            let rest = self.buffer.get(self.scan.bytes..).unwrap_or_default();
            let Some(end) = line_end(rest) else { return Ok(None) };
            let Some((&sign, line)) = rest.get(..end).and_then(<[u8]>::split_first) else {
                return Err(Malformed("an empty line"));
            };
            let (mut bytes, mut inner) = (end + 2, 0);
            if let b'$' | b'=' | b'!' | b'*' | b'~' | b'%' = sign {
                let count = number(line).ok_or(Malformed("a length is no number"))?;
                match (sign, usize::try_from(count)) {
                    (_, Err(_)) => {}
                    (b'*' | b'~', Ok(count)) => inner = count,
                    (b'%', Ok(count)) => inner = count.saturating_mul(2),
                    (_, Ok(count)) => {
                        bytes = bytes.checked_add(count).and_then(|bytes| bytes.checked_add(2)).ok_or(ENDLESS)?;
                        if rest.len() < bytes {
                            return Ok(None);
                        }
                    }
                }
            } else if let b'>' | b'|' = sign {
                return Err(Malformed("a push where none is expected"));
            }
            self.scan.bytes += bytes;
            self.scan.missing = (self.scan.missing - 1).saturating_add(inner);
        }
        Ok(Some(self.buffer.split_to(std::mem::take(&mut self.scan).bytes).freeze()))
    }

    /// Takes a status (`+OK`, `+QUEUED`) off the buffer, if that is what comes next.
    pub(super) fn skip_status(&mut self) -> bool {
        if !self.open.is_empty() || self.buffer.first() != Some(&b'+') {
            return false;
        }
        let Some(end) = line_end(&self.buffer) else { return false };
        self.buffer.advance(end + 2);
        true
    }

    /// The next reply; `None` until more has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Malformed> {
        loop {
            let mut value = match self.element()? {
                None => return Ok(None),
                Some(Element::Value(value)) => value,
                Some(Element::Opened(kind, 0)) => match close(kind, Vec::new()) {
                    Some(Reply::Value(value)) => value,
                    Some(push) => return Ok(Some(push)),
                    None => continue,
                },
                Some(Element::Opened(kind, missing)) => {
                    if self.open.len() == DEEPEST {
                        return Err(Malformed("too many aggregates within each other"));
                    }
                    let values = Vec::with_capacity(missing.min(MOST_ALLOTTED));
                    self.open.push(Aggregate { kind, missing, values });
                    continue;
                }
            };
            // The value may complete the aggregates that it is within.
            loop {
                let Some(innermost) = self.open.last_mut() else { return Ok(Some(Reply::Value(value))) };
                innermost.values.push(value);
                innermost.missing -= 1;
                if innermost.missing > 0 {
                    break;
                }
                let Some(whole) = self.open.pop() else { break };
                match close(whole.kind, whole.values) {
                    Some(Reply::Value(closed)) => value = closed,
                    Some(push) if self.open.is_empty() => return Ok(Some(push)),
                    Some(_) => return Err(Malformed("a push within another value")),
                    None => break,
                }
            }
        }
    }

    /// Takes a scalar or the head of an aggregate off the buffer.
    fn element(&mut self) -> Result<Option<Element>, Malformed> {
        let Some(end) = line_end(&self.buffer) else { return Ok(None) };
        let Some((&sign, line)) = self.buffer.get(..end).and_then(<[u8]>::split_first) else {
            return Err(Malformed("an empty line"));
        };
        let count = |factor: usize| {
            let count = number(line).ok_or(Malformed("a length is no number"))?;
            Ok::<_, Malformed>(usize::try_from(count).ok().map(|count| count.saturating_mul(factor)))
        };
        let element = match sign {
            b'+' if line == b"OK" => Element::Value(Value::Okay),
            b'+' | b'(' => Element::Value(Value::SimpleString(String::from_utf8_lossy(line).into_owned())),
            b':' => Element::Value(Value::Int(number(line).ok_or(Malformed("no integer"))?)),
            b'_' => Element::Value(Value::Nil),
            b'#' => Element::Value(Value::Boolean(line == b"t")),
            b',' => {
                let text = std::str::from_utf8(line).map_err(|_| Malformed("no number"))?;
                Element::Value(Value::Double(text.parse().map_err(|_| Malformed("no number"))?))
            }
            b'-' => Element::Value(server_error(line)),
            b'$' | b'=' | b'!' => {
                let Some(length) = count(1)? else {
                    self.buffer.advance(end + 2);
                    return Ok(Some(Element::Value(Value::Nil)));
                };
                let whole = end.checked_add(2 + 2).and_then(|fixed| fixed.checked_add(length));
                let whole = whole.ok_or(ENDLESS)?;
                if self.buffer.len() < whole {
                    return Ok(None);
                }
                self.buffer.advance(end + 2);
                let body = self.buffer.split_to(length);
                self.buffer.advance(2);
                return Ok(Some(Element::Value(match sign {
                    // `txt:` or `mkd:` first.
                    b'=' => Value::BulkString(body.get(4..).unwrap_or_default().to_vec()),
                    b'!' => server_error(&body),
                    _ => Value::BulkString(body.to_vec()),
                })));
            }
            b'*' | b'~' | b'%' | b'>' | b'|' => {
                let (kind, factor) = match sign {
                    b'*' => (Kind::Array, 1),
                    b'~' => (Kind::Set, 1),
                    b'%' => (Kind::Map, 2),
                    b'>' => (Kind::Push, 1),
                    _ => (Kind::Attribute, 2),
                };
                count(factor)?.map_or(Element::Value(Value::Nil), |missing| Element::Opened(kind, missing))
            }
            _ => return Err(Malformed("an unknown type")),
        };
        self.buffer.advance(end + 2);
        Ok(Some(element))
    }
}

/// `None` for an attribute.
fn close(kind: Kind, values: Vec<Value>) -> Option<Reply> {
    Some(match kind {
        Kind::Array => Reply::Value(Value::Array(values)),
        Kind::Set => Reply::Value(Value::Set(values)),
        Kind::Push => Reply::Push(values),
        Kind::Attribute => return None,
        Kind::Map => {
            let mut values = values.into_iter();
            Reply::Value(Value::Map(std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()))
        }
    })
}

/// Where the first line ends, before its CR LF.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\r', bytes).filter(|end| bytes.get(end + 1) == Some(&b'\n'))
}

fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0_i64, |value, digit| {
        let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        value.checked_mul(10)?.checked_sub(digit)
    })?;
    if negative { Some(value) } else { value.checked_neg() }
}

/// The crate knows the codes. What made Redis discard a transaction, where it tells, is the error.
fn server_error(text: &[u8]) -> Value {
    const DISCARDED: &[u8] = b"EXECABORT Transaction discarded because of: ";
    let text = text.strip_prefix(DISCARDED).unwrap_or(text);
    let mut line = Vec::with_capacity(text.len() + 3);
    line.push(b'-');
    line.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    line.extend_from_slice(b"\r\n");
    redis::parse_redis_value(&line).unwrap_or_else(|_| Value::SimpleString(String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{log::store::StoreError, storage::redis::client::store_error};

    fn replies(parser: &mut Parser) -> Vec<Reply> {
        std::iter::from_fn(|| parser.next().expect("it is RESP3")).collect()
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    const EVERYTHING: &[u8] = b"+OK\r\n+fine\r\n:-12\r\n$5\r\na\r\nbc\r\n$-1\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n*0\r\n\
        *2\r\n:1\r\n*2\r\n$1\r\nx\r\n*1\r\n~1\r\n:7\r\n%1\r\n+a\r\n=7\r\ntxt:abc\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n\
        |1\r\n+ttl\r\n:3\r\n*1\r\n|1\r\n+a\r\n:1\r\n:9\r\n(123456789012345678901234567890\r\n";

    fn expected() -> Vec<Reply> {
        let value = Reply::Value;
        vec![
            value(Value::Okay),
            value(Value::SimpleString("fine".into())),
            value(Value::Int(-12)),
            value(bulk("a\r\nbc")),
            value(Value::Nil),
            value(Value::Nil),
            value(Value::Nil),
            value(Value::Boolean(true)),
            value(Value::Double(1.5)),
            value(Value::Array(vec![])),
            value(Value::Array(vec![
                Value::Int(1),
                Value::Array(vec![bulk("x"), Value::Array(vec![Value::Set(vec![Value::Int(7)])])]),
            ])),
            value(Value::Map(vec![(Value::SimpleString("a".into()), bulk("abc"))])),
            Reply::Push(vec![Value::SimpleString("invalidate".into()), Value::Array(vec![bulk("k")])]),
            value(Value::Array(vec![Value::Int(9)])),
            value(Value::SimpleString("123456789012345678901234567890".into())),
        ]
    }

    #[test]
    fn every_type_is_read() {
        let mut parser = Parser::default();
        parser.buffer.extend_from_slice(EVERYTHING);
        assert_eq!(replies(&mut parser), expected());
        assert!(parser.buffer.is_empty());
    }

    fn errors(bytes: &[u8]) -> Vec<redis::ServerError> {
        let mut parser = Parser::default();
        parser.buffer.extend_from_slice(bytes);
        let values = replies(&mut parser).into_iter().map(|reply| match reply {
            Reply::Value(Value::Array(mut values)) => values.pop().expect("it has one"),
            Reply::Value(value) => value,
            Reply::Push(_) => panic!("no push"),
        });
        let errors = values.map(|value| match value {
            Value::ServerError(error) => error,
            other => panic!("{other:?}"),
        });
        errors.collect()
    }

    #[test]
    fn errors_keep_their_code() {
        let told = errors(b"-LOADING soon\r\n!21\r\nSYNTAX invalid\r\nthing\r\n*1\r\n-OOM full\r\n");
        let told: Vec<_> = told.iter().map(|error| (error.code(), error.details().unwrap_or_default())).collect();
        assert_eq!(told, [("LOADING", "soon"), ("SYNTAX", "invalid  thing"), ("OOM", "full")]);
    }

    /// What a running 7.0.15 and 8.2.3 answer: to a command, to `EXEC` where it became so after the commands were queued, and
    /// to a Function, before it runs or from within.
    #[test]
    fn what_redis_refuses_with_means_the_same_wherever_it_is_answered() {
        let refused: fn(String) -> StoreError = StoreError::Refused;
        let not_ready: fn(String) -> StoreError = StoreError::NotReady;
        let out_of_memory: fn(String) -> StoreError = |_| StoreError::OutOfMemory;
        for (word, text, expected) in [
            ("LOADING", "Redis is loading the dataset in memory", not_ready),
            ("BUSY", "Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", not_ready),
            ("MASTERDOWN", "Link with MASTER is down and replica-serve-stale-data is set to 'no'.", not_ready),
            ("READONLY", "You can't write against a read only replica.", not_ready),
            (
                "MISCONF",
                "Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
                not_ready,
            ),
            ("NOREPLICAS", "Not enough good replicas to write.", not_ready),
            ("NOAUTH", "Authentication required.", not_ready),
            ("CLUSTERDOWN", "Hash slot not served", not_ready),
            ("TRYAGAIN", "Multiple keys request during rehashing of slot", not_ready),
            ("MOVED", "7629 127.0.0.1:7001", not_ready),
            ("ASK", "7629 127.0.0.1:7001", not_ready),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", out_of_memory),
            ("NOPERM", "User default has no permissions to run the 'fcall' command", refused),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", refused),
            ("WRONGPASS", "invalid username-password pair or user is disabled.", refused),
            (
                "ERR",
                "ACL failure in script: User default has no permissions to run the 'xadd' command script: w, on @user_function:2.",
                refused,
            ),
        ] {
            for (place, line) in [
                ("a command", format!("-{word} {text}\r\n")),
                ("EXEC", format!("-EXECABORT Transaction discarded because of: {word} {text}\r\n")),
                ("a script", format!("-{word} {text} script: weir1_put, on @user_function:200.\r\n")),
            ] {
                let error = errors(line.as_bytes()).remove(0);
                let told = store_error(&error.into());
                let kind = std::mem::discriminant(&told);
                assert_eq!(kind, std::mem::discriminant(&expected(String::new())), "{place}: {word}: {told:?}");
            }
        }
    }

    #[test]
    fn a_status_can_be_skipped_without_looking_at_it() {
        let mut parser = Parser::default();
        parser.buffer.extend_from_slice(b"+QUEUED\r\n-ERR no\r\n+QUE");
        assert!(parser.skip_status());
        assert!(!parser.skip_status());
        assert!(matches!(parser.next(), Ok(Some(Reply::Value(Value::ServerError(_))))));
        assert!(!parser.skip_status());
        assert_eq!(parser.next(), Ok(None));
    }

    #[test]
    fn it_is_known_how_much_of_a_string_is_missing() {
        let mut parser = Parser::default();
        parser.buffer.extend_from_slice(b"$100\r\nabc");
        assert_eq!(parser.missing(), 99);
        parser.buffer.clear();
        assert_eq!(parser.missing(), 1);
    }

    #[test]
    fn a_reply_is_handed_out_as_it_is() {
        let reply = b"*2\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n*2\r\n$3\r\n5-2\r\n*0\r\n";
        let mut parser = Parser::default();
        let mut raw = Vec::new();
        for byte in [&reply[..], b"-ERR no\r\n", b"$-1\r\n+OK\r\n"].concat() {
            parser.buffer.extend_from_slice(&[byte]);
            raw.extend(parser.next_raw().expect("it is RESP3"));
        }
        assert_eq!(raw, [&reply[..], b"-ERR no\r\n", b"$-1\r\n", b"+OK\r\n"]);
        let mut raw = Raw::new(raw.swap_remove(0));
        assert_eq!((raw.array(), raw.array()), (Some(2), Some(2)));
        assert_eq!(raw.string().as_deref(), Some(&b"5-1"[..]));
        assert_eq!(raw.string(), None, "it is an array");
        assert_eq!(raw.array(), Some(2));
        assert_eq!(raw.string().as_deref(), Some(&b"a"[..]));
        assert_eq!(raw.string().as_deref(), Some(&b"\r\n\r\n"[..]));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(cuts in proptest::collection::vec(0..EVERYTHING.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, EVERYTHING.len()]);
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                parser.buffer.extend_from_slice(&EVERYTHING[pair[0]..pair[1]]);
                got.extend(replies(&mut parser));
            }
            prop_assert_eq!(got, expected());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'*'), Just(b'$'), Just(b'>'), Just(b'1'), Just(b'-'), any::<u8>()], 0..60,
        )) {
            let mut parser = Parser::default();
            parser.buffer.extend_from_slice(&bytes);
            while let Ok(Some(_)) = parser.next() {}
        }
    }
}
