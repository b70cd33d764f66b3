//! The program as an operator meets it: commands, signals, messages. Everything on loopback, in folders of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn waft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waft"));
    command
        .args(arguments)
        .env_remove("WAFT_CONFIG")
        .env_remove("WAFT_DATA")
        .env_remove("WAFT_PASSWORD")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end, with a line on standard input.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = waft(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server, ended with the test.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    direct: u16,
    /// What it said until it was ready.
    said: Vec<String>,
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("loopback has a free port").port()
}

impl Server {
    fn start() -> Server {
        Server::start_in(tempfile::tempdir().expect("temporary folder"), &[])
    }

    fn start_in(folder: tempfile::TempDir, more: &[&str]) -> Server {
        Server::start_with(folder, more, |_| {})
    }

    /// `prepare` may change how the process is started.
    fn start_with(folder: tempfile::TempDir, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        let (port, direct) = (free_port(), free_port());
        let log = std::fs::File::create(folder.path().join("log")).expect("can be written");
        let data = folder.path().join("data");
        let mut command = waft(&["serve"]);
        command
            .arg("--data")
            .arg(&data)
            .args(["--c2s", &format!("127.0.0.1:{port}"), "--direct-tls", &format!("127.0.0.1:{direct}")])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log);
        prepare(&mut command);
        let mut child = command.spawn().expect("the program starts");
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.as_mut().expect("is piped")).lines() {
            said.push(line.expect("is text"));
            if said.last().is_some_and(|line| line.starts_with("ready")) {
                return Server { child, folder, port, direct, said };
            }
        }
        let _ = child.wait();
        panic!("the server did not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A command for this server.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let data = self.data();
        let mut all = arguments.to_vec();
        all.extend(["--data", data.to_str().expect("is text")]);
        run(&all, input)
    }

    fn add(&self, user: &str) {
        let added = self.run(&["user", "add", user, "--password-stdin"], "secret\n");
        assert!(added.status.success(), "{}", err(&added));
    }

    /// The client, logged in as the user; the password is `secret`.
    fn client(&self, user: &str, options: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = ["client", "--jid", user, "--password-stdin", "--data"].map(String::from).to_vec();
        all.push(self.data().display().to_string());
        if !options.contains(&"--host") {
            let port = if options.contains(&"--direct-tls") { self.direct } else { self.port };
            all.extend(["--host".to_string(), format!("127.0.0.1:{port}")]);
        }
        all.extend(options.iter().map(ToString::to_string));
        all
    }

    fn run_client(&self, user: &str, options: &[&str]) -> Output {
        let arguments = self.client(user, options);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "secret\n")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// Waits until it has ended.
    fn ended(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("is our child") {
                return status.success();
            }
            std::thread::yield_now();
        }
        panic!("the server does not end");
    }

    /// Waits until its log says so.
    fn logged(&self, text: &str) {
        let since = Instant::now();
        while !self.log().contains(text) {
            assert!(since.elapsed() < PATIENCE, "the log does not say {text}: {}", self.log());
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_says_what_it_serves_where_the_data_lies_and_how_to_add_an_account() {
    let server = Server::start();
    let said = server.said.join("\n");
    assert!(said.contains("localhost") && said.contains(&server.port.to_string()), "{said}");
    assert!(said.contains(&server.data().display().to_string()), "{said}");
    assert!(said.contains("waft user add"), "{said}");
    assert_eq!(std::fs::metadata(server.data()).expect("is there").mode() & 0o777, 0o700);
}

#[test]
fn accounts_are_kept_by_the_running_server_and_by_the_store_alike() {
    let mut server = Server::start();
    server.add("alice@localhost");
    let again = server.run(&["user", "add", "alice@localhost", "--password-stdin"], "other\n");
    assert!(!again.status.success() && err(&again).contains("exists already"), "{}", err(&again));
    let elsewhere = server.run(&["user", "add", "alice@elsewhere.example", "--password-stdin"], "x\n");
    assert!(err(&elsewhere).contains("elsewhere.example is not hosted here"), "{}", err(&elsewhere));
    assert_eq!(out(&server.run(&["user", "list"], "")), "alice@localhost\n");

    assert!(server.run(&["stop"], "").status.success());
    assert!(server.ended());
    server.add("bob@localhost");
    assert_eq!(out(&server.run(&["user", "list"], "")), "alice@localhost\nbob@localhost\n");
    assert!(server.run(&["user", "del", "alice@localhost"], "").status.success());
    assert_eq!(out(&server.run(&["user", "list"], "")), "bob@localhost\n");
}

/// A command at a terminal, which `script` makes: each answer is typed when its question stands there and the terminal
/// shows no more what is typed. Gives whether it went well, and the screen.
fn at_a_terminal(arguments: &[&str], dialogue: &[(&str, &str)]) -> (bool, String) {
    let quoted = |text: &&str| format!("'{text}'");
    let command: Vec<String> = [&[env!("CARGO_BIN_EXE_waft")], arguments].concat().iter().map(quoted).collect();
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &command.join(" "), "/dev/null"])
        .env_remove("WAFT_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a script");
    let (say, heard) = std::sync::mpsc::channel();
    let mut output = script.stdout.take().expect("is piped");
    std::thread::spawn(move || {
        let mut piece = [0; 256];
        while let Ok(read @ 1..) = output.read(&mut piece) {
            if say.send(piece[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut keyboard = script.stdin.take().expect("is piped");
    let mut screen = String::new();
    for (question, answer) in dialogue {
        while !screen.ends_with(question) {
            let piece = heard.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {question:?}: {screen}"));
            screen.push_str(&String::from_utf8_lossy(&piece));
        }
        until_hidden(script.id());
        keyboard.write_all(format!("{answer}\n").as_bytes()).expect("is read");
    }
    while let Ok(piece) = heard.recv_timeout(PATIENCE) {
        screen.push_str(&String::from_utf8_lossy(&piece));
    }
    drop(keyboard);
    (script.wait().expect("it is our child").success(), screen)
}

/// Waits until the terminal of this process's child echoes nothing.
fn until_hidden(script: u32) {
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).expect("it runs");
    let child = children.split_whitespace().next().expect("it has a child");
    let terminal = std::fs::read_link(format!("/proc/{child}/fd/0")).expect("it has a terminal");
    let since = Instant::now();
    loop {
        let settings = Command::new("stty").arg("-a").arg("-F").arg(&terminal).output().expect("there is a stty");
        if String::from_utf8_lossy(&settings.stdout).contains(" -echo ") {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "the terminal shows what is typed");
    }
}

#[test]
fn a_new_password_is_asked_for_twice_at_the_terminal_and_not_shown() {
    let server = Server::start();
    let data = server.data();
    let add = ["user", "add", "alice@localhost", "--data", data.to_str().expect("is text")];
    let first = "New password for alice@localhost: ";
    let (added, screen) = at_a_terminal(&add, &[(first, "secret"), ("Once more: ", "secret2")]);
    assert!(!added && screen.contains("the two passwords differ"), "{screen}");
    let (added, screen) = at_a_terminal(&add, &[(first, "secret"), ("Once more: ", "secret")]);
    assert!(added && screen.contains("added alice@localhost"), "{screen}");
    assert!(!screen.contains("secret"), "{screen}");
    let sent = server.run_client("alice@localhost", &["send", "alice@localhost", "x"]);
    assert!(sent.status.success(), "{}", err(&sent));
    // Without a terminal nothing is asked.
    let without = server.run(&["user", "add", "bob@localhost"], "");
    assert!(!without.status.success() && err(&without).contains("--password-stdin"), "{}", err(&without));
}

// sd_notify(3).
#[test]
fn systemd_is_told_of_start_reload_and_end() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("can be bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let told = |what: &str| {
        let mut message = [0; 4096];
        loop {
            let length = socket.recv(&mut message).unwrap_or_else(|error| panic!("{what} never came: {error}"));
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.lines().any(|line| line == what) {
                return text;
            }
        }
    };
    let watchdog = Duration::from_millis(500).as_micros().to_string();
    let mut server = Server::start_with(folder, &[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", &watchdog);
    });
    assert!(told("READY=1").contains("STATUS="), "what is served is the status");
    told("WATCHDOG=1");
    server.signal("-HUP");
    assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
    told("READY=1");
    server.signal("-TERM");
    told("STOPPING=1");
    assert!(server.ended());
}

#[test]
fn a_message_goes_from_one_client_to_the_other() {
    let server = Server::start();
    server.add("alice@localhost");
    server.add("bob@localhost");
    let sent = server.run_client("alice@localhost/x", &["send", "bob@localhost", "Hello, <Bob> & co."]);
    assert!(sent.status.success() && out(&sent).starts_with("sent "), "{}", err(&sent));
    let seen = server.run_client("bob@localhost", &["--direct-tls", "watch", "--count", "1", "--seconds", "10"]);
    let line = out(&seen);
    assert!(line.starts_with("message alice@localhost/x ") && line.ends_with(": Hello, <Bob> & co.\n"), "{line}");
}

#[test]
fn a_client_probes_a_contact_and_watches_presence() {
    let server = Server::start();
    server.add("alice@localhost");
    server.add("bob@localhost");
    for (who, action, whom) in
        [("bob@localhost", "subscribe", "alice@localhost"), ("alice@localhost", "approve", "bob@localhost")]
    {
        let done = server.run_client(who, &[action, whom]);
        assert!(done.status.success(), "{action}: {}", err(&done));
    }
    let probe =
        |options: &[&str]| out(&server.run_client("bob@localhost", &[options, &["probe", "alice@localhost"]].concat()));
    assert!(probe(&[]).starts_with("presence alice@localhost unavailable"), "{}", probe(&[]));
    let mut alice = waft(&[])
        .args(server.client("alice@localhost", &["watch"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    alice.stdin.take().expect("is piped").write_all(b"secret\n").expect("is read");
    while !out(&server.run(&["status", "--sessions"], "")).contains("available") {
        std::thread::yield_now();
    }
    let watching = server.run_client("bob@localhost", &["watch", "--count", "1", "--seconds", "20"]);
    let line = out(&watching);
    assert!(line.starts_with("presence alice@localhost/") && line.contains(" available"), "{line}");
    let line = probe(&["--json"]);
    assert!(line.starts_with('{') && line.contains(r#""type":"available""#), "{line}");
    let _ = alice.kill();
    let _ = alice.wait();
    let nobody = out(&server.run_client("bob@localhost", &["probe", "nobody@localhost"]));
    assert_eq!(nobody, "presence nobody@localhost unsubscribed\n");
}

#[test]
fn every_mechanism_logs_in_and_a_wrong_password_does_not() {
    let server = Server::start();
    server.add("alice@localhost");
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
        let sent = server.run_client("alice@localhost", &["--mechanism", mechanism, "send", "alice@localhost", "x"]);
        assert!(sent.status.success(), "{mechanism}: {}", err(&sent));
    }
    let arguments = server.client("alice@localhost", &["send", "alice@localhost", "x"]);
    let wrong = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "wrong\n");
    assert!(!wrong.status.success() && err(&wrong).contains("the password is wrong"), "{}", err(&wrong));
}

#[test]
fn a_changed_password_counts_at_once() {
    let server = Server::start();
    server.add("alice@localhost");
    assert!(server.run(&["user", "passwd", "alice@localhost", "--password-stdin"], "new\n").status.success());
    let old = server.run_client("alice@localhost", &["send", "alice@localhost", "x"]);
    assert!(!old.status.success(), "the old password is no longer good");
}

#[test]
fn a_message_to_nobody_is_an_error_that_is_told() {
    let server = Server::start();
    server.add("alice@localhost");
    let sent = server.run_client("alice@localhost", &["send", "nobody@localhost", "x"]);
    assert!(!sent.status.success() && err(&sent).contains("service-unavailable"), "{}", err(&sent));
}

#[test]
fn a_client_does_not_trust_a_certificate_that_it_does_not_know() {
    let server = Server::start();
    server.add("alice@localhost");
    let host = format!("127.0.0.1:{}", server.port);
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let elsewhere = elsewhere.path().to_str().expect("is text");
    let common = ["client", "--jid", "alice@localhost", "--password-stdin", "--host", &host];
    let action = ["send", "alice@localhost", "x"];
    let stranger = run(&[&common[..], &["--data", elsewhere], &action].concat(), "secret\n");
    assert!(!stranger.status.success() && err(&stranger).contains("is not trusted"), "{}", err(&stranger));
    let file = server.data().join("certificates/localhost.pem");
    let known = run(&[&common[..], &["--ca", file.to_str().expect("is text")], &action].concat(), "secret\n");
    assert!(known.status.success(), "{}", err(&known));
    let insecure = run(&[&common[..], &["--insecure"], &action].concat(), "secret\n");
    assert!(insecure.status.success() && err(&insecure).contains("WARNING"), "{}", err(&insecure));
}

#[test]
fn a_terminated_server_tells_its_streams_and_ends_well() {
    let mut server = Server::start();
    server.add("alice@localhost");
    let mut watching = waft(&[])
        .args(server.client("alice@localhost", &["watch"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    watching.stdin.take().expect("is piped").write_all(b"secret\n").expect("is read");
    server.logged("authenticated");
    while !out(&server.run(&["status", "--sessions"], "")).contains("available") {
        std::thread::yield_now();
    }
    server.signal("-TERM");
    assert!(server.ended(), "{}", server.log());
    let mut told = String::new();
    watching.stderr.take().expect("is piped").read_to_string(&mut told).expect("is text");
    assert!(told.contains("system-shutdown"), "{told}");
    let _ = watching.wait();
}

#[test]
fn a_hangup_reads_certificates_and_hosts_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("waft.toml");
    std::fs::write(&file, "[host.\"a.example\"]\n").expect("can be written");
    let server = Server::start_in(folder, &["--config", file.to_str().expect("is text")]);
    std::fs::write(&file, "[host.\"a.example\"]\n[host.\"b.example\"]\n[store]\ndurability = \"os\"\n")
        .expect("can be written");
    server.signal("-HUP");
    server.logged("[store] changed: this takes effect after a restart");
    server.logged("was read again");
    let status = server.run(&["status", "--config", file.to_str().expect("is text")], "");
    assert!(out(&status).contains("a.example, b.example"), "{}{}", out(&status), err(&status));
}

#[test]
fn a_reload_with_an_error_changes_nothing_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("waft.toml");
    std::fs::write(&file, "[host.\"a.example\"]\n").expect("can be written");
    let server = Server::start_in(folder, &["--config", file.to_str().expect("is text")]);
    std::fs::write(&file, "[host.\"b.example\"]\nnonsense = 1\n").expect("can be written");
    server.signal("-HUP");
    server.logged("unknown option host.\"b.example\".nonsense");
    assert!(out(&server.run(&["status"], "")).contains("a.example"));
}

#[test]
fn a_second_server_on_the_folder_is_refused() {
    let server = Server::start();
    let second = server.run(&["serve", "--c2s", "127.0.0.1:0", "--direct-tls", "none"], "");
    assert!(!second.status.success() && err(&second).contains("another waft"), "{}", err(&second));
}

#[test]
fn a_port_in_use_is_told_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let folder = tempfile::tempdir().expect("temporary folder");
    let address = taken.local_addr().expect("has one").to_string();
    let data = folder.path().join("data");
    let refused =
        run(&["serve", "--data", data.to_str().expect("is text"), "--c2s", &address, "--direct-tls", "none"], "");
    let told = err(&refused);
    assert!(!refused.status.success() && told.contains(&address) && told.contains("another process listens"), "{told}");
}

#[test]
fn a_data_folder_that_others_can_read_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("waft.db"), "").expect("can be written");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("can be opened up");
    let data = folder.path().to_str().expect("is text");
    let refused = run(&["serve", "--data", data, "--c2s", "127.0.0.1:0", "--direct-tls", "none"], "");
    assert!(!refused.status.success() && err(&refused).contains("chmod 700"), "{}", err(&refused));
}

#[test]
fn config_check_tells_every_error_and_config_show_a_file_that_is_good() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("waft.toml");
    let path = file.to_str().expect("is text");
    std::fs::write(&file, "[limits]\nratse = false\nstanza_depth_max = \"deep\"\n").expect("can be written");
    let checked = run(&["config", "check", "--config", path], "");
    let told = err(&checked);
    assert!(
        !checked.status.success() && told.contains("did you mean rates?") && told.contains("stanza_depth_max"),
        "{told}"
    );
    assert!(told.contains(":2:1") && told.contains(":3:20") && told.contains("2 errors"), "{told}");

    std::fs::write(&file, "[limits]\nrates = false\n").expect("can be written");
    assert!(run(&["config", "check", "--config", path], "").status.success());
    let shown = out(&run(&["config", "show", "--config", path], ""));
    std::fs::write(&file, &shown).expect("can be written");
    assert_eq!(out(&run(&["config", "show", "--config", path], "")), shown);
}

#[test]
fn the_log_has_no_password_and_no_body() {
    let server = Server::start_in(tempfile::tempdir().expect("temporary folder"), &log_everything());
    server.add("alice@localhost");
    let sent =
        server.run_client("alice@localhost", &["--mechanism", "PLAIN", "send", "alice@localhost", "a private word"]);
    assert!(sent.status.success(), "{}", err(&sent));
    let log = server.log();
    assert!(log.contains("authenticated") && !log.contains("secret") && !log.contains("private word"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('{')), "one object a line: {log}");
}

/// Options for a server that logs all it can, as JSON.
fn log_everything() -> [&'static str; 2] {
    static FILE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let file: &'static Path = FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("log-everything.toml");
        std::fs::write(&path, "[log]\nlevel = \"trace\"\nformat = \"json\"\n").expect("can be written");
        path
    });
    ["--config", file.to_str().expect("is text")]
}

#[test]
fn init_writes_a_file_that_check_takes_and_says_what_dns_must_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("waft.toml");
    let file = file.to_str().expect("the folder's name is text");
    let data = folder.path().join("data");
    let data = data.to_str().expect("the folder's name is text");
    let init = ["init", "example.org", "--config", file, "--data", data, "--host", "xmpp.example.org", "--offline"];
    let done = run(&init, "");
    assert!(done.status.success(), "{}", err(&done));
    assert!(out(&done).contains("_xmpp-server._tcp.example.org. SRV 0 5 5269 xmpp.example.org."), "{}", out(&done));
    let checked = run(&["config", "check", "--config", file], "");
    assert!(checked.status.success(), "{}", err(&checked));
    let again = run(&init, "");
    assert!(!again.status.success() && err(&again).contains("--force"), "{}", err(&again));
}

