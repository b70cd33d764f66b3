//! The data files of Prosody: Lua that only builds tables. `return { … };`, or `item({ … });` one after the other.
//!
//! It is read, not run: what is more than a table of constants is refused.

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    /// In the order of the file; what has no key is counted from 1.
    Table(Vec<(Value, Value)>),
}

/// Tables within each other; Prosody's are stanzas at most.
const DEPTH_MAX: usize = 300;

impl Value {
    /// The value of a field; nothing of what is no table.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries()
            .find(|(name, _)| matches!(name, Value::Text(text) if text == key.as_bytes()))
            .map(|(_, value)| value)
    }

    /// What stands under `[false]`, where Prosody keeps what is no entry.
    pub fn beside(&self) -> Option<&Value> {
        self.entries().find(|(key, _)| matches!(key, Value::Bool(false))).map(|(_, value)| value)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Value, &Value)> {
        let entries = if let Value::Table(entries) = self { entries.as_slice() } else { &[] };
        entries.iter().map(|(key, value)| (key, value))
    }

    /// Entries whose key is a text that is UTF-8.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries().filter_map(|(key, value)| Some((key.text()?, value)))
    }

    /// Values without a name, by their numbers.
    pub fn list(&self) -> Vec<&Value> {
        let mut list: Vec<(f64, &Value)> = self
            .entries()
            .filter_map(|(key, value)| if let Value::Number(at) = key { Some((*at, value)) } else { None })
            .collect();
        list.sort_by(|a, b| a.0.total_cmp(&b.0));
        list.into_iter().map(|(_, value)| value).collect()
    }

    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { std::str::from_utf8(text).ok() } else { None }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        }
    }

    /// The same written as Prosody's SQL storage does: JSON, with `__array` for what has no name and `__hash` for keys
    /// that are no texts.
    pub fn of_json(json: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Nil,
            Json::Bool(it) => Value::Bool(it),
            Json::Number(it) => Value::Number(it.as_f64().unwrap_or_default()),
            Json::String(it) => Value::Text(it.into_bytes()),
            Json::Array(list) => Value::Table(numbered(list.into_iter().map(Value::of_json)).collect()),
            Json::Object(object) => {
                let mut entries = Vec::with_capacity(object.len());
                for (key, value) in object {
                    match (key.as_str(), value) {
                        ("__array", Json::Array(list)) => {
                            entries.extend(numbered(list.into_iter().map(Value::of_json)));
                        }
                        ("__hash", Json::Array(pairs)) => {
                            let mut pairs = pairs.into_iter().map(Value::of_json);
                            while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
                                entries.push((key, value));
                            }
                        }
                        (_, value) => entries.push((Value::Text(key.into_bytes()), Value::of_json(value))),
                    }
                }
                Value::Table(entries)
            }
        }
    }
}

fn numbered(values: impl Iterator<Item = Value>) -> impl Iterator<Item = (Value, Value)> {
    values.enumerate().map(|(at, value)| (Value::Number(at as f64 + 1.0), value))
}

/// The value of `return …;`.
///
/// # Errors
/// Where and why it is none.
pub fn value(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader { bytes, at: 0 };
    reader.space();
    reader.word(b"return")?;
    let value = reader.value(0)?;
    reader.maybe(b';');
    reader.space();
    if reader.at < bytes.len() { Err(reader.wrong("nothing more")) } else { Ok(value) }
}

