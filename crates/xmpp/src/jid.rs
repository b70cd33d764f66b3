//! Addresses, RFC 7622: one shared string and two offsets.
//!
//! An address is prepared (PRECIS, IDNA) once, when it is parsed; comparison and hashing are those of the string.
//! An ASCII address that is already in its prepared form costs one pass and one allocation.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use precis_profiles::precis_core::profile::{Rules, stabilize};
use precis_profiles::precis_core::{self, DerivedPropertyValue, FreeformClass, IdentifierClass, StringClass};
use precis_profiles::{Nickname, OpaqueString, UsernameCaseMapped};
use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{is_combining_mark, is_public_assigned};

/// Longest localpart, domainpart or resourcepart, in bytes. RFC 7622 §3.1.
pub const PART_BYTES_MAX: usize = 1023;

/// Longest part that is worth preparing: preparation halves a text at most, or takes a third where the wide forms
/// of ASCII become narrow.
const UNPREPARED_BYTES_MAX: usize = 3 * PART_BYTES_MAX;

/// Why a string is no JID. RFC 7622 §3; on the wire always `jid-malformed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JidError {
    EmptyDomain,
    EmptyLocal,
    EmptyResource,
    TooLong {
        part: &'static str,
        bytes: usize,
    },
    /// A localpart with a forbidden character, or one that the UsernameCaseMapped profile refuses. RFC 7622 §3.3.
    Local,
    /// Neither an IP literal nor an IDNA2008 domain. RFC 7622 §3.2.
    Domain,
    /// Refused by the OpaqueString profile. RFC 7622 §3.4.
    Resource,
}

impl fmt::Display for JidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JidError::EmptyDomain => f.write_str("the domainpart is empty"),
            JidError::EmptyLocal => f.write_str("the localpart is empty"),
            JidError::EmptyResource => f.write_str("the resourcepart is empty"),
            JidError::TooLong { part, bytes } => {
                write!(f, "the {part} has {bytes} bytes, more than {PART_BYTES_MAX}")
            }
            JidError::Local => f.write_str("the localpart has a forbidden character"),
            JidError::Domain => f.write_str("the domainpart is neither a domain name nor an IP literal"),
            JidError::Resource => f.write_str("the resourcepart has a forbidden character"),
        }
    }
}