#[test]
fn init_without_a_domain_and_without_a_terminal_says_what_to_write() {
    let done = run(&["init", "--config", "/nowhere/waft.toml", "--offline"], "");
    assert!(!done.status.success() && err(&done).contains("waft init example.org"), "{}", err(&done));
}

#[test]
fn init_asks_the_name_server_that_is_named() {
    // Nobody answers there.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("waft.toml");
    let file = file.to_str().expect("the folder's name is text");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = silent.local_addr().expect("it is bound").to_string();
    let agreed = ["--acme", "http-01", "--agree", "--email", "me@example.org"];
    let done = run(&[&["init", "example.org", "--config", file, "--dns", &address][..], &agreed].concat(), "");
    assert!(done.status.success(), "{}", err(&done));
    let said = out(&done);
    assert!(said.contains("example.org. CAA 0 issue \"letsencrypt.org\"") && said.contains("not known"), "{said}");
    let mut asked = [0; 512];
    silent.set_nonblocking(true).expect("it is ours");
    assert!(silent.recv(&mut asked).is_ok(), "it was asked");
}

#[test]
fn top_shows_once_or_as_json_what_the_server_does() {
    let server = Server::start();
    let shown = server.run(&["top", "--once", "--interval", "0.2"], "");
    let text = out(&shown);
    assert!(
        text.contains("messages, clients") && text.contains("stanzas done") && text.contains("other domains"),
        "{text}{}",
        err(&shown)
    );
    let json = server.run(&["top", "--once", "--json", "--interval", "0.2"], "");
    let told: serde_json::Value = serde_json::from_str(out(&json).trim()).expect("one object");
    assert_eq!(told["figures"]["waft_streams"], 0.0, "{told}");
    assert_eq!(told["per_second"]["waft_stanzas_total{set=\"client_messages\"}"], 0.0, "{told}");
}

