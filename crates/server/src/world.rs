//! What a server stands on: its network, its clock, randomness, the names of others. The real ones serve; whoever runs
//! whole servers in one process (feature `simulated`) brings its own.

use crate::config::ListenAddress;
use crate::crypto::AwsLc;
use crate::edge::socket::Socket;
use crate::listen;
use crate::s2s::dns::{Resolve, System};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use stream::Crypto;
use tokio::net::{TcpListener, TcpStream};

pub struct World {
    pub network: Network,
    pub wall: Wall,
    pub crypto: Arc<dyn Crypto>,
    /// Who answers questions to DNS; `None`: the name servers of the system.
    pub resolver: Option<Box<dyn Resolve>>,
}

impl World {
    /// The machine that this runs on.
    pub fn real() -> World {
        World { network: Network::Tcp, wall: Wall::System, crypto: Arc::new(AwsLc), resolver: None }
    }

    /// `validates`: signatures are looked at, if it is the system's, up to these anchors instead of the root's.
    ///
    /// # Errors
    /// The system names no name servers that can be used.
    pub fn take_resolver(&mut self, validates: bool, anchors: Option<&Path>) -> Result<Box<dyn Resolve>, String> {
        match self.resolver.take() {
            Some(resolver) => Ok(resolver),
            None => Ok(Box::new(System::with(validates, anchors)?)),
        }
    }
}

/// Where connections go and come from.
#[derive(Clone, Default)]
pub enum Network {
    #[default]
    Tcp,
    #[cfg(feature = "simulated")]
    Simulated(Arc<dyn simulated::Network>),
}

impl Network {
    /// # Errors
    /// As of a socket of the system.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Socket> {
        match self {
            Network::Tcp => Ok(TcpStream::connect(to).await?.into()),
            #[cfg(feature = "simulated")]
            Network::Simulated(network) => Ok(Socket::Simulated(network.connect(to).await?)),
        }
    }

    /// # Errors
    /// For people: which address, why, what to do.
    pub fn listen(&self, address: &ListenAddress) -> Result<Vec<Listening>, String> {
        match self {
            Network::Tcp => Ok(listen::bind(address)?.into_iter().map(Listening::Tcp).collect()),
            #[cfg(feature = "simulated")]
            Network::Simulated(network) => match address {
                ListenAddress::At(at) => Ok(vec![Listening::Simulated(network.clone(), *at)]),
                ListenAddress::Any(_) => Err("a simulated network listens at one address".into()),
            },
        }
    }
}

/// Takes connections at one address.
pub enum Listening {
    Tcp(TcpListener),
    #[cfg(feature = "simulated")]
    Simulated(Arc<dyn simulated::Network>, SocketAddr),
}

impl Listening {
    /// # Errors
    /// As of a socket of the system.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Listening::Tcp(listener) => listener.accept().await.map(|(socket, peer)| (socket.into(), peer)),
            #[cfg(feature = "simulated")]
            Listening::Simulated(network, at) => {
                network.accept(*at).await.map(|(pipe, peer)| (Socket::Simulated(pipe), peer))
            }
        }
    }
}

/// The clock on the wall, which others may set.
#[derive(Clone, Default)]
pub enum Wall {
    #[default]
    System,
    /// Gives microseconds since the epoch.
    #[cfg(feature = "simulated")]
    Simulated(Arc<dyn Fn() -> u64 + Send + Sync>),
}

impl Wall {
    /// UTC, microseconds since the epoch.
    pub fn micros(&self) -> u64 {
        match self {
            Wall::System => {
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
            }
            #[cfg(feature = "simulated")]
            Wall::Simulated(wall) => wall(),
        }
    }
}

/// What a simulated network does in the place of the system's.
#[cfg(feature = "simulated")]
pub mod simulated {
    use std::future::Future;
    use std::io;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    pub type Soon<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

    pub trait Network: Send + Sync {
        fn connect(&self, to: SocketAddr) -> Soon<'_, Box<dyn Pipe>>;
        fn accept(&self, at: SocketAddr) -> Soon<'_, (Box<dyn Pipe>, SocketAddr)>;
    }

    /// One end of a connection, with the manners of a non-blocking socket.
    pub trait Pipe: Send + Sync {
        fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
        fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;
        fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
        /// No more is written.
        fn shutdown(&self);
        /// A peer that says nothing for so long is gone.
        fn notice_silence(&self, silence: Duration);
    }
}
