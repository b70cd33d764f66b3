//! XEP-0227, version 1.1: accounts in files that any server may have written.
//!
//! Read as it is written there, with XInclude (§5) of files beside it. Written with all that waft keeps: what the
//! specification has no place for stands in elements of [`NS_WAFT`].

use crate::account::{Account, LeftOut, Message, Node, delayed, stored};
use crate::document::{Document, Part};
use crate::{Problem, Source};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Component, Path, PathBuf};
use store::ScramKeys;
use xmpp::xml::Node as XmlNode;
use xmpp::{BareJid, Element, Jid, Stamp, Stanza, ns};

pub const NS: &str = "urn:xmpp:pie:0";
const SCRAM: &str = "urn:xmpp:pie:0#scram";
const MAM: &str = "urn:xmpp:pie:0#mam";
const RESULT: &str = "urn:xmpp:mam:2";
const FORWARD: &str = "urn:xmpp:forward:0";
const PRIVATE: &str = "jabber:iq:private";
const PRIVACY: &str = "jabber:iq:privacy";
const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
const XINCLUDE: &str = "http://www.w3.org/2001/XInclude";
/// What waft keeps beyond the specification.
pub const NS_WAFT: &str = "urn:waft:export:0";
/// Files within files.
const INCLUDES_MAX: usize = 8;

/// A file of XEP-0227, or a folder of them.
pub struct Pie {
    files: Vec<PathBuf>,
    only: Option<String>,
}

/// Opens a file, or a folder as `ejabberdctl export_piefxis` fills it: of that the files that no other includes.
///
/// # Errors
/// If there is none.
pub fn open(path: &Path, only: Option<&str>) -> Result<Pie, Problem> {
    let only = only.map(Into::into);
    if !path.is_dir() {
        File::open(path).map_err(|error| Problem::of(path, error))?;
        return Ok(Pie { files: vec![path.into()], only });
    }
    let entries = std::fs::read_dir(path).map_err(|error| Problem::of(path, error))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|it| it.path()).filter(|it| it.extension().is_some_and(|it| it == "xml")).collect();
    files.sort();
    let mut included = Vec::new();
    for file in &files {
        included.extend(includes(file)?);
    }
    files.retain(|file| !included.contains(file));
    if files.is_empty() {
        return Err(Problem::of(path, "no file of XEP-0227 (*.xml) is there"));
    }
    Ok(Pie { files, only })
}

fn reader(path: &Path) -> Result<Document<BufReader<File>>, Problem> {
    Ok(Document::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(|error| Problem::of(path, error))?)))
}

/// The files that a file includes at its top.
fn includes(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut document = reader(path)?;
    let (mut found, mut depth, mut user) = (Vec::new(), 0, None);
    loop {
        match document.next_part().map_err(|error| Problem::of(path, error))? {
            Part::Start(element) => {
                depth += 1;
                // What is in a user's data is the user's. §5.
                if user.is_none() && element.is("user", NS) {
                    user = Some(depth);
                } else if user.is_none_or(|user| depth == user + 1) && element.is("include", XINCLUDE) {
                    found.extend(beside(path, element.attribute("href").unwrap_or_default()));
                }
            }
            Part::End => {
                if user == Some(depth) {
                    user = None;
                }
                depth -= 1;
            }
            Part::Over => return Ok(found),
        }
    }
}

/// A file named in another: beside or below it, never elsewhere. §5.
fn beside(path: &Path, href: &str) -> Option<PathBuf> {
    let relative = Path::new(href);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if href.is_empty() || href.contains(':') || !inside {
        return None;
    }
    Some(path.parent()?.join(relative))
}

impl Source for Pie {
    fn count(&self) -> Result<u64, Problem> {
        let mut count = 0;
        let mut take = |_| {
            count += 1;
            Ok(())
        };
        let mut walk = Walk::new(self.only.as_deref(), &mut take);
        walk.counts = true;
        for file in &self.files {
            walk.file(file, Level::Top, 0)?;
        }
        Ok(count)
    }

    fn each(&self, take: &mut dyn FnMut(Account) -> Result<(), Problem>) -> Result<LeftOut, Problem> {
        let mut walk = Walk::new(self.only.as_deref(), take);
        for file in &self.files {
            walk.file(file, Level::Top, 0)?;
        }
        Ok(walk.left_out)
    }
}