#[test]
fn watch_shows_stanzas_as_they_pass_and_no_word_of_what_is_said() {
    let server = Server::start();
    server.add("alice@localhost");
    server.add("bob@localhost");
    let data = server.data();
    let mut watch = waft(&["watch", "alice@localhost", "--json", "--data", data.to_str().expect("is text")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("is piped")).lines();
    let seen = std::thread::spawn(move || {
        lines.by_ref().map_while(Result::ok).find(|line| line.contains("from-client") && line.contains("<body>"))
    });
    // It may begin to watch after the first message: some are sent until it has seen one.
    let deadline = Instant::now() + PATIENCE;
    while !seen.is_finished() && Instant::now() < deadline {
        let sent = server.run_client("alice@localhost", &["send", "bob@localhost", "a secret word"]);
        assert!(sent.status.success(), "{}", err(&sent));
    }
    let _ = watch.kill();
    let _ = watch.wait();
    let line = seen.join().expect("no panic").expect("it was seen");
    assert!(line.contains("[13 bytes]") && !line.contains("secret word"), "{line}");
}

#[test]
fn invitations_are_made_with_a_code_listed_and_taken_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = folder.path().join("waft.toml");
    std::fs::write(&config, "[host.localhost]\nregistration = \"invite\"\n").expect("can be written");
    let config = config.to_str().expect("is text").to_owned();
    let server = Server::start_in(folder, &["--config", &config]);
    let made = server.run(&["invite", "create", "--days", "3", "--uses", "2"], "");
    let text = out(&made);
    assert!(text.contains("xmpp:localhost?register;preauth=") && text.contains('█'), "{text}{}", err(&made));
    assert!(text.contains("good for 2 accounts of localhost"), "{text}");
    let listed = out(&server.run(&["invite", "list", "--json"], ""));
    let it: serde_json::Value = serde_json::from_str(listed.trim()).expect("one object");
    assert_eq!(it["uses_left"], 2, "{it}");
    assert!(server.run(&["invite", "revoke", it["id"].as_str().expect("an id")], "").status.success());
    assert_eq!(out(&server.run(&["invite", "list"], "")), "");
}

