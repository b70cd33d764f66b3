//! An account before there is one, XEP-0077 §3.1: the form and what comes back.

use crate::event::Registration;
use crate::password::prepare_password;
use xmpp::{Element, Jid, StanzaCondition, StanzaError};
use zeroize::Zeroizing;

pub(crate) const NS: &str = "jabber:iq:register";
/// The element that carries the token of an invitation, XEP-0379 §3.4, XEP-0445 §4.
const PREAUTH: &str = "urn:xmpp:pars:0";

/// What an iq wants.
pub(crate) enum Request {
    Form,
    /// XEP-0445 §4.
    Invited(Box<str>),
    Submit(Registration),
    Refused(StanzaError),
}

/// Reads an iq; `None` if it is not about registration.
pub(crate) fn read(iq: &Element, host: &str) -> Option<Request> {
    if let Some(preauth) = iq.find("preauth", PREAUTH) {
        return match (iq.attribute("type"), preauth.attribute("token")) {
            (Some("set"), Some(token)) => Some(Request::Invited(token.into())),
            _ => Some(Request::Refused(StanzaCondition::BadRequest.into())),
        };
    }
    let query = iq.find("query", NS)?;
    match iq.attribute("type") {
        Some("get") => Some(Request::Form),
        Some("set") => Some(submitted(query, host).map_or_else(Request::Refused, Request::Submit)),
        _ => None,
    }
}

fn submitted(query: &Element, host: &str) -> Result<Registration, StanzaError> {
    // Only a client that is authenticated has an account to remove. §3.2.
    if query.find("remove", NS).is_some() {
        return Err(StanzaCondition::UnexpectedRequest.into());
    }
    let field = |name| query.find(name, NS).map(Element::text_content).filter(|text| !text.is_empty());
    let missing =
        || StanzaError::from(StanzaCondition::NotAcceptable).with_text("A username and a password are needed.");
    let user = field("username").ok_or_else(missing)?;
    let password = field("password").map(Zeroizing::new).ok_or_else(missing)?;
    let account = Jid::from_parts(Some(&user), host, None)
        .map_err(|_| StanzaError::from(StanzaCondition::NotAcceptable).with_text("This cannot be a username."))?;
    let password = prepare_password(&password)
        .ok_or_else(|| StanzaError::from(StanzaCondition::NotAcceptable).with_text("This cannot be a password."))?;
    Ok(Registration { account: account.to_bare(), password, token: None })
}

/// §3.1, example 2.
pub(crate) fn form() -> Element {
    Element::new("query", NS)
        .child(Element::new("instructions", NS).text("Choose a username and a password for this server."))
        .child(Element::new("username", NS))
        .child(Element::new("password", NS))
}
