//! What users notice of a disk that fails: played on the real server, one scene after the other.

use crate::client::{Client, Got, SM};
use crate::disk::layout::{call, fate, file};
use crate::disk::{Disk, Plan};
use crate::server::{self, Place, Server};
use crate::{Binaries, PASSWORD};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use xmpp::Element;
use xmpp::ns::CLIENT;

const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages acknowledged before the backup begins.
const LOAD: usize = 20;

type Scene = fn(&mut Stage) -> io::Result<()>;

const SCENES: &[(&str, Scene)] = &[
    ("a full disk refuses what must be kept, serves all else, and is over by itself", full_disk),
    ("a sync that fails ends the server, which says why and loses nothing", failed_sync),
    ("a write that fails ends the server, which says why and loses nothing", failed_write),
    ("a backup under load holds what was acknowledged before it, and is restored", backup_under_load),
    ("a store of a newer waft is refused by a message that says what to do", newer_store),
];

/// Plays all; says of each how it went.
///
/// # Errors
/// What keeps the test, not the server, from going on.
pub fn play(binaries: &Binaries) -> io::Result<bool> {
    let binaries = binaries.clone().ready()?;
    let (Some(waft), Some(disk)) = (&binaries.waft, &binaries.disk) else {
        return Err(io::Error::other("there is nothing to test"));
    };
    let mut good = true;
    for (name, scene) in SCENES {
        let mut stage = Stage::new(waft, disk)?;
        match scene(&mut stage) {
            Ok(()) => println!("scene: {name}: ok"),
            Err(error) => {
                good = false;
                println!("scene: {name}: FAILED: {error}");
                println!("{}", stage.log());
            }
        }
    }
    Ok(good)
}

pub struct Stage {
    waft: PathBuf,
    place: Place,
    disk: Disk,
    log: PathBuf,
    /// Of all of it; gone with it.
    _folder: tempfile::TempDir,
}

/// Fails the scene unless it holds.
fn expect(holds: bool, what: impl Into<String>) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what.into())) }
}

impl Stage {
    fn new(waft: &Path, disk: &Path) -> io::Result<Stage> {
        let folder = tempfile::Builder::new().prefix("waft-scene-").tempdir()?;
        let place = Place::new(waft, folder.path(), "full")?;
        let disk = Disk::new(disk, &place.data, folder.path())?;
        let log = folder.path().join("waft.log");
        Ok(Stage { waft: waft.to_path_buf(), place, disk, log, _folder: folder })
    }

