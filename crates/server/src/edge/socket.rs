//! The socket under a stream: of the system, or of a simulated network.

#[cfg(feature = "simulated")]
use crate::world::simulated::Pipe;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

pub enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "simulated")]
    Simulated(Box<dyn Pipe>),
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Socket {
        Socket::Tcp(tcp)
    }
}

impl Socket {
    /// What is written goes out at once.
    pub fn hurry(&self) {
        match self {
            Socket::Tcp(tcp) => {
                // A kernel that cannot is only slower.
                let _ = tcp.set_nodelay(true);
            }
            #[cfg(feature = "simulated")]
            Socket::Simulated(_) => {}
        }
    }

    /// Is the first byte there, or the end of the connection?
    pub fn poll_first(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // Not `poll_read_ready`, which may be wrong. An error is seen by the next read.
            Socket::Tcp(tcp) => tcp.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(drop),
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.poll_read_ready(cx).map(drop),
        }
    }

    /// Reads what is there. (Of the runtime's ways to read this one knows that a read which did not fill the buffer has
    /// emptied the kernel's, and does not ask again to hear so.)
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(tcp) => {
                let mut buffer = ReadBuf::new(into);
                ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => loop {
                ready!(pipe.poll_read_ready(cx))?;
                match pipe.try_read(into) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
        }
    }

    /// There may be something to read, or whoever brings it wakes.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(tcp) => tcp.poll_read_ready(cx),
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.poll_read_ready(cx),
        }
    }

    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(tcp) => tcp.poll_write_ready(cx),
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.poll_write_ready(cx),
        }
    }

    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(tcp) => tcp.try_write(bytes),
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.try_write(bytes),
        }
    }

    /// The same, asked of the kernel itself: the runtime hears that there is room only when a good part of the kernel's buffer
    /// has become free, which takes a slow peer long.
    pub fn try_write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(tcp) => socket2::SockRef::from(tcp).send(bytes),
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.try_write(bytes),
        }
    }

    /// The kernel finds out within `silence` that the peer is gone without a word.
    pub fn notice_silence(&self, silence: Duration) {
        match self {
            Socket::Tcp(tcp) => {
                let socket = socket2::SockRef::from(tcp);
                let probes =
                    socket2::TcpKeepalive::new().with_time(silence / 2).with_interval(silence / 8).with_retries(4);
                // A kernel that cannot keeps the silence bound of the stream itself.
                let _ = socket.set_tcp_keepalive(&probes);
                let _ = socket.set_tcp_user_timeout(Some(silence));
            }
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.notice_silence(silence),
        }
    }

    /// Half-closes, so that what was sent arrives before the reset of an early close.
    pub fn shutdown(&self) {
        match self {
            Socket::Tcp(tcp) => {
                let _ = socket2::SockRef::from(tcp).shutdown(std::net::Shutdown::Write);
            }
            #[cfg(feature = "simulated")]
            Socket::Simulated(pipe) => pipe.shutdown(),
        }
    }
}