/// Reads one document from memory or a stream, without includes.
///
/// # Errors
/// What is wrong with it.
pub fn read(input: impl BufRead, take: &mut dyn FnMut(Account) -> Result<(), Problem>) -> Result<LeftOut, Problem> {
    let mut walk = Walk::new(None, take);
    walk.document(Path::new(""), &mut Document::new(input), Level::Top, 0)?;
    Ok(walk.left_out)
}

/// Where in the document we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    Server,
    Host,
    User,
    Archive,
    Offline,
}

struct Walk<'a> {
    only: Option<&'a str>,
    take: &'a mut dyn FnMut(Account) -> Result<(), Problem>,
    left_out: LeftOut,
    host: Option<String>,
    user: Option<Account>,
    /// Accounts are only counted.
    counts: bool,
}

impl<'a> Walk<'a> {
    fn new(only: Option<&'a str>, take: &'a mut dyn FnMut(Account) -> Result<(), Problem>) -> Walk<'a> {
        Walk { only, take, left_out: LeftOut::default(), host: None, user: None, counts: false }
    }

    fn file(&mut self, path: &Path, level: Level, includes: usize) -> Result<(), Problem> {
        self.document(path, &mut reader(path)?, level, includes)
    }

    fn document<R: BufRead>(
        &mut self,
        path: &Path,
        document: &mut Document<R>,
        around: Level,
        includes: usize,
    ) -> Result<(), Problem> {
        let wrong = |error: String| Problem::of(path, error);
        let mut levels = vec![around];
        loop {
            let level = levels.last().copied().unwrap_or(Level::Top);
            let element = match document.next_part().map_err(wrong)? {
                Part::Over => return Ok(()),
                Part::End => {
                    self.end(level)?;
                    levels.pop();
                    continue;
                }
                Part::Start(element) => element,
            };
            if level != Level::Archive && level != Level::Offline && element.is("include", XINCLUDE) {
                document.whole().map_err(wrong)?;
                match beside(path, element.attribute("href").unwrap_or_default()) {
                    Some(file) if includes < INCLUDES_MAX => self.file(&file, level, includes + 1)?,
                    _ => self.left_out.add(format!(
                        "the file {:?}, which is not beside the one that names it",
                        element.attribute("href")
                    )),
                }
                continue;
            }
            match self.begin(level, &element) {
                Some(within) => levels.push(within),
                None => {
                    let whole = document.whole().map_err(wrong)?;
                    if !self.counts {
                        self.part(level, whole);
                    }
                }
            }
        }
    }

    /// The level within an element, if it is looked into.
    fn begin(&mut self, level: Level, element: &Element) -> Option<Level> {
        match (level, &*element.name, &*element.ns) {
            (Level::Top, "server-data", NS) => Some(Level::Server),
            (Level::Top | Level::Server, "host", NS) => {
                self.host = element.attribute("jid").map(str::to_owned);
                Some(Level::Host)
            }
            (Level::Top | Level::Host, "user", NS) => {
                self.user = self.begun(element);
                // One that is not wanted is passed over as a whole.
                self.user.as_ref().map(|_| Level::User)
            }
            (Level::User, "archive", MAM) => Some(Level::Archive),
            (Level::User, "offline-messages", NS) => Some(Level::Offline),
            _ => None,
        }
    }

    fn begun(&mut self, element: &Element) -> Option<Account> {
        let host = self.host.as_deref().unwrap_or_default();
        if self.only.is_some_and(|only| only != host) {
            return None;
        }
        let name = element.attribute("name").unwrap_or_default();
        match BareJid::parse(&format!("{name}@{host}")) {
            Ok(jid) if jid.local().is_some() => {
                let mut account = Account::new(jid);
                account.keys.password = element.attribute("password").map(|it| it.to_owned().into());
                Some(account)
            }
            _ => {
                self.left_out.add(format!("the account {name:?} of {host:?}, whose name is none in XMPP today"));
                None
            }
        }
    }

    fn end(&mut self, level: Level) -> Result<(), Problem> {
        match (level, self.user.take()) {
            (Level::User, Some(mut account)) => {
                account.archive.sort_by_key(|message| message.at);
                (self.take)(account)
            }
            (_, user) => {
                self.user = user;
                Ok(())
            }
        }
    }

    fn part(&mut self, level: Level, element: Element) {
        let unknown = || format!("<{} xmlns='{}'/>, which waft does not know", element.name, element.ns);
        match (level, &mut self.user) {
            (Level::User, Some(account)) => of_user(account, element),
            (Level::Archive, Some(account)) => archived(account, element),
            (Level::Offline, Some(account)) => waiting(account, element),
            // A user that was passed over.
            (Level::Host, _) if element.is("user", NS) => {}
            _ => self.left_out.add(unknown()),
        }
    }
}

