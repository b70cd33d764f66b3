//! The server under test: one process a cycle, always on the same data folder and address.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a start, or an end that was asked for, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far back it is looked whether the server had a processor: longer than marks wait.
const LATELY: Duration = Duration::from_secs(3);
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Where waft is, and what it is started with.
pub struct Place {
    pub binary: PathBuf,
    pub data: PathBuf,
    config: PathBuf,
    pub address: SocketAddr,
}

impl Place {
    /// Chooses a free address and writes the configuration into `folder`.
    pub fn new(binary: &Path, folder: &Path, durability: &str) -> io::Result<Place> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = folder.join("waft.toml");
        std::fs::write(
            &config,
            format!(
                "[[listen]]\naddress = \"{address}\"\ntls = \"optional\"\n\
                 [limits]\nrates = false\noffline_messages_max = 1000000\noffline_bytes_max = 1099511627776\n\
                 [accounts]\nscram_iterations = 4096\n\
                 [store]\ndurability = \"{durability}\"\n\
                 [log]\nlevel = \"warn\"\n"
            ),
        )?;
        Ok(Place { binary: binary.to_path_buf(), data: folder.join("data"), config, address })
    }
}

/// A running waft. Dropping it kills it.
pub struct Server {
    child: Mutex<Child>,
    pub started: Instant,
}

impl Server {
    /// Starts waft and waits until it says `ready`.
    pub fn start(place: &Place, log: &Path, prepare: impl FnOnce(&mut Command)) -> io::Result<Server> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let started = Instant::now();
        let mut command = Command::new(&place.binary);
        prepare(&mut command);
        let mut child = command
            .arg("serve")
            .arg("--data")
            .arg(&place.data)
            .arg("--config")
            .arg(&place.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let lines = child.stdout.take();
        let server = Server { child: Mutex::new(child), started };
        for line in BufReader::new(lines.ok_or_else(|| io::Error::other("no stdout"))?).lines() {
            if line? == "ready" {
                return Ok(server);
            }
        }
        Err(io::Error::other("waft ended before it was ready"))
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// SIGTERM: it may write what it has and say goodbye.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = self.child.lock().unwrap_or_else(PoisonError::into_inner).id();
        // The shell's own kill: it is everywhere.
        let status = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid.to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("kill -TERM failed")) }
    }

    /// How long its threads waited for a processor so far, all together. `None`: the system does not say.
    fn waited(&self) -> Option<Duration> {
        let pid = self.child.lock().unwrap_or_else(PoisonError::into_inner).id();
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            nanos += text.split(' ').nth(1)?.parse::<u64>().ok()?;
        }
        Some(Duration::from_nanos(nanos))
    }

    /// How long its threads waited for a processor in the last [`LATELY`] before `over` is set: by so much its timers may
    /// have been late.
    pub fn starved(&self, over: &AtomicBool) -> Duration {
        let mut samples = VecDeque::new();
        loop {
            let last = over.load(SeqCst);
            // (Of one that is gone no more is known.)
            if let Some(waited) = self.waited() {
                samples.push_back((Instant::now(), waited));
            }
            while samples.len() > 2 && samples.get(1).is_some_and(|(at, _): &(Instant, _)| at.elapsed() > LATELY) {
                samples.pop_front();
            }
            if last {
                let ends = samples.front().zip(samples.back());
                return ends.map_or(Duration::ZERO, |((_, first), (_, last))| last.saturating_sub(*first));
            }
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Has it ended by itself?
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()
    }

    /// Waits for its end.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "waft does not end"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

/// Adds accounts by the admin socket.
pub fn add_accounts<'a>(place: &Place, names: impl Iterator<Item = &'a str>, password: &str) -> io::Result<()> {
    let mut socket = UnixStream::connect(place.data.join("waft.sock"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(socket.try_clone()?);
    for name in names {
        writeln!(socket, r#"{{"do":"user-add","jid":"{name}@localhost","password":"{password}"}}"#)?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        if !answer.contains("\"done\"") {
            return Err(io::Error::other(format!("{name} was not added: {answer}")));
        }
    }
    Ok(())
}
