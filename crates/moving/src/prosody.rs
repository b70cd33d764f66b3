//! Prosody's data: a folder with one file a user and store, or the same in an SQLite database.
//!
//! The layout is that of Prosody 0.9 to 13: `HOST/STORE/USER.dat` (a table) and `USER.list` (a list), names with
//! everything but letters and digits as `%xx`. The SQL storage has the entries of those tables as rows.

use crate::account::{Account, LeftOut, Node, delayed};
use crate::lua::{self, Value};
use crate::vcard4;
use crate::{Problem, Source};
use rusqlite::{Connection, OpenFlags, params};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use store::ScramKeys;
use xmpp::xml::Node as XmlNode;
use xmpp::{BareJid, Element, Stamp, ns};

/// Stores that are read, or that hold nothing which could move.
const KNOWN: [&str; 16] = [
    "accounts",
    "roster",
    "vcard",
    "private",
    "blocklist",
    "privacy",
    "offline",
    "archive",
    "archive2",
    "pep",
    "lastactivity",
    "account_details",
    "account_roles",
    "roles",
    "archive_cleanup",
    "cron",
];
/// What begins so holds items of nodes.
const PEP: &str = "pep_";

/// A store that is a list of XML.
struct Item {
    key: Option<String>,
    at: Stamp,
    element: Element,
}

/// How the stores of a user are read, whichever way they lie there.
trait Stores {
    fn hosts(&self) -> Result<Vec<String>, Problem>;
    fn users(&self, host: &str) -> Result<Vec<String>, Problem>;
    /// All stores that hold something of the user.
    fn names(&self, host: &str, user: &str) -> Result<Vec<String>, Problem>;
    fn table(&self, host: &str, user: &str, store: &str) -> Result<Option<Value>, String>;
    /// Gives the items, and how many there were that cannot be read.
    fn list(&self, host: &str, user: &str, store: &str) -> Result<(Vec<Item>, u64), String>;
}

/// A data folder, or the database in it.
pub struct Prosody {
    stores: Box<dyn Stores>,
    only: Option<String>,
}

/// Opens a data folder (`/var/lib/prosody`), or an SQLite database of it; `only`: one host.
///
/// # Errors
/// If it is neither.
pub fn open(path: &Path, only: Option<&str>) -> Result<Prosody, Problem> {
    let found = fs::metadata(path).map_err(|error| Problem::of(path, error))?;
    let stores: Box<dyn Stores> = if found.is_dir() {
        let database = path.join("prosody.sqlite");
        let folder = Folder { path: path.into() };
        // Whoever has changed the storage has both; what has accounts is the one in use.
        if database.exists() && folder.hosts()?.is_empty() {
            Box::new(Database::open(&database)?)
        } else {
            Box::new(folder)
        }
    } else {
        Box::new(Database::open(path)?)
    };
    if stores.hosts()?.is_empty() {
        return Err(Problem::of(
            path,
            "no accounts of Prosody are there\nname the folder that its configuration calls data_path, most often /var/lib/prosody",
        ));
    }
    Ok(Prosody { stores, only: only.map(Into::into) })
}

impl Prosody {
    fn hosts(&self) -> Result<Vec<String>, Problem> {
        let mut hosts = self.stores.hosts()?;
        hosts.retain(|host| self.only.as_ref().is_none_or(|only| only == host));
        Ok(hosts)
    }
}

impl Source for Prosody {
    fn count(&self) -> Result<u64, Problem> {
        self.hosts()?.iter().try_fold(0, |sum, host| Ok(sum + self.stores.users(host)?.len() as u64))
    }

    fn each(&self, take: &mut dyn FnMut(Account) -> Result<(), Problem>) -> Result<LeftOut, Problem> {
        let mut left_out = LeftOut::default();
        for host in self.hosts()? {
            for user in self.stores.users(&host)? {
                match BareJid::parse(&format!("{user}@{host}")) {
                    Ok(jid) if jid.local().is_some() => take(self.account(jid, &host, &user)?)?,
                    _ => left_out.add(format!("the account {user:?} of {host}, whose name is none in XMPP today")),
                }
            }
        }
        Ok(left_out)
    }
}

