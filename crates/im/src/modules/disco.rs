//! Service Discovery, XEP-0030: what an entity is and can, put together from the cards.

use crate::account::Account;
use crate::effects::Effects;
use crate::host::Host;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{caps, commands, offered};
use crate::policy::HostPolicy;
use crate::view::{self, Exit, view};
use xmpp::ns::{DISCO_INFO, DISCO_ITEMS};
use xmpp::{Element, IqType, Jid, StanzaCondition, StanzaError};

pub static MODULE: Module = Module {
    name: "disco",
    specs: &[xep(30, "2.5.0")],
    host_features: &[DISCO_INFO, DISCO_ITEMS],
    account_features: &[DISCO_INFO, DISCO_ITEMS],
    // What strangers hear, and who asks an account that does not exist: `modules::nobody`. §8.
    account_iq: &[
        (IqType::Get, DISCO_INFO, "query", Who::Viewer(Exit::AccountInfo), account_info),
        (IqType::Get, DISCO_ITEMS, "query", Who::Viewer(Exit::Resources), account_items),
    ],
    host_iq: &[(IqType::Get, DISCO_INFO, "query", host_info), (IqType::Get, DISCO_ITEMS, "query", host_items)],
    ..Module::EMPTY
};

/// What asks for a list of items: namespace and name.
pub(super) const ITEMS: (&str, &str) = (DISCO_ITEMS, "query");

/// The list without an item, for whoever may not know of any. §8 rule 2.
pub(super) fn no_items(query: &Element) -> Element {
    Element::new("query", DISCO_ITEMS).attr_opt("node", query.attribute("node"))
}

/// The host's disco#info, without a node. A pure function of the policy: the caps hash is made from it.
pub fn info_of_host(policy: &HostPolicy) -> Element {
    let itself = identity("server", "im").attr("name", policy.software.0);
    let others = offered(policy).flat_map(|module| module.identities).map(|(category, kind)| identity(category, kind));
    let features = features(offered(policy).flat_map(|module| module.host_features));
    let forms = offered(policy).filter_map(|module| (module.host_form)(policy));
    let query = Element::new("query", DISCO_INFO).child(itself).children_from(others);
    query.children_from(features).children_from(forms)
}

fn identity(category: &str, kind: &str) -> Element {
    Element::new("identity", DISCO_INFO).attr("category", category).attr("type", kind)
}

/// Sorted, each once. XEP-0115 §5.4 refuses doubles.
fn features(vars: impl Iterator<Item = &'static &'static str>) -> impl Iterator<Item = Element> {
    let mut vars: Vec<&str> = vars.copied().collect();
    vars.sort_unstable();
    vars.dedup();
    vars.into_iter().map(|var| Element::new("feature", DISCO_INFO).attr("var", var))
}

fn host_info(host: &mut Host, iq: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    let node = iq.child.attribute("node");
    let mut nodes = offered(&host.policy).flat_map(|module| module.host_nodes);
    if let Some((name, info)) = nodes.find(|(name, _)| Some(*name) == node) {
        return Ok(Some(info(&host.policy).attr("node", name)));
    }
    if node.is_some_and(|node| !caps::is_ours(node)) {
        return Err(StanzaCondition::ItemNotFound.into());
    }
    Ok(Some(info_of_host(&host.policy).attr_opt("node", node)))
}

fn host_items(host: &mut Host, iq: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    // Only its own users have any. XEP-0050 §2.2.
    let is_ours = iq.from.local().is_some() && iq.from.domain() == host.policy.domain.domain();
    match iq.child.attribute("node") {
        Some(commands::NS) if is_ours => {
            let commands = commands::items_at_host(&host.policy);
            return Ok(Some(Element::new("query", DISCO_ITEMS).attr("node", commands::NS).children_from(commands)));
        }
        Some(_) => return Err(StanzaCondition::ItemNotFound.into()),
        None => {}
    }
    let items = host.policy.services.iter().map(|(jid, name)| {
        let item = Element::new("item", DISCO_ITEMS).attr("jid", jid.as_str());
        item.attr_opt("name", Some(name).filter(|name| !name.is_empty()))
    });
    Ok(Some(Element::new("query", DISCO_ITEMS).children_from(items)))
}

