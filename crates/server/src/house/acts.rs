//! What acts of administration do to the running house.

use super::AccountCell;
use super::House;
use super::entity::CellItem;
use super::run::Running;
use crate::admin::acts::{AccountKind, Act};
use crate::admin::server::account;
use crate::commands::moving::value_of;
use crate::config::{Added, DOMAINS_FILE, Log};
use im::roles::Roles;
use im::{Ingress, Item, Ticket};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::PageQuery;
use xmpp::{BareJid, Element, FullJid, IqType, Jid, MessageType, Stanza, StreamCondition, StreamFault, ns};

/// Clients with the most in their queues that are named.
const SLOW_SHOWN: usize = 20;
/// Accounts that are read at once to be counted.
const COUNTED_AT_ONCE: usize = 1_000;
/// Bytes of an announcement.
const ANNOUNCE_BYTES_MAX: usize = 16_384;

impl Running {
    /// Does an act; who asks was checked.
    ///
    /// # Errors
    /// For people; then nothing was changed.
    pub async fn act(self: &Arc<Running>, act: Act) -> Result<Value, String> {
        let house = &self.house;
        match act {
            Act::MoveIn { jid, file, dry } => {
                let arrived = house.arrived(&file).await?;
                if arrived.jid != account(&jid)? {
                    return Err(format!("the file holds {}, not {jid}", arrived.jid));
                }
                Ok(value_of(&house.move_in(arrived, dry).await?))
            }
            Act::MoveOut { jid } => Ok(json!({ "path": house.move_out(&account(&jid)?).await? })),
            Act::SessionEnd { jid } => house.end_sessions(&jid),
            Act::UserShow { jid } => house.shown(&hosted(house, &jid)?).await,
            Act::Announce { domain, subject, text } => house.announce(domain.as_deref(), subject.as_deref(), &text),
            Act::RosterList { jid } => house.roster_of(&hosted(house, &jid)?).await,
            Act::RosterPut { jid, contact, name, groups, both } => {
                let (jid, contact) = (hosted(house, &jid)?, bare(&contact)?);
                house.put_contact(&jid, &contact, name, groups, both).await
            }
            Act::RosterRemove { jid, contact, both } => {
                let (jid, contact) = (hosted(house, &jid)?, bare(&contact)?);
                if both {
                    hosted(house, contact.as_str())?;
                }
                house.take_contact(&jid, &contact).await?;
                if both {
                    house.take_contact(&contact, &jid).await?;
                }
                Ok(json!({ "jid": jid.as_str(), "removed": contact.as_str(), "both": both }))
            }
            Act::DomainList => Ok(self.domains()),
            Act::DomainAdd { domain, options } => self.add_domain(&domain, &options),
            Act::DomainRemove { domain } => self.remove_domain(&domain),
            Act::Notices => Ok(house.notices.shown()),
            Act::NoticeSet { occasion, subject, text } => house.set_notice(occasion, subject, text),
            Act::Count { domain, only } => Ok(json!(house.accounts_of(&domain, only, 0).await?.0)),
            Act::Accounts { domain, only, max } => Ok(json!(house.accounts_of(&domain, only, max).await?.1)),
            Act::Blocked => Ok(json!(crate::config::blocked_domains(&house.config.read().data))),
            Act::Block { domain, blocked } => self.block(&domain, blocked),
            Act::Queues => Ok(house.queues()),
            Act::Limits => Ok(house.bounds_met()),
            Act::LogLevel { level } => log_level(house, level),
            Act::Drain { on } => {
                house.draining.store(on, Ordering::Release);
                Ok(json!({ "draining": on, "streams": house.edges.len() }))
            }
        }
    }

    // ---- domains ----

