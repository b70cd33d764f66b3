//! What there is to know of a presentity: its resources, what was published for it, and what it was last. RFC 2778 §2.4,
//! RFC 4479 §3.
//!
//! [`compose`] makes the document that one watcher gets, from what [`crate::view`] lets him see. It is made when it is
//! asked for; nothing here is kept but [`Publications`].

use crate::account::Account;
use crate::pidf::{self, Tuple};
use crate::rules::Delivery;
use crate::rules::shape::{Occurrence, Shape};
use crate::session::Session;
use crate::view::{self, Exit, View, view};
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::xml::Node;
use xmpp::{BareJid, Element, Jid, Stamp, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "urn:waft:tuples:0";

/// Where publications are kept, in the space of settings.
pub const KEY: &str = "tuples";
/// Publications of one account; each has one publisher and one entity tag.
pub const PUBLICATIONS_MAX: usize = 16;
/// All publications of an account together, as they are stored.
pub const BYTES_MAX: usize = 32 << 10;
/// Elements of one publication.
pub const ELEMENTS_MAX: usize = 16;
/// Seconds a publication lasts. RFC 3903 §4.1: the publisher proposes, the server may make it shorter.
pub const EXPIRES_DEFAULT: u32 = 3_600;
pub const EXPIRES_MIN: u32 = 60;
pub const EXPIRES_MAX: u32 = 366 * 86_400;

/// What one publisher has said, under one entity tag. RFC 3903 §3.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub etag: Box<str>,
    pub expires: Stamp,
    /// `None`: the presentity itself.
    pub publisher: Option<BareJid>,
    /// `<tuple/>`, `<person/>`, `<device/>`, as [`pidf::accepted`] gives them.
    pub elements: Vec<Element>,
}

#[derive(Debug, Default)]
pub struct Publications {
    all: Vec<Publication>,
    /// Makes entity tags.
    made: u64,
}

/// Why a publication is refused. RFC 3903 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The entity tag is none of this publisher's, or its publication is over: 412.
    NoSuchPublication,
    /// 423.
    TooBrief,
    /// An id is another publisher's.
    IdTaken,
    TooMuch,
    /// Neither content nor entity tag.
    Empty,
}

impl Refused {
    /// The one place where it becomes an error on the wire.
    pub fn error(self) -> StanzaError {
        match self {
            Refused::NoSuchPublication => {
                StanzaError::from(StanzaCondition::ItemNotFound).with_application("precondition-failed", NS)
            }
            Refused::TooBrief => StanzaError::from(StanzaCondition::NotAcceptable)
                .with_text(format!("at least {EXPIRES_MIN} seconds"))
                .with_application("interval-too-brief", NS),
            Refused::IdTaken => StanzaError::from(StanzaCondition::Conflict).with_application("id-taken", NS),
            Refused::TooMuch => StanzaError::from(StanzaCondition::ResourceConstraint)
                .with_type(xmpp::error::ErrorType::Modify)
                .with_application("too-much", NS),
            Refused::Empty => StanzaCondition::BadRequest.into(),
        }
    }
}

impl Publications {
    /// As they were stored; what cannot be read is left out.
    pub fn from_stored(value: Option<&[u8]>) -> Publications {
        let stored = value.and_then(|bytes| Element::parse(bytes, NS).ok());
        let read = |one: &Element| {
            Some(Publication {
                etag: one.attribute("etag")?.into(),
                expires: Stamp::from_xmpp(one.attribute("expires")?)?,
                publisher: match one.attribute("publisher") {
                    Some(jid) => Some(BareJid::parse(jid).ok()?),
                    None => None,
                },
                elements: one.elements().cloned().collect(),
            })
        };
        let all = stored.iter().flat_map(|all| all.elements()).filter_map(read).collect();
        Publications { all, made: 0 }
    }

    fn to_stored(&self) -> Vec<u8> {
        let all = self.all.iter().map(|one| {
            Element::new("publication", NS)
                .attr("etag", &one.etag)
                .attr("expires", one.expires.to_xmpp())
                .attr_opt("publisher", one.publisher.as_ref().map(|jid| jid.as_str()))
                .children_from(one.elements.iter().cloned())
        });
        Element::new("publications", NS).children_from(all).to_bytes("")
    }

