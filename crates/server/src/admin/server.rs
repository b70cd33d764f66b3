//! The socket of the running server.

use super::{AdminOps, Answer, LINE_BYTES_MAX, Request};
use crate::watches::Line;
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use xmpp::{BareJid, Jid, Stamp};
use zeroize::Zeroizing;

/// Commands that may be under way at once.
const CONNECTIONS_MAX: usize = 32;
/// Whoever watches hears after so long that there was nothing to see.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// How long a silent connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The socket, listening; removed from the file system when dropped.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AdminSocket {
    /// Listens, mode 0600; takes the place of a socket that a killed server left. Call it with the store open: its lock
    /// tells that no other server is there.
    ///
    /// # Errors
    /// For people: which path, why, what to do.
    pub fn open(path: &Path) -> Result<AdminSocket, String> {
        let fails = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::InvalidInput => {
                    "the path is too long for a unix socket: set socket in [admin] to a shorter one"
                }
                io::ErrorKind::AddrInUse => "remove the file, or set socket in [admin] to another path",
                _ => "let the user that runs waft write there, or set socket in [admin] to another path",
            };
            format!("cannot make the admin socket {}: {error}\n{advice}", path.display())
        };
        if let Ok(found) = std::fs::symlink_metadata(path) {
            use std::os::unix::fs::FileTypeExt;
            // What is no socket is not ours to remove; binding says that it is in the way.
            if found.file_type().is_socket() {
                std::fs::remove_file(path).map_err(fails)?;
            }
        }
        let listener = UnixListener::bind(path).map_err(fails)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(fails)?;
        Ok(AdminSocket { listener, path: path.to_path_buf() })
    }

    /// Opens the socket to users besides the server's own: whoever connects is then judged by user id alone.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_to_others(&self) -> io::Result<()> {
        std::fs::set_permissions(&self.path, PermissionsExt::from_mode(0o666))
    }

    /// Takes commands until it is dropped. `uids`: who may give them besides root and the server's own user; asked anew
    /// for each connection.
    pub async fn carry(self, ops: Arc<dyn AdminOps>, uids: impl Fn() -> Vec<u32> + Send) {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let allowed: HashSet<u32> =
                        uids().into_iter().chain([0]).chain(crate::data::effective_uid()).collect();
                    let ops = ops.clone();
                    tokio::spawn(async move {
                        if let Err(error) = talk(stream, &*ops, &allowed).await {
                            tracing::debug!(%error, "an admin connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn talk(mut stream: UnixStream, ops: &dyn AdminOps, allowed: &HashSet<u32>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if !allowed.contains(&uid) {
        tracing::warn!(uid, "admin command refused");
        let why = format!(
            "user id {uid} may not give commands to this server; an administrator can allow it with uids in [admin]"
        );
        return write(&mut stream, &Answer::Refused { why }).await;
    }
    let (read, mut write_half) = stream.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Zeroizing::new(Vec::new());
        let mut limited = (&mut read).take(LINE_BYTES_MAX as u64);
        match tokio::time::timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(read) => read?,
        };
        let answer = if line.last() == Some(&b'\n') {
            match serde_json::from_slice(&line) {
                Ok(Request::Watch { who }) => match watched(&who, ops, uid).await {
                    // The connection is for this alone from now on.
                    Ok(lines) => return watch(lines, &mut read, &mut write_half).await,
                    Err(why) => Answer::Refused { why },
                },
                Ok(request) => noted(request, ops, &format!("uid {uid}")).await,
                // The error's text would show a part of the line, which may be a password.
                Err(error) => Answer::Refused {
                    why: format!(
                        "this is no command that this server knows (column {}); are both of the same version?",
                        error.column()
                    ),
                },
            }
        } else {
            return Ok(());
        };
        write(&mut write_half, &answer).await?;
    }
}

async fn watched(who: &str, ops: &dyn AdminOps, uid: u32) -> Result<mpsc::Receiver<Line>, String> {
    let who = Jid::parse(who).map_err(|_| format!("\"{who}\" is no address"))?;
    tracing::info!(%who, uid, "admin: watch stanzas");
    let act = [("do", "watch-stanzas"), ("who", who.as_str())].map(|(name, value)| (name.to_owned(), value.into()));
    ops.audit(&format!("uid {uid}"), act.into_iter().collect(), None);
    ops.watch(who).await
}

/// Lines until nobody reads them any more.
async fn watch(
    mut lines: mpsc::Receiver<Line>,
    read: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut ended = [0];
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => write(to, &Answer::Watched { line: Some(line) }).await?,
                None => return Ok(()),
            },
            // Whatever comes ends it, the end of the connection above all.
            _ = read.read(&mut ended) => return Ok(()),
            () = tokio::time::sleep(SIGN_OF_LIFE) => write(to, &Answer::Watched { line: None }).await?,
        }
    }
}

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

