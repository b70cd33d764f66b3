//! What an operator's commands do to the running house.

use super::{House, run::Running};
use crate::admin::acts::Act;
use crate::admin::{
    AdminOps, ArchiveRecord, Check, Doing, Invite, InviteWish, KnownServer, Link, LostSubscription, Secret, Session,
    Status, USERS_PER_PAGE, User, Watcher,
};
use crate::archives;
use crate::config::Registration;
use crate::invites::Wish;
use im::roles::Roles;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use xmpp::{BareJid, Element, Jid, Stamp, StanzaCondition, StanzaError};

/// The commands, on the house and its running parts.
pub struct Operations {
    pub running: Arc<Running>,
    pub stop: mpsc::Sender<()>,
}

/// How often it is looked whether a certificate has come.
const RENEWAL_LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// … and how often for one that the configuration has just asked for: ten minutes.
const RENEWAL_LOOKS_MAX: u32 = 3_000;

const NO_FEDERATION: &str =
    "this server does not federate: no [[listen]] has kind = \"s2s\"\nadd one with address = \"*:5269\"";

fn why(account: &BareJid, error: &StanzaError) -> String {
    match (error.condition, &error.text) {
        (StanzaCondition::Conflict, _) => {
            format!("{account} exists already\nchange its password with `waft user passwd {account}`")
        }
        (StanzaCondition::ItemNotFound, _) => {
            format!("there is no account {account} here\n`waft user list` shows those there are")
        }
        (_, Some(text)) => text.to_string(),
        (condition, None) => format!("{account}: {}", condition.name()),
    }
}

impl Operations {
    fn house(&self) -> &Arc<House> {
        &self.running.house
    }

    async fn must_exist(&self, account: &BareJid) -> Result<(), String> {
        match self.house().store.login(account).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("there is no account {account} here\n`waft user list` shows those there are")),
            Err(error) => Err(format!("the store cannot be read: {error:?}")),
        }
    }

    fn must_be_hosted(&self, account: &BareJid) -> Result<(), String> {
        if self.house().host(account.domain()).is_some() {
            return Ok(());
        }
        let hosts: Vec<String> = self.house().hosts.read().keys().map(ToString::to_string).collect();
        Err(format!(
            "{} is not hosted here; this server hosts {}\nadd it to the configuration and say `waft reload`, or `waft domain add`",
            account.domain(),
            hosts.join(", ")
        ))
    }
}

impl Operations {
    fn must_be_class(&self, class: Option<&str>) -> Result<(), String> {
        let config = self.house().config.read().clone();
        match class.filter(|class| config.class(class).is_none()) {
            None => Ok(()),
            Some(class) => Err(format!(
                "there is no class {class}\nadd [account_class.{class}] to the configuration, and say waft reload"
            )),
        }
    }

    /// A wish with all that was left out, if it can be granted.
    async fn wish(&self, wish: InviteWish) -> Result<Wish, String> {
        let config = self.house().config.read().clone();
        let inviter = wish.inviter.as_deref().map(crate::admin::server::account).transpose()?;
        if let Some(inviter) = &inviter {
            self.must_be_hosted(inviter)?;
            self.must_exist(inviter).await?;
        }
        let named = wish.domain.or_else(|| inviter.as_ref().map(|it| it.domain().to_owned()));
        let domain = match named {
            Some(name) => xmpp::jid::prepare_domain(&name).map_err(|_| format!("{name} is no domain"))?,
            None => config.hosts.first().map(|host| host.domain.to_string()).unwrap_or_default(),
        };
        let Some(host) = config.host(&domain) else {
            return Err(format!("{domain} is not hosted here\n`waft domain list` shows the domains that are"));
        };
        if inviter.as_ref().is_some_and(|inviter| inviter.domain() != domain) {
            return Err("whoever invites to a domain has an account there".into());
        }
        if host.options.registration == Registration::Closed {
            return Err(format!(
                "{domain} takes no new accounts over XMPP\nset registration = \"invite\" in [host.\"{domain}\"], and say waft reload"
            ));
        }
        self.must_be_class(wish.class.as_deref())?;
        let username = match wish.username {
            None => None,
            Some(name) => {
                let account = BareJid::parse(&format!("{name}@{domain}")).ok().filter(|it| it.local().is_some());
                let account = account.ok_or_else(|| format!("{name} cannot be a name"))?;
                if self.must_exist(&account).await.is_ok() {
                    return Err(format!("{account} exists already"));
                }
                account.local().map(str::to_owned)
            }
        };
        let uses = wish.uses.unwrap_or(1).clamp(1, INVITE_USES_MAX);
        if username.is_some() && uses > 1 {
            return Err("a name can be had once alone".into());
        }
        let days = wish.days.unwrap_or(host.options.invite_days).clamp(1, INVITE_DAYS_MAX);
        let seconds = i64::from(days) * 86_400;
        Ok(Wish { domain, inviter, username, account: true, seconds, uses, class: wish.class })
    }
}