impl std::error::Error for JidError {}

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
    pub fn parse(text: &str) -> Result<Jid, JidError> {
        if let Some(jid) = Jid::prepared(text) {
            return Ok(jid);
        }
        // In this order, and before any mapping could make new separators. RFC 7622 §3.1, §3.2.
        let (bare, resource) = text.split_once('/').map_or((text, None), |(bare, r)| (bare, Some(r)));
        let (local, domain) = bare.split_once('@').map_or((None, bare), |(l, domain)| (Some(l), domain));
        Jid::from_parts(local, domain, resource)
    }

    /// An address of ASCII that needs no change: most are.
    fn prepared(text: &str) -> Option<Jid> {
        let bytes = text.as_bytes();
        let local = run_of(LOCAL, bytes);
        let domain_at = match bytes.get(local) {
            Some(b'@') if (1..=PART_BYTES_MAX).contains(&local) => local + 1,
            Some(b'@') => return None,
            _ => 0,
        };
        let domain_end = domain_at + plain_domain(&bytes[domain_at..])?;
        match bytes[domain_end..] {
            [] => {}
            [b'/', ref resource @ ..] => {
                let fits = (1..=PART_BYTES_MAX).contains(&resource.len());
                if !fits || run_of(RESOURCE, resource) != resource.len() {
                    return None;
                }
            }
            _ => return None,
        }
        Some(Jid::of(Arc::from(text), domain_at, domain_end))
    }

    fn of(text: Arc<str>, domain_at: usize, domain_end: usize) -> Jid {
        let offset = |at: usize| u16::try_from(at).expect("two parts of at most 1023 bytes each stand before it");
        Jid { domain_at: offset(domain_at), domain_end: offset(domain_end), text }
    }

    /// From parts that are *not yet* prepared.
    ///
    /// # Errors
    /// As [`Jid::parse`]; a part that is there but empty is an error too.
    pub fn from_parts(local: Option<&str>, domain: &str, resource: Option<&str>) -> Result<Jid, JidError> {
        let local = local.map(local_of).transpose()?;
        let domain = domain_of(domain)?;
        let resource = resource.map(resource_of).transpose()?;
        let domain_at = local.as_ref().map_or(0, |local| local.len() + 1);
        let (local, at) = local.as_deref().map_or(("", ""), |local| (local, "@"));
        let (slash, resource) = resource.as_deref().map_or(("", ""), |resource| ("/", resource));
        let text = concat(&[local, at, &domain, slash, resource]);
        Ok(Jid::of(text, domain_at, domain_at + domain.len()))
    }

    pub fn local(&self) -> Option<&str> {
        (self.domain_at > 0).then(|| &self.text[..self.domain_at as usize - 1])
    }

    pub fn domain(&self) -> &str {
        &self.text[self.domain_at as usize..self.domain_end as usize]
    }

    pub fn resource(&self) -> Option<&str> {
        self.text.get(self.domain_end as usize + 1..)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `[local@]domain`, without the resourcepart.
    pub fn bare_str(&self) -> &str {
        &self.text[..self.domain_end as usize]
    }

    pub fn is_bare(&self) -> bool {
        self.domain_end as usize == self.text.len()
    }

    /// Is there neither localpart nor resourcepart?
    pub fn is_domain(&self) -> bool {
        self.domain_at == 0 && self.is_bare()
    }

    /// The address without its resourcepart: no copy when there is none.
    pub fn to_bare(&self) -> BareJid {
        BareJid(self.to_bare_or_self())
    }

    /// As [`Jid::to_bare`], where an address of any form is wanted.
    pub fn to_bare_or_self(&self) -> Jid {
        if self.is_bare() { self.clone() } else { Jid { text: Arc::from(self.bare_str()), ..*self } }
    }

    /// Do both name the same account (or domain)?
    pub fn same_bare(&self, other: &Jid) -> bool {
        self.bare_str() == other.bare_str()
    }

    /// `None` if there is no resourcepart.
    pub fn to_full(&self) -> Option<FullJid> {
        (!self.is_bare()).then(|| FullJid(self.clone()))
    }

    /// The bare JID of this one's domain (for an account: its host).
    pub fn domain_jid(&self) -> BareJid {
        if self.is_domain() {
            return BareJid(self.clone());
        }
        BareJid(Jid { text: Arc::from(self.domain()), domain_at: 0, domain_end: self.domain_end - self.domain_at })
    }
}

/// `[local@]domain`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BareJid(Jid);

impl BareJid {
    /// # Errors
    /// As [`Jid::parse`]; a resourcepart is an error ([`JidError::Resource`]).
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        Jid::parse(text)?.try_into()
    }

    /// The bare JID of a domain itself.
    ///
    /// # Errors
    /// As [`prepare_domain`].
    pub fn of_domain(domain: &str) -> Result<BareJid, JidError> {
        Jid::from_parts(None, domain, None).map(BareJid)
    }

    /// With a resourcepart that is not yet prepared. RFC 7622 §3.4.
    ///
    /// # Errors
    /// As [`prepare_resource`].
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        let resource = resource_of(resource)?;
        Ok(FullJid(Jid { text: concat(&[self.as_str(), "/", &resource]), ..self.0 }))
    }

    /// The bare JID of this one's domain (for an account: its host).
    pub fn domain_jid(&self) -> BareJid {
        self.0.domain_jid()
    }
}

/// `[local@]domain/resource`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FullJid(Jid);

impl FullJid {
    /// # Errors
    /// As [`Jid::parse`]; no resourcepart is an error ([`JidError::EmptyResource`]).
    pub fn parse(text: &str) -> Result<FullJid, JidError> {
        Jid::parse(text)?.try_into()
    }

    /// The resourcepart; a full JID always has one.
    pub fn resource_str(&self) -> &str {
        &self.text[self.domain_end as usize + 1..]
    }
}

/// Prepares a resourcepart alone (binding). RFC 7622 §3.4.
///
/// # Errors
/// [`JidError::EmptyResource`], [`JidError::TooLong`], [`JidError::Resource`].
pub fn prepare_resource(text: &str) -> Result<String, JidError> {
    resource_of(text).map(Cow::into_owned)
}