/// A child of `<user/>`. §4.3 to §4.10.
fn of_user(account: &mut Account, element: Element) {
    match (&*element.name, &*element.ns) {
        ("scram-credentials", SCRAM) => credentials(account, &element),
        ("query", ns::ROSTER) => {
            for item in element.elements().filter(|item| item.is("item", ns::ROSTER)) {
                let groups = item.elements().filter(|it| it.is("group", ns::ROSTER)).map(Element::text_content);
                let approved = matches!(item.attribute("approved"), Some("true" | "1"));
                let state = (item.attribute("subscription"), item.attribute("ask"), approved);
                let groups: Vec<String> = groups.collect();
                account.list(item.attribute("jid").unwrap_or_default(), item.attribute("name"), groups, state);
            }
        }
        ("presence", ns::CLIENT) if element.attribute("type") == Some("subscribe") => {
            let from = element.attribute("from").unwrap_or_default().to_owned();
            let received = delayed(&element);
            account.ask(&from, Some(element), received);
        }
        ("query", PRIVATE) => account.private.extend(element.elements().cloned()),
        ("vCard", "vcard-temp") => account.vcard = Some(element),
        ("query", PRIVACY) => blocks(account, &element),
        ("pubsub", OWNER) => nodes(account, &element),
        ("pubsub", PUBSUB) => items(account, &element),
        ("account", NS_WAFT) => of_waft(account, &element),
        _ => account.left_out.add(format!("<{} xmlns='{}'/>, which waft does not know", element.name, element.ns)),
    }
}

/// §4.3.
fn credentials(account: &mut Account, element: &Element) {
    let mechanism = element.attribute("mechanism").unwrap_or_default();
    let bytes = match mechanism {
        "SCRAM-SHA-1" => 20,
        "SCRAM-SHA-256" => 32,
        other => {
            return account
                .left_out
                .add(format!("keys of {other}: waft proves passwords by SCRAM-SHA-1 and SCRAM-SHA-256"));
        }
    };
    let text = |name: &str| element.find(name, SCRAM).map(|it| it.text_content().trim().to_owned());
    let keys = (|| {
        let plain = |name: &str| BASE64.decode(text(name)?).ok();
        // COMPAT: ejabberd (23.01) writes what it keeps in base64 in base64 once more.
        let twice = plain("stored-key")?.len() != bytes;
        let decoded = |name: &str| if twice { BASE64.decode(plain(name)?).ok() } else { plain(name) };
        let keys = ScramKeys {
            salt: decoded("salt")?,
            iterations: text("iter-count")?.parse().ok().filter(|count| *count > 0)?,
            stored_key: decoded("stored-key")?,
            server_key: decoded("server-key")?,
        };
        Some(keys).filter(|keys| keys.stored_key.len() == bytes && keys.server_key.len() == bytes)
    })();
    match keys {
        None => account.left_out.add(format!("keys of {mechanism} that cannot be read")),
        Some(keys) if bytes == 20 => account.keys.scram_sha1 = Some(keys),
        Some(keys) => account.keys.scram_sha256 = Some(keys),
    }
}