#[test]
fn certificates_are_listed_whether_a_server_runs_or_not() {
    let mut server = Server::start();
    let listed = server.run(&["certificates", "list", "--json"], "");
    let certificate: serde_json::Value = serde_json::from_str(out(&listed).trim()).expect("one object");
    assert_eq!(certificate["source"], "self-signed", "{}", err(&listed));
    assert!(certificate["tlsa"].as_str().is_some_and(|it| it.starts_with("3 1 1 ")), "{certificate}");
    let data = server.folder.path().join("data");
    server.child.kill().and_then(|()| server.child.wait()).expect("it can be ended");
    let shown = run(&["certificates", "list", "--data", data.to_str().expect("is text")], "");
    assert!(out(&shown).contains("localhost: self-signed"), "{}", err(&shown));
}

#[test]
fn a_server_that_does_not_federate_says_so_when_its_links_are_asked_for() {
    let server = Server::start();
    for command in [&["s2s", "list"][..], &["s2s", "known"], &["check", "example.net"]] {
        let done = server.run(command, "");
        assert!(!done.status.success() && err(&done).contains("does not federate"), "{command:?}: {}", err(&done));
    }
}

// ---- acts ----

#[test]
fn what_an_operator_does_is_done_shown_and_noted() {
    let server = Server::start();
    server.add("alice@localhost");
    server.add("bob@localhost");
    let told = |arguments: &[&str]| {
        let done = server.run(arguments, "");
        assert!(done.status.success(), "{arguments:?}: {}", err(&done));
        out(&done)
    };
    told(&["roster", "put", "alice@localhost", "bob@localhost", "--name", "Bob", "--both"]);
    let roster = told(&["roster", "list", "bob@localhost", "--json"]);
    assert!(roster.contains("\"jid\":\"alice@localhost\"") && roster.contains("\"subscription\":\"both\""), "{roster}");
    told(&["roster", "remove", "alice@localhost", "bob@localhost", "--both"]);
    assert_eq!(told(&["roster", "list", "bob@localhost", "--json"]).trim(), "[]");

    told(&["domain", "add", "second.example"]);
    assert!(told(&["user", "list", "second.example"]).is_empty());
    server.add("carol@second.example");
    assert!(told(&["domain", "list"]).contains("second.example  added at run time true"));
    told(&["domain", "remove", "second.example"]);
    assert!(!server.run(&["domain", "remove", "localhost"], "").status.success());

    told(&["user", "disable", "bob@localhost", "--json"]);
    let shown = told(&["user", "show", "bob@localhost", "--json"]);
    assert!(shown.contains("\"disabled\":true") && shown.contains("\"roles\":[\"presentity\""), "{shown}");
    assert!(!server.run(&["user", "show", "nobody@localhost"], "").status.success());
    assert!(told(&["certificates", "list", "--json"]).contains("\"source\":\"self-signed\""));
    assert!(told(&["log-level", "waft=debug,info"]).contains("waft=debug"));
    assert!(!server.run(&["log-level", "waft=loud"], "").status.success());
    told(&["queues"]);
    told(&["limits", "--json"]);

    told(&["drain"]);
    let refused = run(
        &server
            .client("alice@localhost", &["send", "alice@localhost", "x"])
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        "secret\n",
    );
    assert!(!refused.status.success(), "a draining server takes no clients");
    told(&["drain", "--off"]);
    let taken = run(
        &server
            .client("alice@localhost", &["send", "alice@localhost", "x"])
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        "secret\n",
    );
    assert!(taken.status.success(), "{}", err(&taken));

    let audit = std::fs::read_to_string(server.data().join("audit.jsonl")).expect("acts are noted");
    for act in
        ["user-add", "roster-put", "roster-remove", "domain-add", "domain-remove", "user-disable", "log-level", "drain"]
    {
        assert!(audit.contains(&format!("\"do\":\"{act}\"")), "{act} in {audit}");
    }
    assert!(audit.contains("\"outcome\":\"refused: ") && !audit.contains("\"secret\""), "{audit}");
}

