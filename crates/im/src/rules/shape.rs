//! The transformations of a decision: what of the presence a watcher is shown. RFC 5025 §3.3.

use std::collections::BTreeSet;
use std::sync::Arc;
use xmpp::stanza::Child;
use xmpp::{Element, PresenceType, Stanza, StanzaType, ns};

pub const IDLE: &str = "urn:xmpp:idle:1";
pub const CAPS: &str = "http://jabber.org/protocol/caps";
pub const CAPS_2: &str = "urn:xmpp:caps";
pub const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// A set permission of RFC 4745 §10: everything, or what is named. The union of two is what either names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<T: Ord> {
    All,
    These(BTreeSet<T>),
}

/// A set of names.
pub type Names = Allowed<Box<str>>;

impl<T: Ord> Default for Allowed<T> {
    fn default() -> Self {
        Allowed::These(BTreeSet::new())
    }
}

impl<T: Ord + Clone> Allowed<T> {
    pub fn is_empty(&self) -> bool {
        matches!(self, Allowed::These(these) if these.is_empty())
    }

    pub fn join(&mut self, other: &Allowed<T>) {
        match (&mut *self, other) {
            (Allowed::All, _) => {}
            (_, Allowed::All) => *self = Allowed::All,
            (Allowed::These(mine), Allowed::These(more)) => mine.extend(more.iter().cloned()),
        }
    }
}

impl Allowed<Box<str>> {
    pub fn has(&self, name: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::These(these) => these.contains(name),
        }
    }
}

/// One member of a set that picks tuples, devices or persons. RFC 5025 §3.3.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pick {
    /// The RPID class of the occurrence.
    Class(Box<str>),
    /// Its id: of a tuple that a resource is, the resourcepart; of a published one, its name.
    Occurrence(Box<str>),
    /// Of services alone.
    Uri(Box<str>),
    Scheme(Box<str>),
    /// Of devices alone.
    DeviceId(Box<str>),
}

pub type Picks = Allowed<Pick>;

/// What is known of a tuple, device or person, to decide whether it is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Occurrence<'a> {
    pub id: &'a str,
    pub class: Option<&'a str>,
    /// The contact's URI, or the device's id.
    pub uri: Option<&'a str>,
}

impl Picks {
    pub fn pick(&self, it: Occurrence<'_>) -> bool {
        let Allowed::These(these) = self else { return true };
        these.iter().any(|pick| match pick {
            Pick::Class(class) => it.class == Some(&**class),
            Pick::Occurrence(id) => *it.id == **id,
            Pick::Uri(uri) | Pick::DeviceId(uri) => it.uri == Some(&**uri),
            Pick::Scheme(scheme) => it.uri.and_then(|uri| uri.split(':').next()) == Some(&**scheme),
        })
    }
}

/// A status that an audience is shown instead of the real one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Other {
    /// `away`, `chat`, `dnd`, `xa`; `None`: plainly available.
    pub show: Option<Box<str>>,
    pub status: Option<Box<str>>,
}

/// What a watcher is shown. All watchers for whom the same rules speak share one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// Tuples: resources, and what was published. RFC 5025 §3.3.1.3.
    pub services: Picks,
    /// Devices; without any, what tells of software and device (caps) is cut. §3.3.1.1.
    pub devices: Picks,
    /// §3.3.1.2.
    pub persons: Picks,
    /// `<show/>`.
    pub show: bool,
    /// `<status/>`.
    pub status: bool,
    /// Since when the user is idle: XEP-0319, and RPID user-input with its times (§3.3.2.12 `full`).
    pub idle: bool,
    /// Notes of PIDF and RPID. §3.3.2.13.
    pub notes: bool,
    /// RPID's elements by name: `activities`, `mood`, `place-is`, … §3.3.2.
    pub attributes: Names,
    /// Whatever else: `{namespace}name`. §3.3.2.14.
    pub unknown: Names,
    /// PEP nodes.
    pub pep: Names,
    pub other: Option<Other>,
}

impl Shape {
    /// Permissions add up. RFC 4745 §10.2. The other status is no permission: the first rule that has one counts.
    pub fn join(&mut self, more: &Shape) {
        self.services.join(&more.services);
        self.devices.join(&more.devices);
        self.persons.join(&more.persons);
        self.show |= more.show;
        self.status |= more.status;
        self.idle |= more.idle;
        self.notes |= more.notes;
        self.attributes.join(&more.attributes);
        self.unknown.join(&more.unknown);
        self.pep.join(&more.pep);
        if self.other.is_none() {
            self.other.clone_from(&more.other);
        }
    }

    /// Is the session's tuple shown?
    pub fn shows_session(&self, presence: &Stanza) -> bool {
        if self.services == Picks::All {
            return true;
        }
        let Some(from) = &presence.from else { return false };
        let class = presence.payload.child("class", RPID).map(|class| class.to_element().text_content());
        let uri = format!("xmpp:{}", from.as_str());
        let bare = format!("xmpp:{}", from.bare_str());
        let it = Occurrence { id: from.resource().unwrap_or_default(), class: class.as_deref(), uri: Some(&uri) };
        self.services.pick(it) || self.services.pick(Occurrence { uri: Some(&bare), ..it })
    }

    /// The presence of a resource as it is shown; the same one where nothing is cut.
    pub fn presence(&self, stanza: &Arc<Stanza>) -> Arc<Stanza> {
        let is_available = stanza.kind == StanzaType::Presence(PresenceType::Available);
        let other = self.other.as_ref();
        let mut payload = stanza.payload.without(|child| !self.keeps(child) || other.is_some() && is_said(child));
        if let Some(other) = other.filter(|_| is_available) {
            let show = other.show.iter().map(|show| Element::new("show", ns::CLIENT).text(show));
            let status = other.status.iter().map(|status| Element::new("status", ns::CLIENT).text(status));
            payload = payload.with(show.chain(status));
        }
        if payload.bytes() == stanza.payload.bytes() {
            return stanza.clone();
        }
        Arc::new(Stanza { payload, ..Stanza::clone(stanza) })
    }

    /// Is the child of a presence stanza shown?
    pub fn keeps(&self, child: &Child<'_>) -> bool {
        match (child.ns, child.name) {
            (ns::CLIENT, "priority") | (ns::DELAY, _) => true,
            (ns::CLIENT, "show") => self.show,
            (ns::CLIENT, "status") => self.status,
            (IDLE, _) => self.idle,
            (CAPS | CAPS_2, _) => !self.devices.is_empty(),
            (RPID, "note") => self.notes,
            (RPID, "user-input") => self.idle || self.attributes.has("user-input"),
            (RPID, name) => self.attributes.has(name),
            (ns, name) => match &self.unknown {
                Allowed::All => true,
                Allowed::These(these) => !these.is_empty() && these.contains(&*format!("{{{ns}}}{name}")),
            },
        }
    }
}

/// What another status takes the place of.
fn is_said(child: &Child<'_>) -> bool {
    child.ns == ns::CLIENT && matches!(child.name, "show" | "status")
}