/// Accounts that one invitation makes at most, and days for which it is good.
const INVITE_USES_MAX: u32 = 10_000;
const INVITE_DAYS_MAX: u32 = 366;

/// An account's subscriptions that other servers lost, and how they stand now.
fn lost_of(account: &im::Account) -> Vec<LostSubscription> {
    let shown = |(contact, at): &(BareJid, Stamp)| {
        let now = account.roster.subscription(contact);
        LostSubscription {
            account: account.jid.to_string(),
            contact: contact.to_string(),
            lost: at.to_xmpp(),
            subscription: now.word().into(),
            asked: now.pending_out,
        }
    };
    account.lost.recent(account.now.utc).map(shown).collect()
}

/// The lines and rows of a document of watchers, as the commands show them.
fn watchers_of(document: &Element) -> (Vec<Watcher>, u64) {
    let list = document.find("watcher-list", im::watchers::WATCHERINFO);
    let parts = || list.iter().flat_map(|list| list.elements());
    let number = |it: &Element, name: &str| it.attribute(name).and_then(|n| n.parse().ok());
    let watchers = parts().filter(|it| it.is("row", im::watchers::NS)).map(|row| {
        let line =
            parts().find(|it| it.is("watcher", im::watchers::WATCHERINFO) && it.attribute("id") == row.attribute("id"));
        let text =
            |it: Option<&Element>, name: &str| it.and_then(|it| it.attribute(name)).unwrap_or_default().to_string();
        Watcher {
            jid: text(Some(row), "jid"),
            kind: text(Some(row), "kind"),
            status: text(line, "status"),
            event: text(line, "event"),
            auth: text(Some(row), "auth"),
            first: row.attribute("first").map(str::to_string),
            last: row.attribute("last").map(str::to_string),
            notifications: number(row, "notifications").unwrap_or(0),
            fetches: number(row, "fetches").unwrap_or(0),
            refused: number(row, "refused").unwrap_or(0),
            expiration: line.and_then(|line| number(line, "expiration")),
            pseudonym: row.attribute("pseudonym").is_some(),
        }
    });
    let unlisted = parts().find(|it| it.is("unlisted", im::watchers::NS)).and_then(|it| number(it, "refused"));
    (watchers.collect(), unlisted.unwrap_or(0))
}

