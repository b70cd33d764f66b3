//! The socket of the running server.

use super::{AdminOps, Answer, LINE_BYTES_MAX, Request};
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use xmpp::BareJid;
use zeroize::Zeroizing;

/// Commands that may be under way at once.
const CONNECTIONS_MAX: usize = 32;
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
                Ok(request) => answer(request, ops, uid).await,
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

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

async fn answer(request: Request, ops: &dyn AdminOps, uid: u32) -> Answer {
    let done = |done: Result<(), String>| match done {
        Ok(()) => Answer::Done,
        Err(why) => Answer::Refused { why },
    };
    match request {
        Request::UserAdd { jid, password } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, uid, "admin: add account");
                done(ops.user_add(account, password).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserPasswd { jid, password } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, uid, "admin: change password");
                done(ops.user_passwd(account, password).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserDel { jid } => match account(&jid) {
            Ok(account) => {
                tracing::info!(%account, uid, "admin: remove account");
                done(ops.user_del(account).await)
            }
            Err(why) => Answer::Refused { why },
        },
        Request::UserList { host, after } => match ops.user_list(host, after).await {
            Ok(users) => Answer::Users { users },
            Err(why) => Answer::Refused { why },
        },
        Request::Sessions => match ops.sessions().await {
            Ok(sessions) => Answer::Sessions { sessions },
            Err(why) => Answer::Refused { why },
        },
        Request::Status => match ops.status().await {
            Ok(status) => Answer::Status(Box::new(status)),
            Err(why) => Answer::Refused { why },
        },
        Request::Reload => {
            tracing::info!(uid, "admin: reload");
            match ops.reload().await {
                Ok(notes) => Answer::Notes { notes },
                Err(why) => Answer::Refused { why },
            }
        }
        Request::Stop => {
            tracing::info!(uid, "admin: stop");
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
