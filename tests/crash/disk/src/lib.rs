//! Loaded into a process by `LD_PRELOAD`, it takes that process's writes to the files of one folder: it counts them,
//! makes the chosen ones fail (or the process die there), and records all of them, so that the disk as a power cut
//! would leave it can be made from the record.
//!
//! It makes the calls to the kernel itself, so that nothing of it comes back to it. Symbols are those of glibc and
//! musl on Linux.

mod layout;

use layout::{CONTROL, Control, FOLDER, Head, RECORD, call, fate, file, what};
use libc::{c_char, c_int, c_long, c_uint, mode_t, off_t, size_t, ssize_t};
use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Files with a greater number are not watched; the server has few of them open before any connection.
const DESCRIPTORS_MAX: usize = 1 << 16;

/// What is known of open descriptors, by number; `None` if not watched.
static OPEN: Mutex<Vec<Option<Watched>>> = Mutex::new(Vec::new());
static DISK: OnceLock<Option<Disk>> = OnceLock::new();

#[derive(Clone)]
enum Watched {
    File { name: Box<str>, kind: u32 },
    Folder,
}

struct Disk {
    folder: String,
    control: &'static Control,
    /// Entries of the record come in the order of what they tell.
    record: Option<Mutex<c_int>>,
}

/// Set up at the first call; nothing is watched if the environment does not say what.
fn disk() -> Option<&'static Disk> {
    DISK.get_or_init(|| {
        let folder = variable(FOLDER)?;
        let control = variable(CONTROL)?;
        // SAFETY: a C string and plain flags; the mapping is never undone, and only seen through atomics.
        let control = unsafe {
            let path = std::ffi::CString::new(control).ok()?;
            let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC, 0);
            let bytes = size_of::<Control>();
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let page = libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED, fd as c_int, 0);
            if page == libc::MAP_FAILED {
                return None;
            }
            &*page.cast::<Control>()
        };
        let record = variable(RECORD).and_then(|path| {
            let path = std::ffi::CString::new(path).ok()?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
            // SAFETY: a C string and plain flags.
            let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
            (fd >= 0).then(|| Mutex::new(fd as c_int))
        });
        Some(Disk { folder, control, record })
    })
    .as_ref()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn open_files() -> MutexGuard<'static, Vec<Option<Watched>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watched(fd: c_int) -> Option<Watched> {
    let at = usize::try_from(fd).ok()?;
    open_files().get(at)?.clone()
}

/// What is to become of a call.
enum Choice {
    Do,
    Fail(c_int),
    Short,
    Kill,
    KillAfter,
    KillWithin,
}

impl Disk {
    /// The name within the folder.
    fn name<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.folder.as_str())?.strip_prefix('/').filter(|name| !name.is_empty())
    }

    fn choose(&self, call: u32, kind: u32) -> Choice {
        let control = self.control;
        if control.from.load(SeqCst) == 0 {
            return Choice::Do;
        }
        if control.calls.load(SeqCst) & call == 0 || control.files.load(SeqCst) & kind == 0 {
            return Choice::Do;
        }
        let nth = control.seen.fetch_add(1, SeqCst) + 1;
        if nth < control.from.load(SeqCst) || nth >= control.to.load(SeqCst) {
            return Choice::Do;
        }
        control.chosen.fetch_add(1, SeqCst);
        match control.fate.load(SeqCst) {
            fate::SHORT => Choice::Short,
            fate::KILL_BEFORE => Choice::Kill,
            fate::KILL_AFTER => Choice::KillAfter,
            fate::KILL_WITHIN => Choice::KillWithin,
            errno => Choice::Fail(errno as c_int),
        }
    }

    /// Does a call that has no half, as it is chosen; `entry` tells of it before it is made.
    fn whole(&self, call: u32, kind: u32, record: impl FnOnce(&Recorder<'_>), make: impl FnOnce() -> c_long) -> c_long {
        match self.choose(call, kind) {
            Choice::Fail(errno) => refuse(errno),
            Choice::Short => refuse(libc::EIO),
            Choice::Kill | Choice::KillWithin => die(),
            Choice::Do => self.recorded(record, make),
            Choice::KillAfter => {
                self.recorded(record, make);
                die()
            }
        }
    }

    fn recorded(&self, record: impl FnOnce(&Recorder<'_>), make: impl FnOnce() -> c_long) -> c_long {
        match &self.record {
            Some(fd) => {
                let fd = fd.lock().unwrap_or_else(PoisonError::into_inner);
                record(&Recorder { fd: *fd, disk: self });
                make()
            }
            None => make(),
        }
    }
}

/// Writes the record.
struct Recorder<'d> {
    fd: c_int,
    disk: &'d Disk,
}