impl Prosody {
    fn account(&self, jid: BareJid, host: &str, user: &str) -> Result<Account, Problem> {
        let mut account = Account::new(jid);
        let names = self.stores.names(host, user)?;
        for name in names.iter().filter(|name| !KNOWN.contains(&name.as_str()) && !name.starts_with(PEP)) {
            account.left_out.add(format!("the store \"{name}\" of a module that waft does not have"));
        }
        let table = |account: &mut Account, store: &str| {
            if !names.iter().any(|name| name == store) {
                return None;
            }
            let read = self.stores.table(host, user, store);
            read.unwrap_or_else(|error| {
                account.left_out.add(format!("the store \"{store}\", which cannot be read: {error}"));
                None
            })
        };
        if let Some(it) = table(&mut account, "accounts") {
            keys(&mut account, &it);
        }
        if let Some(it) = table(&mut account, "roster") {
            roster(&mut account, &it);
        }
        if let Some(it) = table(&mut account, "blocklist") {
            blocks(&mut account, &it);
        }
        if let Some(it) = table(&mut account, "private") {
            let stored: Vec<Option<Element>> = it.named().map(|(_, value)| element(value, "", 0)).collect();
            for it in stored {
                match it {
                    Some(it) => account.private.push(it),
                    None => account.left_out.add("a piece of private XML that cannot be read"),
                }
            }
        }
        if let Some(it) = table(&mut account, "vcard") {
            account.vcard = element(&it, "vcard-temp", 0);
        }
        if let Some(it) = table(&mut account, "lastactivity") {
            let at = it.get("timestamp").and_then(Value::number).map(seconds);
            let status = it.get("status").and_then(Value::text).unwrap_or_default();
            account.last_activity = at.map(|at| (at, status.into()));
        }
        let pep = table(&mut account, "pep");
        let items = |account: &mut Account, store: &str| {
            if !names.iter().any(|name| name == store) {
                return Vec::new();
            }
            match self.stores.list(host, user, store) {
                Ok((items, damaged)) => {
                    for _ in 0..damaged {
                        account.left_out.add(format!("an item of \"{store}\" that cannot be read"));
                    }
                    items
                }
                Err(error) => {
                    account.left_out.add(format!("the store \"{store}\", which cannot be read: {error}"));
                    Vec::new()
                }
            }
        };
        for store in ["archive2", "archive"] {
            for item in items(&mut account, store) {
                match account.message(item.element, item.at, item.key.as_deref()) {
                    Some(message) => account.archive.push(message),
                    None => account.left_out.add("a message of the archive that is none"),
                }
            }
        }
        for item in items(&mut account, "offline") {
            let id = account.stanza_id(&item.element).map(str::to_owned);
            let at = delayed(&item.element).unwrap_or(item.at);
            match account.message(item.element, at, id.as_deref()) {
                Some(message) => account.offline.push(message),
                None => account.left_out.add("a message that waits, which is none"),
            }
        }
        account.archive.sort_by_key(|message| message.at);
        self.nodes(&mut account, pep.as_ref(), &names, items);
        Ok(account)
    }

    /// Nodes that are the owner's alone; of the others the card and the picture.
    fn nodes(
        &self,
        account: &mut Account,
        pep: Option<&Value>,
        names: &[String],
        items: impl Fn(&mut Account, &str) -> Vec<Item>,
    ) {
        let (mut card, mut picture, mut kind) = (None, None, None);
        for store in names.iter().filter(|name| name.starts_with(PEP)) {
            let name = &store[PEP.len()..];
            let config = pep.and_then(|pep| pep.get(name)).and_then(|node| node.get("config"));
            let access = config.and_then(|config| config.get("access_model")).and_then(Value::text);
            let mut found = items(account, store);
            match name {
                vcard4::NS_NODE => card = found.pop().map(|item| item.element),
                "urn:xmpp:avatar:data" => picture = found.pop().map(|item| item.element.text_content()),
                "urn:xmpp:avatar:metadata" => {
                    let info = found.pop().and_then(|item| item.element.elements().next().cloned());
                    kind = info.and_then(|info| info.attribute("type").map(str::to_owned));
                }
                _ if access == Some("whitelist") => {
                    let most = config.and_then(|config| config.get("max_items"));
                    let many = most.is_none_or(|most| most.number() != Some(1.0));
                    let items = found.into_iter().filter_map(|item| Some((item.key?, item.element, Some(item.at))));
                    account.nodes.push(Node { name: name.into(), items: items.collect(), many });
                }
                _ => account.left_out.add(format!("the node {name}, which others may see: waft's nodes are private")),
            }
        }
        if account.vcard.is_none()
            && let Some(card) = card.or_else(|| picture.as_ref().map(|_| Element::new("vcard", vcard4::NS)))
        {
            let photo = picture.as_deref().map(|data| (kind.as_deref().unwrap_or("image/png"), data));
            account.vcard = Some(vcard4::to_temp(&card, photo));
        }
    }
}

