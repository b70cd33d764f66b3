//! From TOML text to values: every key is looked up in a table of options, every problem is noted, reading goes on.

use super::problem::Problem;
use super::value::Value;
use std::collections::HashMap;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// One option, as the reference and the checks know it.
#[derive(Debug, Clone)]
pub struct Documented {
    pub key: &'static str,
    pub kind: String,
    /// As TOML; empty when unset by default.
    pub default: String,
    /// Inclusive.
    pub range: Option<(u64, u64)>,
    pub meaning: String,
}

/// Collects what is wrong, and where each value stood.
#[derive(Debug, Default)]
pub struct Reader {
    pub problems: Vec<Problem>,
    /// By path, such as `limits.depth_max` or `listen[0].address`.
    spans: HashMap<String, Range<usize>>,
}

impl Reader {
    pub fn problem(&mut self, span: Option<Range<usize>>, title: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { span, title: title.into(), label: String::new(), remedy: remedy.into() });
    }

    /// Where the value of the path stands in the file; `None` if it is a default.
    pub fn span(&self, path: &str) -> Option<Range<usize>> {
        self.spans.get(path).cloned()
    }

    pub fn note_span(&mut self, path: String, span: Range<usize>) {
        self.spans.insert(path, span);
    }

    /// Reads one option of a table; the default if it is not there or wrong.
    pub fn option<T: Value>(
        &mut self,
        table: &DeTable<'_>,
        at: &str,
        key: &'static str,
        default: T,
        range: Option<(u64, u64)>,
    ) -> T {
        let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            return default;
        };
        let path = join(at, key);
        self.note_span(path.clone(), value.span());
        match T::read(value.get_ref()) {
            Ok(it) => {
                if let (Some((low, high)), Some(number)) = (range, it.number())
                    && !(low..=high).contains(&number)
                {
                    let (low, high) = (super::value::grouped(low), super::value::grouped(high));
                    self.problem(
                        Some(value.span()),
                        format!("{path} is out of range"),
                        format!("write a number from {low} to {high}"),
                    );
                    return default;
                }
                it
            }
            Err(wants) => {
                self.problem(
                    Some(value.span()),
                    format!("{path} has a value that cannot be used: {}", type_of(value.get_ref())),
                    format!("write {wants}"),
                );
                default
            }
        }
    }

    /// Notes every key of a table that is not in `known`. `elsewhere` are the options of other tables, for the remedy.
    pub fn unknown_keys(
        &mut self,
        table: &DeTable<'_>,
        at: &str,
        known: &[&'static str],
        elsewhere: &[(String, &'static str)],
    ) {
        for name in table.keys() {
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let remedy =
                if let Some((section, _)) = elsewhere.iter().find(|(section, other)| *other == key && section != at) {
                    format!("{key} belongs in {}", header(section))
                } else if let Some(near) = nearest(key, known.iter().copied()) {
                    format!("did you mean {near}?")
                } else if let Some((section, near)) = nearest(key, elsewhere.iter().map(|(_, key)| *key))
                    .and_then(|near| elsewhere.iter().find(|(_, key)| *key == near))
                {
                    format!("did you mean {near} in {}?", header(section))
                } else {
                    format!(
                        "remove it; `waft config show --defaults` lists all options. Here are known: {}",
                        known.join(", ")
                    )
                };
            self.problem(Some(name.span()), format!("unknown option {}", join(at, key)), remedy);
        }
    }

    /// A key that must be a table; `None` (and a problem) when it is not.
    pub fn table<'t, 'i>(
        &mut self,
        value: &'t toml::Spanned<DeValue<'i>>,
        path: &str,
        write: &str,
    ) -> Option<&'t DeTable<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.problem(
                    Some(value.span()),
                    format!("{path} is {}, not a table", type_of(other)),
                    format!("write {write}"),
                );
                None
            }
        }
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_string() } else { format!("{at}.{key}") }
}

/// How a section is headed in the file.
fn header(section: &str) -> String {
    match section {
        "" => "the top of the file, before the first table".into(),
        "listen" | "component" => format!("[[{section}]]"),
        other => format!("[{other}]"),
    }
}

fn type_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(it) => format!("the string \"{}\"", it.chars().take(60).collect::<String>()),
        DeValue::Integer(it) => format!("the number {it}"),
        DeValue::Float(it) => format!("the fraction {}", it.as_str()),
        DeValue::Boolean(it) => it.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// The known word that is most like the given one, if any is near enough to be meant.
pub fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known
        .map(|other| (strsim::damerau_levenshtein(word, other), other))
        .filter(|(distance, other)| *distance * 3 <= other.len().max(word.len()))
        .min()
        .map(|(_, other)| other)
}

/// A table of the file: the struct, its defaults, its reference and its reader from one list.
macro_rules! section {
    ($(#[doc = $about:literal])* pub struct $Name:ident = $at:literal {
        $($(#[doc = $meaning:literal])+ $field:ident : $type:ty = $default:expr $(, in $low:literal ..= $high:literal)? ;)+
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name { $($(#[doc = $meaning])+ pub $field: $type,)+ }

        impl Default for $Name {
            fn default() -> Self {
                $Name { $($field: $default,)+ }
            }
        }

        impl $Name {
            pub const AT: &'static str = $at;
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// The section's own meaning, one paragraph.
            pub fn about() -> String {
                [$($about),*].iter().map(|line: &&str| line.trim()).collect::<Vec<_>>().join(" ")
            }

            pub fn options() -> Vec<$crate::config::read::Documented> {
                let defaults = $Name::default();
                vec![$($crate::config::read::Documented {
                    key: stringify!($field),
                    kind: <$type as $crate::config::value::Value>::kind(),
                    default: $crate::config::value::Value::show(&defaults.$field),
                    range: None$(.or(Some(($low, $high))))?,
                    meaning: [$($meaning),+].iter().map(|line: &&str| line.trim()).collect::<Vec<_>>().join(" "),
                }),+]
            }

            /// Reads what the table says; the rest stays default.
            pub(crate) fn read(reader: &mut $crate::config::read::Reader, table: &toml::de::DeTable<'_>, at: &str) -> $Name {
                let defaults = $Name::default();
                $Name { $($field: reader.option(table, at, stringify!($field), defaults.$field, None$(.or(Some(($low, $high))))?),)+ }
            }

            /// Each option with its value as TOML; empty when unset.
            pub fn show(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), $crate::config::value::Value::show(&self.$field))),+]
            }
        }
    };
}
pub(crate) use section;