/// Of privacy lists those of the default one that forbid an address everything. §4.8, XEP-0016, XEP-0191 §5.
fn blocks(account: &mut Account, query: &Element) {
    let default = query.find("default", PRIVACY).and_then(|it| it.attribute("name"));
    for list in query.elements().filter(|list| list.is("list", PRIVACY)) {
        let name = list.attribute("name");
        if name.is_none() || name != default {
            account.left_out.add("a privacy list that is not the default one");
            continue;
        }
        for item in list.elements().filter(|item| item.is("item", PRIVACY)) {
            let all = item.elements().next().is_none() || item.elements().count() == 4;
            let jid = item.attribute("value").and_then(|value| Jid::parse(value).ok());
            match (item.attribute("action"), item.attribute("type"), jid) {
                (Some("deny"), Some("jid"), Some(jid)) if all => account.blocks.push(jid),
                // What is not denied is let through, in the end.
                (Some("allow"), None, _) => {}
                _ => account.left_out.add("a rule of a privacy list that is more than a blocked address"),
            }
        }
    }
    account.blocks.sort();
    account.blocks.dedup();
}

/// The value of a field of a form.
fn field(form: &Element, var: &str) -> Option<String> {
    let field = form.elements().find(|field| field.attribute("var") == Some(var))?;
    Some(field.elements().next()?.text_content())
}

/// Nodes that are the owner's alone, by their configuration. §4.10.1.
fn nodes(account: &mut Account, pubsub: &Element) {
    for configure in pubsub.elements().filter(|it| it.is("configure", OWNER)) {
        let Some(name) = configure.attribute("node") else { continue };
        let form = configure.find("x", ns::DATA_FORM);
        let access = form.and_then(|form| field(form, "pubsub#access_model"));
        if access.as_deref() != Some("whitelist") {
            account.left_out.add(format!("the node {name}, which others may see: waft's nodes are private"));
            continue;
        }
        let many = form.and_then(|form| field(form, "pubsub#max_items")).as_deref() != Some("1");
        account.nodes.push(Node { name: name.into(), items: Vec::new(), many });
    }
    // Who is on its list sees a node after all.
    for listed in pubsub.elements().filter(|it| it.is("affiliations", OWNER)) {
        let own = account.jid.as_str();
        let of_others = listed.elements().filter(|it| it.attribute("jid").is_some_and(|jid| jid != own)).count();
        for _ in 0..of_others {
            account.left_out.add("an affiliation of somebody with a private node");
        }
    }
}

/// §4.10.2.
fn items(account: &mut Account, pubsub: &Element) {
    for of_node in pubsub.elements().filter(|it| it.is("items", PUBSUB)) {
        let name = of_node.attribute("node");
        let Some(node) = account.nodes.iter_mut().find(|node| Some(node.name.as_str()) == name) else { continue };
        for item in of_node.elements().filter(|it| it.is("item", PUBSUB)) {
            let at = item.attribute("{urn:waft:export:0}at").and_then(Stamp::from_xmpp);
            if let (Some(id), Some(payload)) = (item.attribute("id"), item.elements().next()) {
                node.items.push((id.into(), payload.clone(), at));
            }
        }
    }
}

fn of_waft(account: &mut Account, element: &Element) {
    let time = |name: &str| element.attribute(name).and_then(Stamp::from_xmpp);
    account.created = time("created");
    account.disabled = element.attribute("disabled") == Some("true");
    account.last_activity = time("left").map(|at| (at, element.attribute("status").unwrap_or_default().into()));
    for setting in element.elements().filter(|it| it.is("setting", NS_WAFT)) {
        if let (Some(key), Ok(value)) = (setting.attribute("key"), BASE64.decode(setting.text_content())) {
            account.settings.push((key.into(), value));
        }
    }
}

/// §4.11.
fn archived(account: &mut Account, result: Element) {
    let message = (|| {
        let forwarded = result.find("forwarded", FORWARD)?;
        let at = forwarded.find("delay", ns::DELAY)?.attribute("stamp").and_then(Stamp::from_xmpp)?;
        account.message(forwarded.find("message", ns::CLIENT)?.clone(), at, result.attribute("id"))
    })();
    match message {
        Some(message) => account.archive.push(message),
        None => account.left_out.add("a message of the archive that is none"),
    }
}

/// §4.5.
fn waiting(account: &mut Account, element: Element) {
    let (id, at) = (account.stanza_id(&element).map(str::to_owned), delayed(&element));
    // Without a time it has waited since nobody knows when: it stands before what is known.
    match account.message(element, at.unwrap_or_default(), id.as_deref()) {
        Some(message) => account.offline.push(message),
        None => account.left_out.add("a message that waits, which is none"),
    }
}

