//! `waft user`: accounts, by the running server; when none runs, in its store.

use super::{Failure, password, say, status::unexpected};
use crate::admin::client::AdminConnection;
use crate::admin::server::account;
use crate::admin::{Answer, ArchiveRecord, Request, Secret, USERS_PER_PAGE, User};
use crate::archives;
use crate::cli;
use crate::config::Config;
use crate::{crypto, data};
use std::io::Write;
use store::{Change, Fence, Key, Outcome, Store, StoreError};
use store_sqlite::{Options, Purpose, SqliteStore};
use xmpp::{BareJid, Stamp};

pub fn user(command: &cli::User) -> Result<(), Failure> {
    match command {
        cli::User::Add(it) => {
            let mut accounts = Accounts::reach(&it.place)?;
            accounts.check_domain(&it.jid)?;
            let password = password::new(it.jid.as_str(), it.password_stdin)?;
            accounts.add(&it.jid, &password)?;
            said("added", &it.jid, it.json);
        }
        cli::User::Passwd(it) => {
            let mut accounts = Accounts::reach(&it.place)?;
            let password = password::new(it.jid.as_str(), it.password_stdin)?;
            accounts.set_password(&it.jid, &password)?;
            said("changed the password of", &it.jid, it.json);
        }
        cli::User::Del { jid, json, place } => {
            let mut accounts = Accounts::reach(place)?;
            accounts.remove(jid)?;
            said("removed", jid, *json);
            if matches!(accounts.way, Way::Store { .. }) {
                note("no server runs, so contacts were not told; they keep the account in their rosters");
            }
        }
        cli::User::Class { jid, class, place } => {
            let request = Request::UserClass { jid: jid.to_string(), class: class.clone() };
            super::status::connect(place)?.ask(&request)?;
            match class {
                Some(class) => say(format_args!("{jid} is in the class {class} from now on")),
                None => say(format_args!("{jid} is in no class")),
            }
        }
        cli::User::Show { jid, place } => {
            super::acts::act(crate::admin::acts::Act::UserShow { jid: jid.to_string() }, place)?;
        }
        cli::User::Erase { jid, json, place } => super::moving::erase(jid, *json, place)?,
        cli::User::Roles { jid, roles, json, place } => super::status::roles(jid, roles, *json, place)?,
        cli::User::Disable { jid, json, place } => {
            Accounts::reach(place)?.disable(jid, true)?;
            said("disabled", jid, *json);
        }
        cli::User::Enable { jid, json, place } => {
            Accounts::reach(place)?.disable(jid, false)?;
            said("enabled", jid, *json);
        }
        cli::User::List { domain, json, place } => Accounts::reach(place)?.list(domain.as_deref(), *json)?,
    }
    Ok(())
}

/// Says what was done to an account.
pub fn said(what: &str, jid: &BareJid, json: bool) {
    if json {
        say(serde_json::json!({ "jid": jid.as_str(), "done": what }));
    } else {
        say(format_args!("{what} {jid}"));
    }
}

fn note(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {what}");
}

/// The accounts of a data folder, whichever way they are reached.
pub struct Accounts {
    config: Config,
    way: Way,
}

enum Way {
    Server(AdminConnection),
    Store { store: SqliteStore, runtime: tokio::runtime::Runtime },
}

impl Drop for Accounts {
    fn drop(&mut self) {
        if let Way::Store { .. } = self.way {
            owned(&self.config.data);
        }
    }
}

/// What root makes is the server's, which runs as the folder's owner.
pub fn owned(data: &std::path::Path) {
    if let Err(error) = data::own_all_as(data) {
        note(&format!("files in {} cannot be given to the folder's owner: {error}", data.display()));
    }
}

