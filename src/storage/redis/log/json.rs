//! A JSON object as stream fields, where joining the fields again gives the identical bytes.

/// More top-level fields than this stay one value.
const MOST_FIELDS: usize = 64;
const DEEPEST: u32 = 100;

/// The fields of a flattened object, borrowed from its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flat<'a> {
    /// The content of `__json`.
    pub(super) shape: String,
    pub(super) fields: Vec<(&'a [u8], &'a [u8])>,
}

/// What a value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    NotAnObject,
    /// A JSON object that would not come back byte for byte.
    Object,
    Flat(Flat<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    /// `,` and `:`.
    Compact,
    /// `, ` and `: `.
    Spaced,
}

impl Style {
    fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'c' => Some(Style::Compact),
            b'p' => Some(Style::Spaced),
            _ => None,
        }
    }

    fn letter(self) -> char {
        match self {
            Style::Compact => 'c',
            Style::Spaced => 'p',
        }
    }

    fn comma(self) -> &'static [u8] {
        match self {
            Style::Compact => b",",
            Style::Spaced => b", ",
        }
    }

    fn colon(self) -> &'static [u8] {
        match self {
            Style::Compact => b":",
            Style::Spaced => b": ",
        }
    }
}

/// Takes `text` apart at its top level.
pub(super) fn flatten(text: &[u8]) -> Parsed<'_> {
    // Cheap for what is not JSON at all.
    if text.iter().find(|byte| !is_blank(**byte)) != Some(&b'{') {
        return Parsed::NotAnObject;
    }
    if std::str::from_utf8(text).is_err() {
        return Parsed::NotAnObject;
    }
    let mut scanner = Scanner { text, at: 0 };
    match scanner.object() {
        None => Parsed::NotAnObject,
        Some(None) => Parsed::Object,
        Some(Some((style, members))) => match shape(style, &members) {
            None => Parsed::Object,
            Some(shape) => Parsed::Flat(Flat {
                shape,
                fields: members.into_iter().map(|member| (member.name, member.value)).collect(),
            }),
        },
    }
}

/// Joins fields to the text that they came from. `None` if `shape` does not fit them.
pub(super) fn join<'a>(shape: &[u8], fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) -> Option<Vec<u8>> {
    let (style, letters) = shape.split_first()?;
    let style = Style::from_letter(*style)?;
    let letters = letters.strip_prefix(b":")?;
    if letters.len() != fields.len() || letters.is_empty() {
        return None;
    }
    let mut text = Vec::with_capacity(16 * letters.len());
    text.push(b'{');
    for (index, ((name, value), letter)) in fields.zip(letters).enumerate() {
        if index > 0 {
            text.extend_from_slice(style.comma());
        }
        text.push(b'"');
        text.extend_from_slice(name);
        text.push(b'"');
        text.extend_from_slice(style.colon());
        match letter {
            b'j' => text.extend_from_slice(value),
            b's' => {
                text.push(b'"');
                text.extend_from_slice(value);
                text.push(b'"');
            }
            _ => return None,
        }
    }
    text.push(b'}');
    Some(text)
}

struct Member<'a> {
    name: &'a [u8],
    /// Without its quotes, where it is a bare string.
    value: &'a [u8],
    bare: bool,
}

