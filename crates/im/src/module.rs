//! What an extension is: a card. See [`crate::modules`].

use crate::account::Account;
use crate::effects::{Effects, Query, Then};
use crate::host::Host;
use crate::item::{SessionId, Ticket};
use crate::modules::commands::Command;
use crate::policy::HostPolicy;
use crate::view::{Exit, Grant};
use std::sync::Arc;
use xmpp::{Element, IqType, Jid, Stanza, StanzaError};

/// A specification that is no XEP and the state implemented, for `docs/xeps.md`.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// `RFC 6121`.
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
    /// Of the text that was implemented from.
    pub version: &'static str,
    /// What of it is not done, in a few words; empty when all is.
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
    /// Who asks; stamped by the server.
    pub from: &'a Jid,
    /// The one child.
    pub child: &'a Element,
    /// The session that sent it, when it is the account's own client that asks; `None`: somebody else.
    pub session: Option<SessionId>,
    /// Goes with every commit that the iq sets off.
    pub ticket: &'a Ticket,
}

/// What a handler of an account gives back.
#[derive(Debug)]
pub enum Answer {
    /// `<iq type='result'>` with this content. It stands behind all effects that the handler pushed: behind its
    /// commit, if it made one.
    Result(Option<Element>),
    /// The store is asked; `then` sends the answer, by [`crate::modules::answer`].
    Query(Query, Then),
    /// The handler has pushed the answer itself.
    Sent,
}

pub type Handled = Result<Answer, StanzaError>;
/// For the account: its own client, or somebody else who passed [`Who`].
pub type AccountHandler = fn(&mut Account, &Iq<'_>, &mut Effects) -> Handled;
/// For the host itself, which has nothing to wait for: the content of the result.
pub type HostHandler = fn(&mut Host, &Iq<'_>, &mut Effects) -> Result<Option<Element>, StanzaError>;

/// The disco#info of a node of the host.
pub type NodeInfo = fn(&HostPolicy) -> Element;

/// Nodes and their titles, as this viewer sees them; `None`: the owner.
pub type AccountNodes = fn(&Account, Option<&Jid>) -> Vec<(String, String)>;

/// Who may ask an account. One permission function serves all handlers (LIMITS.md §2 row 4):
/// `modules::may_ask`. Whoever may not is answered as by an account that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The account's own sessions only.
    Owner,
    /// The owner, and whoever sees what leaves the account by this exit ([`crate::view::view`]).
    Viewer(Exit),
    /// The owner, and whom the access rules grant it.
    Granted(Grant),
    Anyone,
}

pub struct Module {
    pub name: &'static str,
    pub specs: &'static [XepSpec],
    /// disco#info identities, (category, type), of host and account besides what they are.
    pub identities: &'static [(&'static str, &'static str)],
    /// disco#info features of the host.
    pub host_features: &'static [&'static str],
    /// disco#info features of an account's bare JID.
    pub account_features: &'static [&'static str],
    /// (type, namespace, element, who may ask, handler), for iqs to an account's bare JID.
    pub account_iq: &'static [(IqType, &'static str, &'static str, Who, AccountHandler)],
    /// Nodes of the account and their titles (which may be empty), for disco#items of this viewer; `None`: the owner.
    pub account_nodes: AccountNodes,
    /// The ids of what is in such a node; `None`: the viewer sees none of that name.
    pub account_node_items: fn(&Account, Option<&Jid>, &str) -> Option<Vec<String>>,
    /// What may be known of such a node, for its disco#info. XEP-0128.
    pub account_node_form: fn(&Account, &str) -> Option<Element>,
    /// For iqs to the host.
    pub host_iq: &'static [(IqType, &'static str, &'static str, HostHandler)],
    /// disco#info of nodes of the host, but for the attribute `node`.
    pub host_nodes: &'static [(&'static str, NodeInfo)],
    /// Ad-hoc commands of an account, for its owner. XEP-0050.
    pub commands: &'static [Command],
    /// Clients send these iqs to the domain though they are about the sender's own account: `account_iq` serves
    /// them there too, for the owner alone.
    pub own_at_host: bool,
    /// Does the host offer it? If not, its iqs have no handler and its features are not shown.
    pub offered: fn(&HostPolicy) -> bool,
    /// A form of the host's disco#info. XEP-0128.
    pub host_form: fn(&HostPolicy) -> Option<Element>,
}

impl Module {
    pub const EMPTY: Module = Module {
        name: "",
        specs: &[],
        identities: &[],
        host_features: &[],
        account_features: &[],
        account_iq: &[],
        account_nodes: |_, _| Vec::new(),
        account_node_items: |_, _, _| None,
        account_node_form: |_, _| None,
        host_iq: &[],
        host_nodes: &[],
        commands: &[],
        own_at_host: false,
        offered: |_| true,
        host_form: |_| None,
    };
}
