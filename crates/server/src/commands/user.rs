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
            say(format_args!("added {}", it.jid));
        }
        cli::User::Passwd(it) => {
            let mut accounts = Accounts::reach(&it.place)?;
            let password = password::new(it.jid.as_str(), it.password_stdin)?;
            accounts.set_password(&it.jid, &password)?;
            say(format_args!("changed the password of {}", it.jid));
        }
        cli::User::Del { jid, place } => {
            let mut accounts = Accounts::reach(place)?;
            accounts.remove(jid)?;
            say(format_args!("removed {jid}"));
            if matches!(accounts.way, Way::Store { .. }) {
                note("no server runs, so contacts were not told; they keep the account in their rosters");
            }
        }
        cli::User::Roles { jid, roles, place } => super::status::roles(jid, roles, place)?,
        cli::User::Class { jid, class, place } => {
            let request = Request::UserClass { jid: jid.to_string(), class: class.clone() };
            super::status::connect(place)?.ask(&request)?;
            match class {
                Some(class) => say(format_args!("{jid} is in the class {class} from now on")),
                None => say(format_args!("{jid} is in no class")),
            }
        }
        cli::User::Disable { jid, place } => {
            Accounts::reach(place)?.disable(jid, true)?;
            say(format_args!("disabled {jid}"));
        }
        cli::User::Enable { jid, place } => {
            Accounts::reach(place)?.disable(jid, false)?;
            say(format_args!("enabled {jid}"));
        }
        cli::User::List { domain, json, place } => Accounts::reach(place)?.list(domain.as_deref(), *json)?,
    }
    Ok(())
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::said)?;
        Ok(Accounts { config, way: Way::Store { store, runtime } })
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
        runtime.block_on(archives::page(store, jid, after)).map_err(|error| trouble(&error))
    }

    /// Purges an archive in the store, see [`archives::purge`].
    pub fn archive_purge(&self, jid: &BareJid, before: Option<Stamp>) -> Result<(), Failure> {
        let Way::Store { store, runtime } = &self.way else { return Err(unexpected()) };
        self.must_exist(jid)?;
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
    fn check_domain(&self, jid: &BareJid) -> Result<(), Failure> {
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
        exists(jid, &outcome)
    }

    pub fn remove(&mut self, jid: &BareJid) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer = server.ask(&Request::UserDel { jid: jid.to_string() })?;
            return done(answer);
        }
        account(jid.as_str())?;
        let outcome = self.commit(jid, Change::AccountRemove { account: jid.clone() })?;
        exists(jid, &outcome)
    }

    pub fn disable(&mut self, jid: &BareJid, disabled: bool) -> Result<(), Failure> {
        if let Way::Server(server) = &mut self.way {
            let answer = server.ask(&Request::UserDisable { jid: jid.to_string(), disabled })?;
            return done(answer);
        }
        account(jid.as_str())?;
        let outcome = self.commit(jid, Change::AccountDisable { account: jid.clone(), disabled })?;
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