fn shape(style: Style, members: &[Member<'_>]) -> Option<String> {
    if members.is_empty() || members.len() > MOST_FIELDS {
        return None;
    }
    let mut shape = String::with_capacity(2 + members.len());
    shape.push(style.letter());
    shape.push(':');
    for (index, member) in members.iter().enumerate() {
        let name = member.name;
        let reserved = name.is_empty() || name == b"value" || name.starts_with(b"__") || name.contains(&b'\\');
        if reserved || members.iter().take(index).any(|before| before.name == name) {
            return None;
        }
        shape.push(if member.bare { 's' } else { 'j' });
    }
    Some(shape)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips blanks and tells which there were.
    fn blanks(&mut self) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// `None`: no JSON object. `Some(None)`: one whose blanks are of neither style.
    #[allow(clippy::type_complexity)]
    fn object(&mut self) -> Option<Option<(Style, Vec<Member<'a>>)>> {
        let mut regular = self.blanks().is_empty();
        let mut members = Vec::new();
        let mut style = None;
        self.take(b'{')?;
        let blank = !self.blanks().is_empty();
        regular &= !blank;
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                let name = self.string()?;
                regular &= self.blanks().is_empty();
                self.take(b':')?;
                let after_colon = match self.blanks() {
                    b"" => Some(Style::Compact),
                    b" " => Some(Style::Spaced),
                    _ => None,
                };
                regular &= after_colon.is_some() && style.is_none_or(|style| Some(style) == after_colon);
                style = style.or(after_colon);
                let start = self.at;
                self.value(0)?;
                let value = self.text.get(start..self.at)?;
                let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
                let bare = inner.filter(|inner| !inner.contains(&b'\\'));
                members.push(Member { name, value: bare.unwrap_or(value), bare: bare.is_some() });
                regular &= self.blanks().is_empty();
                match self.peek()? {
                    b',' => self.at += 1,
                    b'}' => {
                        self.at += 1;
                        break;
                    }
                    _ => return None,
                }
                let after_comma = match self.blanks() {
                    b"" => Some(Style::Compact),
                    b" " => Some(Style::Spaced),
                    _ => None,
                };
                regular &= after_comma == style;
            }
        }
        regular &= self.blanks().is_empty();
        if self.at != self.text.len() {
            return None;
        }
        Some(style.filter(|_| regular).map(|style| (style, members)))
    }

    /// A string's content, escapes as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return self.text.get(start..self.at - 1);
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.text.get(self.at + 1..self.at + 5)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 5;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.members(depth, b'}', true),
            b'[' => self.members(depth, b']', false),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn members(&mut self, depth: u32, close: u8, named: bool) -> Option<()> {
        self.at += 1;
        self.blanks();
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            if named {
                self.string()?;
                self.blanks();
                self.take(b':')?;
                self.blanks();
            }
            self.value(depth + 1)?;
            self.blanks();
            let next = self.peek()?;
            self.at += 1;
            if next == close {
                return Some(());
            }
            if next != b',' {
                return None;
            }
            self.blanks();
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        (self.text.get(self.at..self.at + word.len())? == word).then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(text: &str) -> Option<(String, Vec<(String, String)>)> {
        let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it came from a str");
        match flatten(text.as_bytes()) {
            Parsed::Flat(flat) => {
                Some((flat.shape, flat.fields.iter().map(|(name, value)| (owned(name), owned(value))).collect()))
            }
            _ => None,
        }
    }

    #[test]
    fn strings_are_stored_bare_and_the_rest_as_sent() {
        let (shape, fields) = flat(r#"{"id":"cust-00123","n":1.50,"tags":["a", "b"]}"#).expect("it is regular");
        assert_eq!(shape, "c:sjj");
        let expected = [("id", "cust-00123"), ("n", "1.50"), ("tags", r#"["a", "b"]"#)];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(flat(r#"{"a": "x\n", "b": null}"#).expect("it is regular").0, "p:jj");
        assert_eq!(flat(r#"{"a":""}"#).expect("it is regular").0, "c:s");
    }

    #[test]
    fn objects_that_would_not_come_back_stay_whole() {
        let long = format!("{{{}}}", (0..65).map(|n| format!("\"f{n}\":0")).collect::<Vec<_>>().join(","));
        for text in [
            "{}",
            "{ \"a\":1}",
            "{\"a\" :1}",
            "{\"a\":1,\"b\": 2}",
            "{\"a\":1, \"b\":2}",
            "{\"a\":1,\n\"b\":2}",
            " {\"a\":1}",
            "{\"a\":1} ",
            "{\"a\":1,\"a\":2}",
            "{\"\":1}",
            "{\"value\":1}",
            "{\"__x\":1}",
            "{\"a\\u0062\":1}",
            &long,
        ] {
            assert_eq!(flatten(text.as_bytes()), Parsed::Object, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_told_apart() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for text in [
            "",
            "1",
            "[]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1}x",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":tru}",
            "{\"a\":1 2}",
            "{\"a\":[1,]}",
            "{\"a\":-}",
            "{\"a\":1.}",
            "{\"a\":1e}",
            &deep,
        ] {
            assert_eq!(flatten(text.as_bytes()), Parsed::NotAnObject, "{text}");
        }
        assert_eq!(flatten(b"{\"a\":\"\xff\"}"), Parsed::NotAnObject);
    }

    #[test]
    fn a_shape_that_does_not_fit_the_fields_is_refused() {
        let fields = [(&b"a"[..], &b"1"[..])];
        for shape in ["", "c", "c:", "c:jj", "x:j", "c:x", "cj"] {
            assert_eq!(join(shape.as_bytes(), fields.iter().copied()), None, "{shape}");
        }
    }

    fn rejoined(text: &[u8]) -> Option<Vec<u8>> {
        match flatten(text) {
            Parsed::Flat(flat) => {
                Some(join(flat.shape.as_bytes(), flat.fields.iter().copied()).expect("its own shape fits"))
            }
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn joining_gives_back_the_bytes(text in r#"[ ]?\{[ ]?("[a-c\\_]{0,3}"[ ]?:[ ]{0,2}("[a-z\\"n]{0,3}"|-?[0-9.e]{1,4}|true|null|\{\}|\[[0-9, ]{0,4}\]),?[ ]{0,2}){0,4}\}[ ]?"#) {
            if let Some(joined) = rejoined(text.as_bytes()) {
                prop_assert_eq!(joined, text.clone().into_bytes());
            }
            // The scanner and serde agree on what an object is.
            let is_object = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| value.is_object());
            prop_assert_eq!(flatten(text.as_bytes()) != Parsed::NotAnObject, is_object);
        }

        #[test]
        fn serialized_objects_are_flattened(
            members in proptest::collection::hash_map("[a-z][a-z0-9]{0,8}", any::<(i64, bool, String)>(), 1..20),
        ) {
            prop_assume!(!members.contains_key("value"));
            let object: serde_json::Map<String, serde_json::Value> = members
                .into_iter()
                .map(|(name, value)| (name, serde_json::to_value(value).expect("it is plain")))
                .collect();
            let text = serde_json::to_vec(&object).expect("it is plain");
            prop_assert_eq!(rejoined(&text), Some(text));
        }

        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(joined) = rejoined(&text) {
                prop_assert_eq!(joined, text);
            }
        }
    }
}