    fn domains(&self) -> Value {
        let config = self.house.config.read().clone();
        let added = crate::config::added_domains(&config.data);
        let domains = config.hosts.iter().map(|host| {
            let at_run_time = added.iter().find(|it| *it.domain == *host.domain);
            let keys = self.house.old_keys.of(&host.domain);
            let sha1_alone = Some(keys.figures.sha1_alone).filter(|it| *it > 0);
            json!({
                "domain": &*host.domain, "added_at_run_time": at_run_time.is_some(),
                "options": at_run_time.map(|it| it.options.as_slice()).unwrap_or_default(),
                "accounts_with_sha1_alone": sha1_alone, "sha256_held_back": keys.sha1_first,
            })
        });
        Value::Array(domains.collect())
    }

    fn add_domain(&self, domain: &str, options: &[String]) -> Result<Value, String> {
        let domain = xmpp::jid::prepare_domain(domain).map_err(|_| format!("\"{domain}\" is no domain"))?;
        let config = self.house.config.read().clone();
        if config.domains().any(|it| it == domain) {
            return Err(format!("{domain} is served here already"));
        }
        let mut all = crate::config::added_domains(&config.data);
        let options = options.iter().map(|it| Added::option(it)).collect::<Result<_, _>>()?;
        all.push(Added { domain: domain.clone(), options });
        let notes = self.with_domains(&config.data, &all)?;
        Ok(json!({ "domain": domain, "notes": notes }))
    }

    fn remove_domain(&self, domain: &str) -> Result<Value, String> {
        let domain = xmpp::jid::prepare_domain(domain).map_err(|_| format!("\"{domain}\" is no domain"))?;
        let data = self.house.config.read().data.clone();
        let mut all = crate::config::added_domains(&data);
        let before = all.len();
        all.retain(|it| it.domain != domain);
        if all.len() == before {
            return Err(format!(
                "{domain} was not added at run time\none of the configuration goes by editing the file and `waft reload`"
            ));
        }
        let notes = self.with_domains(&data, &all)?;
        Ok(json!({ "domain": domain, "notes": notes }))
    }

    /// Speaks with a domain no more, or again.
    fn block(&self, domain: &str, blocked: bool) -> Result<Value, String> {
        let domain = blocked_name(domain)?;
        let name = domain.strip_prefix("*.").unwrap_or(&domain);
        let config = self.house.config.read().clone();
        let mut all = crate::config::blocked_domains(&config.data);
        let before = all.len();
        all.retain(|it| *it != domain);
        match (blocked, before == all.len()) {
            (true, _) if config.domains().any(|it| it == name) => return Err(format!("{domain} is served here")),
            (true, _) => all.push(domain),
            (false, true) => {
                return Err(format!(
                    "{domain} is not among those that were blocked at run time\none of the configuration goes by \
                     editing `blocked` in [s2s] and `waft reload`"
                ));
            }
            (false, false) => {}
        }
        let path = config.data.join(crate::config::BLOCKED_FILE);
        let lines: String = all.iter().map(|it| format!("{it}\n")).collect();
        crate::data::write_secret(&path, lines.as_bytes())
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        self.reload_from_sources()?;
        Ok(json!(all))
    }

    /// Writes the list and reads the configuration with it; if that is refused, all is as it was.
    fn with_domains(&self, data: &std::path::Path, all: &[Added]) -> Result<Vec<String>, String> {
        let path = data.join(DOMAINS_FILE);
        let before = std::fs::read(&path).unwrap_or_default();
        let write = |bytes: &[u8]| {
            crate::data::write_secret(&path, bytes)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))
        };
        let lines: String = all.iter().map(|it| it.line() + "\n").collect();
        write(lines.as_bytes())?;
        self.reload_from_sources().or_else(|why| write(&before).and(Err(why)))
    }
}

/// An account of a domain that is hosted.
fn hosted(house: &House, jid: &str) -> Result<BareJid, String> {
    let jid = account(jid)?;
    match house.host(jid.domain()) {
        Some(_) => Ok(jid),
        None => Err(format!("{} is not hosted here\n`waft domain list` shows the domains that are", jid.domain())),
    }
}

fn bare(text: &str) -> Result<BareJid, String> {
    BareJid::parse(text).map_err(|_| format!("\"{text}\" is no address"))
}

