//! What an extension is: a card. See [`crate::modules`].

use crate::account::Account;
use crate::effects::{Effects, Query, Then};
use crate::host::Host;
use crate::item::SessionId;
use std::sync::Arc;
use xmpp::{Element, IqType, Stanza, StanzaError};

/// A specification and the version implemented, for `docs/xeps.md`.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// `XEP-0199` or `RFC 6121`.
    pub name: &'static str,
    pub version: &'static str,
    /// What of it is not done, in a few words; empty when all is.
    pub missing: &'static str,
}

pub const fn xep(number: u16, version: &'static str) -> XepSpec {
    XepSpec { number, version, missing: "" }
}

/// A XEP on a card.
#[derive(Debug, Clone, Copy)]
pub struct XepSpec {
    pub number: u16,
    pub version: &'static str,
    pub missing: &'static str,
}

impl XepSpec {
    pub const fn without(self, missing: &'static str) -> XepSpec {
        XepSpec { missing, ..self }
    }
}

/// An iq get or set on its way, with its one child read as a tree.
pub struct Iq<'a> {
    pub stanza: &'a Arc<Stanza>,
    /// The one child.
    pub child: &'a Element,
    /// The session that sent it, when it is the account's own client that asks; `None`: somebody else.
    pub session: Option<SessionId>,
}

/// What a handler gives back.
pub enum Answer {
    /// `<iq type='result'>` with this content.
    Result(Option<Element>),
    /// The store is asked; `then` sends the answer.
    Query(Query, Then),
    /// The handler has pushed the answer itself, in order with its commit.
    Sent,
}

pub type Handled = Result<Answer, StanzaError>;
/// For the account: its own client, or somebody else who passed [`crate::view`].
pub type AccountHandler = fn(&mut Account, &Iq<'_>, &mut Effects) -> Handled;
/// For the host itself.
pub type HostHandler = fn(&mut Host, &Iq<'_>, &mut Effects) -> Handled;

/// Who may ask. One permission function serves all handlers (LIMITS.md §2 row 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The account's own sessions only; others get `forbidden`… the same as from an account that does not exist.
    Owner,
    /// Whoever may see the account's presence.
    Subscriber,
    Anyone,
}

pub struct Module {
    pub name: &'static str,
    pub specs: &'static [XepSpec],
    /// disco#info features of the host.
    pub host_features: &'static [&'static str],
    /// disco#info features of an account's bare JID.
    pub account_features: &'static [&'static str],
    /// (type, namespace, element, who may ask, handler), for iqs to an account's bare JID.
    pub account_iq: &'static [(IqType, &'static str, &'static str, Who, AccountHandler)],
    /// For iqs to the host.
    pub host_iq: &'static [(IqType, &'static str, &'static str, HostHandler)],
}

impl Module {
    pub const EMPTY: Module = Module { name: "", specs: &[], host_features: &[], account_features: &[], account_iq: &[], host_iq: &[] };
}