/// `mod_auth_internal_hashed` keeps stored and server key as hexadecimal digits of SHA-1 or SHA-256, and the salt as
/// it is; `mod_auth_internal_plain` the password.
fn keys(account: &mut Account, it: &Value) {
    let text = |name: &str| it.get(name).and_then(Value::text);
    account.disabled = it.get("disabled") == Some(&Value::Bool(true));
    account.created = it.get("created").and_then(Value::number).map(seconds);
    let found = (|| {
        Some(ScramKeys {
            salt: match it.get("salt")? {
                Value::Text(salt) => salt.clone(),
                _ => return None,
            },
            iterations: it.get("iteration_count")?.number().filter(|it| *it >= 1.0)? as u32,
            stored_key: hex(text("stored_key")?)?,
            server_key: hex(text("server_key")?)?,
        })
    })();
    match found {
        Some(keys) if keys.stored_key.len() == 20 => account.keys.scram_sha1 = Some(keys),
        Some(keys) if keys.stored_key.len() == 32 => account.keys.scram_sha256 = Some(keys),
        _ => {}
    }
    account.keys.password = text("password").map(|password| password.to_owned().into());
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn seconds(it: f64) -> Stamp {
    Stamp((it * 1e6) as i64)
}

fn roster(account: &mut Account, it: &Value) {
    for (jid, contact) in it.named().filter(|(jid, _)| *jid != "pending") {
        let text = |name: &str| contact.get(name).and_then(Value::text);
        let groups = contact.get("groups").into_iter().flat_map(Value::named).map(|(group, _)| group.to_owned());
        let groups: Vec<String> = groups.collect();
        let approved = text("approved") == Some("true");
        account.list(jid, text("name"), groups, (text("subscription"), text("ask"), approved));
    }
    // Long ago it stood under a name.
    let pending = it.beside().and_then(|beside| beside.get("pending")).or_else(|| it.get("pending"));
    let pending: Vec<(String, Option<Element>)> = pending
        .into_iter()
        .flat_map(Value::named)
        .map(|(jid, stanza)| (jid.to_owned(), element(stanza, ns::CLIENT, 0)))
        .collect();
    for (jid, stanza) in pending {
        account.ask(&jid, stanza, None);
    }
}

fn blocks(account: &mut Account, it: &Value) {
    for (jid, _) in it.named() {
        match xmpp::Jid::parse(jid) {
            Ok(jid) => account.blocks.push(jid),
            Err(_) => account.left_out.add(format!("a blocked address that is none: {jid:?}")),
        }
    }
    account.blocks.sort();
}

/// A stanza or any other element as Prosody keeps it: `name`, `attr`, children without names.
fn element(value: &Value, around: &str, depth: usize) -> Option<Element> {
    const DEPTH_MAX: usize = 250;
    let name = value.get("name")?.text()?;
    let attr = value.get("attr");
    let namespace = attr.and_then(|attr| attr.get("xmlns")).and_then(Value::text).unwrap_or(around);
    let mut built = Element { name: name.into(), ns: namespace.into(), attributes: Vec::new(), nodes: Vec::new() };
    for (key, value) in attr.into_iter().flat_map(Value::named).filter(|(key, _)| *key != "xmlns") {
        // A name of another namespace stands behind it.
        let key = match key.split_once('\u{1}').or_else(|| key.split_once('|')) {
            Some((ns, local)) => format!("{{{ns}}}{local}"),
            None => key.to_owned(),
        };
        built.attributes.push((key.into(), value.text()?.into()));
    }
    for child in value.list() {
        match child {
            Value::Table(_) if depth < DEPTH_MAX => {
                built.nodes.push(XmlNode::Element(element(child, namespace, depth + 1)?));
            }
            Value::Text(_) => built.nodes.push(XmlNode::Text(child.text()?.into())),
            _ => return None,
        }
    }
    if depth > 0 {
        return Some(built);
    }
    // Only what can be read again is kept: a file may hold any bytes.
    Element::parse(&built.to_bytes(""), "").ok()
}

// ---- the folder ----

struct Folder {
    path: PathBuf,
}

/// Everything but letters and digits as `%xx`; in the names of stores `_` stays.
fn encoded(text: &str, but: &[u8]) -> String {
    let byte = |byte: &u8| {
        if byte.is_ascii_alphanumeric() || but.contains(byte) {
            (*byte as char).to_string()
        } else {
            format!("%{byte:02x}")
        }
    };
    text.as_bytes().iter().map(byte).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        if *byte == b'%' {
            let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            out.push(*byte);
            rest = more;
        }
    }
    String::from_utf8(out).ok()
}

impl Folder {
    fn file(&self, host: &str, user: &str, store: &str, ext: &str) -> PathBuf {
        let name = format!("{}.{ext}", encoded(user, b""));
        self.path.join(encoded(host, b"")).join(encoded(store, b"_")).join(name)
    }

