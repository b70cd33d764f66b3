//! User Avatar to vCard-Based Avatars, XEP-0398: who publishes an avatar by XEP-0084 alone is seen with it by clients that
//! know XEP-0153 alone.
//!
//! From there nothing is copied: the image that the nodes hold is put into the card as it is read (§5.2), and its hash into
//! presence as it goes out (§4). Both go only to whom the nodes are shown (§7). The other way round, the photo of a card is
//! published as the card is written (§3.2); so the nodes have the last word of either.

use super::{caps, pubsub, vcard};
use crate::account::Account;
use crate::effects::Effects;
use crate::item::SessionId;
use crate::module::{Module, xep};
use crate::nodes::{self, Access, item_key};
use crate::presence;
use crate::view::Exit;
use crate::ways::{Flow, Passage};
use sha1::{Digest, Sha1};
use std::sync::Arc;
use xmpp::{Element, Jid, PresenceType, Stanza, StanzaError, StanzaType};

const DATA: &str = "urn:xmpp:avatar:data";
const METADATA: &str = "urn:xmpp:avatar:metadata";
const UPDATE: &str = "vcard-temp:x:update";

pub static MODULE: Module = Module {
    name: "avatar",
    specs: &[xep(398, "1.0.0")],
    account_features: &["urn:xmpp:pep-vcard-conversion:0"],
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
    let hash = told(account, passage);
    if passage.stanza.to.is_none() {
        let session = passage.session.and_then(|id| account.session_mut(id));
        session.into_iter().for_each(|session| session.avatar_told = hash.clone());
    }
    if let Some(hash) = hash {
        passage.stanza = Arc::new(with_hash(&passage.stanza, &hash));
    }
    Ok(Flow::Next)
}

/// The hash that goes into this presence, if one does.
fn told(account: &Account, passage: &Passage) -> Option<Box<str>> {
    let is_directed = passage.stanza.to.is_some();
    let payload = &passage.stanza.payload;
    let says = || payload.child("x", UPDATE).is_some_and(|it| it.to_element().find("photo", UPDATE).is_some());
    let is_open = |access| access == Access::Open || access == Access::Presence && !is_directed;
    if passage.stanza.kind != StanzaType::Presence(PresenceType::Available) {
        return None;
    }
    let hash = image(account).filter(|_| are_open(account, is_open) && !says())?;
    Some(hash.to_ascii_lowercase().into())
}

fn with_hash(presence: &Stanza, hash: &str) -> Stanza {
    let photo = Element::new("photo", UPDATE).text(hash);
    let payload =
        presence.payload.without(|child| child.is("x", UPDATE)).with([Element::new("x", UPDATE).child(photo)]);
    Stanza { payload, ..Stanza::clone(presence) }
}

/// The nodes have changed, and with them the avatar, maybe: each session's presence that says it by the server's doing says
/// it anew, and is broadcast. Directed presence is for the clients to send again (§5.1).
pub(super) fn changed(account: &mut Account, fx: &mut Effects) {
    let ids: Vec<SessionId> = account.sessions.iter().map(|session| session.id).collect();
    for id in ids {
        let Some(session) = account.session(id) else { continue };
        let (Some(presence), before) = (session.presence.clone(), session.avatar_told.clone()) else { continue };
        let bare = match before {
            // What stands there is ours.
            Some(_) => {
                let payload = presence.payload.without(|child| child.is("x", UPDATE));
                Arc::new(Stanza { payload, ..Stanza::clone(&presence) })
            }
            None => presence,
        };
        let mut passage = Passage::of(account, Arc::new(Stanza { to: None, ..Stanza::clone(&bare) }));
        passage.session = Some(id);
        let after = told(account, &passage).or_else(|| before.is_some().then(Box::default));
        let Some(after) = after.filter(|after| before.as_ref() != Some(after)) else { continue };
        passage.stanza = Arc::new(with_hash(&passage.stanza, &after));
        if let Some(session) = account.session_mut(id) {
            session.avatar_told = Some(after);
        }
        // A host without presence service tells nobody; that is no fault of who publishes.
        let _ = presence::outbound(account, &mut passage, fx);
    }
}

/// A card was written: its photo, if it is one, is published as the avatar. §3.2. What the limits of nodes refuse stays in
/// the card alone, and no older avatar stands in its way.
pub(super) fn written(account: &mut Account, card: &Element, by: &Arc<Stanza>, fx: &mut Effects) {
    let photo = card.find("PHOTO", vcard::NS);
    let text = |name: &str| Some(photo?.find(name, vcard::NS)?.text_content());
    let Some(bytes) = text("BINVAL").and_then(|text| decoded(&text)).filter(|bytes| !bytes.is_empty()) else { return };
    let hash: String = Sha1::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let before = image(account).map(str::to_ascii_lowercase);
    if before.as_deref() == Some(&*hash) {
        return;
    }
    let data = Element::new("data", DATA).text(caps::base64(&bytes));
    let info = Element::new("info", METADATA).attr("id", &hash).attr("bytes", bytes.len().to_string());
    let info = info.attr_opt("type", text("TYPE").filter(|kind| !kind.is_empty()));
    let metadata = Element::new("metadata", METADATA);
    let published = pubsub::publish_aside(account, DATA, &hash, &data, Some(by), fx)
        .and_then(|()| pubsub::publish_aside(account, METADATA, &hash, &metadata.clone().child(info), Some(by), fx));
    if published.is_err() && before.is_some() {
        // XEP-0084 §3.5. (What makes no room for this has none for anything.)
        let _ = pubsub::publish_aside(account, METADATA, "none", &metadata, Some(by), fx);
    }
    changed(account, fx);
}

