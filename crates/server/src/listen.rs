//! ① Listening: who may connect, how often, and how many at once. LIMITS.md §1.

pub mod admission;
pub mod proxy;
pub mod turns;

use crate::component;
use crate::config::ListenAddress;
use crate::edge::socket::Socket;
use crate::edge::{self, EdgeConfig};
use crate::house::House;
use crate::s2s;
use crate::world::Listening;
use admission::Admission;
use parking_lot::RwLock;
use socket2::{Domain, Protocol, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use turns::Pace;

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 1024;

/// What a listener's connections share; the configuration is replaced on reload.
pub struct ListenerContext {
    pub edge: RwLock<Arc<EdgeConfig>>,
    pub admission: Arc<Admission>,
    pub proxy_protocol: bool,
}

/// Listens on an address; `*:PORT` is IPv6 and IPv4, each its own socket, and one of the two suffices.
///
/// # Errors
/// For people: which address, why, what to do.
pub fn bind(address: &ListenAddress) -> Result<Vec<TcpListener>, String> {
    let addresses: Vec<SocketAddr> = match address {
        ListenAddress::Any(port) => vec![(Ipv6Addr::UNSPECIFIED, *port).into(), (Ipv4Addr::UNSPECIFIED, *port).into()],
        ListenAddress::At(address) => vec![*address],
    };
    let mut sockets = Vec::new();
    let mut first_error = None;
    for address in addresses {
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                first_error.get_or_insert((address, error));
            }
        }
    }
    match first_error {
        Some((address, error)) if sockets.is_empty() || error.kind() == io::ErrorKind::AddrInUse => {
            Err(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "cannot listen on {address}: another process listens there\nstop it, or choose another address with --c2s ADDR:PORT and --direct-tls ADDR:PORT"
                ),
                io::ErrorKind::PermissionDenied => format!(
                    "cannot listen on {address}: not permitted\nports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port"
                ),
                _ => format!(
                    "cannot listen on {address}: {error}\nname an address of this machine with --c2s ADDR:PORT or --direct-tls ADDR:PORT"
                ),
            })
        }
        _ => Ok(sockets),
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How many files this process may open.
pub fn files_max() -> usize {
    std::fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|text| {
            text.lines()
                .find(|l| l.starts_with("Max open files"))
                .and_then(|l| l.split_whitespace().nth(3)?.parse().ok())
        })
        .unwrap_or(1024)
}