/// Prepares a localpart alone (authentication, registration). RFC 7622 §3.3.
///
/// # Errors
/// [`JidError::EmptyLocal`], [`JidError::TooLong`], [`JidError::Local`].
pub fn prepare_local(text: &str) -> Result<String, JidError> {
    local_of(text).map(Cow::into_owned)
}

/// Prepares a domainpart alone (configuration, stream header). RFC 7622 §3.2.
///
/// # Errors
/// [`JidError::EmptyDomain`], [`JidError::TooLong`], [`JidError::Domain`].
pub fn prepare_domain(text: &str) -> Result<String, JidError> {
    domain_of(text).map(Cow::into_owned)
}

/// A nickname as it is compared: one spelling for all that read the same, `Foo  Bar` and `foo bar`. RFC 8266 §2.4. What
/// people are shown is the nickname as it was chosen.
///
/// # Errors
/// [`JidError::EmptyResource`], [`JidError::TooLong`], [`JidError::Resource`]: in a room a nickname is a resourcepart.
pub fn compared_nickname(text: &str) -> Result<String, JidError> {
    check_length("nickname", text, UNPREPARED_BYTES_MAX)?;
    let compared = stabilize(text, nickname).map_err(|_| JidError::Resource)?;
    if compared.is_empty() {
        return Err(JidError::EmptyResource);
    }
    check_length("nickname", &compared, PART_BYTES_MAX)?;
    Ok(compared.into_owned())
}

/// A prepared domain as DNS and TLS want it: A-labels (RFC 5891 §4). `None` for what has none.
pub fn domain_to_ascii(domain: &str) -> Option<String> {
    Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Verify)
        .ok()
        .map(Cow::into_owned)
}

/// Escapes what a localpart may not hold, for addresses that come from elsewhere: `d'artagnan` becomes
/// `d\27artagnan`. XEP-0106 §4.2. The result still wants [`prepare_local`].
///
/// # Errors
/// [`JidError::Local`] if the text begins or ends with a space, which cannot be escaped (§3.2).
pub fn escape_local(text: &str) -> Result<Cow<'_, str>, JidError> {
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(JidError::Local);
    }
    let must_escape = |at: usize, c: char| match c {
        '\\' => escape_at(&text[at..]).is_some(),
        _ => ESCAPES.iter().any(|&(_, plain)| plain == c),
    };
    if !text.char_indices().any(|(at, c)| must_escape(at, c)) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        match ESCAPES.iter().find(|&&(_, plain)| plain == c) {
            Some((escape, _)) if must_escape(at, c) => out.push_str(escape),
            _ => out.push(c),
        }
    }
    Ok(Cow::Owned(out))
}

/// Undoes [`escape_local`], for people and for systems elsewhere; never compare the result. XEP-0106 §3.3.
///
/// Sequences that are no escapes stay as they are (§4.3), also a `\20` at either end, which none can be (§3.2).
pub fn unescape_local(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at_an_end = rest.len() == text.len() || rest.len() == ESCAPE_BYTES;
        let (plain, bytes) = match escape_at(rest) {
            Some(' ') if at_an_end => (c, c.len_utf8()),
            Some(plain) => (plain, ESCAPE_BYTES),
            None => (c, c.len_utf8()),
        };
        out.push(plain);
        rest = &rest[bytes..];
    }
    Cow::Owned(out)
}

/// XEP-0106 §3.2; case is significant.
const ESCAPES: [(&str, char); 10] = [
    ("\\20", ' '),
    ("\\22", '"'),
    ("\\26", '&'),
    ("\\27", '\''),
    ("\\2f", '/'),
    ("\\3a", ':'),
    ("\\3c", '<'),
    ("\\3e", '>'),
    ("\\40", '@'),
    ("\\5c", '\\'),
];
const ESCAPE_BYTES: usize = 3;

/// What the escape stands for with which the text begins.
fn escape_at(text: &str) -> Option<char> {
    ESCAPES.iter().find(|&&(escape, _)| text.starts_with(escape)).map(|&(_, plain)| plain)
}