    fn start(&self) -> io::Result<Server> {
        self.disk.calm()?;
        Server::start(&self.place, &self.log, |command| self.disk.under(command, None))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn come(&self, name: &str) -> io::Result<Client> {
        let mut client = Client::login(self.place.address, name, PASSWORD)?;
        client.bind("here", false)?;
        client.send("<presence/>")?;
        Ok(client)
    }

    /// Runs a command of waft to its end.
    fn command(&self, words: &[&OsStr], data: &Path) -> io::Result<Output> {
        Command::new(&self.waft).args(words).arg("--data").arg(data).stdin(Stdio::null()).output()
    }

    /// Bodies in the archive of an account.
    fn archive(&self, name: &str) -> io::Result<Vec<String>> {
        let mut client = Client::login(self.place.address, name, PASSWORD)?;
        client.bind("archive", false)?;
        let mut bodies = Vec::new();
        let query = "<iq type='set' id='walk'><query xmlns='urn:xmpp:mam:2'/></iq>";
        client.ask(query, "walk", |element| {
            let forwarded =
                element.find("result", "urn:xmpp:mam:2").and_then(|r| r.find("forwarded", "urn:xmpp:forward:0"));
            let message = forwarded.and_then(|forwarded| forwarded.find("message", CLIENT));
            bodies.extend(message.and_then(|m| m.find("body", CLIENT)).map(Element::text_content));
        })?;
        Ok(bodies)
    }
}

fn chat(to: &str, id: &str, text: &str) -> String {
    format!("<message type='chat' to='{to}@localhost' id='{id}'><body>{text}</body></message>")
}

fn condition(element: &Element) -> Option<&str> {
    let error = element.elements().find(|child| *child.name == *"error")?;
    error.elements().find(|child| *child.ns == *STANZAS).map(|condition| &*condition.name)
}

fn body(element: &Element) -> String {
    element.find("body", CLIENT).map(Element::text_content).unwrap_or_default()
}

/// Reads until the element that is wanted.
fn until(client: &mut Client, what: &str, wanted: impl Fn(&Element) -> bool) -> io::Result<Element> {
    let end = Instant::now() + PATIENCE;
    loop {
        match client.next(end.saturating_duration_since(Instant::now()))? {
            Got::Element(element) if wanted(&element) => return Ok(element),
            Got::Element(_) => {}
            Got::Nothing => return Err(io::Error::other(format!("{what} did not come"))),
            Got::End => return Err(io::Error::other(format!("the stream ended before {what}"))),
        }
    }
}

/// Romeo and Juliet, who see each other.
fn couple(stage: &Stage) -> io::Result<(Client, Client)> {
    server::add_accounts(&stage.place, ["romeo", "juliet", "nurse"].into_iter(), PASSWORD)?;
    let (mut romeo, mut juliet) = (stage.come("romeo")?, stage.come("juliet")?);
    romeo.send("<presence type='subscribe' to='juliet@localhost'/>")?;
    until(&mut juliet, "the request", |e| e.attribute("type") == Some("subscribe"))?;
    juliet.send("<presence type='subscribed' to='romeo@localhost'/>")?;
    let available = |e: &Element| {
        *e.name == *"presence" && e.attribute("type").is_none() && e.attribute("from") == Some("juliet@localhost/here")
    };
    until(&mut romeo, "Juliet's presence", available)?;
    Ok((romeo, juliet))
}

fn full_disk(stage: &mut Stage) -> io::Result<()> {
    let server = stage.start()?;
    let (mut romeo, mut juliet) = couple(stage)?;
    romeo.send(&chat("juliet", "m1", "before"))?;
    until(&mut juliet, "a message", |e| body(e) == "before")?;

    let calls = call::WRITE | call::OPEN | call::TRUNCATE;
    let files = file::DATABASE | file::WAL | file::INDEX;
    stage.disk.arm(Plan { calls, files, fate: fate::ENOSPC, from: 1, count: u64::MAX })?;
    romeo.send(&chat("juliet", "m2", "refused"))?;
    let refused = until(&mut romeo, "an error", |e| e.attribute("id") == Some("m2"))?;
    let found = condition(&refused);
    expect(found == Some("resource-constraint"), format!("a message is answered with {found:?}"))?;
    let set = "<iq type='set' id='r1'><query xmlns='jabber:iq:roster'><item jid='friar@localhost'/></query></iq>";
    let answer = romeo.ask(set, "r1", |_| {})?;
    let found = condition(&answer);
    expect(found == Some("resource-constraint"), format!("a change of the roster is answered with {found:?}"))?;
    juliet.send("<presence><show>away</show></presence>")?;
    until(&mut romeo, "presence", |e| e.find("show", CLIENT).is_some_and(|show| show.text_content() == "away"))?;
    let passing =
        "<message to='juliet@localhost' id='m3'><body>passing</body><no-store xmlns='urn:xmpp:hints'/></message>";
    romeo.send(passing)?;
    until(&mut juliet, "a message that is not kept", |e| body(e) == "passing")?;
    romeo.send("<iq type='get' id='q1' to='juliet@localhost/here'><query xmlns='jabber:iq:version'/></iq>")?;
    until(&mut juliet, "a query", |e| e.attribute("id") == Some("q1"))?;
    let mut nurse = stage.come("nurse")?;
    let read = nurse.ask("<iq type='get' id='r2'><query xmlns='jabber:iq:roster'/></iq>", "r2", |_| {})?;
    expect(read.attribute("type") == Some("result"), "the roster cannot be read")?;
    expect(server.ended()?.is_none(), "the server ended")?;

    stage.disk.calm()?;
    romeo.send(&chat("juliet", "m4", "after"))?;
    until(&mut juliet, "a message", |e| body(e) == "after")?;
    let answer = romeo.ask(set, "r1", |_| {})?;
    expect(answer.attribute("type") == Some("result"), "the roster cannot be changed after all")?;
    server.kill();
    server.wait()?;
    let _server = stage.start()?;
    for who in ["romeo", "juliet"] {
        let archive = stage.archive(who)?;
        expect(archive == ["before", "after"], format!("in the archive of {who} is {archive:?}"))?;
    }
    Ok(())
}

fn failed_sync(stage: &mut Stage) -> io::Result<()> {
    failed(stage, call::SYNC)
}

fn failed_write(stage: &mut Stage) -> io::Result<()> {
    failed(stage, call::WRITE)
}

fn failed(stage: &mut Stage, calls: u32) -> io::Result<()> {
    let server = stage.start()?;
    let (mut romeo, mut juliet) = couple(stage)?;
    romeo.send(&chat("juliet", "m1", "before"))?;
    until(&mut juliet, "a message", |e| body(e) == "before")?;
    stage.disk.arm(Plan { calls, files: file::WAL, fate: fate::EIO, from: 1, count: 1 })?;
    romeo.send(&chat("juliet", "m2", "refused"))?;
    let refused = until(&mut romeo, "an error", |e| e.attribute("id") == Some("m2"))?;
    let found = condition(&refused);
    expect(found == Some("internal-server-error"), format!("a message is answered with {found:?}"))?;
    let status = server.wait()?;
    expect(!status.success(), "the server ended as if all were well")?;
    let log = stage.log();
    expect(log.contains("the store could not be written"), "the server does not say why it ended")?;
    expect(log.contains("free the disk or replace it, then start waft again"), "nor what to do")?;
    let _server = stage.start()?;
    for who in ["romeo", "juliet"] {
        let archive = stage.archive(who)?;
        expect(archive == ["before"], format!("in the archive of {who} is {archive:?}"))?;
    }
    let mut romeo = stage.come("romeo")?;
    romeo.send(&chat("juliet", "m3", "after"))?;
    let mut juliet = stage.come("juliet")?;
    until(&mut juliet, "a message", |e| body(e) == "after")?;
    Ok(())
}

/// Sends messages until it is told to stop; gives how many were acknowledged so far to whoever asks.
fn send_on(stage: &Stage, acked: &AtomicUsize, sent: &AtomicUsize, stop: &AtomicBool) -> io::Result<()> {
    let mut client = Client::login(stage.place.address, "romeo", PASSWORD)?;
    client.bind("load", true)?;
    while !stop.load(SeqCst) {
        for _ in 0..5 {
            let nth = sent.fetch_add(1, SeqCst);
            client.send(&chat("juliet", &format!("m{nth}"), &format!("text {nth}")))?;
        }
        client.send(&format!("<r xmlns='{SM}'/>"))?;
        let answer = until(&mut client, "an acknowledgement", |e| e.is("a", SM))?;
        let h = answer.attribute("h").and_then(|h| h.parse().ok()).unwrap_or(0);
        acked.store(h, SeqCst);
    }
    Ok(())
}

fn backup_under_load(stage: &mut Stage) -> io::Result<()> {
    let server = stage.start()?;
    server::add_accounts(&stage.place, ["romeo", "juliet"].into_iter(), PASSWORD)?;
    let (acked, sent, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let file = stage.place.data.with_file_name("one.backup");
    let mut before = 0;
    let mut after = 0;
    let mut output = None;
    let loaded = std::thread::scope(|scope| {
        let load = scope.spawn(|| send_on(stage, &acked, &sent, &stop));
        let end = Instant::now() + PATIENCE;
        while acked.load(SeqCst) < LOAD && Instant::now() < end && !load.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        before = acked.load(SeqCst);
        output = Some(stage.command(&["backup".as_ref(), file.as_os_str()], &stage.place.data));
        after = sent.load(SeqCst);
        stop.store(true, SeqCst);
        load.join().unwrap_or_else(|_| Err(io::Error::other("the load panicked")))
    });
    loaded?;
    let output = output.ok_or_else(|| io::Error::other("no backup was made"))??;
    expect(output.status.success(), format!("waft backup: {}", String::from_utf8_lossy(&output.stderr)))?;
    expect(before >= LOAD, format!("there was no load: {before}"))?;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file)?) & 0o777;
    expect(mode == 0o600, format!("the backup has the mode {mode:o}"))?;
    let secret = std::fs::read(stage.place.data.join("secret"))?;
    let refused = stage.command(&["restore".as_ref(), file.as_os_str()], &stage.place.data)?;
    expect(!refused.status.success(), "a restore went over a server that runs")?;
    server.terminate()?;
    server.wait()?;
    let refused = stage.command(&["restore".as_ref(), file.as_os_str()], &stage.place.data)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    expect(
        !refused.status.success() && said.contains("--replace"),
        format!("over a folder that is not empty: {said}"),
    )?;

