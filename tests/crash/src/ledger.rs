//! What the clients meant to do and what the server said it did: on disk before the one is sent, after the other came.

use aws_lc_rs::digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A message's name: (sender, number of the sender's). Numbers start at 1 and grow over all cycles.
pub type Id = (usize, u32);

/// What became of a message, as its sender was told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// Sent, perhaps.
    Intended,
    Acked,
    /// An error came back.
    Refused,
}

#[derive(Debug)]
pub struct Message {
    /// Index of the receiver.
    pub to: usize,
    pub hash: String,
    pub fate: Fate,
}

/// A value of a roster, a card, …: the one in force was acknowledged last, or later intended. Empty is not there.
#[derive(Debug, Default)]
struct Value {
    acked: Option<String>,
    intended: BTreeSet<String>,
}

pub struct Ledger {
    file: Mutex<File>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<Id, Message>,
    /// Sent while the disk was full.
    late: BTreeSet<Id>,
    values: BTreeMap<(&'static str, String), Value>,
    acked_values: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub fn new(path: &Path) -> io::Result<Ledger> {
        Ok(Ledger { file: Mutex::new(File::create(path)?), state: Mutex::default() })
    }

    /// Appends lines and waits until they are on disk.
    fn write(&self, lines: &str) -> io::Result<()> {
        let mut file = lock(&self.file);
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }

    /// Messages that will be sent: (id, receiver, hash).
    pub fn intend(&self, messages: &[(Id, usize, String)]) -> io::Result<()> {
        let mut lines = String::new();
        let mut state = lock(&self.state);
        for (id, to, hash) in messages {
            let _ = writeln!(lines, "intent {}:{} to {to} {hash}", id.0, id.1);
            state.messages.insert(*id, Message { to: *to, hash: hash.clone(), fate: Fate::Intended });
        }
        drop(state);
        self.write(&lines)
    }

    /// Sent while the disk is full: it may be refused and its sender not hear of that before the crash. Sent again it comes
    /// behind what was taken meanwhile.
    pub fn may_be_late(&self, id: Id) {
        lock(&self.state).late.insert(id);
    }

    pub fn is_late(&self, id: &Id) -> bool {
        lock(&self.state).late.contains(id)
    }

    pub fn tell(&self, ids: &[Id], fate: Fate) -> io::Result<()> {
        let mut lines = String::new();
        let mut state = lock(&self.state);
        for id in ids {
            let _ = writeln!(lines, "{} {}:{}", if fate == Fate::Acked { "acked" } else { "refused" }, id.0, id.1);
            if let Some(message) = state.messages.get_mut(id)
                // An error is the outcome of a message, the acknowledgement only says that it has one.
                && message.fate != Fate::Refused
            {
                message.fate = fate;
            }
        }
        drop(state);
        self.write(&lines)
    }

    /// A value that will be set.
    pub fn intend_value(&self, kind: &'static str, key: &str, value: &str) -> io::Result<()> {
        lock(&self.state).values.entry((kind, key.to_owned())).or_default().intended.insert(value.to_owned());
        self.write(&format!("intent {kind} {key} {value}\n"))
    }

    pub fn ack_value(&self, kind: &'static str, key: &str, value: &str) -> io::Result<()> {
        {
            let mut state = lock(&self.state);
            state.acked_values += 1;
            let entry = state.values.entry((kind, key.to_owned())).or_default();
            // Sets of one key wait for each other, so none that was intended before can come later.
            *entry = Value { acked: Some(value.to_owned()), intended: BTreeSet::new() };
        }
        self.write(&format!("acked {kind} {key} {value}\n"))
    }

    /// An error was the answer: it is not set.
    pub fn refuse_value(&self, kind: &'static str, key: &str, value: &str) -> io::Result<()> {
        lock(&self.state).values.entry((kind, key.to_owned())).or_default().intended.remove(value);
        self.write(&format!("refused {kind} {key} {value}\n"))
    }

    /// Compares all values of a kind with what the server has; what it has is in force from now on.
    pub fn check_values(&self, kind: &'static str, found: &BTreeMap<String, String>) -> Vec<Wrong> {
        let mut state = lock(&self.state);
        let mut wrong = Vec::new();
        for ((k, key), value) in &mut state.values {
            if *k != kind {
                continue;
            }
            let there = found.get(key).map_or("", String::as_str);
            let acked = value.acked.as_deref().unwrap_or_default();
            if there != acked && !value.intended.contains(there) {
                wrong.push(Wrong::Lost(format!("{kind} {key} is {there:?}, acknowledged was {acked:?}")));
            }
            value.acked = Some(there.to_owned());
            value.intended.clear();
        }
        for key in found.keys() {
            if !state.values.contains_key(&(kind, key.clone())) {
                wrong.push(Wrong::Invented(format!("{kind} {key} was never set")));
            }
        }
        wrong
    }

    /// Is this what was sent? The text of a body; gives its id and receiver. What was refused came to nobody.
    pub fn recognise(&self, body: &str) -> Result<(Id, usize), String> {
        let known = self.recognise_sent(body)?;
        let refused = lock(&self.state).messages.get(&known.0).is_some_and(|message| message.fate == Fate::Refused);
        if refused { Err(format!("{:?} came, and an error came too", known.0)) } else { Ok(known) }
    }

    /// The same in its sender's own archive, which may have what was refused.
    pub fn recognise_sent(&self, body: &str) -> Result<(Id, usize), String> {
        let mut parts = body.splitn(4, ':');
        let (Some(sender), Some(number), Some(hash), Some(payload)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("no body of ours: {body:?}"));
        };
        let id = match (sender.parse(), number.parse()) {
            (Ok(sender), Ok(number)) => (sender, number),
            _ => return Err(format!("no body of ours: {body:?}")),
        };
        if hash != hash_of(payload) {
            return Err(format!("{sender}:{number} came with another payload"));
        }
        match lock(&self.state).messages.get(&id) {
            Some(message) if message.hash == hash => Ok((id, message.to)),
            Some(_) => Err(format!("{id:?} came with another hash")),
            None => Err(format!("{id:?} was never sent")),
        }
    }