    /// The change that keeps them.
    pub fn kept(&self, account: &BareJid) -> Change {
        let (account, space, key) = (account.clone(), SETTINGS.into(), KEY.into());
        if self.all.is_empty() {
            return Change::BlobDelete { account, space, key };
        }
        Change::BlobPut { account, space, key, value: self.to_stored() }
    }

    pub fn all(&self) -> &[Publication] {
        &self.all
    }

    /// When the next one is over.
    pub fn next_end(&self) -> Option<Stamp> {
        self.all.iter().map(|one| one.expires).min()
    }

    /// Takes out what is over; says whether that was anything.
    pub fn end_overdue(&mut self, now: Stamp) -> bool {
        let before = self.all.len();
        self.all.retain(|one| one.expires > now);
        self.all.len() < before
    }

    /// The four operations of RFC 3903 §4.1: initial (content), refresh (tag), modify (tag and content), remove (tag and no
    /// time). Gives the new tag; `None` if the publication is gone.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn publish(
        &mut self,
        publisher: Option<&BareJid>,
        etag: Option<&str>,
        seconds: u32,
        elements: Vec<Element>,
        now: Stamp,
    ) -> Result<Option<Box<str>>, Refused> {
        let at = match etag {
            Some(etag) => Some(self.find(publisher, etag, now).ok_or(Refused::NoSuchPublication)?),
            None if elements.is_empty() => return Err(Refused::Empty),
            None => None,
        };
        if seconds == 0 {
            let Some(at) = at else { return Err(Refused::TooBrief) };
            self.all.remove(at);
            return Ok(None);
        }
        if seconds < EXPIRES_MIN {
            return Err(Refused::TooBrief);
        }
        let mut all = self.all.clone();
        let old = at.map(|at| all.remove(at));
        let elements = if elements.is_empty() { old.map(|old| old.elements).unwrap_or_default() } else { elements };
        take_over(&mut all, publisher, &elements)?;
        self.made += 1;
        let etag: Box<str> = format!("{:x}-{:x}", now.0, self.made).into();
        let expires = now.plus_seconds(i64::from(seconds.min(EXPIRES_MAX)));
        all.push(Publication { etag: etag.clone(), expires, publisher: publisher.cloned(), elements });
        let changed = Publications { all, made: self.made };
        if changed.all.len() > PUBLICATIONS_MAX || changed.to_stored().len() > BYTES_MAX {
            return Err(Refused::TooMuch);
        }
        *self = changed;
        Ok(Some(etag))
    }

    fn find(&self, publisher: Option<&BareJid>, etag: &str, now: Stamp) -> Option<usize> {
        let is_it = |one: &Publication| *one.etag == *etag && one.publisher.as_ref() == publisher && one.expires > now;
        self.all.iter().position(is_it)
    }
}

/// An id is one publisher's. Who publishes it anew without its tag (a client that lost it) takes it over from himself.
fn take_over(all: &mut Vec<Publication>, publisher: Option<&BareJid>, elements: &[Element]) -> Result<(), Refused> {
    let has = |element: &Element| elements.iter().any(|new| new.attribute("id") == element.attribute("id"));
    for one in all.iter_mut() {
        if one.publisher.as_ref() != publisher && one.elements.iter().any(has) {
            return Err(Refused::IdTaken);
        }
        one.elements.retain(|element| !has(element));
    }
    all.retain(|one| !one.elements.is_empty());
    Ok(())
}