impl Recorder<'_> {
    fn entry(&self, what: u32, name: &str, offset: u64, before: &[u8], after: &[u8]) {
        let head = Head {
            what,
            name_len: name.len() as u32,
            offset,
            before_len: before.len() as u64,
            after_len: after.len() as u64,
        };
        let mut entry = Vec::with_capacity(size_of::<Head>() + name.len() + before.len() + after.len());
        // SAFETY: a plain struct without padding: two of four bytes, three of eight.
        entry.extend_from_slice(unsafe {
            std::slice::from_raw_parts((&raw const head).cast::<u8>(), size_of::<Head>())
        });
        entry.extend_from_slice(name.as_bytes());
        entry.extend_from_slice(before);
        entry.extend_from_slice(after);
        let mut rest = entry.as_slice();
        while !rest.is_empty() {
            // SAFETY: the bytes are ours.
            let wrote = unsafe { libc::syscall(libc::SYS_write, self.fd, rest.as_ptr(), rest.len()) };
            match usize::try_from(wrote) {
                Ok(wrote) if wrote > 0 => rest = &rest[wrote..],
                // Without a record the test would prove nothing.
                _ => die(),
            }
        }
    }

    /// What is in the file from `offset` on, `len` bytes at most.
    fn read(&self, name: &str, offset: u64, len: usize) -> Vec<u8> {
        let Ok(path) = std::ffi::CString::new(format!("{}/{name}", self.disk.folder)) else { return Vec::new() };
        // SAFETY: a C string; a buffer of our own.
        unsafe {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) as c_int;
            if fd < 0 {
                return Vec::new();
            }
            let size = libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_END) as u64;
            let mut bytes = vec![0; len.min(size.saturating_sub(offset) as usize)];
            let mut at = 0;
            while at < bytes.len() {
                let rest = &mut bytes[at..];
                let from = offset + at as u64;
                let read = libc::syscall(libc::SYS_pread64, fd, rest.as_mut_ptr(), rest.len(), from);
                if read <= 0 {
                    break;
                }
                at += read as usize;
            }
            bytes.truncate(at);
            libc::syscall(libc::SYS_close, fd);
            bytes
        }
    }
}

fn refuse(errno: c_int) -> c_long {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn die() -> ! {
    // SAFETY: no pointers.
    unsafe {
        libc::syscall(libc::SYS_kill, libc::getpid(), libc::SIGKILL);
    }
    loop {
        std::hint::spin_loop();
    }
}

fn text<'p>(path: *const c_char) -> Option<&'p str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller gave a C string, as the call demands.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

// ---- what the process calls ----

fn open_any(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's own pointer.
    let make = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags | libc::O_LARGEFILE, mode) };
    let Some((disk, text)) = disk().zip(text(path)) else { return make() as c_int };
    let (fd, watched) = match disk.name(text) {
        Some(name) => {
            let kind = file::of(name);
            // SAFETY: the caller's own pointer.
            let is_new = flags & libc::O_CREAT != 0
                && unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) } != 0;
            let record = |record: &Recorder<'_>| {
                if is_new {
                    record.entry(what::MADE, name, 0, &[], &[]);
                } else if flags & libc::O_TRUNC != 0 {
                    record.entry(what::CUT, name, 0, &record.read(name, 0, usize::MAX), &[]);
                }
            };
            let fd = disk.whole(call::OPEN, kind, record, make) as c_int;
            (fd, Watched::File { name: name.into(), kind })
        }
        None if text.trim_end_matches('/') == disk.folder => (make() as c_int, Watched::Folder),
        None => return make() as c_int,
    };
    if let Some(at) = usize::try_from(fd).ok().filter(|at| *at < DESCRIPTORS_MAX) {
        let mut open = open_files();
        if open.len() <= at {
            open.resize(at + 1, None);
        }
        open[at] = Some(watched);
    }
    fd
}

fn write_any(fd: c_int, bytes: *const u8, len: size_t, at: Option<off_t>) -> ssize_t {
    let make = |len: size_t| match at {
        // SAFETY: the caller's own buffer, or a part of it.
        Some(at) => unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, len, at) },
        // SAFETY: as above.
        None => unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) },
    };
    let Some(disk) = disk() else { return make(len) as ssize_t };
    let Some(Watched::File { name, kind }) = watched(fd) else { return make(len) as ssize_t };
    let part = |len: size_t| {
        let record = |record: &Recorder<'_>| {
            let offset = match at {
                Some(at) => at as u64,
                // SAFETY: no pointers.
                None => unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) as u64 },
            };
            // SAFETY: the caller's own buffer.
            let after = unsafe { std::slice::from_raw_parts(bytes, len) };
            record.entry(what::WRITTEN, &name, offset, &record.read(&name, offset, len), after);
        };
        disk.recorded(record, || make(len))
    };
    let done = match disk.choose(call::WRITE, kind) {
        Choice::Do => part(len),
        Choice::Fail(errno) => refuse(errno),
        Choice::Short if len > 1 => part(len / 2),
        Choice::Short => part(len),
        Choice::Kill => die(),
        Choice::KillAfter => {
            part(len);
            die()
        }
        Choice::KillWithin => {
            part(len / 2);
            die()
        }
    };
    done as ssize_t
}

