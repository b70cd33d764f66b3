//! Service administration by forms, XEP-0133 with XEP-0050: the commands of the admin socket for accounts that the
//! configuration names in `[admin] accounts`, by any client that shows forms.
//!
//! A form becomes the same requests as a command on the socket does, and is noted in the audit log the same way. Nobody
//! else is told that there is anything. [`commands`] has the table of them, [`forms`] what is asked and shown.

mod commands;
mod forms;

use super::{House, Ready};
use crate::admin::Answer;
use crate::admin::server::noted;
use commands::{COMMANDS, CREATE_ACCOUNT, Command, EDIT_BLACKLIST, INVITATION, blacklist, blocked_now, invitation};
use forms::Filled;
pub use forms::plain;
use im::Ticket;
use im::modules::commands::{NS, items_at_host};
use im::modules::data_form::{field, form};
use std::sync::Arc;
use xmpp::ns::{DATA_FORM, DISCO_INFO, DISCO_ITEMS};
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, StanzaType};

impl House {
    /// Answers what an administrator asks the host about commands; `false`: it is nothing of that, or comes from
    /// somebody else.
    pub fn administer(self: &Arc<House>, stanza: &Arc<Stanza>, to: &Jid, ticket: &Ticket) -> bool {
        let StanzaType::Iq(kind @ (IqType::Get | IqType::Set)) = stanza.kind else { return false };
        let (Some(child), Some(from)) = (stanza.payload.first(), &stanza.from) else { return false };
        let node = child.attribute("node").unwrap_or_default().into_owned();
        let known = COMMANDS.iter().find(|command| command.node() == node);
        let asks = match (kind, child.ns) {
            (IqType::Get, DISCO_ITEMS) => node == NS,
            (IqType::Get, DISCO_INFO) => node == NS || known.is_some(),
            (IqType::Set, NS) => child.name == "command",
            _ => false,
        };
        // (`from` is stamped by the account's own server, which is this one.)
        let is_admin = self.config.read().admin.accounts.iter().any(|admin| admin == from.bare_str());
        if !asks || !to.is_bare() || !is_admin || self.host(from.domain()).is_none() {
            return false;
        }
        let child = child.to_element();
        if kind == IqType::Get {
            let content = if *child.ns == *DISCO_ITEMS { self.items(to) } else { info(&node, known) };
            self.answered(stanza.result(Some(content)), ticket.clone());
            return true;
        }
        let (house, stanza, ticket) = (self.clone(), stanza.clone(), ticket.clone());
        let (by, host) = (from.bare_str().to_owned(), to.domain().to_owned());
        self.runtime.spawn(async move {
            let answer = match house.execute(&child, known, &by, &host).await {
                Ok(content) => Some(stanza.result(Some(content))),
                Err(error) => stanza.error(&error),
            };
            if let Some(answer) = answer {
                house.answered(answer, ticket);
            }
        });
        true
    }

    fn answered(self: &Arc<House>, answer: Stanza, ticket: Ticket) {
        let Some(to) = answer.to.clone() else { return };
        let mut ready = Ready::new();
        self.tell(to, Arc::new(answer), im::Ingress { stream: 0, ordinal: 0 }, ticket, &mut ready);
        self.work(&mut ready);
    }

    /// XEP-0050 §3: a form, then what it came to.
    async fn execute(
        &self,
        child: &Element,
        known: Option<&Command>,
        by: &str,
        host: &str,
    ) -> Result<Element, StanzaError> {
        let command = known.ok_or(StanzaCondition::ItemNotFound)?;
        let answer = |status: &str| {
            let session = child.attribute("sessionid").unwrap_or(command.node.1);
            Element::new("command", NS).attr("node", command.node()).attr("sessionid", session).attr("status", status)
        };
        match child.attribute("action").unwrap_or("execute") {
            "cancel" => return Ok(answer("canceled")),
            "execute" | "complete" | "next" => {}
            _ => return Err(StanzaError::from(StanzaCondition::BadRequest).with_application("bad-action", NS)),
        }
        let submitted = child.find("x", DATA_FORM).filter(|form| form.attribute("type") == Some("submit"));
        if submitted.is_none() && !command.fields.is_empty() {
            let actions = Element::new("actions", NS).attr("execute", "complete").child(Element::new("complete", NS));
            return Ok(answer("executing").child(actions).child(command.form(self)));
        }
        let refused = |why: String| StanzaError::from(StanzaCondition::NotAcceptable).with_text(why);
        let filled = Filled { form: submitted, host };
        let requests = match command.node {
            CREATE_ACCOUNT => vec![invitation(&filled, by)],
            EDIT_BLACKLIST => blacklist(&filled, blocked_now(self)).map_err(refused)?,
            _ => (command.requests)(&filled).map_err(refused)?,
        };
        let ops = self.admin.get().ok_or(StanzaCondition::InternalServerError)?;
        let mut answers = Vec::new();
        for request in requests {
            match noted(request, &**ops, by).await {
                Answer::Refused { why } => return Err(refused(why)),
                Answer::Invited { uri, invitation } => {
                    let values = [("uri", uri.as_str()), ("expire", invitation.expires.as_str())];
                    let fields = values.map(|(var, value)| field(var, [value]).attr("type", "text-single"));
                    return Ok(answer("completed").child(form("result", INVITATION).children_from(fields)));
                }
                answer => answers.push(answer),
            }
        }
        let result = command.shown.form(command.name, &filled.accounts(), &answers);
        let done = || Element::new("note", NS).attr("type", "info").text("Done.");
        Ok(answer("completed").child(result.unwrap_or_else(done)))
    }
}

impl House {
    /// An administrator's, and those that every user has.
    fn items(&self, host: &Jid) -> Element {
        let item = |command: &Command| {
            let item = Element::new("item", DISCO_ITEMS).attr("jid", host.as_str());
            item.attr("node", command.node()).attr("name", command.name)
        };
        let of_users = self.policy(host.domain()).map(|policy| items_at_host(&policy)).unwrap_or_default();
        let items = COMMANDS.iter().map(item).chain(of_users);
        Element::new("query", DISCO_ITEMS).attr("node", NS).children_from(items)
    }
}

/// XEP-0050 §2.2, §2.3.
fn info(node: &str, known: Option<&Command>) -> Element {
    let kind = if known.is_some() { "command-node" } else { "command-list" };
    let identity = Element::new("identity", DISCO_INFO).attr("category", "automation").attr("type", kind);
    let identity = identity.attr_opt("name", known.map(|command| command.name));
    let feature = |var: &str| Element::new("feature", DISCO_INFO).attr("var", var);
    Element::new("query", DISCO_INFO).attr("node", node).child(identity).child(feature(NS)).child(feature(DATA_FORM))
}