/// RFC 4648 §4, lines and all; `None` for what is none.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digits = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let (digits, padding) = text.split_at(digits);
    if !text.len().is_multiple_of(4) || padding.len() > 2 || padding.iter().any(|byte| *byte != b'=') {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for at in 0..4 {
            let sextet = match chunk.get(at) {
                Some(byte @ b'A'..=b'Z') => byte - b'A',
                Some(byte @ b'a'..=b'z') => byte - b'a' + 26,
                Some(byte @ b'0'..=b'9') => byte - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            word = word << 6 | u32::from(sextet);
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
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

    fn metadata(hash: &str) -> String {
        format!(
            "<iq type='set' id='m'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{METADATA}'>\
             <item id='{hash}'><metadata xmlns='{METADATA}'/></item></publish></pubsub></iq>"
        )
    }

    // §4: every available presence says it, that which is there too.
    #[test]
    fn presence_that_is_there_says_another_avatar_when_there_is_one_unless_the_client_speaks_for_itself() {
        for (said, tells) in [("", true), (&*format!("<x xmlns='{UPDATE}'/>"), true), (&update("<photo/>"), false)] {
            let mut juliet = juliet();
            juliet.sends("home", &format!("<presence>{said}</presence>"));
            publishes(&mut juliet, "presence");
            let probe = "<presence type='probe' from='romeo@montague.example' to='juliet@capulet.example'/>";
            let seen = shown(&juliet.receive(probe), "romeo@");
            assert_eq!(seen.contains(HASH), tells, "{said}: {seen}");
            let fx = juliet.sends("home", &metadata("none"));
            let gone = shown(&fx, "romeo@").contains(&update("<photo/>"));
            assert_eq!(gone, tells, "{said}: {:?}", fx.told());
            assert!(
                !shown(&juliet.sends("home", &metadata("none")), "romeo@").contains("<presence"),
                "it is said once"
            );
        }
    }

    /// The image `hi`, as a card has it; and its hash.
    const PHOTO: &str = "<PHOTO><TYPE>image/png</TYPE><BINVAL>\naGk=\n</BINVAL></PHOTO>";
    const OF_PHOTO: &str = "c22b5f9178342609428d6f51b2c5af4c0bde6a42";

    fn writes(juliet: &mut Scene, photo: &str) -> Fx {
        juliet.sends("home", &format!("<iq type='set' id='v'><vCard xmlns='vcard-temp'>{photo}</vCard></iq>"))
    }

    // §3.2.
    #[test]
    fn the_photo_of_a_card_is_published_data_first_and_said_in_presence() {
        let mut juliet = juliet();
        juliet.sends("home", "<presence/>");
        let fx = writes(&mut juliet, PHOTO);
        let put: Vec<(String, String)> = fx
            .commits()
            .into_iter()
            .filter_map(|change| match change {
                Change::BlobPut { space, key, value, .. } if *space == *nodes::SPACE => {
                    Some((key.to_string(), String::from_utf8_lossy(&value).into_owned()))
                }
                _ => None,
            })
            .collect();
        let key = |node: &str| item_key(node, OF_PHOTO).to_string();
        assert_eq!(put[0], (key(DATA), format!("<data xmlns='{DATA}'>aGk=</data>")));
        let info = format!("<info id='{OF_PHOTO}' bytes='2' type='image/png'/>");
        assert_eq!(put[1], (key(METADATA), format!("<metadata xmlns='{METADATA}'>{info}</metadata>")));
        assert!(shown(&fx, "romeo@").contains(&update(&format!("<photo>{OF_PHOTO}</photo>"))), "{:?}", fx.told());
        assert!(fx.delivered("home").iter().any(|xml| xml.contains("type='result'")));
        // The same again is no other avatar.
        let fx = writes(&mut juliet, PHOTO);
        assert!(fx.commits().len() == 1 && fx.told().is_empty(), "{:?}", fx.list);
    }

    #[test]
    fn a_card_without_an_image_publishes_nothing() {
        for photo in [
            "",
            "<FN>Juliet</FN>",
            "<PHOTO/>",
            "<PHOTO><BINVAL/></PHOTO>",
            "<PHOTO><BINVAL>a?==</BINVAL></PHOTO>",
            "<PHOTO><EXTVAL>http://x.example/</EXTVAL></PHOTO>",
            "<PHOTO><BINVAL>abc</BINVAL></PHOTO>",
        ] {
            let mut juliet = juliet();
            assert_eq!(writes(&mut juliet, photo).commits().len(), 1, "{photo}");
            assert!(juliet.nodes.iter().next().is_none(), "{photo}");
        }
    }

    #[test]
    fn a_photo_that_the_nodes_cannot_take_is_kept_in_the_card_and_no_older_one_stands_in_its_way() {
        let mut juliet = juliet();
        publishes(&mut juliet, "presence");
        let mut juliet = juliet.policy(|policy| policy.limits.pep_item_bytes_max = 45);
        let fx = writes(&mut juliet, PHOTO);
        assert!(fx.delivered("home").iter().any(|xml| xml.contains("type='result'")), "{:?}", fx.list);
        assert_eq!(image(&juliet), None);
    }

    // RFC 4648 §10.
    #[test]
    fn what_was_encoded_is_decoded() {
        for plain in ["", "f", "fo", "foo", "foob", "fooba", "foobar"] {
            assert_eq!(decoded(&caps::base64(plain.as_bytes())).as_deref(), Some(plain.as_bytes()));
        }
        for none in ["Zg", "Zg=a", "Z===", "=", "Zg==Zg==", "Zg-="] {
            assert_eq!(decoded(none), None, "{none}");
        }
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
