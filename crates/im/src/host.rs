//! The domain itself as an entity: answers what is addressed to it.
//!
//! One stanza in, at most one out, and never an answer to an error: nothing is amplified (LIMITS.md §2 row 44).

use crate::effects::{Effect, Effects};
use crate::item::{Ingress, Now, Ticket};
use crate::module::{HostHandler, Iq};
use crate::modules::{MODULES, unknown};
use crate::policy::HostPolicy;
use std::sync::Arc;
use xmpp::{
    Element, IqType, Jid, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError,
    StanzaType,
};

#[derive(Debug)]
pub struct Host {
    pub policy: Arc<HostPolicy>,
    pub now: Now,
    pub started: Now,
}

impl Host {
    /// A stanza addressed to the host (or a resource of it); `from` is stamped. Answers by [`Effect::Tell`], to the
    /// sender's address. RFC 6120 §10.4.1, RFC 6121 §8.4.
    pub fn step(
        &mut self,
        stanza: Arc<Stanza>,
        to: Jid,
        ticket: Ticket,
        now: Now,
        fx: &mut Effects,
    ) {
        self.now = now;
        let answer = match stanza.kind {
            StanzaType::Iq(kind @ (IqType::Get | IqType::Set)) => {
                Some(self.iq(&stanza, &to, kind, &ticket, fx))
            }
            StanzaType::Message(
                MessageType::Normal | MessageType::Chat | MessageType::Groupchat,
            ) => Some(Err(unknown())),
            StanzaType::Presence(PresenceType::Subscribe) => {
                return self.refuse_subscription(&stanza, ticket, fx);
            }
            // The host has no presence, and waits for no result; errors and headlines are nobody's.
            StanzaType::Iq(_) | StanzaType::Message(_) | StanzaType::Presence(_) => None,
        };
        let answer = match answer {
            Some(Ok(content)) => Some(stanza.result(content)),
            Some(Err(error)) => stanza.error(&error),
            None => None,
        };
        if let Some(answer) = answer {
            tell(answer, ticket, fx);
        }
    }

    fn iq(
        &mut self,
        stanza: &Arc<Stanza>,
        to: &Jid,
        kind: IqType,
        ticket: &Ticket,
        fx: &mut Effects,
    ) -> Result<Option<Element>, StanzaError> {
        let (Some(child), Some(from)) = (stanza.payload.first(), stanza.from.as_ref()) else {
            return Err(StanzaCondition::BadRequest.into());
        };
        // A resource of the host is none of its services.
        let handler = if to.is_bare() {
            find(kind, child.ns, child.name)
        } else {
            None
        };
        let handler = handler.ok_or_else(unknown)?;
        let child = child.to_element();
        handler(
            self,
            &Iq {
                stanza,
                from,
                child: &child,
                session: None,
                ticket,
            },
            fx,
        )
    }

    /// Nobody sees a host's presence. RFC 6121 §3.1.3.
    fn refuse_subscription(&self, stanza: &Stanza, ticket: Ticket, fx: &mut Effects) {
        let Some(from) = &stanza.from else { return };
        let refusal = Stanza::presence(PresenceType::Unsubscribed)
            .with_from(self.policy.domain.clone())
            .with_to(from.to_bare());
        tell(refusal, ticket, fx);
    }
}

fn find(kind: IqType, ns: &str, name: &str) -> Option<HostHandler> {
    MODULES
        .iter()
        .flat_map(|module| module.host_iq)
        .find(|(its_kind, its_ns, its_name, _)| {
            *its_kind == kind && *its_ns == ns && *its_name == name
        })
        .map(|&(.., handler)| handler)
}

fn tell(answer: Stanza, ticket: Ticket, fx: &mut Effects) {
    let Some(to) = answer.to.clone() else { return };
    fx.push(Effect::Tell {
        to,
        stanza: Arc::new(answer),
        ingress: Ingress {
            stream: 0,
            ordinal: 0,
        },
        ticket,
    });
}
