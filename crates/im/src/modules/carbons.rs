//! Message Carbons, XEP-0280: every client of an account sees its whole conversation.

use super::hints;
use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::session;
use std::sync::Arc;
use xmpp::write::{Additions, Wire, write_stanza};
use xmpp::{IqType, MessageType, Stanza, StanzaCondition, StanzaType};

pub const NS: &str = "urn:xmpp:carbons:2";
const FORWARD: &str = "urn:xmpp:forward:0";
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Payloads of instant messaging besides a body. XEP-0280 §6.1.
const IM_PAYLOADS: &[&str] = &[
    "urn:xmpp:receipts",
    "http://jabber.org/protocol/chatstates",
    "urn:xmpp:chat-markers:0",
    "jabber:x:conference",
];

pub static MODULE: Module = Module {
    name: "carbons",
    specs: &[
        xep(280, "1.0.1").without("copies of errors (§6.1)"),
        xep(297, "1.0"),
    ],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Set, NS, "enable", Who::Owner, enable),
        (IqType::Set, NS, "disable", Who::Owner, disable),
    ],
    ..Module::EMPTY
};

fn enable(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    switch(account, iq, true)
}

fn disable(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    switch(account, iq, false)
}

/// Repeating it is no error. XEP-0280 §10.1.
fn switch(account: &mut Account, iq: &Iq<'_>, carbons: bool) -> Handled {
    let session = iq
        .session
        .and_then(|id| account.session_mut(id))
        .ok_or(StanzaCondition::NotAllowed)?;
    session.carbons = carbons;
    Ok(Answer::Result(None))
}

/// Which side of the conversation the account is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Sent,
    Received,
}

/// Gives a copy of a message to every session that asked for carbons and has not had the message: `had` are those
/// that took it (received), or the one that sent it (sent). `more` is what the server added to the message, so that
/// the copy carries the same stanza-id.
pub fn copies(
    account: &mut Account,
    message: &Stanza,
    side: Side,
    had: &[SessionId],
    more: &Additions,
    fx: &mut Effects,
) {
    let wanted = |account: &Account| -> Vec<SessionId> {
        account
            .sessions
            .iter()
            .filter(|s| s.carbons && !had.contains(&s.id))
            .map(|s| s.id)
            .collect()
    };
    let sessions = wanted(account);
    if sessions.is_empty() || !is_eligible(message, side) {
        return;
    }
    let Some(copy) = wrap(account, message, side, more) else {
        return;
    };
    let copy = Arc::new(copy);
    for id in sessions {
        let Some(to) = account
            .session(id)
            .map(|session| session.jid.clone().into())
        else {
            continue;
        };
        let delivery = Delivery {
            stanza: copy.clone(),
            to: Some(to),
            more: Additions::default(),
            position: None,
        };
        session::deliver(account, id, delivery, fx);
    }
}

/// Is the message one that other clients should see? XEP-0280 §6.1, §9.
pub fn is_eligible(message: &Stanza, side: Side) -> bool {
    let StanzaType::Message(kind) = message.kind else {
        return false;
    };
    let payload = &message.payload;
    if payload.has("private", NS) || hints::of(message).no_copy {
        return false;
    }
    let room = payload.child("x", MUC_USER);
    let invites = room.is_some_and(|x| x.to_element().find("invite", MUC_USER).is_some());
    if room.is_some() && !invites && side == Side::Received {
        // A private message of a room: the room itself gives it to every client that joined.
        return false;
    }
    match kind {
        MessageType::Groupchat | MessageType::Error => false,
        MessageType::Chat => true,
        MessageType::Normal
            if payload
                .children()
                .any(|child| child.name == "body" && child.ns == xmpp::ns::CLIENT) =>
        {
            true
        }
        MessageType::Normal | MessageType::Headline => {
            invites
                || payload
                    .children()
                    .any(|child| IM_PAYLOADS.contains(&child.ns))
        }
    }
}

/// A client has no business to send what looks like a copy made by a server. LIMITS.md §2 row 16.
pub fn is_forged(message: &Stanza) -> bool {
    message
        .payload
        .children()
        .any(|child| child.ns == NS && matches!(child.name, "sent" | "received"))
}

/// The message in `<forwarded/>` in a message from the account itself. XEP-0280 §7, §8; XEP-0297.
fn wrap(account: &Account, message: &Stanza, side: Side, more: &Additions) -> Option<Stanza> {
    let name = match side {
        Side::Sent => "sent",
        Side::Received => "received",
    };
    let mut bytes = Vec::with_capacity(message.weight() + 256);
    bytes.extend_from_slice(
        format!("<message><{name} xmlns='{NS}'><forwarded xmlns='{FORWARD}'>").as_bytes(),
    );
    write_stanza(&mut bytes, message, None, more, Wire::WebSocket);
    bytes.extend_from_slice(format!("</forwarded></{name}></message>").as_bytes());
    let mut copy = Stanza::parse(&bytes).ok()?;
    copy.kind = message.kind;
    Some(copy.with_from(account.jid.clone()))
}
