//! UTC times: microseconds since 1970 inside, XEP-0082 on the wire.

/// A point in time, microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub i64);

impl Stamp {
    /// `2026-11-22T20:18:26.123Z`: milliseconds when there are any, always `Z`. XEP-0082 §3.2.
    pub fn to_xmpp(self) -> String { todo!() }
    /// Reads a DateTime with any offset. XEP-0082 §3.2. `None` if it is none.
    pub fn from_xmpp(text: &str) -> Option<Stamp> { let _ = text; todo!() }
    pub fn plus_seconds(self, seconds: i64) -> Stamp { Stamp(self.0 + seconds * 1_000_000) }
    /// Whole seconds from `earlier` to this; negative if this is earlier.
    pub fn seconds_since(self, earlier: Stamp) -> i64 { (self.0 - earlier.0) / 1_000_000 }
}
