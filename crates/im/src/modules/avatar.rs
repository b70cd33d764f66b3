//! User Avatar to vCard-Based Avatars, XEP-0398: who publishes an avatar by XEP-0084 alone is seen with it by clients that
//! know XEP-0153 alone.
//!
//! Nothing is copied: the image that the nodes hold is put into the card as it is read (§5.2), and its hash into presence
//! as it goes out (§4). Both go only to whom the nodes are shown (§7).

use super::vcard;
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Module, xep};
use crate::nodes::{self, Access, item_key};
use crate::view::Exit;
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::{Element, Jid, PresenceType, Stanza, StanzaError, StanzaType};

const DATA: &str = "urn:xmpp:avatar:data";
const METADATA: &str = "urn:xmpp:avatar:metadata";
const UPDATE: &str = "vcard-temp:x:update";

pub static MODULE: Module = Module {
    name: "avatar",
    specs: &[xep(398, "1.0.0").without("from vCard to PEP, presence again when the avatar changes")],
    // (Its feature is not told while half of it is missing: a client would leave the other half to us.)
    ..Module::EMPTY
};

/// The hash of the image that is published now: the id of both items (XEP-0084 §4.1, §4.2).
fn image(account: &Account) -> Option<&str> {
    let last = &*account.nodes.get(METADATA)?.items.last()?.id;
    let is_hash = last.len() == 40 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_there = account.nodes.get(DATA)?.items.iter().any(|item| *item.id == *last);
    (is_hash && is_there).then_some(last)
}

/// Do both nodes have an access model that `is_open` finds open enough?
fn are_open(account: &Account, is_open: impl Fn(Access) -> bool) -> bool {
    [DATA, METADATA].iter().all(|name| account.nodes.get(name).is_some_and(|node| is_open(node.config.access)))
}

/// Available presence says the hash, unless the client has said one, or that there is to be none. §4. To a contact or a
/// room alone it does so only where everybody may see the image.
///
/// # Errors
/// None.
pub fn outbound(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    let is_directed = passage.stanza.to.is_some();
    let payload = &passage.stanza.payload;
    let says = || payload.child("x", UPDATE).is_some_and(|it| it.to_element().find("photo", UPDATE).is_some());
    let is_open = |access| access == Access::Open || access == Access::Presence && !is_directed;
    if passage.stanza.kind != StanzaType::Presence(PresenceType::Available) {
        return Ok(Flow::Next);
    }
    let Some(hash) = image(account).filter(|_| are_open(account, is_open) && !says()) else { return Ok(Flow::Next) };
    let photo = Element::new("photo", UPDATE).text(hash.to_ascii_lowercase());
    let payload = payload.without(|child| child.is("x", UPDATE)).with([Element::new("x", UPDATE).child(photo)]);
    passage.stanza = Arc::new(Stanza { payload, ..Stanza::clone(&passage.stanza) });
    Ok(Flow::Next)
}

/// Where the image is kept that belongs into the card, as keys of [`nodes::SPACE`]: of the metadata, and of the data.
/// `viewer`: who asks, if it is not the owner.
pub(super) fn keys(account: &Account, viewer: Option<&Jid>) -> Option<[Box<str>; 2]> {
    let hash = image(account)?;
    let sees = |name: &str| {
        let node = account.nodes.get(name);
        node.is_some_and(|it| viewer.is_none_or(|it_is| nodes::sees(account, it_is, name, it, Exit::PepItems)))
    };
    (sees(METADATA) && sees(DATA)).then(|| [METADATA, DATA].map(|name| item_key(name, hash)))
}

/// The card with the image of the nodes in the place of its own. §3.1; as it is, where there is none.
pub(super) fn with_photo(card: Element, metadata: &[u8], data: &[u8]) -> Element {
    let Some(photo) = photo(metadata, data) else { return card };
    let mut card = card;
    card.nodes.retain(|node| !matches!(node, xmpp::xml::Node::Element(it) if it.is("PHOTO", vcard::NS)));
    card.child(photo)
}