/// Joined with one allocation, for addresses of the usual length.
fn concat(parts: &[&str]) -> Arc<str> {
    let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    Arc::from(std::str::from_utf8(&bytes).expect("whole strings joined are UTF-8"))
}

// What each ASCII byte may be part of without any change.
const LOCAL: u8 = 1;
const DOMAIN: u8 = 2;
const RESOURCE: u8 = 4;
static ASCII: [u8; 256] = ascii_classes();

const fn ascii_classes() -> [u8; 256] {
    let mut classes = [0; 256];
    // RFC 8264 §9.11: ASCII7 is valid in both classes, the space in the FreeformClass alone.
    let mut b = b' ';
    while b <= b'~' {
        let excluded = matches!(b, b' ' | b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@');
        let local = !excluded && !b.is_ascii_uppercase();
        // COMPAT: underscores are in names of local networks and of services behind SRV records.
        let domain = matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        classes[b as usize] = RESOURCE | if local { LOCAL } else { 0 } | if domain { DOMAIN } else { 0 };
        b += 1;
    }
    classes
}

/// How many bytes of that class stand in front.
fn run_of(class: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| ASCII[b as usize] & class == 0).unwrap_or(bytes.len())
}

fn all_of(class: u8, text: &str) -> bool {
    run_of(class, text.as_bytes()) == text.len()
}

/// The limit of a part, after preparation. RFC 7622 §3.1.
fn check_length(part: &'static str, text: &str, max: usize) -> Result<(), JidError> {
    if text.len() <= max { Ok(()) } else { Err(JidError::TooLong { part, bytes: text.len() }) }
}

/// RFC 7622 §3.3.
fn local_of(text: &str) -> Result<Cow<'_, str>, JidError> {
    if text.is_empty() {
        return Err(JidError::EmptyLocal);
    }
    check_length("localpart", text, UNPREPARED_BYTES_MAX)?;
    let prepared = if all_of(LOCAL, text) {
        Cow::Borrowed(text)
    } else if text.is_ascii() {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        stabilize(text, username).map_err(|_| JidError::Local)?
    };
    // Width mapping makes an `@` of U+FF20, so this comes last. RFC 7622 §3.3.1.
    let allowed = |b: u8| !b.is_ascii() || ASCII[b as usize] & LOCAL != 0;
    if !prepared.bytes().all(allowed) {
        return Err(JidError::Local);
    }
    check_length("localpart", &prepared, PART_BYTES_MAX)?;
    Ok(prepared)
}

/// RFC 7622 §3.4.
fn resource_of(text: &str) -> Result<Cow<'_, str>, JidError> {
    if text.is_empty() {
        return Err(JidError::EmptyResource);
    }
    check_length("resourcepart", text, UNPREPARED_BYTES_MAX)?;
    let prepared = if all_of(RESOURCE, text) {
        Cow::Borrowed(text)
    } else if text.is_ascii() {
        return Err(JidError::Resource);
    } else {
        freeform(text)?
    };
    check_length("resourcepart", &prepared, PART_BYTES_MAX)?;
    Ok(prepared)
}

/// OpaqueString for names that people choose.
fn freeform(text: &str) -> Result<Cow<'_, str>, JidError> {
    if let Ok(prepared) = stabilize(text, opaque) {
        return Ok(prepared);
    }
    // COMPAT: nicknames with emoji, as every client's picker writes them: a variation selector behind a symbol, and
    // joiners between the people of a family. OpaqueString refuses both; without them the name reads the same. The
    // selectors go first, so that a joiner behind a virama (which spells Sinhala) stays where it can.
    let is_selector = |c: char| matches!(c, '\u{FE00}'..='\u{FE0F}');
    let no_selector: String = text.chars().filter(|&c| !is_selector(c)).collect();
    let prepared = stabilize(no_selector.as_str(), opaque).map(Cow::into_owned).or_else(|_| {
        let no_joiner = no_selector.replace('\u{200D}', "");
        stabilize(no_joiner, opaque).map(Cow::into_owned)
    });
    match prepared {
        Ok(prepared) if prepared.is_empty() => Err(JidError::EmptyResource),
        Ok(prepared) => Ok(Cow::Owned(prepared)),
        Err(_) => Err(JidError::Resource),
    }
}