    let elsewhere = stage.place.data.with_file_name("restored");
    let restored = stage.command(&["restore".as_ref(), file.as_os_str()], &elsewhere)?;
    expect(restored.status.success(), format!("waft restore: {}", String::from_utf8_lossy(&restored.stderr)))?;
    expect(std::fs::read(elsewhere.join("secret"))? == secret, "the secret is another")?;
    stage.place.data = elsewhere;
    let _server = Server::start(&stage.place, &stage.log, |_| {})?;
    for who in ["romeo", "juliet"] {
        let found = stage.archive(who)?.len();
        // A page has at most so many.
        let least = before.min(50);
        expect(found >= least && found <= after, format!("{who} has {found} messages, of {before} to {after}"))?;
    }
    let held = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = held.split(", ").nth(1).and_then(|part| part.split(' ').next()).and_then(|n| n.parse::<usize>().ok());
    let count = count.ok_or_else(|| io::Error::other(format!("waft backup says {held}")))?;
    expect(count >= 2 * before && count <= 2 * after, format!("{count} rows of {before} to {after} messages"))
}

fn newer_store(stage: &mut Stage) -> io::Result<()> {
    let server = stage.start()?;
    server.terminate()?;
    server.wait()?;
    let database = rusqlite::Connection::open(stage.place.data.join("waft.db")).map_err(io::Error::other)?;
    let newer = "UPDATE meta SET schema = 999, producer = '9.9.9'";
    database.execute(newer, []).map_err(io::Error::other)?;
    drop(database);
    let refused = stage.command(&["serve".as_ref()], &stage.place.data)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    expect(!refused.status.success(), "it was served")?;
    let expected = ["waft 9.9.9 (schema 999)", "use a newer waft, or restore a backup"];
    expect(expected.iter().all(|part| said.contains(part)), format!("it says: {said}"))
}
