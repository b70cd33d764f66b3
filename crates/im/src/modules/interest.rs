//! Which events a client wants to be told of, XEP-0163 §4.2: the features `…+notify` of its capabilities (XEP-0115).
//!
//! The account asks its own client once a version. Nothing is remembered from one session to the next, so that no
//! client can speak for another. Contacts' clients are asked while there is a node that others may see, each version once:
//! [`crate::capabilities`].

use crate::account::Account;
use crate::capabilities::{NODES_MAX, Wanted};
use crate::effects::{Delivery, Effect, Effects};
use crate::item::SessionId;
use crate::modules::{caps, pubsub};
use crate::nodes;
use crate::presence::OWN;
use crate::session;
use crate::view::Exit;
use crate::ways::{Flow, Passage};
use std::collections::BTreeMap;
use std::sync::Arc;
use xmpp::ns::DISCO_INFO;
use xmpp::{Element, IqType, Jid, PresenceType, Stanza, StanzaError, StanzaType};

const NOTIFY: &str = "+notify";
/// Clients of contacts that an account keeps in mind.
const CLIENTS_MAX: usize = 1_000;
const ID: &str = "waft-interest-";

/// What a session's client wants.
#[derive(Debug, Default)]
pub struct Interest {
    /// The version of capabilities that was asked about.
    version: Option<Box<str>>,
    /// Questions so far; the last one counts.
    asked: u32,
    nodes: Vec<Box<str>>,
    /// Has been sent what was published last since it became available.
    greeted: bool,
}

impl Interest {
    pub fn wants(&self, node: &str) -> bool {
        self.nodes.iter().any(|known| **known == *node)
    }
}

/// Presence of an own client: if it says new capabilities, they are asked about; a client that has become available
/// and is known is told what was published last.
pub fn presence(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(id) = passage.session.filter(|_| passage.stanza.to.is_none()) else { return Ok(Flow::Next) };
    let version = passage.stanza.payload.child("c", caps::NS).and_then(|c| {
        let (node, version) = (c.attribute("node")?, c.attribute("ver")?);
        Some((format!("{node}#{version}"), version))
    });
    let is_available = passage.stanza.kind == StanzaType::Presence(xmpp::PresenceType::Available);
    let own = account.jid.clone();
    let Some(session) = account.session_mut(id) else { return Ok(Flow::Next) };
    if !is_available {
        session.interest.greeted = false;
        return Ok(Flow::Next);
    }
    let known = session.interest.version.as_deref();
    match version {
        Some((node, version)) if known != Some(&*version) => {
            session.interest.version = Some((&*version).into());
            session.interest.asked += 1;
            let query = Element::new("query", DISCO_INFO).attr("node", node);
            let asks = Stanza::iq(IqType::Get, &format!("{ID}{}", session.interest.asked))
                .with_from(own)
                .with_to(session.jid.clone())
                .with_children([query]);
            session::deliver(account, id, Delivery::plain(Arc::new(asks)), fx);
        }
        Some(_) => greet(account, id, fx),
        None => session.interest.nodes.clear(),
    }
    Ok(Flow::Next)
}

/// What the client answers.
pub fn answered(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind @ (IqType::Result | IqType::Error)) = passage.stanza.kind else { return Ok(Flow::Next) };
    let number = passage.stanza.id.as_deref().and_then(|id| id.strip_prefix(ID));
    let (Some(id), Some(number)) = (passage.session, number) else { return Ok(Flow::Next) };
    if passage.to != *account.jid {
        return Ok(Flow::Next);
    }
    let capabilities = account.policy.capabilities.clone();
    let Some(session) = account.session_mut(id) else { return Ok(Flow::Done) };
    if number != session.interest.asked.to_string() {
        return Ok(Flow::Done);
    }
    let info = passage.stanza.payload.child("query", DISCO_INFO).filter(|_| kind == IqType::Result);
    let info = info.map(|child| child.to_element()).unwrap_or_else(|| Element::new("query", DISCO_INFO));
    if let Some((_, version)) = session.interest.version.as_deref().and_then(|version| version.rsplit_once('#')) {
        // For the contacts' accounts, who would ask the same.
        capabilities.learn(version, &info);
    }
    let features = info.elements().filter(|child| child.is("feature", DISCO_INFO));
    let nodes = features.filter_map(|feature| feature.attribute("var")?.strip_suffix(NOTIFY));
    session.interest.nodes = nodes.take(NODES_MAX).map(Into::into).collect();
    greet(account, id, fx);
    Ok(Flow::Done)
}

