//! vcard-temp, XEP-0054: one card an account, written by its owner.
//!
//! The card is public in XEP-0054; here whoever sees it is decided by [`crate::view`] (LIMITS.md §2 row 17). Telling
//! contacts of a new photo is the clients' part of XEP-0153 (§3.1): they put its hash into their presence.

use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, avatar, unexpected, unknown};
use crate::nodes;
use crate::view::Exit;
use std::sync::Arc;
use store::Change;
use xmpp::{Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "vcard-temp";
/// Where the card is kept.
const SPACE: &str = "vcard-temp";
const KEY: &str = "vCard";
/// The same, space and key, for whoever moves accounts.
pub const PLACE: (&str, &str) = (SPACE, KEY);

pub static MODULE: Module = Module {
    name: "vcard",
    specs: &[xep(54, "1.3.0"), xep(153, "1.1.1")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "vCard", Who::Viewer(Exit::VCard), read),
        (IqType::Set, NS, "vCard", Who::Owner, write),
    ],
    ..Module::EMPTY
};

/// The card, with the avatar that is published elsewhere if the viewer may see it: [`super::avatar`].
fn read(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let owner = account.jid.clone();
    let query = match avatar::keys(account, iq.session.is_none().then_some(iq.from)) {
        None => Query::Blob { account: owner, space: SPACE.into(), key: KEY.into() },
        Some(keys) => {
            let of_avatar = keys.map(|key| (nodes::SPACE.into(), key));
            let places = [(SPACE.into(), KEY.into())].into_iter().chain(of_avatar).collect();
            Query::Places { account: owner, places }
        }
    };
    Ok(Answer::Query(query, show))
}

/// No card: the owner hears `item-not-found` (XEP-0054 §3.1), others what an account that does not exist would say
/// (§3.3).
fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, stored: QueryAnswer, fx: &mut Effects) {
    let stored = match stored {
        QueryAnswer::Blobs(found) => return answer(account, iq, session, merged(found, session).map(Some), fx),
        stored => stored,
    };
    let content = match stored {
        QueryAnswer::Blob(Some(bytes)) => parse(&bytes).map(Some),
        QueryAnswer::Blob(None) if session.is_some() => Err(StanzaCondition::ItemNotFound.into()),
        QueryAnswer::Blob(None) => Err(unknown()),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

/// What was found of card and avatar.
fn merged(found: Vec<(Box<str>, Vec<u8>)>, session: Option<SessionId>) -> Result<Element, StanzaError> {
    let (cards, avatar): (Vec<_>, Vec<_>) = found.into_iter().partition(|(key, _)| **key == *KEY);
    let card = cards.first().map(|(_, bytes)| parse(bytes)).transpose()?;
    let empty = || Element::new("vCard", NS);
    match (&avatar[..], card) {
        ([(_, metadata), (_, data)], card) => Ok(avatar::with_photo(card.unwrap_or_else(empty), metadata, data)),
        (_, Some(card)) => Ok(card),
        (_, None) if session.is_some() => Err(StanzaCondition::ItemNotFound.into()),
        (_, None) => Err(unknown()),
    }
}

fn parse(bytes: &[u8]) -> Result<Element, StanzaError> {
    Element::parse(bytes, NS).map_err(|_| StanzaCondition::InternalServerError.into())
}

fn write(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let value = iq.child.to_bytes("");
    if value.len() > account.policy.limits.vcard_bytes_max {
        return Err(StanzaError::from(StanzaCondition::NotAcceptable)
            .with_text("the card is too big")
            .over("vcard_bytes_max"));
    }
    let change = Change::BlobPut { account: account.jid.clone(), space: SPACE.into(), key: KEY.into(), value };
    fx.commit(vec![change], Some(iq.stanza), iq.ticket);
    avatar::written(account, iq.child, iq.stanza, fx);
    Ok(Answer::Result(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Effect;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account, account_with, contact};
    use store::AccountRecord;

    const CARD: &str = "<vCard xmlns='vcard-temp'><FN>Juliet</FN></vCard>";

    fn juliet() -> Scene {
        account("juliet@capulet.example").with("home", 0)
    }

    /// Lets the store answer the query of a step.
    fn stored(scene: &mut Scene, fx: Fx, blob: Option<&str>) -> Fx {
        let query = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, query: Query::Blob { .. } } => Some((iq, session, then)),
            _ => None,
        });
        let (iq, session, then) = query.expect("a query");
        scene.item(Item::Answered { iq, session, answer: QueryAnswer::Blob(blob.map(|b| b.as_bytes().to_vec())), then })
    }

    #[test]
    fn a_card_that_was_written_is_answered_for_after_its_commit() {
        let fx = juliet().sends("home", &format!("<iq type='set' id='v2'>{CARD}</iq>"));
        assert!(matches!(&fx.commits()[0], Change::BlobPut { value, .. } if value == CARD.as_bytes()));
        let result = |effect: &Effect| matches!(effect, Effect::Edge { .. });
        assert!(fx.in_order(|effect| matches!(effect, Effect::Commit { .. }), result));
    }

    #[test]
    fn the_owner_reads_the_card() {
        let mut juliet = juliet();
        let fx = juliet.sends("home", "<iq type='get' id='v1'><vCard xmlns='vcard-temp'/></iq>");
        let fx = stored(&mut juliet, fx, Some(CARD));
        let expected = format!("<iq to='juliet@capulet.example/home' id='v1' type='result'>{CARD}</iq>");
        assert_eq!(fx.delivered("home"), [expected]);
    }

    // XEP-0054 §3.1.
    #[test]
    fn the_owner_without_a_card_hears_item_not_found() {
        let mut juliet = juliet();
        let fx = juliet.sends("home", "<iq type='get' id='v1'><vCard xmlns='vcard-temp'/></iq>");
        assert!(stored(&mut juliet, fx, None).delivered("home")[0].contains("item-not-found"));
    }

    // XEP-0054 §3.3.
    #[test]
    fn somebody_else_hears_of_no_card_what_a_missing_account_would_say() {
        let record =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        let mut juliet = account_with("juliet@capulet.example", record);
        let fx =
            juliet.receive("<iq type='get' id='v1' from='romeo@montague.example/x'><vCard xmlns='vcard-temp'/></iq>");
        assert!(stored(&mut juliet, fx, None).told()[0].1.contains("service-unavailable"));
    }

    #[test]
    fn a_card_beyond_the_limit_is_refused_and_not_kept() {
        let mut juliet = juliet().policy(|policy| policy.limits.vcard_bytes_max = CARD.len() - 1);
        let fx = juliet.sends("home", &format!("<iq type='set' id='v2'>{CARD}</iq>"));
        assert!(fx.commits().is_empty());
        assert!(fx.delivered("home")[0].contains("not-acceptable"));
    }

    #[test]
    fn a_card_of_exactly_the_limit_is_kept() {
        let mut juliet = juliet().policy(|policy| policy.limits.vcard_bytes_max = CARD.len());
        assert_eq!(juliet.sends("home", &format!("<iq type='set' id='v2'>{CARD}</iq>")).commits().len(), 1);
    }
}