/// The document that this watcher gets: all tuples that he may see, with their times. `None`: he sees nothing, and must
/// not learn that there is something. Who is politely blocked gets the document of an account that is away.
pub fn compose(account: &Account, watcher: &Jid) -> Option<Element> {
    let view = view(account, watcher, Exit::Fetch);
    if !view.shows() && !view.is_away() {
        return None;
    }
    let mut sessions: Vec<(&Session, Arc<Stanza>)> = view::sessions(account, &view)
        .filter_map(|session| Some((session, view::presence_for(&view, session.presence.as_ref()?)?)))
        .collect();
    let takes = view::delivery_of(account, watcher) == Delivery::Deliver;
    let is_live = |session: &Session| takes && is_live(account, session);
    // The most available first; the one that came first of equals.
    sessions.sort_by_key(|(session, _)| (!is_live(session), -i16::from(session.priority)));
    let shows = sessions.first().and_then(|(_, presence)| Tuple::of(presence).show);
    let is_open = view.shows() && account.sessions.iter().any(is_live);
    let mut parts: Vec<Element> =
        sessions.iter().map(|(session, presence)| resource(account, session, presence, is_live(session))).collect();
    if view.shows() {
        parts.extend(left_behind(account, &view));
    }
    parts.extend(published(account, &view, is_open));
    if !parts.iter().any(|part| part.is("tuple", pidf::NS)) {
        parts.extend(last(account, &view, watcher));
    }
    if !parts.iter().any(|part| part.is("person", pidf::DATA_MODEL)) {
        parts.extend(shows.and_then(|show| pidf::person(&show)));
    }
    Some(pidf::document(&account.jid, parts))
}

/// Would a message to this resource be delivered to its client now? RFC 2778 §2.4: that is what OPEN says.
fn is_live(account: &Account, session: &Session) -> bool {
    account.policy.messages && account.policy.client_messages && session.takes_messages() && session.edge.is_some()
}

fn resource(account: &Account, session: &Session, presence: &Stanza, is_open: bool) -> Element {
    let mut tuple = Tuple::of(presence);
    tuple.id = pidf::opaque_id(account.created.0, session.jid.resource_str());
    tuple.open = is_open;
    tuple.contact = Some(pidf::uri_of(&session.jid));
    tuple.at = Some(session.presence_at);
    tuple.to_element()
}

/// Resources of an earlier process of the server, whose clients may still come back.
fn left_behind(account: &Account, view: &View) -> Vec<Element> {
    let rows = account.ledger.iter().filter_map(|row| {
        let presence = Arc::new(Stanza::parse(&row.presence).ok()?);
        let presence = view::presence_for(view, &presence)?;
        let jid = account.jid.with_resource(&row.resource).ok()?;
        if account.sessions.iter().any(|session| session.jid == jid) {
            return None;
        }
        let mut tuple = Tuple::of(&presence);
        tuple.id = pidf::opaque_id(account.created.0, &row.resource);
        tuple.contact = Some(pidf::uri_of(&jid));
        tuple.at = Some(row.since);
        Some(tuple.to_element())
    });
    rows.collect()
}

/// What was published and is not over, as the view shows it. A tuple that speaks of the account itself is open when the
/// account is; one of another means (`tel:`, `mailto:`) is what its publisher says. Another publisher is named.
fn published(account: &Account, view: &View, is_open: bool) -> Vec<Element> {
    let current = account.publications.all().iter().filter(|one| one.expires > account.now.utc);
    let elements = current.flat_map(|one| {
        one.elements.iter().filter_map(move |element| {
            let mut element = match &view.shape {
                Some(shape) => shaped(element, shape)?,
                None => element.clone(),
            };
            if element.is("tuple", pidf::NS) && pidf::is_about(&element, &account.jid) {
                element = pidf::with_basic(element, is_open);
            }
            Some(match &one.publisher {
                Some(publisher) => named(element, publisher),
                None => element,
            })
        })
    });
    elements.collect()
}

/// What the rules show of a published element. RFC 5025 §3.3.
fn shaped(element: &Element, shape: &Shape) -> Option<Element> {
    let class = element.find("class", pidf::RPID).map(Element::text_content);
    let contact = element.find("contact", pidf::NS).or_else(|| element.find("deviceID", pidf::DATA_MODEL));
    let uri = contact.map(|contact| contact.text_content().trim().to_owned());
    let id = element.attribute("id").unwrap_or_default();
    let it = Occurrence { id, class: class.as_deref(), uri: uri.as_deref() };
    let picks = match &*element.name {
        "tuple" => &shape.services,
        "person" => &shape.persons,
        _ => &shape.devices,
    };
    if !picks.pick(it) {
        return None;
    }
    let mut element = element.clone();
    element.nodes.retain(|node| match node {
        Node::Element(child) => keeps(shape, child),
        Node::Text(_) => true,
    });
    for node in &mut element.nodes {
        if let Node::Element(status) = node
            && status.is("status", pidf::NS)
        {
            status.nodes.retain(
                |node| matches!(node, Node::Element(child) if child.is("basic", pidf::NS) || keeps(shape, child)),
            );
        }
    }
    Some(element)
}

