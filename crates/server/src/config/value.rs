//! The types that an option can have: how each is named, read from TOML and shown.

use super::ListenAddress;
use std::path::PathBuf;
use std::str::FromStr;
use toml::de::DeValue;

/// A type of option.
pub trait Value: Sized {
    /// As the reference names it, e.g. `integer`, `"full" | "os"`.
    fn kind() -> String;
    /// # Errors
    /// What should stand there, for people: `a number such as 100`.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
    /// As TOML; empty when the option is unset.
    fn show(&self) -> String;
    /// For options with a range.
    fn number(&self) -> Option<u64> {
        None
    }
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn kind() -> String {
                "integer".into()
            }
            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let DeValue::Integer(integer) = value else {
                    return Err("a whole number, such as 100 or 10_000, without quotes".into());
                };
                <$type>::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| format!("a whole number from 0 to {}", <$type>::MAX))
            }
            fn show(&self) -> String {
                grouped(*self as u64)
            }
            fn number(&self) -> Option<u64> {
                Some(*self as u64)
            }
        }
    )*};
}

integer!(u16, u32, u64, usize);

/// `10000` as `10_000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

impl Value for bool {
    fn kind() -> String {
        "true | false".into()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Boolean(it) => Ok(*it),
            _ => Err("true or false, without quotes".into()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn kind() -> String {
        "string".into()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(it) => Ok(it.to_string()),
            _ => Err("a string in quotes".into()),
        }
    }
    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for PathBuf {
    fn kind() -> String {
        "path".into()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(it) if !it.is_empty() => Ok(PathBuf::from(it.as_ref())),
            _ => Err("a path in quotes, such as \"/var/lib/waft\"".into()),
        }
    }
    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl<T: Value> Value for Option<T> {
    fn kind() -> String {
        T::kind()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        T::read(value).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl<T: Value> Value for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let DeValue::Array(array) = value else {
            return Err(format!("a list in brackets: [ {}, … ]", T::kind()));
        };
        array
            .iter()
            .map(|item| T::read(item.get_ref()).map_err(|wants| format!("a list of which each item is {wants}")))
            .collect()
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

impl Value for ListenAddress {
    fn kind() -> String {
        "address".into()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let wants = "an address and a port in quotes, such as \"*:5222\", \"127.0.0.1:5222\" or \"[::1]:5222\"";
        match value {
            DeValue::String(it) => it.parse().map_err(|()| wants.to_string()),
            _ => Err(wants.into()),
        }
    }
    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A STUN or TURN server, as RFC 7064 §3.1 and RFC 7065 §3.1 write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUri {
    text: String,
    pub service: im::policy::ExternalService,
}

impl FromStr for ServiceUri {
    type Err = ();

    fn from_str(text: &str) -> Result<ServiceUri, ()> {
        let (kind, rest) = text.split_once(':').ok_or(())?;
        let kind = kind.to_ascii_lowercase();
        let (port, transport) = match kind.as_str() {
            "stun" | "turn" => (3478, "udp"),
            "stuns" | "turns" => (5349, "tcp"),
            _ => return Err(()),
        };
        let (place, transport) = match rest.split_once("?transport=") {
            Some((place, asked @ ("udp" | "tcp"))) if kind.starts_with("turn") => (place, asked),
            Some(_) => return Err(()),
            None => (rest, transport),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (address, after) = v6.split_once(']').ok_or(())?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| ())?;
                match after.strip_prefix(':') {
                    Some(port) => (address, port.parse().map_err(|_| ())?),
                    None if after.is_empty() => (address, port),
                    None => return Err(()),
                }
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, port.parse().map_err(|_| ())?),
                None => (place, port),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(plain) {
            return Err(());
        }
        let service = im::policy::ExternalService {
            kind: kind.as_str().into(),
            host: host.into(),
            port,
            transport: transport.into(),
        };
        Ok(ServiceUri { text: text.to_string(), service })
    }
}

impl Value for ServiceUri {
    fn kind() -> String {
        "URI".into()
    }
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let wants =
            "a URI in quotes, such as \"stun:stun.example.org\" or \"turn:turn.example.org:3478?transport=udp\"";
        match value {
            DeValue::String(it) => it.parse().map_err(|()| wants.to_string()),
            _ => Err(wants.into()),
        }
    }
    fn show(&self) -> String {
        quoted(&self.text)
    }
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An enum that is written as one of a few words.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $Name:ident { $($(#[$variant_meta:meta])* $Variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $Name { $($(#[$variant_meta])* $Variant),+ }

        impl $Name {
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// As the configuration writes it.
            pub fn word(self) -> &'static str {
                match self { $($Name::$Variant => $word),+ }
            }
        }

        impl $crate::config::value::Value for $Name {
            fn kind() -> String {
                Self::WORDS.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" | ")
            }
            fn read(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
                if let toml::de::DeValue::String(it) = value {
                    match it.as_ref() {
                        $($word => return Ok($Name::$Variant),)+
                        other => {
                            let near = $crate::config::read::nearest(other, Self::WORDS.iter().copied());
                            if let Some(near) = near {
                                return Err(format!("one of {}; did you mean \"{near}\"?", <Self as $crate::config::value::Value>::kind()));
                            }
                        }
                    }
                }
                Err(format!("one of {}", <Self as $crate::config::value::Value>::kind()))
            }
            fn show(&self) -> String {
                $crate::config::value::quoted(self.word())
            }
        }
    };
}
pub(crate) use choice;