// ---- writing ----

/// Writes one document, account by account.
pub struct Writer<W> {
    out: W,
    host: Option<String>,
}

impl<W: Write> Writer<W> {
    /// # Errors
    /// Those of `out`, as for all that is written.
    pub fn new(mut out: W) -> std::io::Result<Writer<W>> {
        write!(out, "<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='{NS}'>\n")?;
        Ok(Writer { out, host: None })
    }

    /// Writes an account without its messages; those follow by [`Writer::message`], first all of the archive, then all
    /// that wait, and [`Writer::end`].
    ///
    /// # Errors
    /// Those of `out`.
    pub fn account(&mut self, account: &Account) -> std::io::Result<()> {
        if self.host.as_deref() != Some(account.jid.domain()) {
            if self.host.is_some() {
                self.out.write_all(b"</host>\n")?;
            }
            self.host = Some(account.jid.domain().into());
            let host = Element::new("host", NS).attr("jid", account.jid.domain()).to_bytes(NS);
            self.out.write_all(&host[..host.len() - 2])?;
            self.out.write_all(b">\n")?;
        }
        let user = Element::new("user", NS).attr("name", account.jid.local().unwrap_or_default());
        let user = user.attr_opt("password", account.keys.password.as_deref()).to_bytes(NS);
        self.out.write_all(&user[..user.len() - 2])?;
        self.out.write_all(b">\n")?;
        for part in parts(account) {
            self.out.write_all(&part.to_bytes(NS))?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// # Errors
    /// Those of `out`.
    pub fn messages<'a>(
        &mut self,
        waiting: bool,
        own: &BareJid,
        messages: impl IntoIterator<Item = &'a Message>,
    ) -> std::io::Result<()> {
        let mut begun = false;
        for message in messages {
            let Ok(stanza) = Element::parse(&message.stanza, ns::CLIENT) else { continue };
            if !std::mem::replace(&mut begun, true) {
                self.begin_messages(waiting)?;
            }
            let written = if waiting { offline(own, message, stanza) } else { result(message, stanza) };
            self.out.write_all(&written.to_bytes(if waiting { NS } else { MAM }))?;
            self.out.write_all(b"\n")?;
        }
        if begun {
            self.out.write_all(if waiting { b"</offline-messages>\n" } else { b"</archive>\n" })?;
        }
        Ok(())
    }

    fn begin_messages(&mut self, waiting: bool) -> std::io::Result<()> {
        match waiting {
            true => self.out.write_all(b"<offline-messages>\n"),
            false => writeln!(self.out, "<archive xmlns='{MAM}'>"),
        }
    }

    /// # Errors
    /// Those of `out`.
    pub fn end(&mut self) -> std::io::Result<()> {
        self.out.write_all(b"</user>\n")
    }

    /// The end of the document.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> std::io::Result<W> {
        if self.host.is_some() {
            self.out.write_all(b"</host>\n")?;
        }
        self.out.write_all(b"</server-data>\n")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A whole account as one document: what its content is known again by.
pub fn document_of(account: &Account) -> Vec<u8> {
    let write = || {
        let mut writer = Writer::new(Vec::new())?;
        writer.account(account)?;
        writer.messages(false, &account.jid, &account.archive)?;
        writer.messages(true, &account.jid, &account.offline)?;
        writer.end()?;
        writer.finish()
    };
    // Memory takes all that is written.
    write().unwrap_or_default()
}

/// With microseconds, so that what is read again has the same place in the archive.
pub fn precise(at: Stamp) -> String {
    let seconds = at.0.div_euclid(1_000_000);
    let text = Stamp(seconds * 1_000_000).to_xmpp();
    match at.0.rem_euclid(1_000_000) {
        0 => text,
        micros => format!("{}.{micros:06}Z", text.trim_end_matches('Z')),
    }
}

fn result(message: &Message, stanza: Element) -> Element {
    let delay = Element::new("delay", ns::DELAY).attr("stamp", precise(message.at));
    let forwarded = Element::new("forwarded", FORWARD).child(delay).child(stanza);
    Element::new("result", RESULT).attr_opt("id", message.id.as_deref()).child(forwarded)
}

fn offline(own: &BareJid, message: &Message, stanza: Element) -> Element {
    let id = message.id.as_deref().map(|id| Element::new("stanza-id", ns::SID).attr("id", id).attr("by", own.as_str()));
    let stanza = stanza.children_from(id);
    let delay = Element::new("delay", ns::DELAY).attr("from", own.domain()).attr("stamp", precise(message.at));
    if message.at == Stamp::default() { stanza } else { stanza.child(delay) }
}

/// All but messages.
fn parts(account: &Account) -> Vec<Element> {
    let mut parts = Vec::new();
    let keys = [("SCRAM-SHA-1", &account.keys.scram_sha1), ("SCRAM-SHA-256", &account.keys.scram_sha256)];
    for (mechanism, keys) in keys {
        let Some(keys) = keys else { continue };
        let text = |name: &str, text: String| Element::new(name, SCRAM).text(text);
        parts.push(
            Element::new("scram-credentials", SCRAM)
                .attr("mechanism", mechanism)
                .child(text("iter-count", keys.iterations.to_string()))
                .child(text("salt", BASE64.encode(&keys.salt)))
                .child(text("server-key", BASE64.encode(&keys.server_key)))
                .child(text("stored-key", BASE64.encode(&keys.stored_key))),
        );
    }
    let listed = account.roster.iter().filter(|item| item.listed);
    parts.push(Element::new("query", ns::ROSTER).children_from(listed.map(|item| {
        Element::new("item", ns::ROSTER)
            .attr("jid", item.jid.as_str())
            .attr_opt("name", item.name.as_deref())
            .attr("subscription", item.subscription.word())
            .attr_opt("ask", item.subscription.pending_out.then_some("subscribe"))
            .attr_opt("approved", item.subscription.approved.then_some("true"))
            .children_from(item.groups.iter().map(|group| Element::new("group", ns::ROSTER).text(group)))
    })));
    parts.extend(account.requests.iter().filter_map(asked));
    parts.extend(account.vcard.clone());
    if !account.private.is_empty() {
        parts.push(Element::new("query", PRIVATE).children_from(account.private.iter().cloned()));
    }
    if !account.blocks.is_empty() {
        parts.push(privacy(&account.blocks));
    }
    parts.extend(pubsub(account));
    parts.extend(waft(account));
    parts
}

fn asked(request: &crate::Request) -> Option<Element> {
    let stanza = Element::parse(&request.stanza, ns::CLIENT).ok()?;
    let without = stanza.elements().all(|child| !child.is("delay", ns::DELAY));
    let received = request.received.filter(|_| without);
    Some(stanza.children_from(received.map(|at| Element::new("delay", ns::DELAY).attr("stamp", precise(at)))))
}

/// The block list as other servers keep it. XEP-0191 §5.
fn privacy(blocks: &[Jid]) -> Element {
    const NAME: &str = "blocked";
    let item = |(order, jid): (usize, &Jid)| {
        Element::new("item", PRIVACY)
            .attr("type", "jid")
            .attr("value", jid.as_str())
            .attr("action", "deny")
            .attr("order", (order + 1).to_string())
    };
    let last = Element::new("item", PRIVACY).attr("action", "allow").attr("order", (blocks.len() + 1).to_string());
    let list = Element::new("list", PRIVACY).attr("name", NAME).children_from(blocks.iter().enumerate().map(item));
    let default = Element::new("default", PRIVACY).attr("name", NAME);
    Element::new("query", PRIVACY).child(default).child(list.child(last))
}

fn pubsub(account: &Account) -> Vec<Element> {
    if account.nodes.is_empty() {
        return Vec::new();
    }
    let value = |var: &str, value: &str| {
        let value = Element::new("value", ns::DATA_FORM).text(value);
        Element::new("field", ns::DATA_FORM).attr("var", var).child(value)
    };
    let configure = |node: &Node| {
        let form = Element::new("x", ns::DATA_FORM)
            .attr("type", "submit")
            .child(value("FORM_TYPE", "http://jabber.org/protocol/pubsub#node_config").attr("type", "hidden"))
            .child(value("pubsub#access_model", "whitelist"))
            .child(value("pubsub#max_items", if node.many { "max" } else { "1" }));
        Element::new("configure", OWNER).attr("node", &node.name).child(form)
    };
    let items = |node: &Node| {
        let item = |(id, payload, at): &(String, Element, Option<Stamp>)| {
            let item = Element::new("item", PUBSUB).attr("id", id).child(payload.clone());
            item.attr_opt("{urn:waft:export:0}at", at.map(precise))
        };
        Element::new("items", PUBSUB).attr("node", &node.name).children_from(node.items.iter().map(item))
    };
    vec![
        Element::new("pubsub", OWNER).children_from(account.nodes.iter().map(configure)),
        Element::new("pubsub", PUBSUB).children_from(account.nodes.iter().map(items)),
    ]
}

fn waft(account: &Account) -> Option<Element> {
    let nothing = account.created.is_none()
        && !account.disabled
        && account.last_activity.is_none()
        && account.settings.is_empty();
    if nothing {
        return None;
    }
    let setting = |(key, value): &(Box<str>, Vec<u8>)| {
        Element::new("setting", NS_WAFT).attr("key", key).text(BASE64.encode(value))
    };
    let left = account.last_activity.as_ref();
    Some(
        Element::new("account", NS_WAFT)
            .attr_opt("created", account.created.map(precise))
            .attr_opt("disabled", account.disabled.then_some("true"))
            .attr_opt("left", left.map(|(at, _)| precise(*at)))
            .attr_opt("status", left.map(|(_, status)| &**status).filter(|status| !status.is_empty()))
            .children_from(account.settings.iter().map(setting)),
    )
}

/// A message as the store has it.
pub fn message_of(at: Stamp, id: Option<Box<str>>, stanza: Vec<u8>) -> Option<Message> {
    let parsed = Stanza::parse(&stanza).ok()?;
    Some(Message { at, id, stanza, from: parsed.from, to: parsed.to })
}

/// The elements of stored private XML.
pub fn elements(bytes: &[u8]) -> Vec<Element> {
    let whole = Element::parse(bytes, PRIVATE).ok();
    let nodes = whole.map(|whole| whole.nodes).unwrap_or_default();
    nodes
        .into_iter()
        .filter_map(|node| match node {
            XmlNode::Element(element) => Some(element),
            XmlNode::Text(_) => None,
        })
        .collect()
}

/// Is it a stanza that can be kept?
pub fn is_stanza(element: &Element) -> bool {
    stored(element).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> (Vec<Account>, LeftOut) {
        let mut accounts = Vec::new();
        let left_out = read(text.as_bytes(), &mut |account| {
            accounts.push(account);
            Ok(())
        });
        (accounts, left_out.expect("is a document"))
    }

    const JULIET: &str = "<?xml version='1.0'?><server-data xmlns='urn:xmpp:pie:0'><host jid='capulet.example'>
        <user name='juliet' password='r0m30'>
        <query xmlns='jabber:iq:roster'><item jid='romeo@montague.example' name='Romeo' subscription='to'>
          <group>Friends</group></item></query>
        <presence xmlns='jabber:client' type='subscribe' from='paris@example.org'/>
        <query xmlns='jabber:iq:private'><a xmlns='n:a'>1</a></query>
        <vCard xmlns='vcard-temp'><FN>Juliet</FN></vCard>
        <query xmlns='jabber:iq:privacy'><default name='b'/><list name='b'>
          <item type='jid' value='tybalt@example.com' action='deny' order='1'/><item action='allow' order='2'/></list>
          <list name='other'/></query>
        <pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'><x xmlns='jabber:x:data'>
          <field var='pubsub#access_model'><value>whitelist</value></field></x></configure>
          <configure node='open'/></pubsub>
        <pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='i'><p xmlns='n:p'/></item></items>
        </pubsub>
        <archive xmlns='urn:xmpp:pie:0#mam'><result xmlns='urn:xmpp:mam:2' id='x1'>
          <forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2010-07-10T23:08:25.123456Z'/>
          <message xmlns='jabber:client' to='juliet@capulet.example/x' from='romeo@montague.example/y' type='chat'>
          <body>Call me but love</body></message></forwarded></result></archive>
        <offline-messages><message xmlns='jabber:client' from='romeo@montague.example/y' to='juliet@capulet.example'>
          <body>hi</body><delay xmlns='urn:xmpp:delay' from='capulet.example' stamp='2010-07-10T23:08:26Z'/></message>
          <iq xmlns='jabber:client' type='get' id='1'/></offline-messages>
        <unknown xmlns='n:u'/></user><user name=''/></host></server-data>";

    #[test]
    fn all_that_the_specification_has_is_read() {
        let (accounts, left_out) = all(JULIET);
        let juliet = &accounts[0];
        assert_eq!(juliet.jid.as_str(), "juliet@capulet.example");
        assert_eq!(juliet.keys.password.as_deref().map(String::as_str), Some("r0m30"));
        assert_eq!(juliet.roster.iter().filter(|item| item.listed).count(), 1);
        assert_eq!((juliet.requests.len(), juliet.private.len(), juliet.blocks.len()), (1, 1, 1));
        assert!(juliet.vcard.is_some() && juliet.nodes[0].items.len() == 1);
        assert_eq!(juliet.archive[0].at.0 % 1_000_000, 123_456);
        assert_eq!(juliet.offline.len(), 1);
        assert_eq!(juliet.left_out.0.values().sum::<u64>(), 4, "{:?}", juliet.left_out);
        assert_eq!(left_out.0.values().sum::<u64>(), 1, "{left_out:?}");
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let (mut accounts, _) = all(JULIET);
        let juliet = &mut accounts[0];
        juliet.left_out = LeftOut::default();
        juliet.created = Some(Stamp(1_700_000_000_123_456));
        juliet.last_activity = Some((Stamp(1_700_000_001_000_001), "gone & <away>".into()));
        juliet.settings = vec![("rules".into(), vec![0, 255, 7])];
        juliet.keys.scram_sha1 = Some(ScramKeys {
            salt: b"salt".to_vec(),
            iterations: 4096,
            stored_key: vec![1; 20],
            server_key: vec![2; 20],
        });
        let written = String::from_utf8(document_of(juliet)).expect("is UTF-8");
        let (again, left_out) = all(&written);
        assert!(left_out.is_empty());
        assert_eq!(again[0], *juliet, "{written}");
    }

    // COMPAT: ejabberd.
    #[test]
    fn keys_that_are_in_base64_twice_are_read() {
        let twice = |bytes: &[u8]| BASE64.encode(BASE64.encode(bytes));
        let text = format!(
            "<user xmlns='{NS}' name='juliet'><scram-credentials xmlns='{SCRAM}' mechanism='SCRAM-SHA-256'>\
             <iter-count>4096</iter-count><salt>{}</salt><server-key>{}</server-key><stored-key>{}</stored-key>\
             </scram-credentials></user>",
            twice(b"pepper"),
            twice(&[1; 32]),
            twice(&[2; 32])
        );
        let (accounts, _) = all(&format!("<host xmlns='{NS}' jid='capulet.example'>{text}</host>"));
        let keys = accounts[0].keys.scram_sha256.clone().expect("are read");
        assert_eq!((keys.salt, keys.server_key, keys.stored_key), (b"pepper".to_vec(), vec![1; 32], vec![2; 32]));
    }

    #[test]
    fn files_are_included_from_beside_and_from_nowhere_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("can be written");
        let xi = format!("xmlns='{NS}' xmlns:xi='{XINCLUDE}'");
        write(
            "all.xml",
            format!("<server-data {xi}><xi:include href='host.xml'/><xi:include href='/etc/passwd'/></server-data>"),
        );
        write("host.xml", format!("<host {xi} jid='a.example'><user name='x'/><xi:include href='y.xml'/></host>"));
        write("y.xml", format!("<user {xi} name='y'/>"));
        let source = open(folder.path(), None).expect("is a folder of exports");
        assert_eq!(source.count(), Ok(2));
        let mut names = Vec::new();
        let left_out = source.each(&mut |account| {
            names.push(account.jid.to_string());
            Ok(())
        });
        assert_eq!(names, ["x@a.example", "y@a.example"]);
        assert_eq!(left_out.expect("can be read").0.len(), 1);
    }
}