/// A domain, or `*.` and a domain for all below it, as it stands in the list of those that are blocked.
///
/// # Errors
/// For people: it is none.
pub(super) fn blocked_name(said: &str) -> Result<String, String> {
    let (below, name) = said.strip_prefix("*.").map_or(("", said), |name| ("*.", name));
    let name = xmpp::jid::prepare_domain(name).map_err(|_| format!("\"{said}\" is no domain"))?;
    Ok(format!("{below}{name}"))
}

fn log_level(house: &House, level: Option<String>) -> Result<Value, String> {
    if let Some(level) = level {
        crate::log::check_level(&level)?;
        crate::log::set_level(&Log { level, ..house.config.read().log.clone() });
    }
    Ok(json!({ "level": crate::log::level() }))
}

impl House {
    fn end_sessions(self: &Arc<House>, jid: &str) -> Result<Value, String> {
        let whole = Jid::parse(jid).map_err(|_| format!("\"{jid}\" is no address"))?;
        let owner = hosted(self, whole.to_bare().as_str())?;
        let resource = whole.resource();
        let cell = self.resident(&owner);
        let count = |account: &im::Account| {
            account.sessions.iter().filter(|it| resource.is_none_or(|wanted| it.jid.resource_str() == wanted)).count()
        };
        let ended = cell.as_ref().and_then(|cell| cell.cell.peek(|resident| count(&resident.account))).unwrap_or(0);
        if let (Some(cell), true) = (cell, ended > 0) {
            let fault = StreamFault::Other(StreamCondition::PolicyViolation, "An administrator has ended the session.");
            self.post_to(&cell, CellItem::Im(Item::Kick { resource: resource.map(Into::into), fault }));
        }
        Ok(json!({ "jid": jid, "ended": ended }))
    }

    async fn shown(&self, jid: &BareJid) -> Result<Value, String> {
        let of_account = |account: &im::Account| {
            let sessions: Vec<Value> = account
                .sessions
                .iter()
                .map(|it| json!({ "jid": it.jid.as_str(), "since": it.since.to_xmpp(), "priority": it.priority }))
                .collect();
            let roles: Vec<&str> = Roles::NAMES.into_iter().filter(|name| account.roles.has(name)).collect();
            let left = account.last_activity.as_ref();
            json!({
                "jid": account.jid.as_str(), "created": account.created.to_xmpp(), "disabled": account.disabled,
                "roles": roles, "sessions": sessions, "last_seen": left.map(|(at, _)| at.to_xmpp()),
                "last_status": left.map(|(_, status)| &**status).filter(|status| !status.is_empty()),
                "contacts": account.roster.len(), "requests": account.roster.requests().len(),
                "blocked": account.blocks.len(), "messages_waiting": account.inbox.waiting(),
            })
        };
        let mut shown = self.look_at(jid, of_account).await?;
        let query = PageQuery { limit: 1, want_count: true, ..PageQuery::default() };
        let page =
            self.store.inbox_page(jid, &query).await.map_err(|error| format!("the store cannot be read: {error}"))?;
        if let Some(shown) = shown.as_object_mut() {
            // (More than so many are not counted.)
            shown.insert("messages_archived".into(), page.count.into());
            if let Ok(Some(login)) = self.store.login(jid).await {
                let sha1 = login.credentials.scram_sha1.map(|_| "SCRAM-SHA-1");
                let sha256 = login.credentials.scram_sha256.map(|_| "SCRAM-SHA-256");
                if let Some((class, ends)) = self.class_of(jid).await {
                    shown.insert("class".into(), class.into());
                    shown.insert("ends".into(), ends.map(|at| at.to_xmpp()).into());
                }
                shown.insert("keys".into(), sha1.into_iter().chain(sha256).collect::<Vec<_>>().into());
            }
        }
        Ok(shown)
    }