impl Accounts {
    /// Finds the running server, else opens the store.
    ///
    /// # Errors
    /// If neither can be had.
    pub fn reach(place: &cli::Place) -> Result<Accounts, Failure> {
        let config = place.sources().load()?;
        if let Some(server) = AdminConnection::open(&config.admin_socket())? {
            return Ok(Accounts { config, way: Way::Server(server) });
        }
        data::make_private(&config.data)?;
        let options = Options {
            durability: store_sqlite::Durability::Full,
            purpose: Purpose::Command,
            producer: env!("CARGO_PKG_VERSION"),
            ..Options::default()
        };
        let store = SqliteStore::open(&config.data, options).map_err(Failure::said)?;
        owned(&config.data);
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::said)?;
        Ok(Accounts { config, way: Way::Store { store, runtime } })
    }

    /// Where the store lies.
    pub fn data(&self) -> std::path::PathBuf {
        self.config.data.clone()
    }

    pub fn now(&self) -> Stamp {
        now()
    }

    /// All accounts of one host, or of all.
    pub fn all(&mut self, domain: Option<&str>) -> Result<Vec<BareJid>, Failure> {
        let hosts = match domain {
            Some(domain) => vec![domain.to_owned()],
            None => self.hosts()?,
        };
        let mut all = Vec::new();
        for host in hosts {
            let mut after = String::new();
            loop {
                let page = self.page(&host, &after)?;
                let whole = page.len() < USERS_PER_PAGE;
                all.extend(page.iter().filter_map(|user| account(&user.jid).ok()));
                match page.last() {
                    Some(last) if !whole => {
                        after = last.jid.split('@').next().unwrap_or_default().to_owned();
                    }
                    _ => break,
                }
            }
        }
        Ok(all)
    }

    /// Moves an account into the store; the running server does it itself.
    pub fn settle(&mut self, moved: moving::Account, dry: bool) -> Result<moving::settle::Settled, Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        let jid = moved.jid.clone();
        let domain = BareJid::of_domain(jid.domain()).map_err(|_| Failure::Said(format!("{jid} has no domain")))?;
        let policy = self.config.host(jid.domain()).and_then(|host| self.config.policy(host).ok());
        let mut archive_key = [0; 32];
        stream::Crypto::random(&crypto::AwsLc, &mut archive_key);
        let iterations = self.config.accounts.scram_iterations;
        let place = moving::settle::Place {
            store,
            policy: std::sync::Arc::new(policy.unwrap_or_else(|| im::HostPolicy::of(domain))),
            now: now(),
            archive_key,
            hash: &|password| crypto::credentials(password, iterations),
            dry,
        };
        let fence = Fence { partition: Key::Bare(jid.clone()).partition(), epoch: store.epoch() };
        let commit = |changes: Vec<Change>| async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            store.commit(fence, changes, Box::new(move |result| drop(tell.send(result))));
            told.await.unwrap_or(Err(StoreError::Fatal("the writer ended".into())))
        };
        let settled =
            runtime.block_on(moving::settle::settle(&place, moved, commit)).map_err(|error| trouble(&error))?;
        if !dry {
            self.note("move-in", &jid);
        }
        Ok(settled)
    }

    /// All that is kept of an account in the store; the running server gives it itself.
    pub fn leave(&mut self, jid: &BareJid) -> Result<moving::Account, Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        let found = runtime.block_on(moving::leave::account(store, jid)).map_err(|error| trouble(&error))?;
        self.note("move-out", jid);
        found.ok_or_else(|| Failure::Said(format!("there is no account {jid}\n`waft user list` shows those there are")))
    }

    /// Writes an act on the store into the audit log; the running server does it itself.
    fn note(&self, what: &str, jid: &BareJid) {
        let mut act = serde_json::Map::new();
        act.insert("do".into(), what.into());
        act.insert("jid".into(), jid.as_str().into());
        let by = data::effective_uid().map_or_else(|| "somebody".to_owned(), |uid| format!("uid {uid}"));
        crate::audit::write(&self.config.data, now(), &format!("{by}, without a server"), act, None);
    }

    /// The running server, if there is one.
    pub fn server(&mut self) -> Option<&mut AdminConnection> {
        match &mut self.way {
            Way::Server(server) => Some(server),
            Way::Store { .. } => None,
        }
    }

    /// A page of an archive in the store, see [`archives::page`].
    pub fn archive_page(&self, jid: &BareJid, after: i64) -> Result<Vec<ArchiveRecord>, Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        self.must_exist(jid)?;
        if after == 0 {
            self.note("archive-export", jid);
        }
        runtime.block_on(archives::page(store, jid, after)).map_err(|error| trouble(&error))
    }

    /// Purges an archive in the store, see [`archives::purge`].
    pub fn archive_purge(&self, jid: &BareJid, before: Option<Stamp>) -> Result<(), Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        self.must_exist(jid)?;
        self.note("archive-purge", jid);
        let commit = |change: Change| async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            let fence = Fence { partition: Key::Bare(jid.clone()).partition(), epoch: store.epoch() };
            store.commit(fence, vec![change], Box::new(move |result| drop(tell.send(result))));
            told.await.unwrap_or(Err(StoreError::Fatal("the writer ended".into())))
        };
        runtime.block_on(archives::purge(store, jid, before, commit)).map_err(|error| trouble(&error))
    }

    fn must_exist(&self, jid: &BareJid) -> Result<(), Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        account(jid.as_str())?;
        let found = runtime.block_on(store.login(jid)).map_err(|error| trouble(&error))?;
        exists(jid, if found.is_some() { &Outcome::Done } else { &Outcome::NoAccount })
    }

    /// A server refuses a domain that it does not host. Without one the domain may have been named on its command line,
    /// so there is only a word of warning.
    pub fn check_domain(&self, jid: &BareJid) -> Result<(), Failure> {
        account(jid.as_str())?;
        if matches!(self.way, Way::Store { .. }) && self.config.host(jid.domain()).is_none() {
            let hosted: Vec<&str> = self.config.hosts.iter().map(|host| &*host.domain).collect();
            let domain = jid.domain();
            note(&format!(
                "the configuration hosts {}, not {domain}; serve it with --domain {domain}",
                hosted.join(", ")
            ));
        }
        Ok(())
    }

    pub fn add(&mut self, jid: &BareJid, password: &str) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer =
                server.ask(&Request::UserAdd { jid: jid.to_string(), password: Secret(password.to_string()) })?;
            return done(answer);
        }
        let credentials = self.credentials(password)?;
        match self.commit(jid, Change::AccountCreate { account: jid.clone(), credentials, created: now() })? {
            Outcome::Done => {
                self.note("user-add", jid);
                Ok(())
            }
            Outcome::Exists => {
                Err(Failure::Said(format!("{jid} exists already\nchange its password with `waft user passwd {jid}`")))
            }
            _ => Ok(()),
        }
    }

    pub fn set_password(&mut self, jid: &BareJid, password: &str) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer =
                server.ask(&Request::UserPasswd { jid: jid.to_string(), password: Secret(password.to_string()) })?;
            return done(answer);
        }
        account(jid.as_str())?;
        let credentials = self.credentials(password)?;
        let outcome = self.commit(jid, Change::CredentialsSet { account: jid.clone(), credentials })?;
        self.note("user-passwd", jid);
        exists(jid, &outcome)
    }

    pub fn remove(&mut self, jid: &BareJid) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer = server.ask(&Request::UserDel { jid: jid.to_string() })?;
            return done(answer);
        }
        account(jid.as_str())?;
        let outcome = self.commit(jid, Change::AccountRemove { account: jid.clone() })?;
        self.note("user-del", jid);
        exists(jid, &outcome)
    }

    pub fn disable(&mut self, jid: &BareJid, disabled: bool) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer = server.ask(&Request::UserDisable { jid: jid.to_string(), disabled })?;
            return done(answer);
        }
        account(jid.as_str())?;
        let outcome = self.commit(jid, Change::AccountDisable { account: jid.clone(), disabled })?;
        self.note(if disabled { "user-disable" } else { "user-enable" }, jid);
        exists(jid, &outcome)
    }

    /// Prints the accounts of one host or of all.
    fn list(&mut self, domain: Option<&str>, json: bool) -> Result<(), Failure> {
        let hosts = match domain {
            Some(domain) => vec![xmpp::jid::prepare_domain(domain).map_err(|_| format!("\"{domain}\" is no domain"))?],
            None => self.hosts()?,
        };
        for host in hosts {
            let mut after = String::new();
            loop {
                let page = self.page(&host, &after)?;
                for user in &page {
                    if json {
                        say(serde_json::to_string(user).map_err(Failure::said)?);
                    } else {
                        let disabled = if user.disabled { " (disabled)" } else { "" };
                        say(format_args!("{}{disabled}", user.jid));
                    }
                }
                match page.last() {
                    Some(last) if page.len() >= USERS_PER_PAGE => {
                        after = last.jid.split_once('@').map(|(local, _)| local.to_string()).unwrap_or_default()
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn hosts(&mut self) -> Result<Vec<String>, Failure> {
        match &mut self.way {
            Way::Server(server) => match server.ask(&Request::Status)? {
                Answer::Status(status) => Ok(status.hosts),
                _ => Err(unexpected()),
            },
            Way::Store { .. } => Ok(self.config.hosts.iter().map(|host| host.domain.to_string()).collect()),
        }
    }

    fn page(&mut self, host: &str, after: &str) -> Result<Vec<User>, Failure> {
        match &mut self.way {
            Way::Server(server) => {
                match server.ask(&Request::UserList { host: host.to_string(), after: after.to_string() })? {
                    Answer::Users { users } => Ok(users),
                    _ => Err(unexpected()),
                }
            }
            Way::Store { store, runtime } => {
                let page =
                    runtime.block_on(store.accounts(host, after, USERS_PER_PAGE)).map_err(|error| trouble(&error))?;
                Ok(page.into_iter().map(User::from).collect())
            }
        }
    }

    fn credentials(&self, password: &str) -> Result<store::Credentials, Failure> {
        crypto::credentials(password, self.config.accounts.scram_iterations)
            .ok_or_else(|| Failure::Said(NOT_A_PASSWORD.into()))
    }

    /// Writes one change to the store and waits until it is on disk.
    fn commit(&self, jid: &BareJid, change: Change) -> Result<Outcome, Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        let (tell, told) = tokio::sync::oneshot::channel();
        let fence = Fence { partition: Key::Bare(jid.clone()).partition(), epoch: store.epoch() };
        store.commit(fence, vec![change], Box::new(move |result| drop(tell.send(result))));
        let outcomes = runtime
            .block_on(told)
            .unwrap_or(Err(StoreError::Fatal("the writer ended".into())))
            .map_err(|error| trouble(&error))?;
        Ok(outcomes.into_iter().next().unwrap_or(Outcome::Done))
    }
}

/// Said of a password that RFC 8265 forbids.
pub const NOT_A_PASSWORD: &str =
    "this cannot be a password: it is empty, or has control characters in it\nchoose another";

fn exists(jid: &BareJid, outcome: &Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::NoAccount => {
            Err(Failure::Said(format!("there is no account {jid}\n`waft user list` shows those there are")))
        }
        _ => Ok(()),
    }
}

fn done(answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

fn trouble(error: &StoreError) -> Failure {
    Failure::Said(match error {
        StoreError::Full => "no space is left on the disk\nmake space, then try again".into(),
        StoreError::Busy => "the store is busy\ntry again".into(),
        StoreError::Fenced => "another server has taken over the store\ntry again".into(),
        StoreError::Fatal(what) => {
            format!("the store failed: {what}\nlook at the disk; what was written before is kept")
        }
        StoreError::Damaged(what) => format!("the store is damaged: {what}\nrestore a backup"),
    })
}

fn now() -> Stamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &std::path::Path) -> cli::Place {
        cli::Place { data: Some(folder.to_path_buf()), config: None }
    }

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).expect("is a JID")
    }

    fn said(done: Result<(), Failure>) -> String {
        match done {
            Err(Failure::Said(what)) => what,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The keys that the store has of an account.
    fn stored(accounts: &Accounts, jid: &BareJid) -> Option<store::Credentials> {
        let Way::Store { store, runtime } = &accounts.way else { panic!("no server runs") };
        runtime.block_on(store.login(jid)).expect("can be read").map(|login| login.credentials)
    }

    #[test]
    fn without_a_server_accounts_are_made_and_listed_in_the_store() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let alice = jid("alice@localhost");
        Accounts::reach(&place(folder.path())).expect("opens").add(&alice, "secret").expect("is added");
        let mut again = Accounts::reach(&place(folder.path())).expect("opens again");
        let page = again.page("localhost", "").expect("can be read");
        assert_eq!(page.iter().map(|user| user.jid.as_str()).collect::<Vec<_>>(), ["alice@localhost"]);
        assert!(stored(&again, &alice).is_some());
    }

    #[test]
    fn only_keys_are_stored_that_prove_the_password() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let alice = jid("alice@localhost");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        accounts.add(&alice, "very secret").expect("is added");
        let keys = stored(&accounts, &alice).and_then(|it| it.scram_sha256).expect("there are keys");
        let keys = stream::ScramKeys {
            salt: keys.salt,
            iterations: keys.iterations,
            stored_key: keys.stored_key,
            server_key: keys.server_key,
        };
        assert!(stream::verify_plain(&crypto::AwsLc, stream::Hash::Sha256, "very secret", &keys));
        assert!(!stream::verify_plain(&crypto::AwsLc, stream::Hash::Sha256, "other", &keys));
        drop(accounts);
        for entry in std::fs::read_dir(folder.path()).expect("is there").flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            assert!(!bytes.windows(11).any(|at| at == b"very secret"), "{:?}", entry.path());
        }
    }

    #[test]
    fn an_account_that_exists_is_not_made_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        accounts.add(&jid("alice@localhost"), "one").expect("is added");
        let before = stored(&accounts, &jid("alice@localhost"));
        assert!(said(accounts.add(&jid("alice@localhost"), "two")).contains("exists already"));
        assert!(stored(&accounts, &jid("alice@localhost")) == before);
    }

    #[test]
    fn a_changed_password_has_other_keys() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        accounts.add(&jid("alice@localhost"), "one").expect("is added");
        let before = stored(&accounts, &jid("alice@localhost"));
        accounts.set_password(&jid("alice@localhost"), "two").expect("is changed");
        assert!(stored(&accounts, &jid("alice@localhost")) != before);
    }

    #[test]
    fn a_removed_account_is_gone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        accounts.add(&jid("alice@localhost"), "one").expect("is added");
        accounts.remove(&jid("alice@localhost")).expect("is removed");
        assert!(stored(&accounts, &jid("alice@localhost")).is_none());
        assert!(said(accounts.remove(&jid("alice@localhost"))).contains("there is no account"));
    }

    #[test]
    fn an_account_is_disabled_and_enabled_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        let alice = jid("alice@localhost");
        accounts.add(&alice, "one").expect("is added");
        for disabled in [true, false] {
            accounts.disable(&alice, disabled).expect("there is one");
            assert_eq!(accounts.page("localhost", "").expect("can be read")[0].disabled, disabled);
        }
        assert!(said(accounts.disable(&jid("bob@localhost"), true)).contains("there is no account"));
    }

    #[test]
    fn an_account_that_does_not_exist_has_no_password_to_change() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        assert!(said(accounts.set_password(&jid("bob@localhost"), "x")).contains("there is no account bob@localhost"));
    }

    #[test]
    fn a_domain_or_a_forbidden_password_makes_no_account() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut accounts = Accounts::reach(&place(folder.path())).expect("opens");
        assert!(said(accounts.check_domain(&jid("localhost"))).contains("no account"));
        assert!(said(accounts.add(&jid("alice@localhost"), "a\u{7}b")).contains("cannot be a password"));
        assert!(stored(&accounts, &jid("alice@localhost")).is_none());
    }

    #[test]
    fn a_store_that_another_process_has_open_is_not_touched() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let _first = Accounts::reach(&place(folder.path())).expect("opens");
        let error = said(Accounts::reach(&place(folder.path())).map(|_| ()));
        assert!(error.contains("another waft"), "{error}");
    }
}
