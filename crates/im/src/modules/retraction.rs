//! Message Retraction, XEP-0424, as far as it is the archive's: the retraction is kept like any message, and in place of
//! what was retracted stands a tombstone.
//!
//! A retraction counts for what the same bare JID sent (§5), and changes this account's archive alone.

use crate::account::Account;
use crate::effects::{Effect, Effects, Query, QueryAnswer};
use crate::item::{SessionId, Ticket};
use crate::module::{Module, xep};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use store::{Change, PageQuery, Record};
use xmpp::write::to_stored;
use xmpp::{Element, Jid, Stanza, StanzaError};

pub const NS: &str = "urn:xmpp:message-retract:1";
const TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";
/// Messages of the conversation that are looked through, the latest first, and how old they may be.
const SEARCH_MAX: usize = 256;
const SEARCH_BYTES_MAX: usize = 4 << 20;
const SEARCH_SECONDS: i64 = 30 * 24 * 3_600;

pub static MODULE: Module = Module {
    name: "retraction",
    specs: &[xep(424, "0.4.2")],
    host_features: &[NS, TOMBSTONE],
    account_features: &[NS, TOMBSTONE],
    offered: |policy| policy.archive,
    ..Module::EMPTY
};

fn retracted(message: &Stanza) -> Option<String> {
    let id = message.payload.child("retract", NS)?.attribute("id")?.into_owned();
    // Without an id of its own no tombstone can name the retraction. §4.
    message.id.as_deref().filter(|own| !own.is_empty() && !id.is_empty()).map(|_| id)
}

/// A retraction that has come into the archive: what it names is looked for.
pub fn kept(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(position) = passage.position.filter(|_| passage.archived && retracted(&passage.stanza).is_some()) else {
        return Ok(Flow::Next);
    };
    let outgoing = passage.session.is_some();
    let Some(peer) = (if outgoing { Some(passage.to.clone()) } else { passage.stanza.from.clone() }) else {
        return Ok(Flow::Next);
    };
    let query = PageQuery {
        with: Some(Jid::from(peer.to_bare())),
        start: Some(account.now.utc.plus_seconds(-SEARCH_SECONDS)),
        before: Some(position),
        backwards: true,
        limit: SEARCH_MAX,
        bytes_max: Some(SEARCH_BYTES_MAX),
        ..PageQuery::default()
    };
    let query = Query::Page { account: account.jid.clone(), query: Box::new(query) };
    fx.push(Effect::Query { query, iq: passage.stanza.clone(), session: None, then: found });
    Ok(Flow::Next)
}

fn found(account: &mut Account, retraction: &Arc<Stanza>, _: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let QueryAnswer::Page(page) = came else { return };
    let Some((position, stanza)) = page.records.iter().rev().find_map(|record| tombstone(record, retraction, account))
    else {
        return;
    };
    fx.push(Effect::Count("messages_retracted"));
    fx.commit(vec![Change::Rewrite { account: account.jid.clone(), position, stanza }], None, &Ticket::default());
}

/// What stands in place of the record, if it is the one that the retraction names.
fn tombstone(record: &Record, retraction: &Stanza, account: &Account) -> Option<(i64, Vec<u8>)> {
    let message = Stanza::parse(&record.stanza).ok()?;
    let same_sender = message.from.as_ref()?.same_bare(retraction.from.as_ref()?);
    if !same_sender || message.id.as_deref() != retracted(retraction).as_deref() {
        return None;
    }
    let retracted =
        Element::new("retracted", NS).attr("id", retraction.id.as_deref()?).attr("stamp", account.now.utc.to_xmpp());
    Some((record.position, to_stored(&message.with_children([retracted]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account};
    use store::Page;

    const ROMEO: &str = "romeo@montague.example/x";

    fn retraction(id: &str) -> String {
        format!("<retract xmlns='{NS}' id='{id}'/><store xmlns='urn:xmpp:hints'/>")
    }

    fn rewritten(scene: &mut Scene, fx: Fx, records: &[Record]) -> Vec<(i64, String)> {
        let query = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, query: Query::Page { query, .. } } => {
                assert_eq!(query.with.map(|with| with.to_string()).as_deref(), Some("romeo@montague.example"));
                Some((iq, session, then))
            }
            _ => None,
        });
        let Some((iq, session, then)) = query else { return Vec::new() };
        let answer = QueryAnswer::Page(Page { records: records.to_vec(), ..Page::default() });
        let fx = scene.item(Item::Answered { iq, session, answer, then });
        let changes = fx.commits().into_iter().filter_map(|change| match change {
            Change::Rewrite { position, stanza, .. } => Some((position, String::from_utf8(stanza).expect("UTF-8"))),
            _ => None,
        });
        changes.collect()
    }

    fn message(from: &str, id: &str, content: &str) -> String {
        format!("<message type='chat' from='{from}' id='{id}'>{content}</message>")
    }

    // §4: example 7.
    #[test]
    fn a_tombstone_stands_where_the_retracted_message_was() {
        let mut juliet = account("juliet@capulet.example");
        let secret = juliet.receive(&message(ROMEO, "m1", "<body>secret</body><x xmlns='urn:leak'/>")).appended();
        let other = juliet.receive(&message(ROMEO, "m2", "<body>other</body>")).appended();
        let fx = juliet.receive(&message("romeo@montague.example/y", "r1", &retraction("m1")));
        assert!(fx.appended()[0].archived);
        let records = [secret[0].clone(), other[0].clone()];
        let changed = rewritten(&mut juliet, fx, &records);
        assert_eq!(
            changed,
            [(
                secret[0].position,
                format!(
                    "<message from='{ROMEO}' to='juliet@capulet.example' id='m1' type='chat'>\
                 <retracted xmlns='{NS}' id='r1' stamp='2026-01-01T00:00:00Z'/></message>"
                )
            )]
        );
    }

    #[test]
    fn what_the_own_client_retracts_has_its_tombstone_too() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let sends = |juliet: &mut Scene, id: &str, content: &str| {
            juliet.sends("home", &format!("<message type='chat' to='{ROMEO}' id='{id}'>{content}</message>"))
        };
        let sent = sends(&mut juliet, "m1", "<body>oops</body>").appended();
        let fx = sends(&mut juliet, "r1", &retraction("m1"));
        assert_eq!(rewritten(&mut juliet, fx, &sent)[0].0, sent[0].position);
    }

    // §5: "both … received from the same bare-JID".
    #[test]
    fn nobody_retracts_what_another_said() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let own =
            juliet.sends("home", &format!("<message type='chat' to='{ROMEO}' id='m1'><body>mine</body></message>"));
        let own = own.appended();
        let fx = juliet.receive(&message(ROMEO, "r1", &retraction("m1")));
        assert_eq!(rewritten(&mut juliet, fx, &own), []);
    }

    #[test]
    fn a_retraction_that_is_not_archived_changes_nothing() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let no_store = format!("{}<no-store xmlns='urn:xmpp:hints'/>", retraction("m1"));
        let fx = juliet.receive(&message(ROMEO, "r1", &no_store));
        assert!(!fx.list.iter().any(|effect| matches!(effect, Effect::Query { .. })));
    }
}
