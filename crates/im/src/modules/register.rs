//! In-Band Registration, XEP-0077, for those who have an account: what is on file, a new password, removal.
//!
//! Whose account it is, the session says, never the request (LIMITS.md §2 row 24). Registration of strangers happens
//! before a session exists; [`form`] and [`request`] are its words.

use super::data_form;
use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer, Secret};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use std::sync::Arc;
use xmpp::{BareJid, Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "jabber:iq:register";
const FORM_TYPES: &[&str] = &[NS, "jabber:iq:register:changepassword"];
/// As long as an address part may be, RFC 7622 §3.1.
const PASSWORD_BYTES_MAX: usize = 1023;

pub static MODULE: Module = Module {
    name: "register",
    specs: &[xep(77, "2.4")],
    host_features: &[NS],
    account_iq: &[(IqType::Get, NS, "query", Who::Owner, on_file), (IqType::Set, NS, "query", Who::Owner, change)],
    own_at_host: true,
    ..Module::EMPTY
};

/// What strangers are asked for. XEP-0077 §3.1, example 2.
pub fn form() -> Element {
    Element::new("query", NS)
        .child(Element::new("instructions", NS).text("Choose a username and password."))
        .child(Element::new("username", NS))
        .child(Element::new("password", NS))
}

/// Username, as it came, and password of a set, from its plain fields or its form.
///
/// # Errors
/// `not-acceptable` when one is missing or empty, or the password is too long. XEP-0077 §3.1.
pub fn request(query: &Element) -> Result<(String, Secret), StanzaError> {
    let form = data_form::submitted(query, FORM_TYPES);
    let read = |name: &str| match form {
        Some(form) => data_form::value(form, name),
        None => query.find(name, NS).map(Element::text_content),
    };
    let given = |name: &str| read(name).filter(|text| !text.is_empty());
    match (given("username"), given("password")) {
        (Some(username), Some(password)) if password.len() <= PASSWORD_BYTES_MAX => Ok((username, Secret(password))),
        _ => Err(StanzaCondition::NotAcceptable.into()),
    }
}

/// XEP-0077 §3.1, example 3. The password is not on file.
fn on_file(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let username = account.jid.local().unwrap_or_default();
    let query = Element::new("query", NS)
        .child(Element::new("registered", NS))
        .child(Element::new("username", NS).text(username))
        .child(Element::new("password", NS));
    Ok(Answer::Result(Some(query)))
}

fn change(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    if iq.child.find("remove", NS).is_some() { remove(account, iq) } else { change_password(account, iq) }
}

/// XEP-0077 §3.2.
fn remove(account: &mut Account, iq: &Iq<'_>) -> Handled {
    if iq.child.elements().count() != 1 {
        return Err(StanzaCondition::BadRequest.into());
    }
    if !account.policy.account_removal {
        return Err(StanzaCondition::NotAllowed.into());
    }
    account.leaving = iq.session.map(|session| (session, iq.stanza.clone()));
    Ok(Answer::Query(Query::RemoveAccount { account: account.jid.clone() }, not_removed))
}

/// XEP-0077 §3.3.
fn change_password(account: &mut Account, iq: &Iq<'_>) -> Handled {
    if !account.policy.password_change {
        return Err(StanzaCondition::NotAllowed.into());
    }
    let (username, password) = request(iq.child).map_err(|_| StanzaCondition::BadRequest)?;
    if !names(&username, &account.jid) {
        return Err(StanzaCondition::NotAllowed.into());
    }
    Ok(Answer::Query(Query::ChangePassword { account: account.jid.clone(), password }, done))
}

/// Is it the account's localpart, or (COMPAT: forms, example 24) its bare JID?
fn names(username: &str, account: &BareJid) -> bool {
    let is_local = || xmpp::jid::prepare_local(username).is_ok_and(|local| Some(local.as_str()) == account.local());
    if username.contains('@') { BareJid::parse(username).is_ok_and(|jid| jid == *account) } else { is_local() }
}

/// Success was told before the streams were closed (`session::remove_account`).
fn not_removed(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    account.leaving = None;
    if !matches!(came, QueryAnswer::Done) {
        answer(account, iq, session, Err(unexpected(came)), fx);
    }
}

fn done(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let content = match came {
        QueryAnswer::Done => Ok(None),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::{EdgeItem, Effect};
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account};

    fn bill() -> Scene {
        account("bill@shakespeare.example").with("globe", 0)
    }

    fn sets(scene: &mut Scene, content: &str) -> Fx {
        let xml = format!(
            "<iq type='set' id='r1' to='shakespeare.example'><query xmlns='jabber:iq:register'>{content}</query></iq>"
        );
        scene.sends("globe", &xml)
    }

    fn query(fx: &Fx) -> Option<&Query> {
        fx.list.iter().find_map(|effect| match effect {
            Effect::Query { query, .. } => Some(query),
            _ => None,
        })
    }

    #[test]
    fn who_is_registered_hears_so_without_the_password() {
        let fx = bill().sends("globe", "<iq type='get' id='r1'><query xmlns='jabber:iq:register'/></iq>");
        let answer = &fx.delivered("globe")[0];
        assert!(answer.contains("<registered/><username>bill</username><password/>"), "{answer}");
    }

    #[test]
    fn a_new_password_is_for_the_account_of_the_session() {
        let fx = sets(&mut bill(), "<username>Bill</username><password>newpass</password>");
        let Some(Query::ChangePassword { account, password }) = query(&fx) else { panic!("{:?}", fx.list) };
        assert_eq!((account.as_str(), password.0.as_str()), ("bill@shakespeare.example", "newpass"));
    }

    #[test]
    fn a_new_password_comes_by_form_too() {
        let form = "<x xmlns='jabber:x:data' type='submit'>\
            <field var='FORM_TYPE'><value>jabber:iq:register:changepassword</value></field>\
            <field var='username'><value>bill@shakespeare.example</value></field>\
            <field var='password'><value>groundlings</value></field></x>";
        let fx = sets(&mut bill(), form);
        assert!(matches!(query(&fx), Some(Query::ChangePassword { password, .. }) if password.0 == "groundlings"));
    }

    // LIMITS.md §2 row 24.
    #[test]
    fn a_foreign_username_is_refused() {
        for username in ["juliet", "juliet@shakespeare.example", "bill@elsewhere.example", "bill@", "@"] {
            let fx = sets(&mut bill(), &format!("<username>{username}</username><password>newpass</password>"));
            assert!(query(&fx).is_none());
            assert!(fx.delivered("globe")[0].contains("not-allowed"), "{username}");
        }
    }

    // XEP-0077 §3.3: the password that is stays.
    #[test]
    fn a_missing_or_empty_password_or_username_is_a_bad_request() {
        let contents =
            ["", "<username>bill</username>", "<username>bill</username><password/>", "<password>newpass</password>"];
        for content in contents {
            let fx = sets(&mut bill(), content);
            assert!(query(&fx).is_none());
            assert!(fx.delivered("globe")[0].contains("bad-request"), "{content}");
        }
    }

    #[test]
    fn the_refusal_of_a_password_change_does_not_repeat_the_password() {
        let fx = sets(&mut bill(), "<username>juliet</username><password>m1cro$oft</password>");
        assert!(!fx.delivered("globe")[0].contains("m1cro$oft"));
    }

    // XEP-0077 §3.2, example 12.
    #[test]
    fn removal_is_of_the_account_of_the_session_and_answered_after_its_commit_before_the_stream_is_closed() {
        let mut bill = bill();
        let fx = sets(&mut bill, "<remove/>");
        assert!(
            matches!(query(&fx), Some(Query::RemoveAccount { account }) if account.as_str() == "bill@shakespeare.example")
        );
        let fx = bill.item(Item::Remove { ticket: Default::default() });
        let result = |effect: &Effect| matches!(effect, Effect::Edge { item: EdgeItem::Deliver { .. }, .. });
        assert!(fx.delivered("globe")[0].contains("type='result'"));
        assert!(fx.in_order(|effect| matches!(effect, Effect::Commit { .. }), result));
        assert!(fx.in_order(result, |effect| matches!(effect, Effect::Edge { item: EdgeItem::Close(_), .. })));
    }

    #[test]
    fn a_removal_that_the_house_refuses_is_refused_to_the_client() {
        let mut bill = bill();
        let asked = sets(&mut bill, "<remove/>").list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, .. } => Some((iq, session, then)),
            _ => None,
        });
        let (iq, session, then) = asked.expect("a query");
        let answer = QueryAnswer::Refused(StanzaCondition::InternalServerError.into());
        let fx = bill.item(Item::Answered { iq, session, answer, then });
        assert!(fx.delivered("globe")[0].contains("internal-server-error"));
        assert!(bill.leaving.is_none());
    }

    // XEP-0077 §3.2, table 1.
    #[test]
    fn removal_with_anything_beside_it_is_a_bad_request() {
        let fx = sets(&mut bill(), "<remove/><username>bill</username>");
        assert!(query(&fx).is_none());
        assert!(fx.delivered("globe")[0].contains("bad-request"));
    }

    #[test]
    fn what_the_operator_does_not_allow_is_not_allowed() {
        let mut bill = bill().policy(|policy| (policy.password_change, policy.account_removal) = (false, false));
        for content in ["<remove/>", "<username>bill</username><password>newpass</password>"] {
            let fx = sets(&mut bill, content);
            assert!(query(&fx).is_none());
            assert!(fx.delivered("globe")[0].contains("not-allowed"));
        }
    }

    #[test]
    fn the_refusal_of_the_house_goes_to_the_client() {
        let mut bill = bill();
        let fx = sets(&mut bill, "<username>bill</username><password>newpass</password>");
        let asked = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, .. } => Some((iq, session, then)),
            _ => None,
        });
        let (iq, session, then) = asked.expect("a query");
        let answer = QueryAnswer::Refused(StanzaCondition::NotAcceptable.into());
        assert!(
            bill.item(Item::Answered { iq, session, answer, then }).delivered("globe")[0].contains("not-acceptable")
        );
    }
}