fn greet(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(session) = account.session_mut(id).filter(|session| session.is_available()) else { return };
    if !std::mem::replace(&mut session.interest.greeted, true) {
        pubsub::send_last(account, id, fx);
    }
}

// ---- contacts ----

/// Clients of contacts, by their full JIDs.
#[derive(Debug, Default)]
pub struct Clients {
    known: BTreeMap<Jid, Client>,
    asked: u32,
}

#[derive(Debug)]
struct Client {
    version: Box<str>,
    knows: Knows,
}

#[derive(Debug)]
enum Knows {
    /// The number of the question.
    Asked(u32),
    Wants(Wanted),
}

impl Clients {
    pub fn wants(&self, client: &Jid, node: &str) -> bool {
        self.known.get(client).is_some_and(|client| client.wants(node))
    }

    /// Those that want to be told of the node.
    pub fn wanting(&self, node: &str) -> impl Iterator<Item = &Jid> {
        self.known.iter().filter(move |(_, client)| client.wants(node)).map(|(jid, _)| jid)
    }

    /// It is gone; what a bare JID says is of all its resources.
    fn forget(&mut self, who: &Jid) {
        if who.is_bare() {
            self.known.retain(|client, _| !client.same_bare(who));
        } else {
            self.known.remove(who);
        }
    }
}

impl Client {
    fn wants(&self, node: &str) -> bool {
        matches!(&self.knows, Knows::Wants(nodes) if nodes.iter().any(|known| **known == *node))
    }
}

/// Presence of a contact: a client that has come is told what was published last. XEP-0163 §4.3.4.
///
/// # Errors
/// None.
pub fn contact(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(kind) = passage.stanza.kind else { return Ok(Flow::Next) };
    let Some(from) = passage.stanza.from.as_ref().filter(|_| passage.to.is_bare()) else { return Ok(Flow::Next) };
    match kind {
        PresenceType::Unavailable => account.clients.forget(from),
        PresenceType::Available if account.nodes.are_shared() => {
            // What is said to this account alone answers a question of it, and is no news: a broadcast names nobody here,
            // and servers elsewhere mark what is old.
            let is_here = from.domain() == account.jid.domain();
            let is_old = passage.stanza.payload.child("delay", xmpp::ns::DELAY).is_some();
            let is_news = !(is_old || is_here && passage.stanza.to.is_some());
            heard(account, &passage.stanza.clone(), is_news, fx);
        }
        _ => {}
    }
    Ok(Flow::Next)
}

/// There may be something to be seen now that was not before: whose clients are there is remembered elsewhere.
pub(super) fn look_around(account: &mut Account, fx: &mut Effects) {
    if account.clients.known.is_empty() && account.nodes.are_shared() {
        let there: Vec<Arc<Stanza>> = account.contacts.there().cloned().collect();
        for stanza in there {
            heard(account, &stanza, false, fx);
        }
    }
}

fn heard(account: &mut Account, stanza: &Arc<Stanza>, is_news: bool, fx: &mut Effects) {
    let Some(from) = stanza.from.clone().filter(|from| !from.is_bare()) else { return };
    let Some(caps) = stanza.payload.child("c", caps::NS) else { return account.clients.forget(&from) };
    let (Some(node), Some(version)) = (caps.attribute("node"), caps.attribute("ver")) else { return };
    if account.clients.known.get(&from).is_some_and(|client| *client.version == *version)
        || !account.nodes.iter().any(|(name, node)| nodes::sees(account, &from, name, node, Exit::PepEvent))
        || (account.clients.known.len() >= CLIENTS_MAX && !account.clients.known.contains_key(&from))
    {
        return;
    }
    let known =
        account.policy.capabilities.wanted(&version).filter(|_| caps.attribute("hash").as_deref() == Some("sha-1"));
    let is_known = known.is_some();
    let knows = known.map_or_else(
        || {
            account.clients.asked = account.clients.asked.wrapping_add(1);
            Knows::Asked(account.clients.asked)
        },
        Knows::Wants,
    );
    if let Knows::Asked(number) = knows {
        let query = Element::new("query", DISCO_INFO).attr("node", format!("{node}#{version}"));
        let asks = Stanza::iq(IqType::Get, &format!("{ID}{number}")).with_from(account.jid.clone());
        let stanza = Arc::new(asks.with_to(from.clone()).with_children([query]));
        fx.push(Effect::Tell { to: from.clone(), stanza, ingress: OWN, ticket: Default::default() });
    }
    account.clients.known.insert(from, Client { version: (&*version).into(), knows });
    if is_known && is_news {
        pubsub::send_last_to_contact(account, stanza, fx);
    }
}