/// Answers, and writes into the audit log what was done.
pub async fn noted(request: Request, ops: &dyn AdminOps, by: &str) -> Answer {
    let act = crate::audit::of(&request);
    let answer = answer(request, ops, by).await;
    if let Some(act) = act {
        let refused = if let Answer::Refused { why } = &answer { Some(why.as_str()) } else { None };
        ops.audit(by, act, refused);
    }
    answer
}

async fn answer(request: Request, ops: &dyn AdminOps, by: &str) -> Answer {
    let done = |done: Result<(), String>| match done {
        Ok(()) => Answer::Done,
        Err(why) => Answer::Refused { why },
    };
    match request {
        Request::UserAdd { jid, password } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, by, "admin: add account");
                done(ops.user_add(account, password).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserPasswd { jid, password } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, by, "admin: change password");
                done(ops.user_passwd(account, password).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserDel { jid } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, by, "admin: remove account");
                done(ops.user_del(account).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserDisable { jid, disabled } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, disabled, by, "admin: disable or enable account");
                done(ops.user_disable(account, disabled).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserList { host, after } => match ops.user_list(host, after).await {
            Ok(users) => Answer::Users { users },
            Err(why) => Answer::Refused { why },
        },
        Request::UserRoles { jid, roles } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, ?roles, by, "admin: roles");
                done(ops.user_roles(account, roles).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::Watchers { jid } => match account(&jid) {
            Ok(account) => match ops.watchers(account).await {
                Ok((watchers, unlisted)) => Answer::Watchers { watchers, unlisted },
                Err(why) => Answer::Refused { why },
            },
            Err(why) => Answer::Refused { why },
        },
        Request::Fetch { jid, watcher } => match (account(&jid), watcher.as_deref().map(Jid::parse).transpose()) {
            (Ok(account), Ok(watcher)) => match ops.fetch(account, watcher).await {
                Ok(xml) => Answer::Document { xml },
                Err(why) => Answer::Refused { why },
            },
            (Err(why), _) => Answer::Refused { why },
            (_, Err(_)) => Answer::Refused { why: "the watcher is no address".into() },
        },
        Request::Ask { jid, set, content } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, by, set, "admin: ask account");
                match ops.ask(account, set, content).await {
                    Ok(content) => Answer::Told { content },
                    Err(why) => Answer::Refused { why },
                }
            }
            Err(why) => Answer::Refused { why },
        },
        Request::ArchivePage { jid, after } => match account(&jid) {
            Ok(account) => {
                if after == 0 {
                    tracing::info!(%account, by, "admin: export an archive");
                }
                match ops.archive_page(account, after).await {
                    Ok(records) => Answer::Archive { records },
                    Err(why) => Answer::Refused { why },
                }
            }
            Err(why) => Answer::Refused { why },
        },
        Request::ArchivePurge { jid, before } => {
            let parsed = before.as_deref().map(|text| Stamp::from_xmpp(text).ok_or(format!("\"{text}\" is no time")));
            match (account(&jid), parsed.transpose()) {
                (Ok(account), Ok(before)) => {
                    tracing::info!(%account, ?before, by, "admin: purge an archive");
                    done(ops.archive_purge(account, before).await)
                }
                (Err(why), _) | (_, Err(why)) => Answer::Refused { why },
            }
        }
        Request::Sessions => match ops.sessions().await {
            Ok(sessions) => Answer::Sessions { sessions },
            Err(why) => Answer::Refused { why },
        },
        Request::Links => match ops.links().await {
            Ok(links) => Answer::Links { links },
            Err(why) => Answer::Refused { why },
        },
        Request::Known => match ops.known().await {
            Ok(servers) => Answer::Servers { servers },
            Err(why) => Answer::Refused { why },
        },
        Request::LostSubscriptions { after } => match ops.lost_subscriptions(after).await {
            Ok((lost, next)) => Answer::LostSubscriptions { lost, next },
            Err(why) => Answer::Refused { why },
        },
        Request::Forget { domain } => {
            tracing::info!(domain, by, "admin: forget another server's key");
            done(ops.forget(domain).await)
        }
        Request::Check { domain, from } => match ops.check(domain, from).await {
            Ok(check) => Answer::Check(Box::new(check)),
            Err(why) => Answer::Refused { why },
        },
        Request::UserClass { jid, class } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, ?class, by, "admin: class of an account");
                done(ops.user_class(account, class).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::InviteCreate(wish) => {
            tracing::info!(?wish, by, "admin: invite");
            match ops.invite_create(wish).await {
                Ok((uri, invitation)) => Answer::Invited { uri, invitation },
                Err(why) => Answer::Refused { why },
            }
        }
        Request::InviteList => match ops.invite_list().await {
            Ok(invites) => Answer::Invites { invites },
            Err(why) => Answer::Refused { why },
        },
        Request::InviteRevoke { id } => {
            tracing::info!(id, by, "admin: revoke an invitation");
            done(ops.invite_revoke(id).await)
        }
        Request::Metrics => match ops.metrics().await {
            Ok(text) => Answer::Metrics { text },
            Err(why) => Answer::Refused { why },
        },
        // Answered where the connection is.
        Request::Watch { .. } => Answer::Refused { why: "a connection watches, or asks".into() },
        Request::Certificates => match ops.certificates().await {
            Ok(certificates) => Answer::Certificates { certificates },
            Err(why) => Answer::Refused { why },
        },
        Request::CertificateRenew { domain } => {
            tracing::info!(domain, by, "admin: renew a certificate");
            done(ops.certificate_renew(domain).await)
        }
        Request::Status => match ops.status().await {
            Ok(status) => Answer::Status(Box::new(status)),
            Err(why) => Answer::Refused { why },
        },
        Request::Reload => {
            tracing::info!(by, "admin: reload");
            match ops.reload().await {
                Ok(notes) => Answer::Notes { notes },
                Err(why) => Answer::Refused { why },
            }
        }
        Request::Backup => {
            tracing::info!(by, "admin: backup");
            match ops.backup().await {
                Ok((path, held)) => Answer::Backup {
                    path: path.display().to_string(),
                    accounts: held.accounts,
                    records: held.records,
                    bytes: held.bytes,
                    left_out: held.left_out,
                },
                Err(why) => Answer::Refused { why },
            }
        }
        Request::Act { act } => {
            // (What is announced is no business of the log.)
            let name = act.audited().and_then(|it| it.get("do").and_then(|name| name.as_str()).map(str::to_owned));
            if let Some(name) = name {
                tracing::info!(act = name, by, "admin: act");
            }
            match ops.act(act).await {
                Ok(value) => Answer::Value { value },
                Err(why) => Answer::Refused { why },
            }
        }
        Request::Stop => {
            tracing::info!(by, "admin: stop");
            done(ops.stop().await)
        }
    }
}