    fn announce(self: &Arc<House>, domain: Option<&str>, subject: Option<&str>, text: &str) -> Result<Value, String> {
        if text.trim().is_empty() || text.len() > ANNOUNCE_BYTES_MAX {
            return Err(format!("an announcement has some text, at most {ANNOUNCE_BYTES_MAX} bytes"));
        }
        if let Some(domain) = domain.filter(|domain| self.host(domain).is_none()) {
            return Err(format!("{domain} is not hosted here\n`waft domain list` shows the domains that are"));
        }
        let mut accounts = 0;
        for cell in self.accounts_in_memory() {
            let there = cell.cell.peek(|it| it.account.sessions.iter().any(|session| session.edge.is_some()));
            if there != Some(true) || domain.is_some_and(|domain| domain != cell.jid.domain()) {
                continue;
            }
            let mut children = Vec::new();
            children.extend(subject.map(|subject| Element::new("subject", ns::CLIENT).text(subject)));
            children.push(Element::new("body", ns::CLIENT).text(text));
            let message = Stanza::message(MessageType::Headline)
                .with_from(cell.jid.domain_jid())
                .with_to(cell.jid.clone())
                .with_children(children);
            let (ingress, ticket) = (Ingress { stream: 0, ordinal: 0 }, Ticket::default());
            let to = cell.jid.clone().into();
            self.post_to(&cell, CellItem::Im(Item::Inbound { stanza: Arc::new(message), to, ingress, ticket }));
            accounts += 1;
        }
        Ok(json!({ "accounts": accounts }))
    }

    /// Accounts of a domain, of a kind: how many, and the addresses of the first `max`.
    async fn accounts_of(&self, domain: &str, only: AccountKind, max: usize) -> Result<(usize, Vec<String>), String> {
        if self.host(domain).is_none() {
            return Err(format!("{domain} is not hosted here\n`waft domain list` shows the domains that are"));
        }
        let (mut count, mut jids, mut after) = (0, Vec::new(), String::new());
        if let AccountKind::Online | AccountKind::Active | AccountKind::Idle = only {
            let of_domain = self.accounts_in_memory().into_iter().filter(|cell| cell.jid.domain() == domain);
            let is_so = |cell: &Arc<AccountCell>| cell.cell.peek(|it| is_there(&it.account, only)) == Some(true);
            jids = of_domain.filter(is_so).map(|cell| cell.jid.to_string()).collect();
            count = jids.len();
            jids.sort_unstable();
            jids.truncate(max);
            return Ok((count, jids));
        }
        loop {
            let page = self.store.accounts(domain, &after, COUNTED_AT_ONCE).await;
            let page = page.map_err(|error| format!("the store cannot be read: {error}"))?;
            let kept = page.iter().filter(|it| only == AccountKind::Registered || it.disabled);
            let kept: Vec<String> = kept.map(|it| it.account.to_string()).collect();
            count += kept.len();
            jids.extend(kept.into_iter().take(max - jids.len()));
            match page.last() {
                Some(last) if page.len() == COUNTED_AT_ONCE && (max == 0 || jids.len() < max) => {
                    after = last.account.as_str().to_owned();
                }
                _ => return Ok((count, jids)),
            }
        }
    }

    // ---- rosters ----

    async fn roster_of(&self, jid: &BareJid) -> Result<Value, String> {
        let of_account = |account: &im::Account| {
            let contacts = account.roster.all().map(|item| {
                let state = item.subscription;
                json!({
                    "jid": item.jid.as_str(), "name": item.name.as_deref(), "subscription": state.word(),
                    "groups": item.groups.iter().map(|group| &**group).collect::<Vec<&str>>(),
                    "asked": state.pending_out, "waits_for_answer": state.pending_in,
                })
            });
            Value::Array(contacts.collect())
        };
        self.look_at(jid, of_account).await
    }

    async fn put_contact(
        self: &Arc<House>,
        jid: &BareJid,
        contact: &BareJid,
        name: Option<String>,
        groups: Vec<String>,
        both: bool,
    ) -> Result<Value, String> {
        if jid == contact {
            return Err("nobody is a contact of their own".into());
        }
        self.must_be(jid).await?;
        if both {
            hosted(self, contact.as_str())?;
            self.must_be(contact).await?;
            self.befriend(jid, contact).await?;
            self.befriend(contact, jid).await?;
        }
        if !both || name.is_some() || !groups.is_empty() {
            let item = Element::new("item", ns::ROSTER)
                .attr("jid", contact.as_str())
                .attr_opt("name", name)
                .children_from(groups.into_iter().map(|group| Element::new("group", ns::ROSTER).text(group)));
            self.roster_set(jid, item).await?;
        }
        Ok(json!({ "jid": jid.as_str(), "contact": contact.as_str(), "both": both }))
    }

