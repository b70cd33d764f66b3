//! Invitations by users, XEP-0401: a command that gives a link. Whoever has it may make an account here where that is
//! allowed (XEP-0445, in `stream` and `server`), and becomes a contact of the user (XEP-0379).

use super::commands::{Command, Filled, Shown, completed};
use super::{answer, unexpected};
use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Iq, Module, xep};
use std::sync::Arc;
use xmpp::ns::DATA_FORM;
use xmpp::{Element, Stanza, StanzaError};

/// §5.1.
const INVITE: &str = "urn:xmpp:invite#invite";
/// §12.1.
const FORM_TYPE: &str = "urn:xmpp:invite#invitation";

pub static MODULE: Module = Module {
    name: "invitations",
    specs: &[xep(401, "0.6.0").without("landing pages")],
    commands: &[Command {
        node: INVITE,
        name: "Invite user",
        form: |_| (Element::new("x", DATA_FORM), INVITE.into()),
        done: invite,
        more: super::commands::no_more,
        at_once: true,
        at_host: true,
        offered: |policy| policy.user_invites,
    }],
    ..Module::EMPTY
};

/// Accounts with the token of an invitation.
pub static TOKENS: Module = Module { name: "invited accounts", specs: &[xep(445, "0.2.0")], ..Module::EMPTY };

/// Contacts with the token of an invitation.
pub static CONTACTS: Module =
    Module { name: "invited contacts", specs: &[xep(379, "0.3.3").without("landing pages")], ..Module::EMPTY };

fn invite(account: &mut Account, _: &Iq<'_>, _: &Filled<'_>, _: &mut Effects) -> Result<Shown, StanzaError> {
    Ok(Shown::Ask(Query::Invite { account: account.jid.clone() }, show))
}

/// §5.1, example 4.
fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let content = match came {
        QueryAnswer::Invitation { uri, expires } => {
            let field = |var: &str, kind: &str, value: &str| {
                Element::new("field", DATA_FORM)
                    .attr("var", var)
                    .attr("type", kind)
                    .child(Element::new("value", DATA_FORM).text(value))
            };
            let form = Element::new("x", DATA_FORM)
                .attr("type", "result")
                .child(field("FORM_TYPE", "hidden", FORM_TYPE))
                .child(field("uri", "text-single", &uri))
                .child(field("expire", "text-single", &expires.to_xmpp()));
            Ok(Some(completed(INVITE, form)))
        }
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Effect;
    use crate::item::Item;
    use crate::testing::{Scene, account};

    const COMMAND: &str = "<iq type='set' id='c1' to='montague.example'><command \
        xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite' action='execute'/></iq>";

    fn romeo(invites: bool) -> Scene {
        account("romeo@montague.example").policy(|policy| policy.user_invites = invites).with("orchard", 0)
    }

    // XEP-0401 §5.1.
    #[test]
    fn a_user_who_may_invite_has_a_link_at_once() {
        let mut romeo = romeo(true);
        let asked = romeo.sends("orchard", COMMAND).list.into_iter().find_map(|effect| match effect {
            Effect::Query { query: Query::Invite { .. }, iq, session, then } => Some((iq, session, then)),
            _ => None,
        });
        let (iq, session, then) = asked.expect("the house is asked");
        let answer = QueryAnswer::Invitation {
            uri: "xmpp:romeo@montague.example?roster;preauth=T".into(),
            expires: xmpp::Stamp(0),
        };
        let said = romeo.item(Item::Answered { iq, session, answer, then }).delivered("orchard").remove(0);
        assert!(said.contains("status='completed'") && said.contains("?roster;preauth=T</value>"), "{said}");
    }

    #[test]
    fn where_users_may_not_invite_there_is_no_such_command() {
        let mut romeo = romeo(false);
        let fx = romeo.sends("orchard", COMMAND);
        assert!(!fx.list.iter().any(|effect| matches!(effect, Effect::Query { .. })), "{:?}", fx.list);
    }
}
