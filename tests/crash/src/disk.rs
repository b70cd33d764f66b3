//! The disk under a process: what it is told to do, and the record it makes. The other end is the library in `disk/`.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../disk/src/layout.rs"]
pub mod layout;

use layout::{CONTROL, Control, FOLDER, RECORD, call, fate, file};

/// Chooses calls, and says what becomes of them.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub calls: u32,
    pub files: u32,
    /// See [`fate`].
    pub fate: i64,
    /// The first that is chosen, counted from 1.
    pub from: u64,
    /// How many.
    pub count: u64,
}

impl Plan {
    /// The `nth` of all calls.
    pub fn nth(nth: u64, fate: i64) -> Plan {
        Plan { calls: call::ALL, files: file::ALL, fate, from: nth, count: 1 }
    }
}

/// The disk of one process after another.
pub struct Disk {
    library: PathBuf,
    folder: PathBuf,
    control: File,
    control_path: PathBuf,
}

impl Disk {
    /// Of the files in `folder`; what it needs itself lies in `aside`.
    pub fn new(library: &Path, folder: &Path, aside: &Path) -> io::Result<Disk> {
        let control_path = aside.join("disk-control");
        let control = File::options().create(true).truncate(true).read(true).write(true).open(&control_path)?;
        control.write_all_at(&[0; size_of::<Control>()], 0)?;
        Ok(Disk { library: library.to_path_buf(), folder: folder.to_path_buf(), control, control_path })
    }

    /// Puts it under a process that is to be started.
    pub fn under(&self, command: &mut Command, record: Option<&Path>) {
        command.env("LD_PRELOAD", &self.library).env(FOLDER, &self.folder).env(CONTROL, &self.control_path);
        match record {
            Some(record) => command.env(RECORD, record),
            None => command.env_remove(RECORD),
        };
    }

    pub fn arm(&self, plan: Plan) -> io::Result<()> {
        self.calm()?;
        self.control.write_all_at(&plan.calls.to_ne_bytes(), offset_of!(Control, calls) as u64)?;
        self.control.write_all_at(&plan.files.to_ne_bytes(), offset_of!(Control, files) as u64)?;
        self.control.write_all_at(&plan.fate.to_ne_bytes(), offset_of!(Control, fate) as u64)?;
        self.put(offset_of!(Control, seen), 0)?;
        self.put(offset_of!(Control, chosen), 0)?;
        self.put(offset_of!(Control, to), plan.from.saturating_add(plan.count))?;
        self.put(offset_of!(Control, from), plan.from)
    }

    /// Nothing fails any more.
    pub fn calm(&self) -> io::Result<()> {
        self.put(offset_of!(Control, from), 0)
    }

    /// How many calls were chosen since it was armed.
    pub fn chosen(&self) -> io::Result<u64> {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, offset_of!(Control, chosen) as u64)?;
        Ok(u64::from_ne_bytes(value))
    }

    fn put(&self, at: usize, value: u64) -> io::Result<()> {
        self.control.write_all_at(&value.to_ne_bytes(), at as u64)
    }
}

/// The name of a fate, for people.
pub fn name_of(fate: i64) -> &'static str {
    match fate {
        fate::EIO => "EIO",
        fate::ENOSPC => "ENOSPC",
        fate::SHORT => "short",
        fate::KILL_BEFORE => "killed before",
        fate::KILL_AFTER => "killed after",
        fate::KILL_WITHIN => "killed within",
        _ => "?",
    }
}