/// What a contact's client answers.
///
/// # Errors
/// None.
pub fn contact_answered(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind @ (IqType::Result | IqType::Error)) = passage.stanza.kind else { return Ok(Flow::Next) };
    let number = passage.stanza.id.as_deref().and_then(|id| id.strip_prefix(ID));
    let (Some(from), Some(number)) = (passage.stanza.from.as_ref(), number) else { return Ok(Flow::Next) };
    let Some(client) = account.clients.known.get_mut(from).filter(|_| passage.to.is_bare()) else {
        return Ok(Flow::Next);
    };
    if !matches!(client.knows, Knows::Asked(asked) if asked.to_string() == number) {
        return Ok(Flow::Done);
    }
    let info = passage.stanza.payload.child("query", DISCO_INFO).filter(|_| kind == IqType::Result);
    let wanted = info.map(|info| account.policy.capabilities.learn(&client.version, &info.to_element()));
    client.knows = Knows::Wants(wanted.unwrap_or_default());
    pubsub::send_last_to_contact(account, &passage.stanza, fx);
    Ok(Flow::Done)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, Scene, account};

    fn juliet() -> Scene {
        account("juliet@capulet.example").connected("balcony")
    }

    fn presence(version: &str) -> String {
        format!(
            "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='{version}'/></presence>"
        )
    }

    fn questions(fx: &Fx) -> Vec<String> {
        fx.delivered("balcony").into_iter().filter(|xml| xml.contains("disco#info")).collect()
    }

    fn answers(juliet: &mut Scene, number: u32, feature: &str) -> Fx {
        juliet.sends("balcony", &format!(
            "<iq type='result' id='waft-interest-{number}'><query xmlns='http://jabber.org/protocol/disco#info' node='n#1'>\
             <feature var='{feature}'/></query></iq>"
        ))
    }

    #[test]
    fn a_client_is_asked_once_a_version() {
        let mut juliet = juliet();
        let asked = questions(&juliet.sends("balcony", &presence("1")));
        assert_eq!(
            asked,
            ["<iq from='juliet@capulet.example' to='juliet@capulet.example/balcony' id='waft-interest-1' type='get'>\
              <query xmlns='http://jabber.org/protocol/disco#info' node='n#1'/></iq>"]
        );
        answers(&mut juliet, 1, "urn:a+notify");
        assert!(questions(&juliet.sends("balcony", &presence("1"))).is_empty());
        assert_eq!(questions(&juliet.sends("balcony", &presence("2"))).len(), 1);
        let session = juliet.id("balcony");
        assert!(juliet.session(session).expect("it is there").interest.wants("urn:a"));
    }

    #[test]
    fn a_client_that_says_nothing_of_itself_is_not_asked() {
        assert!(questions(&juliet().sends("balcony", "<presence/>")).is_empty());
    }

    #[test]
    fn only_the_answer_to_the_last_question_counts() {
        let mut juliet = juliet();
        juliet.sends("balcony", &presence("1"));
        juliet.sends("balcony", &presence("2"));
        answers(&mut juliet, 1, "urn:old+notify");
        answers(&mut juliet, 2, "urn:new+notify");
        let session = juliet.id("balcony");
        let interest = &juliet.session(session).expect("it is there").interest;
        assert!(interest.wants("urn:new") && !interest.wants("urn:old"));
    }
}