fn account_info(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let command = iq.child.attribute("node").filter(|_| iq.session.is_some());
    if let Some(command) = command.and_then(|node| commands::named(account, node)) {
        // XEP-0050 §2.3.
        let info = Element::new("query", DISCO_INFO)
            .attr("node", command.node)
            .child(identity("automation", "command-node").attr("name", command.name))
            .children_from(features([&commands::NS, &xmpp::ns::DATA_FORM].into_iter()));
        return Ok(Answer::Result(Some(info)));
    }
    if let Some(node) = iq.child.attribute("node") {
        if items_of_node(account, viewer(iq), node).is_none() {
            return Err(StanzaCondition::ItemNotFound.into());
        }
        // XEP-0060 §5.3, §5.4.
        let leaf = Element::new("query", DISCO_INFO).attr("node", node).child(identity("pubsub", "leaf"));
        let forms = offered(&account.policy).filter_map(|module| (module.account_node_form)(account, node));
        let leaf = leaf.children_from(features([&super::pubsub::NS].into_iter())).children_from(forms);
        return Ok(Answer::Result(Some(leaf)));
    }
    let features = features(offered(&account.policy).flat_map(|module| module.account_features));
    let others = offered(&account.policy).flat_map(|module| module.identities);
    let others = others.map(|(category, kind)| identity(category, kind));
    let info = Element::new("query", DISCO_INFO).child(identity("account", "registered"));
    let info = info.children_from(others).children_from(features);
    Ok(Answer::Result(Some(info)))
}

/// Who asks, if it is not the owner.
fn viewer<'a>(iq: &Iq<'a>) -> Option<&'a Jid> {
    iq.session.is_none().then_some(iq.from)
}

fn items_of_node(account: &Account, viewer: Option<&Jid>, node: &str) -> Option<Vec<String>> {
    offered(&account.policy).find_map(|module| (module.account_node_items)(account, viewer, node))
}

/// The available resources, and the nodes; of a node its items. XEP-0030 §4.1, example 15; XEP-0060 §5.2, §5.5.
fn account_items(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let node = iq.child.attribute("node");
    if node == Some(commands::NS) && iq.session.is_some() {
        let items = commands::items(account);
        return Ok(Answer::Result(Some(
            Element::new("query", DISCO_ITEMS).attr("node", commands::NS).children_from(items),
        )));
    }
    let address = account.jid.as_str();
    if let Some(name) = node {
        let items = items_of_node(account, viewer(iq), name).ok_or(StanzaCondition::ItemNotFound)?;
        let items = items.into_iter().map(|id| Element::new("item", DISCO_ITEMS).attr("jid", address).attr("name", id));
        let query = Element::new("query", DISCO_ITEMS).attr("node", name).children_from(items);
        return Ok(Answer::Result(Some(query)));
    }
    let view = view(account, iq.from, Exit::Resources);
    let resources = view::sessions(account, &view);
    let items = resources.map(|session| Element::new("item", DISCO_ITEMS).attr("jid", session.jid.as_str()));
    let nodes = offered(&account.policy).flat_map(|module| (module.account_nodes)(account, viewer(iq)));
    let nodes = nodes.map(|(name, title)| {
        let item = Element::new("item", DISCO_ITEMS).attr("jid", address).attr("node", name);
        item.attr_opt("name", Some(title).filter(|title| !title.is_empty()))
    });
    Ok(Answer::Result(Some(Element::new("query", DISCO_ITEMS).children_from(items).children_from(nodes))))
}

#[cfg(test)]
mod tests {
    use crate::testing::{account, account_with, contact};
    use store::AccountRecord;

    const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    const ITEMS: &str = "<query xmlns='http://jabber.org/protocol/disco#items'/>";

    // XEP-0030 §3.1.
    #[test]
    fn the_owner_hears_that_the_bare_jid_is_a_registered_account() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let fx = juliet.sends("home", &format!("<iq type='get' id='d1' to='juliet@capulet.example'>{INFO}</iq>"));
        let answer = &fx.delivered("home")[0];
        assert!(answer.contains("<identity category='account' type='registered'/>"), "{answer}");
        assert!(answer.contains("<feature var='urn:xmpp:carbons:2'/>"), "{answer}");
    }

    // XEP-0030 §4.1, example 15.
    #[test]
    fn a_contact_hears_of_available_resources_only() {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "from")], ..AccountRecord::default() };
        let mut juliet = account_with("juliet@capulet.example", stored).with("home", 0).connected("attic");
        let fx = juliet.receive(&format!("<iq type='get' id='d1' from='romeo@montague.example/x'>{ITEMS}</iq>"));
        let told = &fx.told()[0].1;
        assert!(told.contains("juliet@capulet.example/home") && !told.contains("attic"), "{told}");
    }

    #[test]
    fn a_node_that_is_none_is_not_found() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='http://jabber.org/protocol/tune'/>";
        let fx = juliet.sends("home", &format!("<iq type='get' id='d1'>{info}</iq>"));
        assert!(fx.delivered("home")[0].contains("item-not-found"));
    }
}
