//! External Service Discovery, XEP-0215: the STUN and TURN servers of the host, with passing credentials for its users.
//!
//! The name of a credential is the time when it ends, the password the name signed with a key that the TURN server
//! knows, too ("TURN REST API", draft-uberti-behave-turn-rest-00 §2.2). It says nothing of the user.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::policy::{ExternalService, HostPolicy};
use xmpp::{Element, IqType, Stamp, StanzaCondition};

pub const NS: &str = "urn:xmpp:extdisco:2";

pub static MODULE: Module = Module {
    name: "external services",
    specs: &[xep(215, "1.0.0")],
    host_features: &[NS],
    // Of the host's own users alone: others would use up what it pays for.
    account_iq: &[
        (IqType::Get, NS, "services", Who::Owner, services),
        (IqType::Get, NS, "credentials", Who::Owner, credentials),
    ],
    own_at_host: true,
    offered: |policy| !policy.external_services.is_empty(),
    ..Module::EMPTY
};

/// §3.1, §3.2.
fn services(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let kind = iq.child.attribute("type");
    let wanted =
        account.policy.external_services.iter().filter(|service| kind.is_none_or(|kind| *service.kind == *kind));
    let shown = wanted.map(|service| shown(service, &account.policy, account.now.utc));
    Ok(Answer::Result(Some(Element::new("services", NS).attr_opt("type", kind).children_from(shown))))
}

/// §3.3.
fn credentials(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let wanted = iq.child.find("service", NS).ok_or(StanzaCondition::BadRequest)?;
    let (Some(host), Some(kind)) = (wanted.attribute("host"), wanted.attribute("type")) else {
        return Err(StanzaCondition::BadRequest.into());
    };
    let port = wanted.attribute("port");
    let is_it = |service: &&ExternalService| {
        *service.host == *host && *service.kind == *kind && port.is_none_or(|port| service.port.to_string() == port)
    };
    let found = account.policy.external_services.iter().filter(is_it);
    let shown: Vec<Element> = found.map(|service| shown(service, &account.policy, account.now.utc)).collect();
    if shown.is_empty() {
        return Err(StanzaCondition::ItemNotFound.into());
    }
    Ok(Answer::Result(Some(Element::new("credentials", NS).children_from(shown))))
}

fn shown(service: &ExternalService, policy: &HostPolicy, now: Stamp) -> Element {
    let element = Element::new("service", NS)
        .attr("type", &service.kind)
        .attr("host", &service.host)
        .attr("port", service.port.to_string())
        .attr("transport", &service.transport);
    let Some(turn) = policy.turn.as_ref().filter(|_| service.is_relay()) else { return element };
    let expires = now.plus_seconds(i64::from(turn.seconds));
    let expires = Stamp(expires.0 - expires.0.rem_euclid(1_000_000));
    let username = (expires.0 / 1_000_000).to_string();
    let password = (turn.sign.0)(&username);
    element
        .attr("restricted", "true")
        .attr("username", username)
        .attr("password", password)
        .attr("expires", expires.to_xmpp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Signer, Turn};
    use crate::testing::{Scene, account};
    use std::sync::Arc;

    fn service(kind: &str, port: u16, transport: &str) -> ExternalService {
        ExternalService { kind: kind.into(), host: "turn.capulet.example".into(), port, transport: transport.into() }
    }

    fn juliet() -> Scene {
        account("juliet@capulet.example").with("home", 0).policy(|policy| {
            policy.external_services =
                vec![service("stun", 3478, "udp"), service("turn", 3478, "udp"), service("turns", 5349, "tcp")];
            policy.turn = Some(Turn { seconds: 3_600, sign: Signer(Arc::new(|name| format!("signed {name}"))) });
        })
    }

    fn asks(scene: &mut Scene, content: &str) -> String {
        let iq = format!("<iq type='get' id='1' to='capulet.example'>{content}</iq>");
        let fx = scene.sends("home", &iq);
        assert!(fx.told().is_empty());
        fx.delivered("home").remove(0)
    }

    const TURN: &str = "<service type='turn' host='turn.capulet.example' port='3478' transport='udp' restricted='true' \
        username='1767229200' password='signed 1767229200' expires='2026-01-01T01:00:00Z'/>";

    #[test]
    fn the_hosts_users_are_told_of_its_services_with_passing_credentials_for_relays() {
        let answer = asks(&mut juliet(), "<services xmlns='urn:xmpp:extdisco:2'/>");
        let stun = "<service type='stun' host='turn.capulet.example' port='3478' transport='udp'/>";
        assert!(answer.contains(stun) && answer.contains(TURN) && answer.contains("type='turns'"), "{answer}");
        assert!(answer.contains("from='capulet.example'"), "{answer}");
    }

    #[test]
    fn services_of_one_type_may_be_asked_for() {
        let answer = asks(&mut juliet(), "<services xmlns='urn:xmpp:extdisco:2' type='turn'/>");
        assert!(
            answer.contains(&format!("<services xmlns='urn:xmpp:extdisco:2' type='turn'>{TURN}</services>")),
            "{answer}"
        );
    }

    #[test]
    fn credentials_are_given_for_a_service_that_is_there() {
        let ask = |attributes: &str| {
            asks(
                &mut juliet(),
                &format!("<credentials xmlns='urn:xmpp:extdisco:2'><service {attributes}/></credentials>"),
            )
        };
        let answer = ask("host='turn.capulet.example' type='turn' port='3478'");
        assert!(answer.contains(&format!("<credentials xmlns='urn:xmpp:extdisco:2'>{TURN}</credentials>")), "{answer}");
        assert!(ask("host='turn.capulet.example' type='turn' port='1'").contains("<item-not-found"));
        assert!(ask("host='turn.capulet.example'").contains("<bad-request"));
    }

    #[test]
    fn strangers_are_told_nothing() {
        let fx = juliet().receive(
            "<iq from='romeo@montague.example/x' type='get' id='1'><services xmlns='urn:xmpp:extdisco:2'/></iq>",
        );
        assert!(fx.told()[0].1.contains("<service-unavailable"), "{:?}", fx.told());
    }

    #[test]
    fn without_services_nothing_is_offered() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let fx = juliet.sends("home", "<iq type='get' id='1'><services xmlns='urn:xmpp:extdisco:2'/></iq>");
        assert!(fx.delivered("home")[0].contains("<service-unavailable"));
    }
}