/// Takes connections until the task is ended.
pub async fn accept(house: Arc<House>, context: Arc<ListenerContext>, listener: Listening) {
    let mut pace = Pace::default();
    loop {
        pace.keep().await;
        match listener.accept().await {
            Ok((socket, peer)) => {
                house.count("connections");
                if house.draining.load(std::sync::atomic::Ordering::Acquire) {
                    house.count("connections_refused");
                    continue;
                }
                let (house, context) = (house.clone(), context.clone());
                if context.proxy_protocol {
                    // Nobody knows yet whose it is; what is not named in time is closed.
                    match context.admission.unnamed() {
                        Ok(place) => {
                            tokio::spawn(begin_behind_proxy(house, context, socket, peer, place));
                        }
                        Err(why) => refuse(&house, peer.ip(), why),
                    }
                } else {
                    begin_on_task(house, context, socket, peer.ip());
                }
            }
            Err(error) => {
                // Out of files, most often: the next try must not spin.
                tracing::warn!(%error, "a connection could not be accepted");
                house.count("accept_errors");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The same for servers of other domains.
pub async fn accept_servers(house: Arc<House>, context: Arc<ListenerContext>, listener: Listening) {
    let mut pace = Pace::default();
    loop {
        pace.keep().await;
        match listener.accept().await {
            Ok((socket, peer)) => {
                house.count("s2s_connections");
                let Some(federation) = house.federation.get().cloned() else { continue };
                match context.admission.admit(peer.ip(), house.now().mono_ms) {
                    Ok(permit) => {
                        let direct_tls = context.edge.read().direct_tls;
                        let turn = permit.turn();
                        tokio::spawn(turn.take(s2s::incoming::serve(
                            federation,
                            socket,
                            peer.ip(),
                            permit,
                            direct_tls,
                        )));
                    }
                    Err(why) => refuse(&house, peer.ip(), why),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                house.count("accept_errors");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The same for external components.
pub async fn accept_components(house: Arc<House>, admission: Arc<Admission>, listener: Listening) {
    let mut pace = Pace::default();
    loop {
        pace.keep().await;
        match listener.accept().await {
            Ok((socket, peer)) => {
                house.count("component_connections");
                match admission.admit(peer.ip(), house.now().mono_ms) {
                    Ok(permit) => {
                        let turn = permit.turn();
                        tokio::spawn(turn.take(component::connection::serve(house.clone(), socket, peer.ip(), permit)));
                    }
                    Err(why) => refuse(&house, peer.ip(), why),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                house.count("accept_errors");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn begin_on_task(house: Arc<House>, context: Arc<ListenerContext>, socket: Socket, address: IpAddr) {
    // Admission costs no task: a refused connection is closed here and now.
    match context.admission.admit(address, house.now().mono_ms) {
        Ok(permit) => {
            let config = context.edge.read().clone();
            tokio::spawn(permit.turn().take(edge::serve(house, config, socket, address, permit)));
        }
        Err(why) => refuse(&house, address, why),
    }
}

/// The address comes with the PROXY header.
async fn begin_behind_proxy(
    house: Arc<House>,
    context: Arc<ListenerContext>,
    socket: Socket,
    peer: SocketAddr,
    place: admission::Unnamed,
) {
    let patience = context.edge.read().limits.first_byte_timeout;
    match tokio::time::timeout(patience, behind_proxy(socket)).await {
        Ok(Ok((socket, address))) => {
            drop(place);
            begin(house, context, socket, address.unwrap_or(peer.ip())).await;
        }
        Ok(Err(error)) => tracing::warn!(%peer, %error, "no PROXY header on a listener that asks for it"),
        Err(_) => {
            house.count("timeouts_first_byte");
            house.limit("first_byte_seconds");
        }
    }
}

async fn begin(house: Arc<House>, context: Arc<ListenerContext>, socket: Socket, address: IpAddr) {
    match context.admission.admit(address, house.now().mono_ms) {
        Ok(permit) => {
            let config = context.edge.read().clone();
            permit.turn().take(edge::serve(house, config, socket, address, permit)).await;
        }
        Err(why) => refuse(&house, address, why),
    }
}

fn refuse(house: &Arc<House>, address: IpAddr, why: admission::Refused) {
    house.count("connections_refused");
    house.limit(why.limit());
    tracing::debug!(%address, ?why, "connection refused");
}

/// Reads exactly the PROXY header from the front of the connection.
async fn behind_proxy(socket: Socket) -> io::Result<(Socket, Option<IpAddr>)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "malformed header");
    #[allow(clippy::infallible_destructuring_match, reason = "without simulation there is one kind of socket")]
    let mut socket = match socket {
        Socket::Tcp(tcp) => tcp,
        #[cfg(feature = "simulated")]
        Socket::Simulated(_) => return Err(wrong()),
    };
    let mut bytes = vec![0; proxy::HEADER_BYTES_MAX];
    loop {
        let seen = socket.peek(&mut bytes).await?;
        match proxy::read(&bytes[..seen]) {
            proxy::Header::Whole(length, address) => {
                socket.read_exact(&mut bytes[..length]).await?;
                return Ok((socket.into(), address));
            }
            proxy::Header::Wrong => return Err(wrong()),
            proxy::Header::More if seen == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Peeking does not wait for more than there was; the caller's deadline bounds this.
            proxy::Header::More => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
