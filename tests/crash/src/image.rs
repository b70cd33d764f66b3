//! What a power cut leaves, made from the record of what was written.
//!
//! Of each file everything is there that was written before its last sync began; of what was written later any part
//! may be, in pieces of 512 bytes, in any order; of names that were made, changed or removed since the folder was
//! last synced the first few. What was written before a sync that failed may be lost even if a later one did not fail.
//! A file that was cut shorter is so, or is as long as it was with all that was in it: file systems keep a length and the
//! blocks behind it together.

use crate::disk::layout::{Head, what};
use crate::random::Random;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The smallest piece that a disk writes whole.
const SECTOR: u64 = 512;
/// What the system writes at once, and believes to have written after a sync that failed.
const PAGE: u64 = 4096;

#[derive(Debug, Clone)]
pub struct Entry {
    pub what: u32,
    pub name: String,
    pub offset: u64,
    pub before: Vec<u8>,
    pub after: Vec<u8>,
}

/// Reads a record; an entry that was cut short by the end of its process is left out.
pub fn read(record: &Path) -> io::Result<Vec<Entry>> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(record)?);
    let mut entries = Vec::new();
    loop {
        match entry(&mut file) {
            Ok(entry) => entries.push(entry),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(entries),
            Err(error) => return Err(error),
        }
    }
}

fn entry(file: &mut impl Read) -> io::Result<Entry> {
    let mut head = [0; size_of::<Head>()];
    file.read_exact(&mut head)?;
    let small = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let large = |at: usize| u64::from(small(at)) | u64::from(small(at + 4)) << 32;
    let mut bytes = |len: u64| {
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes).map(|()| bytes)
    };
    let name = String::from_utf8_lossy(&bytes(u64::from(small(4)))?).into_owned();
    let (before, after) = (bytes(large(16))?, bytes(large(24))?);
    Ok(Entry { what: small(0), name, offset: large(8), before, after })
}

/// What of a folder is not on disk yet.
#[derive(Default, Clone)]
pub struct Journal {
    files: BTreeMap<String, Unsynced>,
    names: Vec<Name>,
}

#[derive(Default, Clone)]
struct Unsynced {
    /// As processes see it.
    len: u64,
    /// All that it had since the last sync, the one on disk first.
    lens: Vec<u64>,
    /// Since the last sync, in order.
    patches: Vec<Patch>,
    /// Written before a sync that failed; each within a page.
    doomed: Vec<Patch>,
}

#[derive(Clone)]
struct Patch {
    offset: u64,
    before: Vec<u8>,
    after_len: u64,
    /// It made the file shorter: its place in [`Unsynced::lens`].
    cut: Option<usize>,
}

#[derive(Clone)]
enum Name {
    Made(String),
    Renamed { old: String, new: String, replaced: Option<Vec<u8>> },
    Removed { name: String, bytes: Vec<u8> },
}

impl Patch {
    fn len(&self) -> u64 {
        self.after_len.max(self.before.len() as u64)
    }

    fn units(&self, unit: u64) -> std::ops::Range<u64> {
        self.offset / unit..(self.offset + self.len()).div_ceil(unit)
    }

    /// The part of it in a unit.
    fn part(&self, unit: u64, nth: u64) -> Patch {
        let from = self.offset.max(nth * unit);
        let to = (self.offset + self.len()).min((nth + 1) * unit);
        let end = self.offset + self.before.len() as u64;
        let before = match from < end {
            true => self.before[(from - self.offset) as usize..(to.min(end) - self.offset) as usize].to_vec(),
            false => Vec::new(),
        };
        Patch { offset: from, before, after_len: to - from, cut: self.cut }
    }
}

impl Unsynced {
    fn grown(&mut self, len: u64) {
        if len != self.len {
            self.len = len;
            self.lens.push(len);
        }
    }

    fn synced(&mut self) {
        // A page that was written again, and synced, is on disk with all that is in it.
        let written: std::collections::HashSet<u64> = self.patches.iter().flat_map(|p| p.units(PAGE)).collect();
        self.doomed.retain(|patch| !written.contains(&(patch.offset / PAGE)));
        self.patches.clear();
        self.lens = vec![self.len];
    }