impl AdminOps for Operations {
    fn user_add(&self, jid: BareJid, password: Secret) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            self.house().create_account(&jid, &password.0).await.map_err(|e| why(&jid, &e))
        })
    }

    fn user_passwd(&self, jid: BareJid, password: Secret) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            self.house().set_password(&jid, &password.0).await.map_err(|e| why(&jid, &e))
        })
    }

    fn user_del(&self, jid: BareJid) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            self.house().remove_account(&jid).await.map_err(|e| why(&jid, &e))
        })
    }

    fn user_disable(&self, jid: BareJid, disabled: bool) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            self.house().disable_account(&jid, disabled).await.map_err(|e| why(&jid, &e))
        })
    }

    fn ask(&self, jid: BareJid, set: bool, content: String) -> Doing<'_, String> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            let content = xmpp::Element::parse(content.as_bytes(), "").map_err(|e| format!("this is no XML: {e:?}"))?;
            let kind = if set { xmpp::IqType::Set } else { xmpp::IqType::Get };
            let answer = self.house().ask_account(&jid, kind, content).await;
            let answer = answer.map_err(|error| match error.condition {
                StanzaCondition::Conflict => "the rules were changed meanwhile; try again".to_owned(),
                _ => why(&jid, &error),
            })?;
            let bytes = answer.map(|answer| answer.to_bytes("")).unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    fn user_list(&self, host: String, after: String) -> Doing<'_, Vec<User>> {
        Box::pin(async move {
            let accounts = self.house().store.accounts(&host, &after, USERS_PER_PAGE).await;
            Ok(accounts.map_err(|e| format!("the store cannot be read: {e:?}"))?.into_iter().map(User::from).collect())
        })
    }

    fn user_roles(&self, jid: BareJid, roles: Vec<String>) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            let named = roles.iter().try_fold(Roles::NONE, |all, name| {
                all.with(name).ok_or_else(|| format!("\"{name}\" is no role; there are {}", Roles::NAMES.join(", ")))
            })?;
            if named == Roles::NONE {
                return Err("name one role at least; to keep somebody out, disable or remove the account".into());
            }
            self.house().set_roles(&jid, named).await.map_err(|e| why(&jid, &e))
        })
    }

    fn watchers(&self, jid: BareJid) -> Doing<'_, (Vec<Watcher>, u64)> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            let shown = |account: &im::Account| im::watchers::document(account, im::watchers::Shown::All, "full");
            Ok(watchers_of(&self.house().look_at(&jid, shown).await?))
        })
    }

    fn fetch(&self, jid: BareJid, watcher: Option<Jid>) -> Doing<'_, Option<String>> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            let watcher = watcher.unwrap_or_else(|| jid.clone().into());
            let document = self.house().look_at(&jid, |account| im::tuples::compose(account, &watcher)).await?;
            Ok(document.map(|it| String::from_utf8_lossy(&it.to_bytes("")).into_owned()))
        })
    }

    fn archive_page(&self, jid: BareJid, after: i64) -> Doing<'_, Vec<ArchiveRecord>> {
        Box::pin(async move {
            self.must_exist(&jid).await?;
            archives::page(&*self.house().store, &jid, after)
                .await
                .map_err(|e| format!("the store cannot be read: {e:?}"))
        })
    }

    fn archive_purge(&self, jid: BareJid, before: Option<Stamp>) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_exist(&jid).await?;
            let house = self.house();
            let account = &jid;
            let commit = |change| async move { house.commit(account, vec![change]).await };
            archives::purge(&*house.store, account, before, commit)
                .await
                .map_err(|e| format!("the archive could not be purged: {e:?}"))
        })
    }

    fn sessions(&self) -> Doing<'_, Vec<Session>> {
        Box::pin(async move {
            let mut sessions = Vec::new();
            for cell in self.house().accounts_in_memory() {
                let of_account = cell.cell.peek(|resident| {
                    let sessions = &resident.account.sessions;
                    sessions
                        .iter()
                        .map(|s| Session {
                            jid: s.jid.to_string(),
                            state: match (&s.edge, s.is_available()) {
                                (None, _) => "suspended",
                                (Some(_), true) => "available",
                                (Some(_), false) => "connected",
                            }
                            .into(),
                            priority: s.is_available().then_some(s.priority),
                        })
                        .collect::<Vec<_>>()
                });
                sessions.extend(of_account.into_iter().flatten());
            }
            sessions.sort_by(|a, b| a.jid.cmp(&b.jid));
            Ok(sessions)
        })
    }

    fn status(&self) -> Doing<'_, Status> {
        Box::pin(async move {
            let house = self.house();
            let figures = house.store.figures();
            let config = house.config.read().clone();
            let mut counters: BTreeMap<String, u64> =
                house.counters.iter().map(|c| (c.key().to_string(), c.value().load(Ordering::Relaxed))).collect();
            counters.extend(
                house.limits_hit.iter().map(|c| (format!("limit {}", c.key()), c.value().load(Ordering::Relaxed))),
            );
            // Those of streams as well.
            if crate::log::panics() > 0 {
                counters.insert("panics".into(), crate::log::panics());
            }
            // Rows of the store that cannot be read and are passed over.
            if figures.quarantined > 0 {
                counters.insert("quarantined-rows".into(), figures.quarantined);
            }
            Ok(Status {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                uptime_seconds: house.started.elapsed().as_secs(),
                hosts: config.hosts.iter().map(|h| h.domain.to_string()).collect(),
                listeners: self.running.addresses(),
                data: config.data.display().to_string(),
                streams: house.edges.len() as u64,
                components: house.components.list().iter().map(|component| component.shown()).collect(),
                accounts: figures.accounts,
                store_queue: figures.queued_changes,
                store_bytes: figures.file_bytes,
                counters,
            })
        })
    }

    fn links(&self) -> Doing<'_, Vec<Link>> {
        Box::pin(async move {
            let federation = self.house().federation.get();
            Ok(federation.ok_or(NO_FEDERATION)?.shown())
        })
    }

    fn known(&self) -> Doing<'_, Vec<KnownServer>> {
        Box::pin(async move {
            let federation = self.house().federation.get().ok_or(NO_FEDERATION)?;
            let mut servers: BTreeMap<String, KnownServer> = BTreeMap::new();
            for domain in self.house().nearby.get().map(|nearby| nearby.domains()).unwrap_or_default() {
                servers.insert(domain.clone(), KnownServer { domain, nearby: true, ..KnownServer::default() });
            }
            for (domain, key) in federation.known.list() {
                let server = servers.entry(domain.clone()).or_default();
                (server.domain, server.fingerprint, server.since) = (domain, Some(key.fingerprint), Some(key.since));
            }
            Ok(servers.into_values().collect())
        })
    }

    fn lost_subscriptions(&self, after: String) -> Doing<'_, (Vec<LostSubscription>, Option<String>)> {
        Box::pin(async move {
            let house = self.house();
            let mut hosts: Vec<String> = house.config.read().hosts.iter().map(|host| host.domain.to_string()).collect();
            hosts.sort();
            let begun = BareJid::parse(&after).ok().map(|jid| jid.domain().to_owned());
            for host in hosts.iter().filter(|host| begun.as_ref().is_none_or(|begun| *host >= begun)) {
                let behind = if begun.as_ref() == Some(host) { &after } else { "" };
                let accounts = house.store.accounts(host, behind, USERS_PER_PAGE).await;
                let accounts = accounts.map_err(|e| format!("the store cannot be read: {e:?}"))?;
                let Some(next) = accounts.last().map(|account| account.account.to_string()) else { continue };
                let mut lost = Vec::new();
                for account in accounts {
                    let blob = house.store.blob(&account.account, store::SETTINGS, im::lost::KEY).await;
                    if blob.map_err(|e| format!("the store cannot be read: {e:?}"))?.is_some() {
                        lost.extend(house.look_at(&account.account, lost_of).await?);
                    }
                }
                return Ok((lost, Some(next)));
            }
            Ok((Vec::new(), None))
        })
    }

    fn forget(&self, domain: String) -> Doing<'_, ()> {
        Box::pin(async move {
            let federation = self.house().federation.get().ok_or(NO_FEDERATION)?;
            match federation.known.forget(&domain) {
                true => {
                    federation.try_again(&domain);
                    Ok(())
                }
                false => Err(format!("no key of {domain} was noted\nwaft s2s known lists those that were")),
            }
        })
    }

    fn check(&self, domain: String, from: Option<String>) -> Doing<'_, Check> {
        Box::pin(async move {
            let federation = self.house().federation.get().ok_or(NO_FEDERATION)?;
            let prepared = |name: &str| {
                xmpp::jid::prepare_domain(name)
                    .map_err(|_| format!("{name} is no domain\nwrite a name such as example.net"))
            };
            let domain = prepared(&domain)?;
            let config = self.house().config.read().clone();
            let from = match from {
                Some(from) => prepared(&from)?,
                None => config.hosts.first().map(|host| host.domain.to_string()).unwrap_or_default(),
            };
            if !config.domains().any(|it| it == from) {
                return Err(format!("{from} is not served here\nname a domain of this server with --from"));
            }
            let ourselves = config.domains().any(|it| it == domain);
            Ok(crate::s2s::check::check(federation, &from, &domain, ourselves).await)
        })
    }

    fn metrics(&self) -> Doing<'_, String> {
        Box::pin(async { Ok(crate::metrics::metrics(self.house(), &self.running.certificates)) })
    }

    fn watch(&self, who: Jid) -> Doing<'_, mpsc::Receiver<crate::watches::Line>> {
        Box::pin(async move { self.house().watches.open(who) })
    }

    fn user_class(&self, jid: BareJid, class: Option<String>) -> Doing<'_, ()> {
        Box::pin(async move {
            self.must_be_hosted(&jid)?;
            self.must_be_class(class.as_deref())?;
            self.house().set_class(&jid, class.as_deref()).await.map_err(|e| why(&jid, &e))
        })
    }

    fn invite_create(&self, wish: InviteWish) -> Doing<'_, (String, Invite)> {
        Box::pin(async move {
            let house = self.house();
            let wish = self.wish(wish).await?;
            let (token, invitation) = house.invitations.create(wish, &*house.crypto, house.now().utc).await?;
            Ok((invitation.uri(&token), invitation.into()))
        })
    }

    fn invite_list(&self) -> Doing<'_, Vec<Invite>> {
        Box::pin(async move {
            let house = self.house();
            Ok(house.invitations.list(house.now().utc).into_iter().map(Invite::from).collect())
        })
    }

    fn invite_revoke(&self, id: String) -> Doing<'_, ()> {
        Box::pin(async move {
            match self.house().invitations.revoke(&id).await? {
                true => Ok(()),
                false => Err(format!("there is no invitation {id}\nwaft invite list shows those that there are")),
            }
        })
    }

    fn certificates(&self) -> Doing<'_, Vec<crate::admin::Certificate>> {
        Box::pin(async move {
            let config = self.house().config.read().clone();
            let renewals = self.running.certificates.renewals.shown();
            let listed =
                tokio::task::spawn_blocking(move || crate::certificates::shown::list(&config, &renewals)).await;
            listed.map_err(|error| format!("certificates could not be read: {error}"))
        })
    }

    fn certificate_renew(&self, domain: String) -> Doing<'_, ()> {
        Box::pin(async move {
            let renewals = &self.running.certificates.renewals;
            let of_domain = || renewals.shown().into_iter().find(|it| it.domain == domain);
            let attempts = of_domain().map_or(0, |it| it.attempts);
            let config = self.house().config.read().clone();
            if !crate::acme::wanted(&config).iter().any(|it| *it.domain == *domain) {
                return Err(format!("{domain} gets no certificate by ACME\nset acme = true in its table"));
            }
            // What the configuration has just asked for is got already, and known when that has come to something.
            if !renewals.ask(&domain) {
                for _ in 0..RENEWAL_LOOKS_MAX {
                    tokio::time::sleep(RENEWAL_LOOK).await;
                    match of_domain() {
                        Some(it) if it.attempts > 0 => return it.failure.map_or(Ok(()), Err),
                        Some(_) if renewals.ask(&domain) => break,
                        _ => {}
                    }
                }
            }
            loop {
                tokio::time::sleep(RENEWAL_LOOK).await;
                match of_domain() {
                    Some(it) if it.attempts == attempts => {}
                    Some(it) => return it.failure.map_or(Ok(()), Err),
                    None => return Err(format!("{domain} is not served here any more")),
                }
            }
        })
    }

    fn reload(&self) -> Doing<'_, Vec<String>> {
        Box::pin(async move { self.running.reload_from_sources() })
    }

    fn backup(&self) -> Doing<'_, (PathBuf, store::BackupFigures)> {
        Box::pin(async move {
            let folder = self.house().config.read().data.join(store_sqlite::backup::BACKUP_FOLDER);
            let unusable = |error: std::io::Error| format!("{} cannot be used: {error}", folder.display());
            // Whoever came for the last one has it, or never comes.
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(error)),
                _ => {}
            }
            crate::data::make_subfolder(&folder).map_err(unusable)?;
            let path = folder.join("waft.backup");
            let held = self.house().store.backup(&path).await.map_err(|error| match error {
                store::StoreError::Damaged(why) => why,
                error => error.to_string(),
            })?;
            Ok((path, held))
        })
    }

    fn act(&self, act: Act) -> Doing<'_, serde_json::Value> {
        Box::pin(self.running.act(act))
    }

    fn audit(&self, by: &str, act: serde_json::Map<String, serde_json::Value>, refused: Option<&str>) {
        crate::audit::write(&self.house().config.read().data, self.house().now().utc, by, act, refused);
    }

    fn stop(&self) -> Doing<'_, ()> {
        Box::pin(async move { self.stop.try_send(()).map_err(|_| "the server is stopping already".to_string()) })
    }
}