/// The UsernameCaseMapped profile. RFC 8265 §3.3.
fn username(text: &str) -> Result<Cow<'_, str>, precis_core::Error> {
    let profile = UsernameCaseMapped::new();
    let text = profile.width_mapping_rule(text)?;
    if !allows(&IdentifierClass::default(), &text, is_newer_letter) {
        return Err(precis_core::Error::Invalid);
    }
    let text = profile.case_mapping_rule(text)?;
    let text = profile.normalization_rule(text)?;
    profile.directionality_rule(text)
}

/// The OpaqueString profile. RFC 8265 §4.2.
fn opaque(text: &str) -> Result<Cow<'_, str>, precis_core::Error> {
    let profile = OpaqueString::new();
    if !allows(&FreeformClass::default(), text, is_newer_character) {
        return Err(precis_core::Error::Invalid);
    }
    let text = profile.additional_mapping_rule(text)?;
    profile.normalization_rule(text)
}

/// The Nickname profile, for comparison. RFC 8266 §2.3, §2.4.
fn nickname(text: &str) -> Result<Cow<'_, str>, precis_core::Error> {
    let profile = Nickname::new();
    if !allows(&FreeformClass::default(), text, is_newer_character) {
        return Err(precis_core::Error::Invalid);
    }
    let text = profile.additional_mapping_rule(text)?;
    let text = profile.case_mapping_rule(text)?;
    profile.normalization_rule(text)
}

/// The most characters of one part that are valid only beside certain others (RFC 8264 §4.2.2): each costs the
/// PRECIS library a walk over the whole part.
const CONTEXTUAL_MAX: usize = 32;

/// Does a string class of RFC 8264 §4 allow every character? `newer` decides on those that the class's tables,
/// which are of Unicode 6.3, do not know.
fn allows(class: &impl StringClass, text: &str, newer: fn(char) -> bool) -> bool {
    use DerivedPropertyValue as Property;
    let (mut arabic_indic, mut extended) = (false, false);
    let mut middle_dot = false;
    let mut contextual = 0;
    for c in text.chars().filter(|c| !c.is_ascii_graphic()) {
        match class.get_value_from_char(c) {
            Property::PValid | Property::SpecClassPval => {}
            Property::Unassigned if newer(c) => {}
            Property::Unassigned | Property::Disallowed | Property::SpecClassDis => return false,
            Property::ContextJ | Property::ContextO => match c {
                ARABIC_INDIC_ZERO..=ARABIC_INDIC_NINE => arabic_indic = true,
                EXTENDED_ZERO..=EXTENDED_NINE => extended = true,
                KATAKANA_MIDDLE_DOT => middle_dot = true,
                _ => contextual += 1,
            },
        }
    }
    // RFC 5892 A.8, A.9.
    if arabic_indic && extended || contextual > CONTEXTUAL_MAX {
        return false;
    }
    if contextual == 0 && !middle_dot {
        return true;
    }
    // The library judges the rest. An `a` stands for what is judged already, and for all middle dots but the first:
    // whether they are valid (A.7) depends on the whole text and is the same for each.
    let mut dot_seen = false;
    let rest = text.chars().map(|c| match c {
        ARABIC_INDIC_ZERO..=ARABIC_INDIC_NINE | EXTENDED_ZERO..=EXTENDED_NINE => 'a',
        KATAKANA_MIDDLE_DOT if std::mem::replace(&mut dot_seen, true) => 'a',
        c if class.get_value_from_char(c) == Property::Unassigned => 'a',
        c => c,
    });
    class.allows(rest.collect::<String>()).is_ok()
}

const ARABIC_INDIC_ZERO: char = '\u{660}';
const ARABIC_INDIC_NINE: char = '\u{669}';
const EXTENDED_ZERO: char = '\u{6F0}';
const EXTENDED_NINE: char = '\u{6F9}';
const KATAKANA_MIDDLE_DOT: char = '\u{30FB}';