    fn sync_failed(&mut self) {
        // (Lengths are the file system's own, and come to the disk another way.)
        let (cuts, written) = std::mem::take(&mut self.patches).into_iter().partition(|patch| patch.cut.is_some());
        self.patches = cuts;
        for patch in written {
            self.doomed.extend(patch.units(PAGE).map(|page| patch.part(PAGE, page)));
        }
    }

    /// Takes back what did not come to the disk.
    fn cut(&self, path: &Path, random: &mut Random) -> io::Result<()> {
        let patches: Vec<&Patch> = self.doomed.iter().chain(&self.patches).collect();
        let mut left: HashMap<u64, u64> = HashMap::new();
        for patch in &patches {
            for sector in patch.units(SECTOR) {
                *left.entry(sector).or_default() += 1;
            }
        }
        if patches.is_empty() && self.lens.len() < 2 {
            return Ok(());
        }
        let mut kept = self.kept(&patches, &left, random);
        let nth = if random.one_in(2) { self.lens.len() - 1 } else { random.below(self.lens.len() as u64) as usize };
        let len = self.lens.get(nth).copied().unwrap_or(self.len);
        hold_together(&patches, nth, &mut kept);
        let file = File::options().read(true).write(true).open(path)?;
        for patch in patches.iter().rev() {
            for sector in patch.units(SECTOR) {
                let before = left.entry(sector).or_default();
                *before -= 1;
                if *before < kept.get(&sector).copied().unwrap_or(0) {
                    continue;
                }
                let part = patch.part(SECTOR, sector);
                let mut bytes = part.before;
                bytes.resize(part.after_len as usize, 0);
                file.write_all_at(&bytes, part.offset)?;
            }
        }
        file.set_len(len)
    }

    /// How many of the patches to each sector came to the disk.
    fn kept(&self, patches: &[&Patch], all: &HashMap<u64, u64>, random: &mut Random) -> HashMap<u64, u64> {
        match random.below(4) {
            0 => HashMap::new(),
            // In order up to some point, and there torn.
            1 => {
                let last = random.below(patches.len() as u64 + 1) as usize;
                let mut kept: HashMap<u64, u64> = HashMap::new();
                for (nth, patch) in patches.iter().take(last + 1).enumerate() {
                    for sector in patch.units(SECTOR) {
                        if nth < last || random.one_in(2) {
                            *kept.entry(sector).or_default() += 1;
                        }
                    }
                }
                kept
            }
            // Nearly all.
            2 => all.iter().map(|(sector, all)| (*sector, if random.one_in(16) { 0 } else { *all })).collect(),
            _ => {
                let mut sectors: Vec<_> = all.iter().collect();
                sectors.sort_unstable();
                sectors.into_iter().map(|(sector, all)| (*sector, random.below(all + 1))).collect()
            }
        }
    }
}

/// What was behind a cut is there if the length of before is (`nth` of the lengths is on disk), and nothing that was
/// written there later; else the cut came to the disk.
fn hold_together(patches: &[&Patch], nth: usize, kept: &mut HashMap<u64, u64>) {
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for patch in patches {
        for sector in patch.units(SECTOR) {
            let before = seen.entry(sector).or_default();
            if let Some(at) = patch.cut {
                let kept = kept.entry(sector).or_default();
                *kept = if nth >= at { (*kept).max(*before + 1) } else { (*kept).min(*before) };
            }
            *before += 1;
        }
    }
}

