//! Addresses, RFC 7622: one shared string and two offsets.
//!
//! An address is prepared (PRECIS, IDNA) once, when it is parsed; comparison and hashing are those of the string.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest localpart, domainpart or resourcepart, in bytes. RFC 7622 §3.1.
pub const PART_BYTES_MAX: usize = 1023;

/// Why a string is no JID. RFC 7622 §3; on the wire always `jid-malformed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JidError {
    EmptyDomain,
    EmptyLocal,
    EmptyResource,
    TooLong { part: &'static str, bytes: usize },
    /// A localpart with a forbidden character, or one that the UsernameCaseMapped profile refuses. RFC 7622 §3.3.
    Local,
    /// Neither an IP literal nor an IDNA2008 domain. RFC 7622 §3.2.
    Domain,
    /// Refused by the OpaqueString profile. RFC 7622 §3.4.
    Resource,
}

/// Any address: `[local@]domain[/resource]`, already prepared.
#[derive(Clone)]
pub struct Jid {
    text: Arc<str>,
    /// Where the domainpart starts: 0 without a localpart, else one behind the `@`.
    domain_at: u16,
    /// Where the domainpart ends; the `/` stands here when there is a resourcepart.
    domain_end: u16,
}

impl Jid {
    /// Parses and prepares an address. RFC 7622 §3.
    ///
    /// # Errors
    /// [`JidError`], the first part that is wrong.
    pub fn parse(text: &str) -> Result<Jid, JidError> { let _ = text; todo!() }
    /// From parts that are *not yet* prepared.
    pub fn from_parts(local: Option<&str>, domain: &str, resource: Option<&str>) -> Result<Jid, JidError> { let _ = (local, domain, resource); todo!() }
    pub fn local(&self) -> Option<&str> { todo!() }
    pub fn domain(&self) -> &str { &self.text[self.domain_at as usize..self.domain_end as usize] }
    pub fn resource(&self) -> Option<&str> { todo!() }
    pub fn as_str(&self) -> &str { &self.text }
    pub fn is_bare(&self) -> bool { self.domain_end as usize == self.text.len() }
    /// The address without its resourcepart: no copy when there is none.
    pub fn to_bare(&self) -> BareJid { todo!() }
    /// Do both name the same account (or domain)?
    pub fn same_bare(&self, other: &Jid) -> bool { let _ = other; todo!() }
    /// `None` if there is no resourcepart.
    pub fn to_full(&self) -> Option<FullJid> { todo!() }
}

/// `[local@]domain`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BareJid(Jid);

impl BareJid {
    /// # Errors
    /// As [`Jid::parse`]; a resourcepart is an error ([`JidError::Resource`]).
    pub fn parse(text: &str) -> Result<BareJid, JidError> { let _ = text; todo!() }
    /// The bare JID of a domain itself.
    pub fn of_domain(domain: &str) -> Result<BareJid, JidError> { let _ = domain; todo!() }
    /// With a resourcepart that is not yet prepared. RFC 7622 §3.4.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> { let _ = resource; todo!() }
    /// The bare JID of this one's domain (for an account: its host).
    pub fn domain_jid(&self) -> BareJid { todo!() }
}

/// `[local@]domain/resource`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FullJid(Jid);

impl FullJid {
    pub fn parse(text: &str) -> Result<FullJid, JidError> { let _ = text; todo!() }
    /// The resourcepart; a full JID always has one.
    pub fn resource_str(&self) -> &str { todo!() }
}

/// Prepares a resourcepart alone (binding). RFC 7622 §3.4.
pub fn prepare_resource(text: &str) -> Result<String, JidError> { let _ = text; todo!() }
/// Prepares a localpart alone (authentication, registration). RFC 7622 §3.3.
pub fn prepare_local(text: &str) -> Result<String, JidError> { let _ = text; todo!() }
/// Prepares a domainpart alone (configuration, stream header). RFC 7622 §3.2.
pub fn prepare_domain(text: &str) -> Result<String, JidError> { let _ = text; todo!() }

impl PartialEq for Jid { fn eq(&self, other: &Jid) -> bool { self.text == other.text } }
impl Eq for Jid {}
impl std::hash::Hash for Jid { fn hash<H: std::hash::Hasher>(&self, h: &mut H) { self.text.hash(h) } }
impl PartialOrd for Jid { fn partial_cmp(&self, o: &Jid) -> Option<std::cmp::Ordering> { Some(self.cmp(o)) } }
impl Ord for Jid { fn cmp(&self, o: &Jid) -> std::cmp::Ordering { self.text.cmp(&o.text) } }
impl fmt::Display for Jid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.text) } }
impl fmt::Debug for Jid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.text) } }
impl fmt::Display for BareJid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
impl fmt::Debug for BareJid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
impl fmt::Display for FullJid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
impl fmt::Debug for FullJid { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) } }
impl std::ops::Deref for BareJid { type Target = Jid; fn deref(&self) -> &Jid { &self.0 } }
impl std::ops::Deref for FullJid { type Target = Jid; fn deref(&self) -> &Jid { &self.0 } }
impl From<BareJid> for Jid { fn from(j: BareJid) -> Jid { j.0 } }
impl From<FullJid> for Jid { fn from(j: FullJid) -> Jid { j.0 } }
impl Borrow<str> for BareJid { fn borrow(&self) -> &str { self.0.as_str() } }
impl std::str::FromStr for Jid { type Err = JidError; fn from_str(s: &str) -> Result<Jid, JidError> { Jid::parse(s) } }
impl std::str::FromStr for BareJid { type Err = JidError; fn from_str(s: &str) -> Result<BareJid, JidError> { BareJid::parse(s) } }
impl std::str::FromStr for FullJid { type Err = JidError; fn from_str(s: &str) -> Result<FullJid, JidError> { FullJid::parse(s) } }
