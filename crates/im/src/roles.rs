//! Who plays which of the four parts: PRESENTITY, WATCHER, SENDER, INSTANT INBOX. RFC 2778 §2; a principal may be any of
//! them without the others.
//!
//! A session says its roles as it binds (Bind 2, XEP-0386 §3.2) or by iq; its listener may leave it fewer, and so may its
//! account. Without a word it has all.

use crate::account::Account;
use crate::effects::Effects;
use crate::leases;
use crate::modules::fetch;
use crate::tuples;
use crate::ways::{Flow, Passage};
use xmpp::{Element, IqType, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

pub const NS: &str = "urn:waft:roles:0";
/// Where an account's are kept, in the space of settings.
pub const KEY: &str = "roles";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Its presence is shown.
    pub presentity: bool,
    /// It is shown that of others.
    pub watcher: bool,
    /// It sends messages.
    pub sender: bool,
    /// It is given messages.
    pub inbox: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Roles::ALL
    }
}

impl Roles {
    pub const ALL: Roles = Roles { presentity: true, watcher: true, sender: true, inbox: true };
    pub const NONE: Roles = Roles { presentity: false, watcher: false, sender: false, inbox: false };
    pub const PRESENCE: Roles = Roles { presentity: true, watcher: true, ..Roles::NONE };
    pub const MESSAGES: Roles = Roles { sender: true, inbox: true, ..Roles::NONE };
    pub const NAMES: [&'static str; 4] = ["presentity", "watcher", "sender", "inbox"];

    /// With one more, by its name; `None` for a name that is none.
    pub fn with(mut self, name: &str) -> Option<Roles> {
        match name {
            "presentity" => self.presentity = true,
            "watcher" => self.watcher = true,
            "sender" => self.sender = true,
            "inbox" => self.inbox = true,
            _ => return None,
        }
        Some(self)
    }

    pub fn has(self, name: &str) -> bool {
        Roles::NONE.with(name).is_some_and(|one| self.and(one) == one)
    }

    /// What both have.
    pub fn and(self, other: Roles) -> Roles {
        Roles {
            presentity: self.presentity && other.presentity,
            watcher: self.watcher && other.watcher,
            sender: self.sender && other.sender,
            inbox: self.inbox && other.inbox,
        }
    }

    /// `<roles/>` with an empty element for each; at least one, and none that is not known.
    pub fn parse(element: &Element) -> Option<Roles> {
        let all = element
            .elements()
            .try_fold(Roles::NONE, |roles, child| if *child.ns == *NS { roles.with(&child.name) } else { None });
        all.filter(|roles| *roles != Roles::NONE)
    }

    pub fn to_element(self) -> Element {
        let names = Roles::NAMES.into_iter().filter(|name| self.has(name));
        Element::new("roles", NS).children_from(names.map(|name| Element::new(name, NS)))
    }

    /// As an account's were stored; all if nothing was.
    pub fn from_stored(value: Option<&[u8]>) -> Roles {
        match value {
            None => Roles::ALL,
            // What cannot be read forbids.
            Some(bytes) => Element::parse(bytes, NS).ok().and_then(|it| Roles::parse(&it)).unwrap_or(Roles::NONE),
        }
    }
}

/// What a stanza of a client is done as; `None`: anybody may.
fn needed(stanza: &Stanza) -> Option<&'static str> {
    let is = |name, ns| stanza.payload.has(name, ns);
    match stanza.kind {
        StanzaType::Message(_) => Some("sender"),
        StanzaType::Presence(PresenceType::Subscribe | PresenceType::Unsubscribe | PresenceType::Probe) => {
            Some("watcher")
        }
        StanzaType::Presence(PresenceType::Subscribed | PresenceType::Unsubscribed) => Some("presentity"),
        StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable) if stanza.to.is_some() => {
            Some("presentity")
        }
        StanzaType::Iq(IqType::Get) if is("fetch", fetch::NS) => Some("watcher"),
        StanzaType::Iq(IqType::Get | IqType::Set) if is("status", leases::NS) => Some("watcher"),
        StanzaType::Iq(IqType::Set) if is("publish", tuples::NS) => Some("presentity"),
        StanzaType::Presence(_) | StanzaType::Iq(_) => None,
    }
}

/// What the session's roles do not cover is refused. Its own broadcast is not: it is how a session says that it is there,
/// and for which messages; [`crate::presence`] shows it to nobody then.
///
/// # Errors
/// `not-allowed` with `<role-missing/>`.
pub fn outbound(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    let roles = passage.session.and_then(|id| account.session(id)).map_or(Roles::ALL, |session| session.roles);
    if roles == Roles::ALL {
        return Ok(Flow::Next);
    }
    match needed(&passage.stanza) {
        Some(role) if !roles.has(role) => Err(missing()),
        _ => Ok(Flow::Next),
    }
}

pub(crate) fn missing() -> StanzaError {
    StanzaError::from(StanzaCondition::NotAllowed).with_application("role-missing", NS)
}

/// An account that is no presentity is seen by nobody, one that is no inbox is given nothing: as if it did not exist.
///
/// # Errors
/// `service-unavailable`.
pub fn inbound(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    let roles = account.roles;
    let is_refused = match passage.stanza.kind {
        _ if roles == Roles::ALL => false,
        StanzaType::Message(_) => !roles.inbox,
        StanzaType::Presence(PresenceType::Subscribe | PresenceType::Unsubscribe | PresenceType::Probe) => {
            !roles.presentity
        }
        StanzaType::Presence(_) => !roles.watcher,
        StanzaType::Iq(IqType::Get | IqType::Set) => {
            let of_presentity = [fetch::NS, tuples::NS, crate::watchers::NS];
            !roles.presentity && passage.stanza.payload.first().is_some_and(|child| of_presentity.contains(&child.ns))
        }
        StanzaType::Iq(_) => false,
    };
    match passage.stanza.kind {
        _ if !is_refused => Ok(Flow::Next),
        StanzaType::Presence(kind) if kind != PresenceType::Subscribe => Ok(Flow::Done),
        _ => Err(StanzaCondition::ServiceUnavailable.into()),
    }
}
