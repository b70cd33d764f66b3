//! A node as it is stored: one row in the space of settings. What an older row does not say is as it was then.

use super::{Access, Config, Item, Node, SendLast};
use xmpp::{BareJid, Element, Jid, Stamp};

const STORED: &str = "urn:waft:node";

impl Node {
    pub(super) fn to_stored(&self) -> Vec<u8> {
        let config = &self.config;
        let flag = |flag: bool| if flag { '1' } else { '0' };
        // (Who knows of two values alone reads the third as never.)
        let send_last = match config.send_last {
            SendLast::Never => '0',
            SendLast::OnPresence => '1',
            SendLast::OnSubscription => '2',
        };
        let flags = [
            flag(config.persist),
            send_last,
            flag(config.deliver),
            flag(config.notify_retract),
            flag(config.notify_delete),
            flag(config.names_publisher),
            flag(config.notify_config),
        ];
        let flags = String::from_iter(flags);
        let items = self.items.iter().map(|item| {
            let element = Element::new("item", STORED).attr("id", &item.id).attr("bytes", item.bytes.to_string());
            element.attr("at", item.published.0.to_string())
        });
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let groups = config.groups.iter().map(|group| Element::new("group", STORED).text(group));
        // Nodes that were stored before there was a choice are private, and have no word of it.
        let access = Some(config.access.name()).filter(|_| config.access != Access::Whitelist);
        let node = Element::new("node", STORED).attr("flags", flags).attr_opt("access", access);
        let node = node.attr_opt("title", text(&config.title)).attr_opt("about", text(&config.description));
        let node = node.attr_opt("type", text(&config.payload_type));
        let node = node.attr_opt("max", config.items_max.map(|max| max.to_string()));
        let members = self.members.iter().map(|who| Element::new("member", STORED).attr("jid", who.as_str()));
        let subscribers = self.subscribers.iter();
        let subscribers = subscribers.map(|who| Element::new("subscriber", STORED).attr("jid", who.as_str()));
        node.children_from(groups).children_from(members).children_from(subscribers).children_from(items).to_bytes("")
    }

    pub(super) fn from_stored(value: &[u8]) -> Option<Node> {
        let stored = Element::parse(value, STORED).ok()?;
        let flags = stored.attribute("flags")?.as_bytes();
        let flag = |at: usize| flags.get(at).map(|flag| *flag == b'1');
        let text = |name: &str| stored.attribute(name).unwrap_or_default().into();
        let all = |name: &'static str| stored.elements().filter(move |child| child.is(name, STORED));
        let groups = all("group");
        let members = all("member").filter_map(|who| BareJid::parse(who.attribute("jid")?).ok());
        let subscribers = all("subscriber").filter_map(|who| Jid::parse(who.attribute("jid")?).ok());
        let items = all("item").filter_map(|item| {
            Some(Item {
                id: item.attribute("id")?.into(),
                bytes: item.attribute("bytes")?.parse().ok()?,
                published: Stamp(item.attribute("at")?.parse().ok()?),
            })
        });
        let config = Config {
            // A word that is not known hides the node.
            access: stored.attribute("access").and_then(Access::named).unwrap_or(Access::Whitelist),
            groups: groups.map(|group| group.text_content().into()).collect(),
            title: text("title"),
            description: text("about"),
            payload_type: text("type"),
            names_publisher: flag(5).unwrap_or(false),
            persist: flag(0)?,
            items_max: stored.attribute("max").and_then(|max| max.parse().ok()),
            send_last: match flags.get(1)? {
                b'1' => SendLast::OnPresence,
                b'2' => SendLast::OnSubscription,
                _ => SendLast::Never,
            },
            deliver: flag(2)?,
            notify_retract: flag(3)?,
            notify_delete: flag(4)?,
            notify_config: flag(6).unwrap_or(false),
        };
        let (items, members) = (items.collect(), members.collect());
        Some(Node { config, items, members, subscribers: subscribers.collect() })
    }
}