impl Journal {
    /// Of a folder that is on disk as it is.
    pub fn of(folder: &Path) -> io::Result<Journal> {
        let mut journal = Journal::default();
        journal.add(folder, "")?;
        Ok(journal)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let (kind, len) = (file.file_type()?, file.metadata()?.len());
            let name = format!("{prefix}{}", file.file_name().to_string_lossy());
            if kind.is_dir() {
                self.add(&file.path(), &format!("{name}/"))?;
            } else if kind.is_file() {
                self.files.insert(name, Unsynced { len, lens: vec![len], ..Unsynced::default() });
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> &mut Unsynced {
        let new = || Unsynced { lens: vec![0], ..Unsynced::default() };
        self.files.entry(name.to_owned()).or_insert_with(new)
    }

    pub fn apply(&mut self, entry: &Entry) {
        let Entry { what, name, offset, before, after } = entry;
        match *what {
            what::MADE => {
                self.files.remove(name);
                self.file(name);
                self.names.push(Name::Made(name.clone()));
            }
            what::WRITTEN => {
                let file = self.file(name);
                let after_len = after.len() as u64;
                file.patches.push(Patch { offset: *offset, before: before.clone(), after_len, cut: None });
                file.grown(file.len.max(offset + after_len));
            }
            what::CUT => {
                let file = self.file(name);
                let shorter = *offset < file.len;
                file.grown(*offset);
                let cut = shorter.then(|| file.lens.len() - 1);
                file.patches.push(Patch { offset: *offset, before: before.clone(), after_len: 0, cut });
            }
            what::SYNCED => self.file(name).synced(),
            what::SYNC_FAILED => self.file(name).sync_failed(),
            what::RENAMED => {
                let new = String::from_utf8_lossy(after).into_owned();
                let moved = self.files.remove(name).unwrap_or_default();
                self.files.insert(new.clone(), moved);
                let replaced = (*offset == 1).then(|| before.clone());
                self.names.push(Name::Renamed { old: name.clone(), new, replaced });
            }
            what::REMOVED => {
                self.files.remove(name);
                self.names.push(Name::Removed { name: name.clone(), bytes: before.clone() });
            }
            what::FOLDER_SYNCED => self.names.clear(),
            _ => unreachable!("the record has no such entry"),
        }
    }

    /// Cuts the power: makes of the folder, as processes see it, what is on disk.
    pub fn cut(&self, folder: &Path, random: &mut Random) -> io::Result<()> {
        for (name, file) in &self.files {
            let path = folder.join(name);
            if path.is_file() {
                file.cut(&path, random)?;
            }
        }
        let kept = random.below(self.names.len() as u64 + 1) as usize;
        for name in self.names[kept..].iter().rev() {
            let there = |name: &str| folder.join(name).exists();
            match name {
                Name::Made(name) if there(name) => std::fs::remove_file(folder.join(name))?,
                Name::Made(_) => {}
                Name::Renamed { old, new, replaced } => {
                    if there(new) {
                        std::fs::rename(folder.join(new), folder.join(old))?;
                    }
                    if let Some(bytes) = replaced {
                        std::fs::write(folder.join(new), bytes)?;
                    }
                }
                // A socket has no bytes, and the next process makes its own.
                Name::Removed { name, .. } if there(name) || name.ends_with(".sock") => {}
                Name::Removed { name, bytes } => std::fs::write(folder.join(name), bytes)?,
            }
        }
        Ok(())
    }
}

/// A folder in memory, as processes see it.
#[derive(Default, Clone)]
pub struct Contents(pub BTreeMap<String, Vec<u8>>);

impl Contents {
    pub fn apply(&mut self, entry: &Entry) {
        let Entry { what, name, offset, after, .. } = entry;
        let offset = *offset as usize;
        match *what {
            what::MADE => drop(self.0.insert(name.clone(), Vec::new())),
            what::WRITTEN => {
                let bytes = self.0.entry(name.clone()).or_default();
                if bytes.len() < offset + after.len() {
                    bytes.resize(offset + after.len(), 0);
                }
                bytes[offset..offset + after.len()].copy_from_slice(after);
            }
            what::CUT => self.0.entry(name.clone()).or_default().resize(offset, 0),
            what::RENAMED => {
                let moved = self.0.remove(name).unwrap_or_default();
                self.0.insert(String::from_utf8_lossy(after).into_owned(), moved);
            }
            what::REMOVED => drop(self.0.remove(name)),
            _ => {}
        }
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        self.0.iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, offset: u64, before: &[u8], after: &[u8]) -> Entry {
        Entry { what: what::WRITTEN, name: name.into(), offset, before: before.into(), after: after.into() }
    }

    fn other(what: u32, name: &str, offset: u64) -> Entry {
        Entry { what, name: name.into(), offset, before: Vec::new(), after: Vec::new() }
    }

    /// What is in the file `a` after cuts with many seeds.
    fn outcomes(entries: &[Entry]) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let (mut journal, mut contents) = (Journal::default(), Contents::default());
        for entry in entries {
            journal.apply(entry);
            contents.apply(entry);
        }
        (0..300)
            .map(|seed| {
                let folder = tempfile::tempdir().expect("a temporary folder can be made");
                contents.write(folder.path()).expect("it can be written");
                journal.cut(folder.path(), &mut Random::new(seed, 1)).expect("it can be cut");
                std::fs::read(folder.path().join("a")).ok()
            })
            .collect()
    }

    #[test]
    fn what_was_synced_is_there_after_every_cut() {
        let made = [other(what::MADE, "a", 0), other(what::FOLDER_SYNCED, "", 0)];
        let synced = [written("a", 0, &[], &[1; 700]), other(what::SYNCED, "a", 0)];
        let entries = [&made[..], &synced[..]].concat();
        assert_eq!(outcomes(&entries), [Some(vec![1; 700])].into());
    }

    #[test]
    fn what_was_not_synced_is_torn_at_sectors_and_goes_back_to_what_was_before() {
        let entries = [
            other(what::MADE, "a", 0),
            other(what::FOLDER_SYNCED, "", 0),
            written("a", 0, &[], &[1; 1024]),
            other(what::SYNCED, "a", 0),
            written("a", 0, &[1; 1024], &[2; 1024]),
            written("a", 500, &[2; 100], &[3; 100]),
        ];
        let found = outcomes(&entries);
        assert!(found.contains(&Some(vec![1; 1024])), "all may be lost");
        let new = [vec![2; 500], vec![3; 100], vec![2; 424]].concat();
        assert!(found.contains(&Some(new)), "nothing may be lost");
        let torn = [vec![1; 512], vec![3; 88], vec![2; 424]].concat();
        assert!(found.contains(&Some(torn)), "a sector may be, and the next not");
        let firsts: std::collections::BTreeSet<u8> = found.iter().flatten().map(|bytes| bytes[0]).collect();
        assert_eq!(firsts, [1, 2].into());
    }

    #[test]
    fn a_file_that_was_cut_shorter_is_so_or_is_whole() {
        let entries = [
            other(what::MADE, "a", 0),
            other(what::FOLDER_SYNCED, "", 0),
            written("a", 0, &[], &[1; 2048]),
            other(what::SYNCED, "a", 0),
            Entry { before: vec![1; 2048], ..other(what::CUT, "a", 0) },
        ];
        assert_eq!(outcomes(&entries), [Some(Vec::new()), Some(vec![1; 2048])].into());
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_gone() {
        let entries = [other(what::MADE, "a", 0), written("a", 0, &[], b"x"), other(what::SYNCED, "a", 0)];
        assert_eq!(outcomes(&entries), [None, Some(b"x".to_vec())].into());
    }

    #[test]
    fn what_a_failed_sync_lost_is_not_brought_back_by_the_next() {
        let entries = [
            other(what::MADE, "a", 0),
            other(what::FOLDER_SYNCED, "", 0),
            written("a", 0, &[], &[1; 8192]),
            other(what::SYNC_FAILED, "a", 0),
            written("a", 4096, &[1; 4096], &[2; 4096]),
            other(what::SYNCED, "a", 0),
        ];
        let found = outcomes(&entries);
        assert!(found.iter().flatten().all(|bytes| bytes[4096..] == [2; 4096]));
        assert!(found.iter().flatten().any(|bytes| bytes[..4096] == [0; 4096]));
    }
}
