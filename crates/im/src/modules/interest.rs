//! Which events a client wants to be told of, XEP-0163 §4.2: the features `…+notify` of its capabilities (XEP-0115).
//!
//! The account asks its own client once a version. Nothing is remembered from one session to the next, so that no
//! client can speak for another.

use crate::account::Account;
use crate::effects::Effects;
use crate::item::SessionId;
use crate::modules::{caps, pubsub};
use crate::session;
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::ns::DISCO_INFO;
use xmpp::{Element, IqType, Stanza, StanzaError, StanzaType};

const NOTIFY: &str = "+notify";
/// Nodes that one client may be interested in.
const NODES_MAX: usize = 256;
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
            session::deliver(account, id, super::plain(Arc::new(asks)), fx);
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
    let Some(session) = account.session_mut(id) else { return Ok(Flow::Done) };
    if number != session.interest.asked.to_string() {
        return Ok(Flow::Done);
    }
    let info = passage.stanza.payload.child("query", DISCO_INFO).filter(|_| kind == IqType::Result);
    let info = info.map(|child| child.to_element()).unwrap_or_else(|| Element::new("query", DISCO_INFO));
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