/// Assigned since Unicode 6.3 and valid in the FreeformClass. RFC 8264 §4.3.
///
/// COMPAT: most emoji of today's keyboards are younger than the tables of the PRECIS library.
fn is_newer_character(c: char) -> bool {
    // Format characters and ignorable ones, RFC 8264 §9.6 and §9.13, are all that was added and is not allowed.
    let invisible = matches!(c, '\u{0890}'..='\u{0891}' | '\u{08E2}' | '\u{180F}' | '\u{110CD}'
        | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{E0000}'..='\u{E0FFF}');
    is_public_assigned(c) && !invisible
}

/// Assigned since Unicode 6.3 and a letter or mark without a compatible equivalent, hence valid in the
/// IdentifierClass. RFC 8264 §9.1, §9.17. (Digits of newer scripts are left out.)
fn is_newer_letter(c: char) -> bool {
    is_newer_character(c) && (c.is_alphabetic() || is_combining_mark(c)) && std::iter::once(c).nfkc().eq([c])
}

/// All ASCII but letters, digits, hyphens, dots and (COMPAT, as above) underscores.
const NOT_IN_DOMAINS: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");
/// Longest label and longest name of the DNS. RFC 1034 §3.1, to which RFC 7622 §3.2 refers.
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

/// RFC 7622 §3.2.
fn domain_of(text: &str) -> Result<Cow<'_, str>, JidError> {
    // Before all other steps, and one dot only.
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(JidError::EmptyDomain);
    }
    // No name that can be resolved comes from a longer one, whatever the mapping.
    check_length("domainpart", text, PART_BYTES_MAX)?;
    if is_plain_domain(text) {
        return Ok(Cow::Borrowed(text));
    }
    if let Some(literal) = text.strip_prefix('[') {
        return ipv6_of(literal).map(Cow::Owned);
    }
    if text.is_ascii() {
        let lower = text.to_ascii_lowercase();
        if is_plain_domain(&lower) {
            return Ok(Cow::Owned(lower));
        }
    }
    idna_of(text).map(Cow::Owned)
}

/// Is this a name of ASCII labels that need no change, or an IPv4 address? (An address is such a name too.)
fn is_plain_domain(text: &str) -> bool {
    plain_domain(text.as_bytes()) == Some(text.len())
}

/// The length of the plain domain in front: of NR-LDH labels (RFC 5890 §2.3.2.2), or reserved ones that are no
/// A-labels.
fn plain_domain(bytes: &[u8]) -> Option<usize> {
    let domain = &bytes[..run_of(DOMAIN, bytes)];
    let mut label_at = 0;
    let mut before = b'.';
    for (at, &b) in domain.iter().enumerate() {
        match (before, b) {
            (b'.', b'.' | b'-') | (b'-', b'.') => return None,
            (b'.', b'x') if domain[at..].starts_with(b"xn--") => return None,
            (_, b'.') if at - label_at > LABEL_BYTES_MAX => return None,
            (_, b'.') => label_at = at + 1,
            _ => {}
        }
        before = b;
    }
    let ends_well = !matches!(before, b'.' | b'-') && domain.len() - label_at <= LABEL_BYTES_MAX;
    (ends_well && domain.len() <= NAME_BYTES_MAX).then_some(domain.len())
}

