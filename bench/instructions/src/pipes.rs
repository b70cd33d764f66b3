//! A network of queues: what is written can be read at once.

use parking_lot::Mutex;
use server::world::simulated::{self, Soon};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One direction of a connection.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    reader: Option<Waker>,
}

/// One end of a connection.
pub struct Pipe {
    incoming: Arc<Mutex<Way>>,
    outgoing: Arc<Mutex<Way>>,
}

/// Connections that wait to be accepted, by anybody who listens.
#[derive(Default)]
pub struct Pipes {
    waiting: Mutex<(VecDeque<Pipe>, Option<Waker>)>,
}

impl Pipes {
    pub fn dial(&self) -> Pipe {
        let (one, other) = (Arc::default(), Arc::default());
        let theirs = Pipe { incoming: Arc::clone(&one), outgoing: Arc::clone(&other) };
        let mut waiting = self.waiting.lock();
        waiting.0.push_back(theirs);
        if let Some(waker) = waiting.1.take() {
            waker.wake();
        }
        Pipe { incoming: other, outgoing: one }
    }
}

impl simulated::Network for Pipes {
    fn connect(&self, _: SocketAddr) -> Soon<'_, Box<dyn simulated::Pipe>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn accept(&self, _: SocketAddr) -> Soon<'_, (Box<dyn simulated::Pipe>, SocketAddr)> {
        Box::pin(poll_fn(|cx| {
            let mut waiting = self.waiting.lock();
            match waiting.0.pop_front() {
                Some(pipe) => {
                    let pipe: Box<dyn simulated::Pipe> = Box::new(pipe);
                    Poll::Ready(Ok((pipe, (Ipv4Addr::LOCALHOST, 1).into())))
                }
                None => {
                    waiting.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl simulated::Pipe for Pipe {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.incoming.lock();
        if way.bytes.is_empty() && !way.ended {
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut way = self.incoming.lock();
        if way.bytes.is_empty() && !way.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut way.bytes, into)
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut way = self.outgoing.lock();
        way.bytes.extend(bytes);
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Ok(bytes.len())
    }

    fn shutdown(&self) {
        let mut way = self.outgoing.lock();
        way.ended = true;
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
    }

    fn notice_silence(&self, _: Duration) {}
}

impl Drop for Pipe {
    fn drop(&mut self) {
        simulated::Pipe::shutdown(self);
    }
}
