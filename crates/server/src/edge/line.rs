//! The connection of another server or of a component: its wire, what came on it, what is to go, and how long it takes
//! nothing.

use super::socket::Socket;
use super::wire::Wire;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Bytes handed to a socket and not taken by the kernel. LIMITS.md §1.
const SOCKET_BYTES_MAX: usize = 256 << 10;
/// The other side takes nothing for so long: end.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How soon the kernel must notice that nobody is there any more; with [`crate::s2s::presence::RESET`] after it this is
/// within 90 seconds.
const SILENCE: Duration = Duration::from_secs(80);

pub struct Line {
    pub wire: Wire,
    /// Bytes read and not yet taken by the stream.
    pub input: Vec<u8>,
    /// Bytes to go with the next [`Line::send`].
    pub out: Vec<u8>,
}

/// What the wire did.
#[derive(Debug, PartialEq, Eq)]
pub enum Io {
    /// Bytes came; `false`: nothing more will.
    Read(bool),
    /// All that was written is with the kernel.
    Flushed,
}

impl Line {
    pub fn new(socket: Socket) -> Line {
        socket.hurry();
        let wire = Wire::new(socket);
        wire.notice_silence(SILENCE);
        Line { wire, input: Vec::new(), out: Vec::new() }
    }

    /// So many bytes may be added to what is to go.
    pub fn room(&self) -> usize {
        SOCKET_BYTES_MAX.saturating_sub(self.wire.unsent() + self.out.len())
    }

    /// Hands over what is to go. `true`: something was, and the kernel has all of it; [`Line::progress`] does not tell of
    /// it then.
    pub fn send(&mut self) -> io::Result<bool> {
        if self.out.is_empty() {
            return Ok(false);
        }
        let written = self.wire.write(&self.out);
        self.out.clear();
        written?;
        Ok(self.wire.is_sent())
    }

    /// Sends what is unsent and reads, if it may.
    pub async fn progress(&mut self, may_read: bool) -> io::Result<Io> {
        let (wire, input) = (&mut self.wire, &mut self.input);
        poll_fn(|cx| {
            if wire.poll_sent(cx)?.is_ready() {
                return Poll::Ready(Ok(Io::Flushed));
            }
            match may_read {
                true => wire.poll_read(cx, input).map_ok(Io::Read),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// When to look again, where `at` is what else there is to wait for.
    pub fn deadline(&self, at: Instant) -> Instant {
        self.wire.stalled_since().map_or(at, |since| at.min(since + WRITE_PATIENCE))
    }

    pub fn takes_nothing(&mut self) -> bool {
        self.wire.takes_nothing(WRITE_PATIENCE)
    }

    /// What is to go goes, before the wire changes.
    ///
    /// # Errors
    /// The wire's, and `TimedOut`.
    pub async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.wire.write(&out)?;
        let flushed = timeout(patience, poll_fn(|cx| self.wire.poll_flush(cx))).await;
        flushed.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing")))
    }

    /// TLS that was started comes up.
    ///
    /// # Errors
    /// The handshake's, and `TimedOut`.
    pub async fn handshake(&mut self, patience: Duration) -> io::Result<()> {
        let shaken = timeout(patience, poll_fn(|cx| self.wire.poll_handshake(cx))).await;
        shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")))
    }

    /// What is to go, as the last, and our half of the connection's end.
    pub async fn last_words(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.wire.say_last(&out).await;
        self.wire.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::testing::connection;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn line() -> (Line, TcpStream) {
        let (near, far) = connection().await;
        (Line::new(Socket::Tcp(near)), far)
    }

    // A stream whose words the kernel took at once was given up a minute later, as one that takes nothing.
    #[tokio::test]
    async fn what_the_kernel_takes_at_once_is_told_as_sent_once() {
        let (mut line, mut far) = line().await;
        line.out.extend_from_slice(b"<presence/>");
        assert!(line.send().expect("it is taken") && line.wire.unsent() == 0);
        assert!(!line.send().expect("nothing is to go"));
        far.write_all(b"x").await.expect("it is taken");
        assert_eq!(line.progress(true).await.expect("it lives"), Io::Read(true));
        // … and by whoever writes to the wire itself.
        line.wire.write(b"<presence/>").expect("it is taken");
        assert_eq!(line.progress(true).await.expect("it lives"), Io::Flushed);
        far.write_all(b"x").await.expect("it is taken");
        assert_eq!(line.progress(true).await.expect("it lives"), Io::Read(true));
    }

    #[tokio::test]
    async fn who_takes_nothing_is_known_after_a_minute_and_who_takes_it_then_has_another() {
        let (mut line, far) = line().await;
        let later = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(line.deadline(later), later);
        while line.out.is_empty() {
            line.out.resize(line.room().max(1), b' ');
            if line.send().expect("it is queued") {
                continue;
            }
            break;
        }
        let due = line.deadline(later);
        assert!(due < later && !line.takes_nothing() && line.room() < SOCKET_BYTES_MAX);
        tokio::time::pause();
        tokio::time::advance(WRITE_PATIENCE).await;
        assert!(line.takes_nothing());
        // What is written meanwhile gives no more time.
        line.out.push(b' ');
        assert!(!line.send().expect("it is queued") && line.deadline(later) == due);
        tokio::time::resume();
        let taking = tokio::spawn(async move {
            let mut far = far;
            tokio::io::copy(&mut far, &mut tokio::io::sink()).await
        });
        assert_eq!(line.progress(false).await.expect("it lives"), Io::Flushed);
        assert!(!line.takes_nothing() && line.deadline(later) == later);
        taking.abort();
    }

    #[tokio::test]
    async fn who_takes_some_has_another_minute() {
        let (mut line, mut far) = line().await;
        line.wire.write(&vec![b' '; 32 << 20]).expect("it is queued");
        tokio::time::pause();
        tokio::time::advance(WRITE_PATIENCE).await;
        assert!(line.takes_nothing());
        tokio::time::resume();
        while line.takes_nothing() {
            far.read_exact(&mut [0; 16 << 10]).await.expect("it is there");
            tokio::task::yield_now().await;
            assert!(poll_fn(|cx| Poll::Ready(line.wire.poll_flush(cx))).await.is_pending());
        }
        assert!(line.wire.unsent() > 0 && line.wire.stalled_since().is_some());
    }

    #[tokio::test]
    async fn who_takes_the_last_of_it_when_asked_is_no_more_said_to_take_nothing() {
        let (mut line, mut far) = line().await;
        let mut written = 0;
        while line.wire.unsent() == 0 {
            line.wire.write(&[b' '; 4 << 10]).expect("it is queued");
            written += 4 << 10;
        }
        let in_kernel = written - line.wire.unsent();
        tokio::time::pause();
        tokio::time::advance(WRITE_PATIENCE).await;
        assert!(line.takes_nothing());
        tokio::time::resume();
        // (Nobody flushes.)
        far.read_exact(&mut vec![0; in_kernel]).await.expect("it is there");
        assert!(!line.takes_nothing() && line.wire.unsent() == 0);
        assert_eq!(line.wire.stalled_since(), None);
    }
}
