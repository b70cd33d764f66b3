//! The domain itself as an entity: answers what is addressed to it.
//!
//! One stanza in, at most one out, and never an answer to an error: nothing is amplified (LIMITS.md §2 row 44).

use crate::effects::{Effect, Effects};
use crate::item::{Ingress, Now, Ticket};
use crate::module::Iq;
use crate::modules::{find_of_host, unknown};
use crate::policy::HostPolicy;
use std::sync::Arc;
use xmpp::{Element, IqType, Jid, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

#[derive(Debug)]
pub struct Host {
    pub policy: Arc<HostPolicy>,
    pub now: Now,
    pub started: Now,
}

impl Host {
    /// A stanza addressed to the host (or a resource of it); `from` is stamped. Answers by [`Effect::Tell`], to the
    /// sender's address. RFC 6120 §10.4.1, RFC 6121 §8.4.
    pub fn step(&mut self, stanza: Arc<Stanza>, to: Jid, ticket: Ticket, now: Now, fx: &mut Effects) {
        self.now = now;
        let answer = match stanza.kind {
            StanzaType::Iq(kind @ (IqType::Get | IqType::Set)) => Some(self.iq(&stanza, &to, kind, &ticket, fx)),
            StanzaType::Message(MessageType::Normal | MessageType::Chat | MessageType::Groupchat) => {
                Some(Err(unknown()))
            }
            StanzaType::Presence(PresenceType::Subscribe) => {
                return self.refuse_subscription(&stanza, ticket, fx);
            }
            // The host has no presence, and waits for no result; errors and headlines are nobody's.
            StanzaType::Iq(_) | StanzaType::Message(_) | StanzaType::Presence(_) => None,
        };
        let answer = match answer {
            Some(Ok(content)) => Some(stanza.result(content)),
            Some(Err(error)) => {
                fx.refused(&error);
                stanza.error(&error)
            }
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
        let handler = if to.is_bare() { find_of_host(&self.policy, kind, child.ns, child.name) } else { None };
        let handler = handler.ok_or_else(unknown)?;
        let child = child.to_element();
        handler(self, &Iq { stanza, from, child: &child, session: None, ticket }, fx)
    }

    /// Nobody sees a host's presence. RFC 6121 §3.1.3.
    fn refuse_subscription(&self, stanza: &Stanza, ticket: Ticket, fx: &mut Effects) {
        let Some(from) = &stanza.from else { return };
        let refusal =
            Stanza::presence(PresenceType::Unsubscribed).with_from(self.policy.domain.clone()).with_to(from.to_bare());
        tell(refusal, ticket, fx);
    }
}

fn tell(answer: Stanza, ticket: Ticket, fx: &mut Effects) {
    let Some(to) = answer.to.clone() else { return };
    fx.push(Effect::Tell { to, stanza: Arc::new(answer), ingress: Ingress { stream: 0, ordinal: 0 }, ticket });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::caps;
    use crate::testing::{START, bare, jid, stanza};
    use xmpp::write::{Wire, write_stanza};

    fn host() -> Host {
        let started = Now { utc: START, mono_ms: 1_000 };
        Host { policy: Arc::new(HostPolicy::of(bare("capulet.example"))), now: started, started }
    }

    fn asked_at(host: &mut Host, to: &str, xml: &str) -> Vec<String> {
        let mut fx = Effects::default();
        let now = Now { utc: START.plus_seconds(61), mono_ms: 62_500 };
        let mut stanza = stanza(xml);
        stanza.to = Some(jid(to));
        host.step(Arc::new(stanza), jid(to), Ticket::default(), now, &mut fx);
        fx.list
            .iter()
            .map(|effect| match effect {
                Effect::Tell { to, stanza, .. } => {
                    assert_eq!(stanza.to.as_ref(), Some(to));
                    let mut out = Vec::new();
                    write_stanza(&mut out, stanza, None, &Default::default(), Wire::Client);
                    String::from_utf8(out).expect("stanzas are UTF-8")
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn asked(host: &mut Host, xml: &str) -> Vec<String> {
        asked_at(host, "capulet.example", xml)
    }

    fn gets(content: &str) -> String {
        format!("<iq type='get' id='h1' from='romeo@montague.example/x'>{content}</iq>")
    }

    #[test]
    fn a_ping_is_answered() {
        let answer = asked(&mut host(), &gets("<ping xmlns='urn:xmpp:ping'/>"));
        assert_eq!(answer, ["<iq from='capulet.example' to='romeo@montague.example/x' id='h1' type='result'/>"]);
    }

    // XEP-0012 §5.
    #[test]
    fn the_uptime_counts_from_the_start() {
        let answer = asked(&mut host(), &gets("<query xmlns='jabber:iq:last'/>"));
        assert!(answer[0].contains("<query xmlns='jabber:iq:last' seconds='61'/>"), "{answer:?}");
    }

    // XEP-0202 §2.
    #[test]
    fn the_time_is_utc() {
        let answer = asked(&mut host(), &gets("<time xmlns='urn:xmpp:time'/>"));
        assert!(
            answer[0].contains("<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>2026-01-01T00:01:01Z</utc></time>"),
            "{answer:?}"
        );
    }

    #[test]
    fn the_version_names_no_operating_system() {
        let answer = asked(&mut host(), &gets("<query xmlns='jabber:iq:version'/>"));
        assert!(answer[0].contains("<name>waft</name>") && !answer[0].contains("<os"), "{answer:?}");
    }

    // XEP-0030 §3.1; XEP-0157 §3.
    #[test]
    fn disco_info_shows_a_server_its_features_and_its_contact_addresses() {
        let mut host = host();
        let mut policy = HostPolicy::clone(&host.policy);
        policy.contact_addresses = vec![("abuse-addresses".into(), vec!["mailto:abuse@capulet.example".into()])];
        host.policy = Arc::new(policy);
        let answer = &asked(&mut host, &gets("<query xmlns='http://jabber.org/protocol/disco#info'/>"))[0];
        for part in [
            "<identity category='server' type='im' name='waft'/>",
            "<feature var='http://jabber.org/protocol/disco#info'/>",
            "<feature var='msgoffline'/>",
            "<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/network/serverinfo</value></field>",
            "<field var='abuse-addresses'><value>mailto:abuse@capulet.example</value></field>",
        ] {
            assert!(answer.contains(part), "{part} in {answer}");
        }
    }

    // XEP-0115 §6.3.
    #[test]
    fn the_node_of_the_stream_feature_leads_to_the_same_info() {
        let node = format!("{}#q07IKJEyjvHSyhy//CH0CxmKi8w=", caps::NODE);
        let answer =
            asked(&mut host(), &gets(&format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>")));
        assert!(answer[0].contains(&format!("node='{node}'")), "{answer:?}");
        let answer = asked(&mut host(), &gets("<query xmlns='http://jabber.org/protocol/disco#info' node='nothing'/>"));
        assert!(answer[0].contains("item-not-found"));
    }

    #[test]
    fn disco_items_shows_the_services() {
        let mut host = host();
        let mut policy = HostPolicy::clone(&host.policy);
        policy.services = vec![(jid("rooms.capulet.example"), "Rooms".into())];
        host.policy = Arc::new(policy);
        let answer = asked(&mut host, &gets("<query xmlns='http://jabber.org/protocol/disco#items'/>"));
        assert!(answer[0].contains("<item jid='rooms.capulet.example' name='Rooms'/>"), "{answer:?}");
    }

    // RFC 6120 §8.3.3.19.
    #[test]
    fn what_nothing_handles_is_service_unavailable() {
        let answer = asked(&mut host(), &gets("<query xmlns='jabber:iq:private'/>"));
        assert!(answer[0].contains("type='error'") && answer[0].contains("service-unavailable"), "{answer:?}");
    }

    // LIMITS.md §2 row 24: a stranger has no account here.
    #[test]
    fn registration_by_somebody_from_elsewhere_is_service_unavailable() {
        let answer = asked(&mut host(), &gets("<query xmlns='jabber:iq:register'/>"));
        assert!(answer[0].contains("service-unavailable"));
    }

    #[test]
    fn a_resource_of_the_host_is_none_of_its_services() {
        let answer = asked_at(&mut host(), "capulet.example/announce", &gets("<ping xmlns='urn:xmpp:ping'/>"));
        assert!(answer[0].contains("service-unavailable"));
    }

    #[test]
    fn a_message_to_the_host_is_service_unavailable() {
        let answer = asked(&mut host(), "<message from='romeo@montague.example/x'><body>hi</body></message>");
        assert!(answer[0].contains("service-unavailable") && !answer[0].contains("hi"), "{answer:?}");
    }

    // LIMITS.md §2 row 44; RFC 6120 §8.3.1, §8.2.3.
    #[test]
    fn errors_results_headlines_and_presence_are_not_answered() {
        for xml in [
            "<message type='error' from='romeo@montague.example/x'/>",
            "<message type='headline' from='romeo@montague.example/x'/>",
            "<iq type='result' id='1' from='romeo@montague.example/x'/>",
            "<iq type='error' id='1' from='romeo@montague.example/x'/>",
            "<presence from='romeo@montague.example/x'/>",
            "<presence type='probe' from='romeo@montague.example/x'/>",
            "<presence type='unavailable' from='romeo@montague.example/x'/>",
            "<presence type='unsubscribed' from='romeo@montague.example'/>",
            "<presence type='error' from='romeo@montague.example/x'/>",
        ] {
            assert!(asked(&mut host(), xml).is_empty(), "{xml}");
        }
    }

    #[test]
    fn a_subscription_to_the_host_is_refused_once() {
        let answer = asked(&mut host(), "<presence type='subscribe' from='romeo@montague.example'/>");
        assert_eq!(answer, ["<presence from='capulet.example' to='romeo@montague.example' type='unsubscribed'/>"]);
    }
}