#[test]
fn an_account_moves_out_and_in_again_and_is_erased_with_a_proof() {
    let server = Server::start();
    server.add("alice@localhost");
    let sent = server.client("alice@localhost", &["send", "alice@localhost", "to be kept"]);
    assert!(run(&sent.iter().map(String::as_str).collect::<Vec<_>>(), "secret\n").status.success());
    let file = server.folder.path().join("all.xml");
    let file = file.to_str().expect("is text");
    let told = |arguments: &[&str]| {
        let done = server.run(arguments, "");
        assert!(done.status.success(), "{arguments:?}: {}", err(&done));
        out(&done)
    };
    told(&["export", "--to", file]);
    assert_eq!(std::fs::metadata(file).expect("is there").mode() & 0o777, 0o600);
    assert!(!server.run(&["export", "--to", file], "").status.success(), "a file that is there stays");
    let proof = told(&["user", "erase", "alice@localhost", "--json"]);
    assert!(proof.contains("\"remaining\":{}") && proof.contains("\"log\":"), "{proof}");
    let dry = told(&["import", "xep0227", file, "--dry-run"]);
    assert!(dry.contains("1 accounts were made") && told(&["user", "list"]).is_empty(), "{dry}");
    told(&["import", "xep0227", file]);
    assert!(told(&["import", "xep0227", file]).contains("1 had all of it already"));
    // With the password that she had.
    let sent = server.client("alice@localhost", &["send", "alice@localhost", "again"]);
    assert!(run(&sent.iter().map(String::as_str).collect::<Vec<_>>(), "secret\n").status.success());
    assert!(told(&["archive", "export", "alice@localhost"]).contains("to be kept"));
    // Nothing of it stays in the data folder.
    for folder in ["import", "export"] {
        let left = std::fs::read_dir(server.data().join(folder)).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "{folder}");
    }
}