fn photo(metadata: &[u8], data: &[u8]) -> Option<Element> {
    let (metadata, data) = (Element::parse(metadata, "").ok()?, Element::parse(data, "").ok()?);
    // An image that is somewhere else is not the one that is published here. §3.1.
    let mut infos = metadata.elements().filter(|it| it.is("info", METADATA) && it.attribute("url").is_none());
    let kind = infos.next()?.attribute("type").map(str::to_owned);
    let of = |name: &'static str| Element::new(name, vcard::NS);
    let kind = kind.map(|kind| of("TYPE").text(kind));
    Some(of("PHOTO").children_from(kind).child(of("BINVAL").text(data.text_content())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::{Effect, Query, QueryAnswer};
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account_with, contact};
    use store::{AccountRecord, Change};

    const HASH: &str = "111f4b3c50d7b0df729d299bc6f8e9ef9066971f";

    fn juliet() -> Scene {
        let record =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", record).with("home", 0)
    }

    /// Publishes an image, and says what of it is in the store.
    fn publishes(juliet: &mut Scene, access: &str) -> Vec<(Box<str>, Vec<u8>)> {
        let mut kept = Vec::new();
        for (node, payload) in [
            (DATA, format!("<data xmlns='{DATA}'>qANQR1DBwU4DX7jmYZnncm</data>")),
            (
                METADATA,
                format!("<metadata xmlns='{METADATA}'><info bytes='9' id='{HASH}' type='image/png'/></metadata>"),
            ),
        ] {
            let fx = juliet.sends(
                "home",
                &format!(
                    "<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'>\
                     <item id='{HASH}'>{payload}</item></publish><publish-options><x xmlns='jabber:x:data' type='submit'>\
                     <field var='pubsub#access_model'><value>{access}</value></field></x></publish-options></pubsub></iq>"
                ),
            );
            kept.extend(fx.commits().into_iter().filter_map(|change| match change {
                Change::BlobPut { space, key, value, .. } if *space == *nodes::SPACE => Some((key, value)),
                _ => None,
            }));
        }
        assert_eq!(kept.len(), 2);
        kept
    }

    fn update(photo: &str) -> String {
        format!("<x xmlns='{UPDATE}'>{photo}</x>")
    }

    fn shown(fx: &Fx, to: &str) -> String {
        fx.told().into_iter().filter(|(who, _)| who.starts_with(to)).map(|(_, xml)| xml).collect()
    }

    // §4.
    #[test]
    fn presence_says_the_hash_of_the_avatar_unless_the_client_says_another_or_none() {
        let mut juliet = juliet();
        assert!(!shown(&juliet.sends("home", "<presence><show>away</show></presence>"), "romeo@").contains(UPDATE));
        publishes(&mut juliet, "presence");
        let hash = update(&format!("<photo>{HASH}</photo>"));
        for (said, told) in [
            (String::new(), hash.as_str()),
            (format!("<x xmlns='{UPDATE}'/>"), hash.as_str()),
            (update("<photo/>"), &update("<photo/>")),
            (update("<photo>another</photo>"), &update("<photo>another</photo>")),
        ] {
            let fx = juliet.sends("home", &format!("<presence><show>dnd</show>{said}</presence>"));
            let seen = shown(&fx, "romeo@");
            assert!(seen.contains(told) && seen.matches(UPDATE).count() == 1, "{said}: {seen}");
        }
    }

    // §7, §8: a room, or whoever else, is told only what everybody may see.
    #[test]
    fn directed_presence_says_the_hash_of_an_avatar_that_is_open() {
        let joins = "<presence to='room@rooms.example/juliet'/>";
        for (access, says) in [("open", true), ("presence", false), ("whitelist", false)] {
            let mut juliet = juliet();
            publishes(&mut juliet, access);
            assert_eq!(shown(&juliet.sends("home", joins), "room@").contains(HASH), says, "{access}");
            let fx = juliet.sends("home", "<presence><show>xa</show></presence>");
            assert_eq!(shown(&fx, "romeo@").contains(HASH), access != "whitelist", "{access}");
        }
    }

    /// Asks for the card; the store has `card` and what was published. `None`: the card alone was looked for.
    fn reads(juliet: &mut Scene, from: Option<&str>, card: &str, kept: &[(Box<str>, Vec<u8>)]) -> Option<String> {
        let ask = "<vCard xmlns='vcard-temp'/></iq>";
        let fx = match from {
            None => juliet.sends("home", &format!("<iq type='get' id='v'>{ask}")),
            Some(from) => juliet.receive(&format!("<iq type='get' id='v' from='{from}'>{ask}")),
        };
        let (query, iq, session, then) = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { query, iq, session, then } => Some((query, iq, session, then)),
            _ => None,
        })?;
        let Query::Places { places, .. } = query else { return None };
        let value = |key: &str| match key {
            "vCard" => Some(card.as_bytes().to_vec()).filter(|card| !card.is_empty()),
            _ => kept.iter().find(|(known, _)| **known == *key).map(|(_, value)| value.clone()),
        };
        let all = places.into_iter().filter_map(|(_, key)| Some((key.clone(), value(&key)?))).collect();
        let fx = juliet.item(Item::Answered { iq, session, answer: QueryAnswer::Blobs(all), then });
        Some(fx.delivered("home").concat() + &shown(&fx, "romeo@"))
    }

    // §3.1.
    #[test]
    fn the_card_is_read_with_the_avatar_in_the_place_of_its_own_photo() {
        let mut juliet = juliet();
        let kept = publishes(&mut juliet, "presence");
        let photo = "<PHOTO><TYPE>image/png</TYPE><BINVAL>qANQR1DBwU4DX7jmYZnncm</BINVAL></PHOTO>";
        let old = "<vCard xmlns='vcard-temp'><PHOTO><BINVAL>old</BINVAL></PHOTO><FN>Juliet</FN></vCard>";
        let seen = reads(&mut juliet, None, old, &kept).expect("all of it is looked for");
        assert!(seen.contains(&format!("<FN>Juliet</FN>{photo}</vCard>")) && !seen.contains("old"), "{seen}");
        // Also who has no card, and for whoever may see the nodes.
        let seen = reads(&mut juliet, Some("romeo@montague.example/x"), "", &kept).expect("all of it is looked for");
        assert!(seen.contains(&format!("<vCard xmlns='vcard-temp'>{photo}</vCard>")), "{seen}");
    }

    // §7.
    #[test]
    fn the_card_shows_no_avatar_to_whom_the_nodes_are_not_shown() {
        let mut juliet = juliet();
        let kept = publishes(&mut juliet, "whitelist");
        assert_eq!(reads(&mut juliet, Some("romeo@montague.example/x"), "", &kept), None);
        assert!(reads(&mut juliet, None, "", &kept).is_some(), "the owner sees it");
    }
}