fn sync_any(fd: c_int, call: c_long) -> c_int {
    // SAFETY: no pointers.
    let make = || unsafe { libc::syscall(call, fd) };
    let Some((disk, watched)) = disk().zip(watched(fd)) else { return make() as c_int };
    let (name, kind, entry) = match &watched {
        Watched::File { name, kind } => (&**name, *kind, what::SYNCED),
        Watched::Folder => ("", file::OTHER, what::FOLDER_SYNCED),
    };
    // What is written while a sync goes on is not promised by it, so its entry comes first, and it holds up nobody.
    let record = |entry| {
        disk.recorded(|record| record.entry(entry, name, 0, &[], &[]), || 0);
    };
    let failed = || {
        if entry == what::SYNCED {
            record(what::SYNC_FAILED)
        }
    };
    let done = match disk.choose(call::SYNC, kind) {
        Choice::Do => {
            record(entry);
            make()
        }
        Choice::Fail(errno) => {
            failed();
            refuse(errno)
        }
        Choice::Short => {
            failed();
            refuse(libc::EIO)
        }
        Choice::Kill | Choice::KillWithin => die(),
        Choice::KillAfter => {
            record(entry);
            make();
            die()
        }
    };
    done as c_int
}

fn truncate_any(fd: c_int, len: off_t) -> c_int {
    // SAFETY: no pointers.
    let make = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) };
    let Some(disk) = disk() else { return make() as c_int };
    let Some(Watched::File { name, kind }) = watched(fd) else { return make() as c_int };
    let record = |record: &Recorder<'_>| {
        record.entry(what::CUT, &name, len as u64, &record.read(&name, len as u64, usize::MAX), &[]);
    };
    // What gives space back does not fail for want of it.
    // SAFETY: no pointers.
    let size = unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_END) };
    if disk.control.fate.load(SeqCst) == fate::ENOSPC && len <= size {
        return disk.recorded(record, make) as c_int;
    }
    disk.whole(call::TRUNCATE, kind, record, make) as c_int
}

/// # Safety
/// As the C library's; all calls with a file's name give a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_any(path, flags, mode)
}

/// # Safety
/// See [`open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_any(path, flags, mode)
}

/// # Safety
/// See [`open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if disk().is_some()
        && let Some(open) = usize::try_from(fd).ok().and_then(|at| open_files().get_mut(at).map(Option::take))
    {
        drop(open);
    }
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// # Safety
/// `bytes` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const u8, len: size_t) -> ssize_t {
    write_any(fd, bytes, len, None)
}

/// # Safety
/// `bytes` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, bytes: *const u8, len: size_t, at: off_t) -> ssize_t {
    write_any(fd, bytes, len, Some(at))
}

/// # Safety
/// `bytes` are `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const u8, len: size_t, at: off_t) -> ssize_t {
    write_any(fd, bytes, len, Some(at))
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    sync_any(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync_any(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    truncate_any(fd, len)
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    truncate_any(fd, len)
}

/// # Safety
/// See [`open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's own pointers.
    let make = || unsafe { libc::syscall(libc::SYS_renameat, libc::AT_FDCWD, from, libc::AT_FDCWD, to) };
    let names = disk().and_then(|disk| Some((disk, disk.name(text(from)?)?, disk.name(text(to)?)?)));
    let Some((disk, old, new)) = names else { return make() as c_int };
    // SAFETY: the caller's own pointer.
    let replaces = unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, to, libc::F_OK) } == 0;
    let record = |record: &Recorder<'_>| {
        let before = if replaces { record.read(new, 0, usize::MAX) } else { Vec::new() };
        record.entry(what::RENAMED, old, u64::from(replaces), &before, new.as_bytes());
    };
    disk.whole(call::RENAME, file::of(new), record, make) as c_int
}

/// # Safety
/// See [`open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's own pointer.
    let make = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) };
    let Some((disk, name)) = disk().and_then(|disk| Some((disk, disk.name(text(path)?)?))) else {
        return make() as c_int;
    };
    // SAFETY: the caller's own pointer.
    if unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) } != 0 {
        return make() as c_int;
    }
    let record = |record: &Recorder<'_>| record.entry(what::REMOVED, name, 0, &record.read(name, 0, usize::MAX), &[]);
    disk.whole(call::UNLINK, file::of(name), record, make) as c_int
}