/// The words of a line as a shell takes them: single quotes hold one together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Is what stands there in the text, in its order? `…` stands for anything.
fn has(text: &str, wanted: &str) -> bool {
    let mut rest = text;
    wanted.split('…').map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

// docs/impp.md: what a reader is told to try does what he is told.
#[test]
fn the_walk_through_the_model_goes_as_it_is_written() {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/impp.md");
    let book = std::fs::read_to_string(book).expect("the document is there");
    let walk = book.split("<!-- walk -->\n```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let walk = walk.expect("the document has a walk");
    let server = Server::start();
    for user in ["alice", "bob", "carol"] {
        server.add(&format!("{user}@localhost"));
    }
    let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in walk.lines() {
        match line.strip_prefix("$ waft ") {
            Some(command) => steps.push((command, Vec::new())),
            None => steps.last_mut().expect("a command comes first").1.push(line),
        }
    }
    assert!(steps.len() > 15, "{walk}");
    for (command, expected) in steps {
        let words = words(command);
        let output = match &words[..] {
            [client, jid, user, options @ ..] if client == "client" && jid == "--jid" => {
                server.run_client(user, &options.iter().map(String::as_str).collect::<Vec<_>>())
            }
            words => server.run(&words.iter().map(String::as_str).collect::<Vec<_>>(), ""),
        };
        assert!(output.status.success(), "{command}: {}", err(&output));
        for line in expected {
            let said = out(&output);
            assert!(has(&said, line), "{command}: \"{line}\" is not in\n{said}");
        }
    }
}