    fn folders(&self, of: &Path) -> Result<Vec<(String, PathBuf)>, Problem> {
        let entries = fs::read_dir(of).map_err(|error| Problem::of(of, error))?;
        let mut found: Vec<(String, PathBuf)> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| Some((decoded(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        found.sort();
        Ok(found)
    }

    fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Stores for Folder {
    fn hosts(&self) -> Result<Vec<String>, Problem> {
        let folders = self.folders(&self.path)?;
        Ok(folders.into_iter().filter(|(_, path)| path.join("accounts").is_dir()).map(|(host, _)| host).collect())
    }

    fn users(&self, host: &str) -> Result<Vec<String>, Problem> {
        let folder = self.path.join(encoded(host, b"")).join("accounts");
        let entries = fs::read_dir(&folder).map_err(|error| Problem::of(&folder, error))?;
        let mut users: Vec<String> =
            entries.flatten().filter_map(|entry| decoded(entry.file_name().to_str()?.strip_suffix(".dat")?)).collect();
        users.sort();
        Ok(users)
    }

    fn names(&self, host: &str, user: &str) -> Result<Vec<String>, Problem> {
        let stores = self.folders(&self.path.join(encoded(host, b"")))?;
        let has =
            |path: &Path| ["dat", "list"].iter().any(|ext| path.join(format!("{}.{ext}", encoded(user, b""))).exists());
        Ok(stores.into_iter().filter(|(_, path)| has(path)).map(|(name, _)| name).collect())
    }

    fn table(&self, host: &str, user: &str, store: &str) -> Result<Option<Value>, String> {
        match Folder::read(&self.file(host, user, store, "dat"))? {
            Some(bytes) => lua::value(&bytes).map(Some),
            None => Ok(None),
        }
    }

    fn list(&self, host: &str, user: &str, store: &str) -> Result<(Vec<Item>, u64), String> {
        let Some(bytes) = Folder::read(&self.file(host, user, store, "list"))? else { return Ok((Vec::new(), 0)) };
        let (values, cut) = lua::items(&bytes)?;
        let mut damaged = u64::from(cut);
        let mut items = Vec::with_capacity(values.len());
        let around = if store.starts_with(PEP) { "" } else { ns::CLIENT };
        for value in &values {
            let Some(element) = element(value, around, 0) else {
                damaged += 1;
                continue;
            };
            let at = value.get("when").and_then(Value::number).map(seconds);
            // The offline store of long ago has the time in the stanza alone.
            let stamp = || Stamp::from_xmpp(value.get("attr")?.get("stamp")?.text()?);
            let at = at.or_else(stamp).unwrap_or_default();
            let key = value.get("key").and_then(Value::text).map(str::to_owned);
            items.push(Item { key, at, element });
        }
        Ok((items, damaged))
    }
}

// ---- the database ----

struct Database {
    path: PathBuf,
    connection: Connection,
}

impl Database {
    fn open(path: &Path) -> Result<Database, Problem> {
        let failed = |error| Problem::of(path, format!("this is no database of Prosody: {error}"));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.query_row("SELECT count(*) FROM prosody", [], |_| Ok(())).map_err(failed)?;
        Ok(Database { path: path.into(), connection })
    }

    fn texts(&self, sql: &str, of: &[&str]) -> Result<Vec<String>, Problem> {
        let read = || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(of), |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        read().map_err(|error| Problem::of(&self.path, error))
    }

    /// The table of lists; a storage that never had one lacks it.
    fn has_lists(&self) -> bool {
        let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'prosodyarchive'";
        self.connection.query_row(sql, [], |_| Ok(())).is_ok()
    }
}

impl Stores for Database {
    fn hosts(&self) -> Result<Vec<String>, Problem> {
        self.texts("SELECT DISTINCT host FROM prosody WHERE store = 'accounts' ORDER BY host", &[])
    }

    fn users(&self, host: &str) -> Result<Vec<String>, Problem> {
        let sql = "SELECT DISTINCT \"user\" FROM prosody WHERE store = 'accounts' AND host = ?1 AND \"user\" != ''
            ORDER BY \"user\"";
        self.texts(sql, &[host])
    }

    fn names(&self, host: &str, user: &str) -> Result<Vec<String>, Problem> {
        let sql = "SELECT DISTINCT store FROM prosody WHERE host = ?1 AND \"user\" = ?2";
        let mut names: BTreeSet<String> = self.texts(sql, &[host, user])?.into_iter().collect();
        if self.has_lists() {
            let sql = "SELECT DISTINCT store FROM prosodyarchive WHERE host = ?1 AND \"user\" = ?2";
            names.extend(self.texts(sql, &[host, user])?);
        }
        Ok(names.into_iter().collect())
    }

    fn table(&self, host: &str, user: &str, store: &str) -> Result<Option<Value>, String> {
        let sql = "SELECT key, type, value FROM prosody WHERE host = ?1 AND \"user\" = ?2 AND store = ?3";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| error.to_string())?;
        let rows = statement
            .query_map(params![host, user, store], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .map_err(|error| error.to_string())?;
        let (mut entries, mut found) = (Vec::new(), false);
        for row in rows {
            let (key, kind, text): (String, String, String) = row.map_err(|error| error.to_string())?;
            found = true;
            let value = match kind.as_str() {
                "json" => Value::of_json(serde_json::from_str(&text).map_err(|error| error.to_string())?),
                "number" => Value::Number(text.parse().map_err(|_| format!("{text:?} is no number"))?),
                "boolean" => Value::Bool(text == "true"),
                _ => Value::Text(text.into_bytes()),
            };
            match value {
                // What has no text for a key stands together under none.
                Value::Table(of_all) if key.is_empty() => entries.extend(of_all),
                value => entries.push((Value::Text(key.into_bytes()), value)),
            }
        }
        Ok(found.then_some(Value::Table(entries)))
    }

    fn list(&self, host: &str, user: &str, store: &str) -> Result<(Vec<Item>, u64), String> {
        if !self.has_lists() {
            return Ok((Vec::new(), 0));
        }
        let sql = "SELECT key, \"when\", type, value FROM prosodyarchive
            WHERE host = ?1 AND \"user\" = ?2 AND store = ?3 ORDER BY \"when\", sort_id";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| error.to_string())?;
        let rows = statement
            .query_map(params![host, user, store], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
            })
            .map_err(|error| error.to_string())?;
        let (mut items, mut damaged) = (Vec::new(), 0);
        let around = if store.starts_with(PEP) { "" } else { ns::CLIENT };
        for row in rows {
            let (key, at, kind, text): (String, f64, String, String) = row.map_err(|error| error.to_string())?;
            let parsed = match kind.as_str() {
                "xml" => Element::parse(text.as_bytes(), around).ok(),
                "json" => serde_json::from_str(&text).ok().and_then(|json| element(&Value::of_json(json), around, 0)),
                _ => None,
            };
            match parsed {
                Some(element) => items.push(Item { key: Some(key), at: seconds(at), element }),
                None => damaged += 1,
            }
        }
        Ok((items, damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(source: &Prosody) -> Vec<Account> {
        let mut accounts = Vec::new();
        source
            .each(&mut |account| {
                accounts.push(account);
                Ok(())
            })
            .expect("can be read");
        accounts
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (name, text) in files {
            let path = folder.path().join("capulet%2eexample").join(name);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("can be made");
            fs::write(path, text).expect("can be written");
        }
        folder
    }

    const ACCOUNT: (&str, &str) = ("accounts/j%c3%bcliet.dat", "return { password = 'x' };");

    #[test]
    fn names_of_users_and_hosts_are_decoded() {
        let folder = folder(&[ACCOUNT]);
        let accounts = taken(&open(folder.path(), None).expect("is a folder of Prosody"));
        assert_eq!(accounts[0].jid.as_str(), "jüliet@capulet.example");
        assert_eq!(accounts[0].keys.password.as_deref().map(String::as_str), Some("x"));
        assert!(open(folder.path(), Some("other.example")).expect("is there").count() == Ok(0));
    }

    #[test]
    fn a_store_that_is_damaged_is_named_and_keeps_nothing_else_back() {
        let folder = folder(&[
            ACCOUNT,
            ("roster/j%c3%bcliet.dat", "return { oh no"),
            ("blocklist/j%c3%bcliet.dat", "return { [\"spam.example\"] = true; [\"@\"] = true };"),
            ("cloud_notify/j%c3%bcliet.dat", "return { a = 1 };"),
        ]);
        let account = taken(&open(folder.path(), None).expect("is a folder of Prosody")).remove(0);
        assert_eq!(account.blocks[0].as_str(), "spam.example");
        let said: Vec<&String> = account.left_out.0.keys().collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().any(|it| it.contains("cloud_notify")) && said.iter().any(|it| it.contains("line 1")));
    }

    #[test]
    fn a_folder_without_accounts_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(open(folder.path(), None).is_err());
        fs::write(folder.path().join("x.sqlite"), "no database").expect("can be written");
        assert!(open(&folder.path().join("x.sqlite"), None).is_err());
    }
}