fn keeps(shape: &Shape, child: &Element) -> bool {
    match (&*child.ns, &*child.name) {
        (pidf::NS, "note") | (pidf::RPID, "note") | (pidf::DATA_MODEL, "note") => shape.notes,
        (pidf::NS | pidf::DATA_MODEL, _) => true,
        (pidf::RPID, "class") => true,
        (pidf::RPID, "user-input") => shape.idle || shape.attributes.has("user-input"),
        (pidf::RPID, name) => shape.attributes.has(name),
        (ns, name) => shape.unknown.has(&format!("{{{ns}}}{name}")),
    }
}

/// With its publisher, behind the status as the schema wants what is of another namespace.
fn named(mut element: Element, publisher: &BareJid) -> Element {
    let at = element.nodes.len().min(1);
    let name = Element::new("publisher", NS).text(publisher.as_str());
    element.nodes.insert(at, Node::Element(name));
    element
}

/// What the account was when its last resource left. RFC 6121 §4.3.2 rule 3, XEP-0012 §4.
fn last(account: &Account, view: &View, watcher: &Jid) -> Option<Element> {
    let (at, status) = view::last_seen(account, view, watcher)?;
    let says = view.shape.as_ref().is_none_or(|shape| shape.status) && !status.is_empty();
    let notes = if says { vec![(None, status.to_string())] } else { Vec::new() };
    let id = pidf::opaque_id(account.created.0, "");
    let contact = Some(pidf::uri_of(&account.jid));
    Some(Tuple { id, contact, notes, at: Some(at), ..Tuple::default() }.to_element())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, Scene, account, account_with, bare, contact, jid};
    use proptest::prelude::*;
    use store::AccountRecord;

    const ROMEO: &str = "romeo@montague.example/orchard";

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "from")];
        account_with("juliet@capulet.example", AccountRecord { created: START, roster, ..AccountRecord::default() })
    }

    fn tuples(scene: &Scene) -> Vec<Tuple> {
        let document = compose(&scene.account, &jid(ROMEO)).expect("romeo may see");
        document.elements().filter(|it| it.is("tuple", pidf::NS)).map(Tuple::parse).collect()
    }

    fn tuple(id: &str, more: &str) -> Element {
        let xml = format!("<tuple xmlns='{}' id='{id}'><status><basic>open</basic></status>{more}</tuple>", pidf::NS);
        pidf::accepted(&Element::parse(xml.as_bytes(), "").expect("well-formed"), START).expect("good")
    }

    fn publications() -> Publications {
        Publications::default()
    }

    #[test]
    fn every_available_resource_is_a_tuple_with_the_time_of_its_presence() {
        let mut juliet = juliet().connected("home").with("phone", -1).connected("attic");
        juliet.after_ms(5_000);
        juliet.sends("home", "<presence><show>away</show><status>tea</status></presence>");
        let all = tuples(&juliet);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].open, all[0].show.as_deref(), all[0].notes[0].1.as_str()), (true, Some("away"), "tea"));
        assert_eq!(all[0].at, Some(START.plus_seconds(5)));
        assert_eq!(all[0].contact.as_deref(), Some("xmpp:juliet@capulet.example/home"));
        assert!(!all[1].open, "of negative priority");
        assert!(!all[0].id.contains("home") && all[0].id != all[1].id);
        let document = compose(&juliet.account, &jid(ROMEO)).expect("seen");
        assert!(document.find("person", pidf::DATA_MODEL).is_some_and(|p| format!("{p:?}").contains("<away/>")));
    }

    #[test]
    fn whoever_sees_nothing_gets_no_document() {
        assert_eq!(compose(&juliet().with("home", 0).account, &jid("tybalt@capulet.example")), None);
    }

    #[test]
    fn an_account_that_is_away_tells_what_it_was_last() {
        let mut juliet = juliet().with("home", 0);
        juliet.after_ms(60_000);
        juliet.sends("home", "<presence type='unavailable'><status>to bed</status></presence>");
        let all = tuples(&juliet);
        assert_eq!(all.len(), 1);
        assert!(!all[0].open && all[0].notes[0].1 == "to bed");
        assert_eq!(all[0].at, Some(START.plus_seconds(60)));
        assert_eq!(all[0].contact.as_deref(), Some("xmpp:juliet@capulet.example"));
    }

    // RFC 3903 §4.1.
    #[test]
    fn a_publication_is_made_refreshed_modified_and_removed_by_its_tag() {
        let mut all = publications();
        let first = all.publish(None, None, 100, vec![tuple("desk", "")], START).expect("made").expect("a tag");
        let later = START.plus_seconds(90);
        let second = all.publish(None, Some(&first), 100, Vec::new(), later).expect("refreshed").expect("a tag");
        assert_ne!(first, second);
        assert_eq!(all.all()[0].expires, START.plus_seconds(190));
        assert_eq!(all.publish(None, Some(&first), 100, Vec::new(), later), Err(Refused::NoSuchPublication));
        let third =
            all.publish(None, Some(&second), 60, vec![tuple("bed", "")], later).expect("modified").expect("tag");
        assert_eq!(all.all()[0].elements[0].attribute("id"), Some("bed"));
        assert_eq!(all.publish(None, Some(&third), 0, Vec::new(), later), Ok(None));
        assert!(all.all().is_empty());
    }

    // RFC 3903 §6, steps 4 and 5.
    #[test]
    fn what_is_over_too_brief_too_much_or_anothers_is_refused() {
        let mut all = publications();
        let tag = all.publish(None, None, 100, vec![tuple("desk", "")], START).expect("made").expect("a tag");
        let over = START.plus_seconds(100);
        assert_eq!(all.publish(None, Some(&tag), 100, Vec::new(), over), Err(Refused::NoSuchPublication));
        assert_eq!(all.publish(None, None, 59, vec![tuple("x", "")], START), Err(Refused::TooBrief));
        assert_eq!(all.publish(None, None, 0, vec![tuple("x", "")], START), Err(Refused::TooBrief));
        assert_eq!(all.publish(None, None, 100, Vec::new(), START), Err(Refused::Empty));
        let nurse = bare("nurse@capulet.example");
        assert_eq!(all.publish(Some(&nurse), Some(&tag), 100, Vec::new(), START), Err(Refused::NoSuchPublication));
        assert_eq!(all.publish(Some(&nurse), None, 100, vec![tuple("desk", "")], START), Err(Refused::IdTaken));
        let big = tuple("big", &format!("<note>{}</note>", "x".repeat(BYTES_MAX)));
        assert_eq!(all.publish(None, None, 100, vec![big], START), Err(Refused::TooMuch));
        for n in 1..PUBLICATIONS_MAX {
            all.publish(None, None, 100, vec![tuple(&format!("n{n}"), "")], START).expect("there is room");
        }
        assert_eq!(all.publish(None, None, 100, vec![tuple("last", "")], START), Err(Refused::TooMuch));
        assert_eq!(all.all().len(), PUBLICATIONS_MAX);
    }

    #[test]
    fn a_publisher_that_lost_its_tag_takes_over_its_own_tuple() {
        let mut all = publications();
        all.publish(None, None, 100, vec![tuple("desk", ""), tuple("bed", "")], START).expect("made");
        all.publish(None, None, 200, vec![tuple("desk", "<note>new</note>")], START).expect("made again");
        let ids: Vec<_> =
            all.all().iter().flat_map(|one| one.elements.iter().filter_map(|e| e.attribute("id"))).collect();
        assert_eq!(ids, ["bed", "desk"]);
    }

    #[test]
    fn publications_come_back_from_the_store_as_they_were() {
        let mut all = publications();
        let nurse = bare("nurse@capulet.example");
        all.publish(None, None, 100, vec![tuple("desk", "<x xmlns='u:x'/>")], START).expect("made");
        all.publish(Some(&nurse), None, 200, vec![tuple("bed", "<contact>tel:+1</contact>")], START).expect("made");
        let again = Publications::from_stored(Some(&all.to_stored()));
        assert_eq!(again.all(), all.all());
        assert!(Publications::from_stored(Some(b"<broken")).all().is_empty());
    }

    #[test]
    fn a_published_tuple_of_the_account_is_open_when_the_account_is_and_one_of_another_means_as_it_says() {
        let mut juliet = juliet();
        let nurse = bare("nurse@capulet.example");
        let own = tuple("desk", "");
        let phone = tuple("phone", "<contact>tel:+1</contact>");
        juliet.account.publications.publish(None, None, 100, vec![own], START).expect("made");
        juliet.account.publications.publish(Some(&nurse), None, 100, vec![phone], START).expect("made");
        let opens = |scene: &Scene| tuples(scene).iter().map(|t| (t.id.to_string(), t.open)).collect::<Vec<_>>();
        assert_eq!(opens(&juliet), [("desk".to_owned(), false), ("phone".to_owned(), true)]);
        let named = format!("{:?}", compose(&juliet.account, &jid(ROMEO)).expect("seen"));
        assert!(named.contains("<publisher xmlns='urn:waft:tuples:0'>nurse@capulet.example</publisher>"), "{named}");
        let juliet = juliet.with("home", 0);
        assert!(opens(&juliet).contains(&("desk".to_owned(), true)));
        let mut juliet = juliet;
        juliet.after_ms(100_000);
        assert_eq!(tuples(&juliet).len(), 1, "what is over is not told");
    }

    proptest! {
        /// RFC 2778 §2.4: a tuple is open exactly when a message sent to its contact now is given to a client, among those
        /// that take messages at all.
        #[test]
        fn a_tuple_is_open_exactly_when_a_message_would_be_delivered_live(
            resources in proptest::collection::vec((-2i8..3, any::<bool>(), any::<bool>()), 0..4),
            messages in any::<bool>(),
        ) {
            let mut scene = juliet().policy(|policy| policy.messages = messages);
            for (n, (priority, available, hibernated)) in resources.iter().enumerate() {
                let name = format!("r{n}");
                scene = if *available { scene.with(&name, *priority) } else { scene.connected(&name) };
                if *hibernated {
                    scene = scene.having(&name, |session| session.edge = None);
                }
            }
            let available = scene.sessions.iter().filter(|s| s.is_available()).count();
            let all = tuples(&scene);
            prop_assert_eq!(all.len(), available);
            for tuple in all {
                let to = pidf::jid_of_uri(tuple.contact.as_deref().expect("a contact")).expect("an address");
                let message = format!("<message type='chat' from='{ROMEO}' to='{to}'><body>hi</body></message>");
                let live = scene.receive(&message).written_to().contains(&to.resource().expect("full").to_owned());
                prop_assert_eq!(tuple.open, live && tuple.priority >= Some(0), "{:?}", tuple);
            }
        }

        /// The same of the account as a whole, if no client of it is away from its stream.
        #[test]
        fn some_tuple_is_open_exactly_when_a_message_to_the_account_would_be_delivered_live(
            priorities in proptest::collection::vec(-2i8..3, 0..4),
        ) {
            let mut scene = priorities.iter().enumerate().fold(juliet(), |scene, (n, p)| scene.with(&format!("r{n}"), *p));
            let open = tuples(&scene).iter().any(|tuple| tuple.open);
            let message = format!("<message type='chat' from='{ROMEO}'><body>hi</body></message>");
            prop_assert_eq!(open, !scene.receive(&message).written_to().is_empty());
        }
    }

    #[test]
    fn an_account_that_never_was_there_has_an_empty_document_for_itself() {
        let document = compose(&account("juliet@capulet.example").account, &jid("juliet@capulet.example/x"));
        let document = document.expect("the owner sees");
        assert_eq!(document.attribute("entity"), Some("pres:juliet@capulet.example"));
        assert!(document.elements().next().is_none());
    }
}