    /// The acknowledged messages to a receiver that are not among `found`.
    pub fn missing(&self, to: usize, found: impl Fn(&Id) -> bool) -> Vec<Id> {
        let state = lock(&self.state);
        let messages = state.messages.iter();
        messages.filter(|(id, m)| m.to == to && m.fate == Fate::Acked && !found(id)).map(|(id, _)| *id).collect()
    }

    /// The acknowledged messages of a sender that are not among `found`.
    pub fn missing_of(&self, sender: usize, found: impl Fn(&Id) -> bool) -> Vec<Id> {
        let state = lock(&self.state);
        let messages = state.messages.range((sender, 0)..=(sender, u32::MAX));
        messages.filter(|(id, m)| m.fate == Fate::Acked && !found(id)).map(|(id, _)| *id).collect()
    }

    /// (acknowledged messages, acknowledged values, refused messages).
    pub fn totals(&self) -> (usize, u64, usize) {
        let state = lock(&self.state);
        let count = |fate| state.messages.values().filter(|m| m.fate == fate).count();
        (count(Fate::Acked), state.acked_values, count(Fate::Refused))
    }
}

/// What is wrong with what was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Wrong {
    Lost(String),
    Doubled(String),
    Reordered(String),
    Invented(String),
    /// The server did not answer, or did not end.
    Stuck(String),
}

/// SHA-256 in hexadecimal.
pub fn hash_of(payload: &str) -> String {
    let digest = digest::digest(&digest::SHA256, payload.as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Ledger::new(&folder.path().join("ledger")).expect("a file can be made in it")
    }

    #[test]
    fn an_acknowledged_value_in_whose_place_an_older_one_is_found_is_lost() {
        for (found, lost) in [("1", 1), ("2", 0), ("", 1)] {
            let ledger = ledger();
            for value in ["1", "2"] {
                ledger.intend_value("card", "a", value).expect("the disk takes it");
                ledger.ack_value("card", "a", value).expect("the disk takes it");
            }
            let wrong = ledger.check_values("card", &BTreeMap::from([("a".to_owned(), found.to_owned())]));
            assert_eq!(wrong.len(), lost, "{found}");
            assert!(wrong.iter().all(|wrong| matches!(wrong, Wrong::Lost(_))));
        }
    }

    #[test]
    fn a_value_that_was_intended_and_found_stays_in_force() {
        let ledger = ledger();
        ledger.intend_value("card", "a", "1").expect("the disk takes it");
        let found = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(ledger.check_values("card", &found), []);
        assert!(matches!(ledger.check_values("card", &BTreeMap::new())[..], [Wrong::Lost(_)]));
    }

    #[test]
    fn a_body_that_was_changed_on_the_way_is_not_recognised() {
        let ledger = ledger();
        let hash = hash_of("<&>");
        ledger.intend(&[((3, 7), 1, hash.clone())]).expect("the disk takes it");
        assert_eq!(ledger.recognise(&format!("3:7:{hash}:<&>")), Ok(((3, 7), 1)));
        assert!(ledger.recognise(&format!("3:7:{hash}:<&;>")).is_err());
        assert!(ledger.recognise(&format!("3:8:{hash}:<&>")).is_err());
    }
}