/// The values of `item(…);` one after the other. A last one that was cut short is left out: the second value tells of
/// it.
///
/// # Errors
/// Where and why one in the middle is none.
pub fn items(bytes: &[u8]) -> Result<(Vec<Value>, bool), String> {
    let mut reader = Reader { bytes, at: 0 };
    let mut items = Vec::new();
    loop {
        reader.space();
        if reader.at >= bytes.len() {
            return Ok((items, false));
        }
        match reader.item() {
            Ok(item) => items.push(item),
            Err(_) if reader.at >= bytes.len() => return Ok((items, true)),
            Err(error) => return Err(error),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, wanted: &str) -> String {
        let line = 1 + self.bytes[..self.at.min(self.bytes.len())].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: {wanted} was expected")
    }

    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// White space and comments.
    fn space(&mut self) {
        loop {
            while self.peek().is_ascii_whitespace() {
                self.at += 1;
            }
            if !self.bytes[self.at..].starts_with(b"--") {
                return;
            }
            while self.at < self.bytes.len() && self.peek() != b'\n' {
                self.at += 1;
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), String> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.wrong(&String::from_utf8_lossy(word)));
        }
        self.at += word.len();
        Ok(())
    }

    fn maybe(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.at < self.bytes.len() && self.peek() == byte;
        self.at += usize::from(there);
        there
    }

    fn must(&mut self, byte: u8) -> Result<(), String> {
        if self.maybe(byte) { Ok(()) } else { Err(self.wrong(&format!("\"{}\"", byte as char))) }
    }

    fn item(&mut self) -> Result<Value, String> {
        self.word(b"item")?;
        self.must(b'(')?;
        let value = self.value(0)?;
        self.must(b')')?;
        self.maybe(b';');
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.space();
        match self.peek() {
            b'{' if depth < DEPTH_MAX => self.table(depth),
            b'"' | b'\'' => self.text().map(Value::Text),
            b'-' | b'.' | b'0'..=b'9' => self.number(),
            b'(' => {
                // A negative or infinite number may stand in parentheses.
                self.at += 1;
                let value = self.value(depth + 1)?;
                self.must(b')')?;
                Ok(value)
            }
            _ => {
                for (word, value) in [("nil", Value::Nil), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.wrong("a constant or a table"))
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let (mut entries, mut next) = (Vec::new(), 1.0);
        loop {
            if self.maybe(b'}') {
                return Ok(Value::Table(entries));
            }
            let entry = if self.maybe(b'[') {
                let key = self.value(depth + 1)?;
                self.must(b']')?;
                self.must(b'=')?;
                (key, self.value(depth + 1)?)
            } else if let Some(name) = self.name() {
                self.must(b'=')?;
                (Value::Text(name), self.value(depth + 1)?)
            } else {
                let value = self.value(depth + 1)?;
                next += 1.0;
                (Value::Number(next - 1.0), value)
            };
            entries.push(entry);
            if !self.maybe(b';') && !self.maybe(b',') {
                self.must(b'}')?;
                return Ok(Value::Table(entries));
            }
        }
    }

    /// A name with `=` behind it.
    fn name(&mut self) -> Option<Vec<u8>> {
        self.space();
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let starts = rest.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        let before = self.at;
        let name = rest[..length].to_vec();
        self.at += length;
        self.space();
        if starts && self.peek() == b'=' {
            return Some(name);
        }
        self.at = before;
        None
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = &self.bytes[self.at..];
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let text = &rest[..rest.iter().take_while(|byte| part(byte)).count()];
        let text = std::str::from_utf8(text).unwrap_or_default();
        let hexadecimal = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok());
        let number = hexadecimal.map(|it| it as f64).or_else(|| text.parse().ok());
        let number = number.ok_or_else(|| self.wrong("a number"))?;
        self.at += text.len();
        // (1/0), as infinity is written.
        if self.maybe(b'/') {
            let Value::Number(by) = self.value(DEPTH_MAX)? else { return Err(self.wrong("a number")) };
            return Ok(Value::Number(number / by));
        }
        Ok(Value::Number(number))
    }

    fn text(&mut self) -> Result<Vec<u8>, String> {
        let quote = self.peek();
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong("the end of a text"))?;
            self.at += 1;
            match byte {
                b'\\' => self.escape(&mut text)?,
                byte if byte == quote => return Ok(text),
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), String> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong("an escape"))?;
        self.at += 1;
        text.push(match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' | b'\n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'\\' | b'"' | b'\'' => byte,
            b'x' => {
                let digits = self.bytes.get(self.at..self.at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                self.at += 2;
                byte.ok_or_else(|| self.wrong("two hexadecimal digits"))?
            }
            b'0'..=b'9' => {
                self.at -= 1;
                let mut value = 0u32;
                for _ in 0..3 {
                    if !self.peek().is_ascii_digit() {
                        break;
                    }
                    value = value * 10 + u32::from(self.peek() - b'0');
                    self.at += 1;
                }
                u8::try_from(value).map_err(|_| self.wrong("a byte"))?
            }
            _ => return Err(self.wrong("an escape of Lua")),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_all_its_escapes() {
        let text = br#"return { [false] = { ["version"] = 8; }; name = "Bo\"b\n\195\182\\"; "one", 'two'; x = -1.5; [3] = true };"#;
        let table = value(text).expect("is Lua");
        assert_eq!(table.beside().and_then(|it| it.get("version")).and_then(Value::number), Some(8.0));
        assert_eq!(table.get("name").and_then(Value::text), Some("Bo\"b\nö\\"));
        assert_eq!(table.list(), [&Value::Text(b"one".to_vec()), &Value::Text(b"two".to_vec()), &Value::Bool(true)]);
        assert_eq!(table.get("x"), Some(&Value::Number(-1.5)));
    }

    #[test]
    fn a_list_that_was_cut_short_gives_what_is_whole() {
        let (whole, cut) = items(b"item({ 1; });\nitem({ 2; });\n").expect("is a list");
        assert_eq!((whole.len(), cut), (2, false));
        let (whole, cut) = items(b"item({ 1; });\nitem({ 2; [\"na").expect("is a list");
        assert_eq!((whole.len(), cut), (1, true));
    }

    #[test]
    fn what_is_more_than_constants_is_refused() {
        for text in
            ["return os.execute('x');", "x = 1", "return {f()};", "return {} + 1", "return \"\\999\";", "return {"]
        {
            assert!(value(text.as_bytes()).is_err(), "{text}");
        }
        assert!(items(b"item(f());item({});").is_err());
        let deep = [b"return ".to_vec(), vec![b'{'; 100_000]].concat();
        assert!(value(&deep).is_err());
    }

    #[test]
    fn json_of_the_sql_storage_gives_the_same_table() {
        let lua =
            value(b"return { { 'x'; name = 'tab' }; name = 'prefs'; [false] = { version = 1 } };").expect("is Lua");
        let json = r#"{"name":"prefs","__array":[{"name":"tab","__array":["x"]}],"__hash":[false,{"version":1}]}"#;
        let json = Value::of_json(serde_json::from_str(json).expect("is JSON"));
        assert_eq!(json.beside(), lua.beside());
        assert_eq!(json.list()[0].get("name"), lua.list()[0].get("name"));
        assert_eq!(json.list()[0].list(), lua.list()[0].list());
    }
}