/// The bare JID of an account.
pub fn account(jid: &str) -> Result<BareJid, String> {
    match BareJid::parse(jid) {
        Ok(account) if account.local().is_some() => Ok(account),
        _ => Err(format!("\"{jid}\" is no account: write it as alice@example.org")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::AdminConnection;
    use crate::admin::{ArchiveRecord, Doing, Secret, Session, Status, User, Watcher};
    use parking_lot::Mutex;

    /// Keeps accounts in a list.
    #[derive(Default)]
    struct House {
        accounts: Mutex<Vec<(String, String)>>,
        stopped: Mutex<bool>,
    }

    impl AdminOps for House {
        fn user_add(&self, jid: BareJid, password: Secret) -> Doing<'_, ()> {
            Box::pin(async move {
                let mut accounts = self.accounts.lock();
                if accounts.iter().any(|(other, _)| *other == jid.as_str()) {
                    return Err(format!("{jid} exists already"));
                }
                accounts.push((jid.to_string(), password.0.clone()));
                Ok(())
            })
        }
        fn user_passwd(&self, _: BareJid, _: Secret) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn user_del(&self, _: BareJid) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn user_disable(&self, _: BareJid, _: bool) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn ask(&self, jid: BareJid, set: bool, content: String) -> Doing<'_, String> {
            Box::pin(async move { Ok(format!("{jid} {set} {content}")) })
        }
        fn user_list(&self, host: String, _: String) -> Doing<'_, Vec<User>> {
            Box::pin(async move {
                let of_host = |jid: &&(String, String)| jid.0.ends_with(&format!("@{host}"));
                let user = |(jid, _): &(String, String)| User {
                    jid: jid.clone(),
                    created: String::new(),
                    last_activity: None,
                    disabled: false,
                };
                Ok(self.accounts.lock().iter().filter(of_host).map(user).collect())
            })
        }
        fn user_roles(&self, _: BareJid, _: Vec<String>) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn watchers(&self, _: BareJid) -> Doing<'_, (Vec<Watcher>, u64)> {
            Box::pin(async { Ok((Vec::new(), 0)) })
        }
        fn fetch(&self, _: BareJid, _: Option<Jid>) -> Doing<'_, Option<String>> {
            Box::pin(async { Ok(None) })
        }
        fn archive_page(&self, _: BareJid, _: i64) -> Doing<'_, Vec<ArchiveRecord>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn archive_purge(&self, _: BareJid, _: Option<Stamp>) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn sessions(&self) -> Doing<'_, Vec<Session>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn status(&self) -> Doing<'_, Status> {
            Box::pin(async { Ok(Status { hosts: vec!["localhost".into()], ..Status::default() }) })
        }
        fn links(&self) -> Doing<'_, Vec<crate::admin::Link>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn known(&self) -> Doing<'_, Vec<crate::admin::KnownServer>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn lost_subscriptions(&self, _: String) -> Doing<'_, (Vec<crate::admin::LostSubscription>, Option<String>)> {
            Box::pin(async { Ok((Vec::new(), None)) })
        }
        fn forget(&self, domain: String) -> Doing<'_, ()> {
            Box::pin(async move { Err(format!("no key of {domain} was noted")) })
        }
        fn check(&self, domain: String, _: Option<String>) -> Doing<'_, crate::admin::Check> {
            Box::pin(async move { Err(format!("{domain} is no domain")) })
        }
        fn metrics(&self) -> Doing<'_, String> {
            Box::pin(async { Ok(String::new()) })
        }
        fn watch(&self, who: Jid) -> Doing<'_, mpsc::Receiver<Line>> {
            Box::pin(async move {
                let (tell, told) = mpsc::channel(1);
                let line = Line {
                    at: String::new(),
                    way: crate::watches::Way::FromClient,
                    of: who.to_string(),
                    stanza: "<presence/>".into(),
                    left_out: 0,
                };
                tell.try_send(line).map_err(|error| error.to_string())?;
                Ok(told)
            })
        }
        fn user_class(&self, _: BareJid, _: Option<String>) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn invite_create(&self, _: crate::admin::InviteWish) -> Doing<'_, (String, crate::admin::Invite)> {
            Box::pin(async { Err("nobody is invited".into()) })
        }
        fn invite_list(&self) -> Doing<'_, Vec<crate::admin::Invite>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn invite_revoke(&self, _: String) -> Doing<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn certificates(&self) -> Doing<'_, Vec<crate::admin::Certificate>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn certificate_renew(&self, domain: String) -> Doing<'_, ()> {
            Box::pin(async move { Err(format!("{domain} gets no certificate by ACME")) })
        }
        fn reload(&self) -> Doing<'_, Vec<String>> {
            Box::pin(async { Ok(vec!["[store] changed".into()]) })
        }
        fn backup(&self) -> Doing<'_, (std::path::PathBuf, store::BackupFigures)> {
            Box::pin(async { Ok(("backup/one".into(), store::BackupFigures::default())) })
        }
        fn stop(&self) -> Doing<'_, ()> {
            Box::pin(async {
                *self.stopped.lock() = true;
                Ok(())
            })
        }
    }

    /// Runs `ask` as a command beside a server.
    fn beside<T: Send + 'static>(ask: impl FnOnce(&Path) -> T + Send + 'static) -> (T, Arc<House>) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("waft.sock");
        let house = Arc::new(House::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = runtime.block_on(async {
            let socket = AdminSocket::open(&path).expect("can be made");
            let server = tokio::spawn(socket.carry(house.clone(), Vec::new));
            let asked = tokio::task::spawn_blocking(move || ask(&path)).await.expect("the command does not panic");
            server.abort();
            asked
        });
        (asked, house)
    }

    #[test]
    fn commands_reach_the_server_one_after_the_other() {
        let ((), house) = beside(|path| {
            let mut server = AdminConnection::open(path).expect("may be used").expect("a server runs");
            let add = || Request::UserAdd { jid: "Alice@localhost".into(), password: Secret("secret".into()) };
            assert!(matches!(server.ask(&add()), Ok(Answer::Done)));
            assert_eq!(server.ask(&add()).expect_err("there is one"), "alice@localhost exists already");
            let list = Request::UserList { host: "localhost".into(), after: String::new() };
            let Ok(Answer::Users { users }) = server.ask(&list) else { panic!("no list") };
            assert_eq!(users[0].jid, "alice@localhost");
            let Ok(Answer::Notes { notes }) = server.ask(&Request::Reload) else { panic!("no notes") };
            assert_eq!(notes, ["[store] changed"]);
            assert!(matches!(server.ask(&Request::Status), Ok(Answer::Status(_))));
            assert!(matches!(server.ask(&Request::Stop), Ok(Answer::Done)));
        });
        assert_eq!(*house.accounts.lock(), [("alice@localhost".to_string(), "secret".to_string())]);
        assert!(*house.stopped.lock());
    }

    #[test]
    fn who_watches_has_many_answers_to_one_question_until_there_are_no_more() {
        let ((), _) = beside(|path| {
            let mut server = AdminConnection::open(path).expect("may be used").expect("a server runs");
            let first = server.ask(&Request::Watch { who: "localhost".into() });
            assert!(matches!(first, Ok(Answer::Watched { line: Some(line) }) if line.of == "localhost"));
            assert!(server.next().is_err(), "it is over");
        });
    }

    #[test]
    fn a_name_that_is_no_account_is_refused() {
        let (refused, house) = beside(|path| {
            let mut server = AdminConnection::open(path).expect("may be used").expect("a server runs");
            server.ask(&Request::UserAdd { jid: "localhost".into(), password: Secret("x".into()) })
        });
        assert!(refused.expect_err("is no account").contains("write it as alice@example.org"));
        assert!(house.accounts.lock().is_empty());
    }

    #[test]
    fn what_is_no_command_is_refused_without_repeating_it() {
        let (line, _) = beside(|path| {
            use std::io::{BufRead, Write};
            let mut stream = std::os::unix::net::UnixStream::connect(path).expect("a server runs");
            stream.write_all(b"{\"do\":\"user-ad\",\"password\":\"secret\"}\n").expect("is taken");
            let mut line = String::new();
            std::io::BufReader::new(stream).read_line(&mut line).expect("is answered");
            line
        });
        assert!(line.contains("refused") && !line.contains("secret"), "{line}");
    }

    #[tokio::test]
    async fn row_23_a_user_who_is_not_allowed_is_refused() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let nobody = HashSet::new();
        talk(theirs, &House::default(), &nobody).await.expect("is answered");
        let mut line = String::new();
        BufReader::new(ours).read_line(&mut line).await.expect("is answered");
        assert!(line.contains("may not give commands"), "{line}");
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone_and_goes_with_the_server() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("waft.sock");
        let socket = AdminSocket::open(&path).expect("can be made");
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_server_left_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("waft.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("can be made"));
        assert!(AdminConnection::open(&path).expect("nobody listens").is_none());
        drop(AdminSocket::open(&path).expect("is replaced"));
        std::fs::write(&path, "precious").expect("can be written");
        let error = AdminSocket::open(&path).err().expect("a file is in the way");
        assert!(error.contains("remove the file"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "precious");
    }
}
