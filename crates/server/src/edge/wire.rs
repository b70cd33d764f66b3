//! The socket of one stream, plain or TLS: bytes in, bytes out, nothing held while idle.

use super::socket::Socket;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Bytes read from a socket at once; the buffer belongs to the thread, not to the stream.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// TLS records on their way from rustls to the kernel.
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Buffers of what was read and is being taken in; a stream has one only meanwhile.
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers a thread keeps for the next read, and the largest of them.
const POOL_MAX: usize = 8;
const POOLED_BYTES_MAX: usize = 64 * 1024;
/// The kernel takes the last bytes within this time, or they are lost.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// What the peer says after our last words is read so long, and so often.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
const LAST_READS_MAX: usize = 64;

/// An empty buffer to read into.
pub fn buffer() -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Done with a buffer.
pub fn recycle(mut buffer: Vec<u8>) {
    if buffer.capacity() > 0 && buffer.capacity() <= POOLED_BYTES_MAX {
        buffer.clear();
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOL_MAX {
                pool.push(buffer);
            }
        });
    }
}

fn give_back(records: Vec<u8>) {
    if records.capacity() <= POOLED_BYTES_MAX {
        RECORDS.set(records);
    }
}

pub struct Wire {
    socket: Socket,
    tls: Option<Box<Connection>>,
    /// What the kernel has not taken yet: clear text or TLS records.
    out: Vec<u8>,
    out_at: usize,
    /// Since when it takes nothing of that.
    stalled_since: Option<Instant>,
    eof: bool,
    /// Something was written since [`Wire::poll_sent`] last said that all is sent.
    written: bool,
    /// Decrypted together with the end of the handshake.
    early: Vec<u8>,
}

impl Wire {
    pub fn new(socket: impl Into<Socket>) -> Wire {
        Wire {
            socket: socket.into(),
            tls: None,
            out: Vec::new(),
            out_at: 0,
            stalled_since: None,
            eof: false,
            written: false,
            early: Vec::new(),
        }
    }

    pub fn tls(&self) -> Option<&ServerConnection> {
        match self.tls.as_deref() {
            Some(Connection::Server(server)) => Some(server),
            Some(Connection::Client(_)) | None => None,
        }
    }