    async fn take_contact(self: &Arc<House>, jid: &BareJid, contact: &BareJid) -> Result<(), String> {
        let item = Element::new("item", ns::ROSTER).attr("jid", contact.as_str()).attr("subscription", "remove");
        self.roster_set(jid, item).await
    }

    /// As the owner would.
    async fn roster_set(self: &Arc<House>, jid: &BareJid, item: Element) -> Result<(), String> {
        let query = Element::new("query", ns::ROSTER).child(item);
        let answer = self.ask_account(jid, IqType::Set, query).await;
        answer.map(drop).map_err(|error| match &error.text {
            Some(text) => format!("{jid}: {text}"),
            None => format!("{jid}: {}", error.condition.name()),
        })
    }

    async fn must_be(&self, jid: &BareJid) -> Result<(), String> {
        match self.store.login(jid).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("there is no account {jid} here\n`waft user list` shows those there are")),
            Err(error) => Err(format!("the store cannot be read: {error}")),
        }
    }

    // ---- what waits, what was refused ----

    fn queues(&self) -> Value {
        let figures = self.store.figures();
        let mut slow: Vec<((u64, usize), FullJid)> = Vec::new();
        for cell in self.accounts_in_memory() {
            let queued = cell.cell.peek(|resident| {
                let shown = |it: &im::session::Session| (it.waiting(), it.jid.clone());
                let sessions = resident.account.sessions.iter().map(shown);
                sessions.filter(|((stanzas, _), _)| *stanzas > 0).collect::<Vec<_>>()
            });
            slow.extend(queued.into_iter().flatten());
        }
        slow.sort_by(|((_, a), _), ((_, b), _)| b.cmp(a));
        slow.truncate(SLOW_SHOWN);
        let clients: Vec<Value> = slow
            .into_iter()
            .map(|((stanzas, bytes), jid)| json!({ "jid": jid.as_str(), "stanzas": stanzas, "bytes": bytes }))
            .collect();
        let links = self.federation.get().map(|it| it.shown()).unwrap_or_default();
        let links: Vec<Value> = links
            .into_iter()
            .filter(|it| it.queue > 0)
            .map(|it| json!({ "local": it.local, "remote": it.remote, "stanzas": it.queue, "bytes": it.queue_bytes }))
            .collect();
        let components: Vec<Value> = self
            .components
            .list()
            .iter()
            .map(|it| it.shown())
            .filter(|it| it.queue > 0)
            .map(|it| json!({ "domain": it.domain, "stanzas": it.queue, "bytes": it.queue_bytes }))
            .collect();
        json!({ "store_changes": figures.queued_changes, "clients": clients, "domains": links, "components": components })
    }

    fn bounds_met(&self) -> Value {
        let met = crate::limits_hit::all(self).into_iter().filter(|(_, count)| *count > 0);
        let map: Map<String, Value> = met.map(|(name, count)| (name.to_owned(), count.into())).collect();
        Value::Object(map)
    }
}

/// Is somebody there, of this kind?
fn is_there(account: &im::Account, kind: AccountKind) -> bool {
    let mut sessions = account.sessions.iter().filter(|session| session.edge.is_some()).peekable();
    let is_online = sessions.peek().is_some();
    let is_active = sessions.any(|session| session.presence.as_ref().is_some_and(|presence| !is_away(presence)));
    match kind {
        AccountKind::Active => is_active,
        AccountKind::Idle => is_online && !is_active,
        _ => is_online,
    }
}

fn is_away(presence: &Stanza) -> bool {
    let show = presence.payload.child("show", ns::CLIENT).map(|show| show.to_element().text_content());
    matches!(show.as_deref(), Some("away" | "xa"))
}