/// The rest of an IP literal behind its `[`, in the one form of RFC 5952. RFC 3986 §3.2.2, RFC 6874 §2.
///
/// `IPvFuture` is refused: there is none.
fn ipv6_of(literal: &str) -> Result<String, JidError> {
    let address = literal.strip_suffix(']').ok_or(JidError::Domain)?;
    let (address, zone) = address.split_once("%25").map_or((address, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().map_err(|_| JidError::Domain)?;
    match zone {
        None => Ok(format!("[{address}]")),
        Some(zone) if is_zone(zone) => Ok(format!("[{address}%25{zone}]")),
        Some(_) => Err(JidError::Domain),
    }
}

/// `1*( unreserved / pct-encoded )`. RFC 6874 §2.
fn is_zone(zone: &str) -> bool {
    let mut bytes = zone.bytes();
    while let Some(b) = bytes.next() {
        let valid = match b {
            b'%' => [bytes.next(), bytes.next()].iter().all(|hex| hex.is_some_and(|b| b.is_ascii_hexdigit())),
            _ => b.is_ascii_alphanumeric() || b"-._~".contains(&b),
        };
        if !valid {
            return false;
        }
    }
    !zone.is_empty()
}

/// An internationalised name as U-labels and plain labels. RFC 7622 §3.2.1, §3.2.2.
fn idna_of(text: &str) -> Result<String, JidError> {
    let (name, outcome) = Uts46::new().to_unicode(text.as_bytes(), NOT_IN_DOMAINS, Hyphens::CheckFirstLast);
    if outcome.is_err() || !name.split('.').all(|label| is_plain_domain(label) || is_u_label(label)) {
        return Err(JidError::Domain);
    }
    // An A-label that stands for no U-label, or the same name written otherwise, must not survive.
    let ascii = Uts46::new()
        .to_ascii(name.as_bytes(), NOT_IN_DOMAINS, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| JidError::Domain)?;
    let (again, outcome) = Uts46::new().to_unicode(ascii.as_bytes(), NOT_IN_DOMAINS, Hyphens::CheckFirstLast);
    if outcome.is_err() || again != name {
        return Err(JidError::Domain);
    }
    check_length("domainpart", &name, PART_BYTES_MAX)?;
    Ok(name.into_owned())
}

/// Is a label that UTS 46 has mapped and found valid also one of IDNA2008? RFC 5891 §4.2.
///
/// UTS 46 lets pass symbols (and with them emoji), hyphens in third and fourth place, and the characters that need
/// a context (RFC 5892 appendix A). The IdentifierClass is IDNA2008's PVALID but for the blocks of RFC 5892 §2.4.
fn is_u_label(label: &str) -> bool {
    let ignorable =
        |c: char| matches!(c, '\u{20D0}'..='\u{20FF}' | '\u{1D100}'..='\u{1D1FF}' | '\u{1D200}'..='\u{1D24F}');
    let mut third_and_fourth = label.chars().skip(2);
    !label.is_ascii()
        && (third_and_fourth.next(), third_and_fourth.next()) != (Some('-'), Some('-'))
        && !label.contains(ignorable)
        && allows(&IdentifierClass::default(), label, is_newer_letter)
}

impl PartialEq for Jid {
    fn eq(&self, other: &Jid) -> bool {
        self.text == other.text
    }
}

impl Eq for Jid {}

impl std::hash::Hash for Jid {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        self.text.hash(h)
    }
}

impl PartialOrd for Jid {
    fn partial_cmp(&self, o: &Jid) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}

impl Ord for Jid {
    fn cmp(&self, o: &Jid) -> std::cmp::Ordering {
        self.text.cmp(&o.text)
    }
}

impl std::ops::Deref for BareJid {
    type Target = Jid;
    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl std::ops::Deref for FullJid {
    type Target = Jid;
    fn deref(&self) -> &Jid {
        &self.0
    }
}

/// What all three kinds of address share: they are their text.
macro_rules! is_its_text {
    ($($jid:ident),*) => {$(
        impl fmt::Display for $jid {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $jid {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $jid {
            type Err = JidError;
            fn from_str(text: &str) -> Result<$jid, JidError> {
                $jid::parse(text)
            }
        }
        impl TryFrom<&str> for $jid {
            type Error = JidError;
            fn try_from(text: &str) -> Result<$jid, JidError> {
                $jid::parse(text)
            }
        }
        impl Borrow<str> for $jid {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $jid {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<Jid> for $jid {
            fn as_ref(&self) -> &Jid {
                self
            }
        }
        /// Compares the text, which is not prepared.
        impl PartialEq<str> for $jid {
            fn eq(&self, text: &str) -> bool {
                self.as_str() == text
            }
        }
        /// Compares the text, which is not prepared.
        impl PartialEq<&str> for $jid {
            fn eq(&self, text: &&str) -> bool {
                self.as_str() == *text
            }
        }
        impl From<&$jid> for Jid {
            fn from(jid: &$jid) -> Jid {
                let jid: &Jid = jid;
                jid.clone()
            }
        }
    )*};
}

is_its_text!(Jid, BareJid, FullJid);

/// What the two narrower kinds of address share: they are addresses.
macro_rules! is_a_jid {
    ($($jid:ident),*) => {$(
        impl From<$jid> for Jid {
            fn from(jid: $jid) -> Jid {
                jid.0
            }
        }
        impl Borrow<Jid> for $jid {
            fn borrow(&self) -> &Jid {
                &self.0
            }
        }
        impl PartialEq<Jid> for $jid {
            fn eq(&self, jid: &Jid) -> bool {
                self.0 == *jid
            }
        }
        impl PartialEq<$jid> for Jid {
            fn eq(&self, jid: &$jid) -> bool {
                *self == jid.0
            }
        }
    )*};
}

is_a_jid!(BareJid, FullJid);

/// [`JidError::Resource`] if there is a resourcepart.
impl TryFrom<Jid> for BareJid {
    type Error = JidError;
    fn try_from(jid: Jid) -> Result<BareJid, JidError> {
        if jid.is_bare() { Ok(BareJid(jid)) } else { Err(JidError::Resource) }
    }
}

/// [`JidError::EmptyResource`] if there is no resourcepart.
impl TryFrom<Jid> for FullJid {
    type Error = JidError;
    fn try_from(jid: Jid) -> Result<FullJid, JidError> {
        if jid.is_bare() { Err(JidError::EmptyResource) } else { Ok(FullJid(jid)) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_address_gives_its_parts() {
        let jid = Jid::parse("juliet@example.com/balcony").unwrap();
        assert_eq!((jid.local(), jid.domain(), jid.resource()), (Some("juliet"), "example.com", Some("balcony")));
        assert_eq!(jid.bare_str(), "juliet@example.com");
        assert!(!jid.is_bare() && !jid.is_domain());

        let jid = Jid::parse("example.com").unwrap();
        assert_eq!((jid.local(), jid.domain(), jid.resource()), (None, "example.com", None));
        assert!(jid.is_bare() && jid.is_domain());
    }

    #[test]
    fn a_prepared_address_keeps_its_text_and_a_bare_one_is_not_copied() {
        let bare = Jid::parse("juliet@example.com").unwrap();
        assert!(Arc::ptr_eq(&bare.text, &bare.to_bare().text));
        assert!(Arc::ptr_eq(&bare.text, &bare.to_bare_or_self().text));
        let domain = Jid::parse("example.com").unwrap();
        assert!(Arc::ptr_eq(&domain.text, &domain.domain_jid().text));
        let full = Jid::parse("juliet@example.com/balcony").unwrap();
        assert!(Arc::ptr_eq(&full.text, &full.to_full().unwrap().text));
        assert_eq!(full.to_bare().0, bare);
        assert_eq!(full.domain_jid().0, domain);
    }

    #[test]
    fn a_jid_is_small() {
        assert!(size_of::<Jid>() <= 24);
        assert!(size_of::<Option<FullJid>>() <= 24);
    }

    #[test]
    fn characters_younger_than_the_tables_are_judged_by_their_kind() {
        for letter in ['\u{1E922}', '\u{10570}', '\u{2B740}', '\u{1C80}'] {
            assert!(is_newer_letter(letter), "{letter:?}");
        }
        // A symbol, a modifier with a compatible equivalent, a number, a format character, none at all, private use.
        for other in ['\u{1F914}', '\u{1E030}', '\u{1ECB0}', '\u{13430}', '\u{378}', '\u{E000}'] {
            assert!(!is_newer_letter(other), "{other:?}");
        }
        for valid in ['\u{1F914}', '\u{1FAE8}', '\u{20BF}'] {
            assert!(is_newer_character(valid), "{valid:?}");
        }
        for other in ['\u{13430}', '\u{180F}', '\u{1BCA0}', '\u{378}', '\u{E000}', '\u{FFFF}'] {
            assert!(!is_newer_character(other), "{other:?}");
        }
    }

    #[test]
    fn every_ascii_character_has_the_class_that_the_profiles_give_it() {
        for c in '\0'..='\x7f' {
            let text = c.to_string();
            let of = |class| ASCII[c as usize] & class != 0;
            let excluded = "\"&'/:<>@".contains(c);
            assert_eq!(of(LOCAL), !excluded && username(&text).is_ok_and(|kept| kept == text), "{c:?}");
            assert_eq!(of(RESOURCE), opaque(&text).is_ok(), "{c:?}");
        }
    }
}
