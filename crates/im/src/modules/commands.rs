//! Ad-Hoc Commands, XEP-0050: what an account's owner can have done by any client that shows forms.
//!
//! The commands stand on the cards of their modules. Each has two forms at most; a command keeps no state between its
//! stages: what it must know again is the session's id.

use super::offered;
use crate::account::Account;
use crate::effects::{Effects, Query, Then};
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::policy::HostPolicy;
use xmpp::ns::{DATA_FORM, DISCO_ITEMS};
use xmpp::{Element, IqType, StanzaCondition, StanzaError};

pub const NS: &str = "http://jabber.org/protocol/commands";

pub static MODULE: Module = Module {
    name: "commands",
    specs: &[xep(50, "1.3.0").without("stages beyond the second form, going back")],
    account_features: &[NS],
    account_iq: &[(IqType::Set, NS, "command", Who::Owner, execute)],
    ..Module::EMPTY
};

/// One command of an account.
pub struct Command {
    pub node: &'static str,
    pub name: &'static str,
    /// The form to fill in, and the session's id.
    pub form: fn(&mut Account) -> (Element, String),
    /// What was filled in; gives what is shown in the end.
    pub done: fn(&mut Account, &Iq<'_>, &Filled<'_>, &mut Effects) -> Result<Shown, StanzaError>,
    /// The second form, if what was filled in is of the first one.
    pub more: fn(&mut Account, &Filled<'_>) -> Result<Option<Element>, StanzaError>,
    /// There is nothing to fill in: the first stage is the last.
    pub at_once: bool,
    /// Clients look for it at the host.
    pub at_host: bool,
    /// May it be had here?
    pub offered: fn(&HostPolicy) -> bool,
}

/// For a command of one form.
pub fn no_more(_: &mut Account, _: &Filled<'_>) -> Result<Option<Element>, StanzaError> {
    Ok(None)
}

/// A submitted form.
pub struct Filled<'a> {
    pub form: Option<&'a Element>,
    /// The session's id, as [`Command::form`] gave it.
    pub session: &'a str,
}

impl Filled<'_> {
    /// The values of a field; none if it is missing.
    pub fn values(&self, var: &str) -> Vec<String> {
        let fields = self.form.into_iter().flat_map(Element::elements);
        let field = fields.filter(|field| field.is("field", DATA_FORM) && field.attribute("var") == Some(var));
        let values = field.flat_map(Element::elements).filter(|value| value.is("value", DATA_FORM));
        values.map(|value| value.text_content().trim().to_owned()).filter(|value| !value.is_empty()).collect()
    }

    pub fn value(&self, var: &str) -> Option<String> {
        self.values(var).into_iter().next()
    }
}

/// What a command ends with.
pub enum Shown {
    Form(Element),
    Note(String),
    /// The house is asked first; what it answers is shown by [`completed`].
    Ask(Query, Then),
}

fn all(policy: &HostPolicy) -> impl Iterator<Item = &'static Command> {
    offered(policy).flat_map(|module| module.commands).filter(|command| (command.offered)(policy))
}

/// The commands, for disco#items of the node [`NS`]. §2.2.
pub(super) fn items(account: &Account) -> Vec<Element> {
    all(&account.policy).map(|command| item(account.jid.as_str(), command)).collect()
}

/// Those of an account that clients look for at its host.
pub fn items_at_host(policy: &HostPolicy) -> Vec<Element> {
    all(policy).filter(|command| command.at_host).map(|command| item(policy.domain.as_str(), command)).collect()
}

fn item(jid: &str, command: &Command) -> Element {
    Element::new("item", DISCO_ITEMS).attr("jid", jid).attr("node", command.node).attr("name", command.name)
}

/// Is it a command that clients send to the host and the account serves?
pub(super) fn is_at_host(policy: &HostPolicy, node: &str) -> bool {
    all(policy).any(|command| command.at_host && command.node == node)
}

/// The end of a command that had to ask ([`Shown::Ask`]).
pub(super) fn completed(node: &str, form: Element) -> Element {
    Element::new("command", NS).attr("node", node).attr("sessionid", node).attr("status", "completed").child(form)
}

/// Is it the node of a command? §2.3.
pub(super) fn named(account: &Account, node: &str) -> Option<&'static Command> {
    all(&account.policy).find(|command| command.node == node)
}

fn execute(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let bad = |condition: &'static str, of: StanzaCondition| StanzaError::from(of).with_application(condition, NS);
    let node = iq.child.attribute("node").unwrap_or_default();
    let command = named(account, node).ok_or(StanzaCondition::ItemNotFound)?;
    let answer = |status: &str, session: &str| {
        Element::new("command", NS).attr("node", node).attr("sessionid", session).attr("status", status)
    };
    let session = iq.child.attribute("sessionid");
    match (iq.child.attribute("action").unwrap_or("execute"), session) {
        ("cancel", session) => return Ok(Answer::Result(Some(answer("canceled", session.unwrap_or_default())))),
        ("execute" | "complete" | "next", _) => {}
        ("prev", _) => return Err(bad("bad-action", StanzaCondition::BadRequest)),
        _ => return Err(bad("malformed-action", StanzaCondition::BadRequest)),
    }
    let form = iq.child.find("x", DATA_FORM);
    let asks = |session: &str, form: Element| {
        let actions = Element::new("actions", NS).attr("execute", "complete").child(Element::new("complete", NS));
        Ok(Answer::Result(Some(answer("executing", session).child(actions).child(form))))
    };
    if form.is_none() && !command.at_once {
        let (form, session) = (command.form)(account);
        return asks(&session, form);
    }
    if !command.at_once && session.is_none() {
        return Err(bad("bad-sessionid", StanzaCondition::BadRequest));
    }
    let form = form.filter(|form| form.attribute("type") == Some("submit"));
    if form.is_none() && !command.at_once {
        return Err(bad("bad-payload", StanzaCondition::BadRequest));
    }
    let filled = Filled { form, session: session.unwrap_or_default() };
    if let Some(form) = (command.more)(account, &filled)? {
        return asks(filled.session, form);
    }
    let shown = match (command.done)(account, iq, &filled, fx)? {
        Shown::Ask(query, then) => return Ok(Answer::Query(query, then)),
        shown => shown,
    };
    let answer = answer("completed", session.unwrap_or(node));
    Ok(Answer::Result(Some(match shown {
        Shown::Form(form) => answer.child(form),
        Shown::Ask(..) => answer,
        Shown::Note(text) => answer.child(Element::new("note", NS).attr("type", "info").text(text)),
    })))
}