    /// Version and cipher suite, for people.
    pub fn tls_kind(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let version = match tls.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
            rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
            other => format!("{other:?}"),
        };
        Some(format!("{version}, {:?}", tls.negotiated_cipher_suite()?.suite()))
    }

    /// The chain that the peer showed, its own certificate first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.as_ref().and_then(|tls| tls.peer_certificates())
    }

    /// Bytes that the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Since when the kernel takes nothing, though something is unsent.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Has nothing been taken for so long, and is nothing taken now either?
    pub fn takes_nothing(&mut self, patience: Duration) -> bool {
        if self.stalled_since.is_none_or(|since| since.elapsed() < patience) {
            return false;
        }
        // (Of an error the next flush tells.)
        let taken = self.socket.try_write_now(&self.out[self.out_at..]).unwrap_or(0);
        self.out_at += taken;
        if taken > 0 {
            self.stalled_since = (self.unsent() > 0).then(Instant::now);
        }
        taken == 0
    }

    /// Something is unsent; the kernel took some bytes just now, or none.
    fn stalls(&mut self, took_some: bool) {
        if took_some || self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
    }

    /// Is the first byte there, or the end of the connection?
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_first(cx)
    }

    /// Becomes TLS; the caller drives [`Wire::poll_handshake`].
    pub fn start_tls(&mut self, config: Arc<rustls::ServerConfig>) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(ServerConnection::new(config)?.into()));
        Ok(())
    }

    /// The same as the one who connected; `name` is asked for.
    pub fn start_tls_to(
        &mut self,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(ClientConnection::new(config, name)?.into()));
        Ok(())
    }

    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.collect_tls()?;
            let flushed = self.poll_flush(cx)?;
            let Some(tls) = self.tls.as_mut() else { return Poll::Ready(Ok(())) };
            if !tls.is_handshaking() {
                return flushed.map(Ok);
            }
            let early = &mut self.early;
            let read = poll_read_socket(&mut self.socket, cx, |bytes| feed_tls(tls, bytes, early));
            if let Poll::Ready(Err(_)) = &read {
                // The alert says why, if it still can.
                self.collect_tls()?;
                let _ = self.poll_flush(cx);
            }
            let (n, _) = ready!(read)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Is a read worth while? Needs no buffer, as most looks find nothing.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.eof || !self.early.is_empty() { Poll::Ready(Ok(())) } else { self.socket.poll_read_ready(cx) }
    }

    /// Reads what is there into `into`. `Ready(Ok(false))`: the peer has closed and nothing more came.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<bool>> {
        if !self.early.is_empty() {
            into.append(&mut self.early);
            self.early = Vec::new();
            return Poll::Ready(Ok(true));
        }
        if self.eof {
            return Poll::Ready(Ok(false));
        }
        loop {
            let before = into.len();
            let tls = self.tls.as_mut();
            let (n, closed) = ready!(poll_read_socket(&mut self.socket, cx, |bytes| match tls {
                None => {
                    into.extend_from_slice(bytes);
                    Ok(false)
                }
                Some(tls) => feed_tls(tls, bytes, into),
            }))?;
            self.eof = n == 0 || closed == Some(true);
            // Key updates and alerts want an answer; the caller flushes.
            self.collect_tls()?;
            if into.len() > before {
                return Poll::Ready(Ok(true));
            }
            if self.eof {
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Queues bytes for the peer; [`Wire::poll_flush`] sends them.
    pub fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        match self.tls.as_mut() {
            None => self.push(plain),
            Some(tls) => {
                let mut records = RECORDS.take();
                let mut rest = plain;
                // rustls takes what its own bounded buffer holds; the records are fetched in between.
                while !rest.is_empty() {
                    let taken = tls.writer().write(rest)?;
                    rest = &rest[taken..];
                    while tls.wants_write() {
                        tls.write_tls(&mut records)?;
                    }
                }
                let pushed = self.push(&records);
                records.clear();
                give_back(records);
                pushed
            }
        }
    }

    /// To the kernel at once, if nothing waits before it; what it does not take waits, also where it never will.
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written = true;
        let mut rest = bytes;
        let mut pushed = Ok(());
        while self.out.is_empty() && !rest.is_empty() {
            match self.socket.try_write(rest) {
                Ok(0) => pushed = Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    rest = &rest[n..];
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => pushed = Err(e),
            }
            break;
        }
        if !rest.is_empty() {
            self.stalls(rest.len() < bytes.len());
            self.out.extend_from_slice(rest);
        }
        pushed
    }

    fn collect_tls(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.as_mut() {
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
        }
        Ok(())
    }

    /// Sends what is queued. `Pending`: the kernel's buffer is full.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut took_some = false;
        while self.out_at < self.out.len() {
            match self.socket.try_write(&self.out[self.out_at..]) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.out_at += n;
                    took_some = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stalls(took_some);
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        self.out_at = 0;
        self.stalled_since = None;
        self.out.clear();
        if self.out.capacity() > 0 {
            // An idle stream holds no buffer.
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Has the kernel all that was written? Then [`Wire::poll_sent`] does not tell of it.
    pub fn is_sent(&mut self) -> bool {
        let sent = self.unsent() == 0;
        self.written &= !sent;
        sent
    }

    /// Ready once after each time that something was written, when the kernel has all of it.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.written || self.unsent() > 0;
        ready!(self.poll_flush(cx))?;
        self.written = false;
        if written { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// TLS close_notify, for an orderly end.
    pub fn say_goodbye(&mut self) {
        if let Some(tls) = self.tls.as_mut() {
            tls.send_close_notify();
        }
        let _ = self.collect_tls();
    }

    /// Queues last bytes, and TLS's end.
    pub fn put_last(&mut self, bytes: &[u8]) {
        let _ = self.write(bytes);
        self.say_goodbye();
    }

    /// Last bytes, and TLS's end.
    pub async fn say_last(&mut self, bytes: &[u8]) {
        self.put_last(bytes);
        flush_last(poll_fn(|cx| self.poll_flush(cx))).await;
    }

    /// What the peer still sends is read and dropped for a moment, so that our last words are not lost in a reset.
    pub async fn hear_out(&mut self) {
        let mut rest = Vec::new();
        hear_out(|cx| {
            rest.clear();
            self.poll_read(cx, &mut rest)
        })
        .await;
    }

    /// The kernel finds out within `silence` that the peer is gone without a word.
    pub fn notice_silence(&self, silence: Duration) {
        self.socket.notice_silence(silence);
    }

    /// Half-closes the socket, so that what was sent arrives before the reset of an early close.
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }
}

/// The kernel has some time to take the last bytes.
pub(super) async fn flush_last(flush: impl Future<Output = io::Result<()>>) {
    let _ = timeout(LAST_BYTES, flush).await;
}

/// See [`Wire::hear_out`].
pub(super) async fn hear_out(mut poll_read: impl FnMut(&mut Context<'_>) -> Poll<io::Result<bool>>) {
    let heard = async {
        for _ in 0..LAST_READS_MAX {
            if !matches!(poll_fn(&mut poll_read).await, Ok(true)) {
                break;
            }
        }
    };
    // Its end of the connection, or not: both are fine.
    let _ = timeout(LAST_PATIENCE, heard).await;
}

/// Takes TLS bytes in and moves what they decrypt to; `true`: the peer said close_notify.
fn feed_tls(tls: &mut Connection, mut bytes: &[u8], into: &mut Vec<u8>) -> io::Result<bool> {
    let mut closed = false;
    while !bytes.is_empty() && !closed {
        tls.read_tls(&mut bytes)?;
        tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        closed = drain_plain(tls, into)?;
    }
    Ok(closed)
}

fn drain_plain(tls: &mut Connection, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 4096];
    loop {
        match tls.reader().read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(n) => into.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// One read from the socket into the thread's buffer, which is then shown to `take`.
fn poll_read_socket<T>(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> io::Result<T>,
) -> Poll<io::Result<(usize, Option<T>)>> {
    SCRATCH.with_borrow_mut(|buffer| match ready!(socket.poll_read(cx, buffer))? {
        0 => Poll::Ready(Ok((0, None))),
        n => Poll::Ready(take(&buffer[..n]).map(|taken| (n, Some(taken)))),
    })
}
