//! Hostile connections: from many addresses, saying what they like, reading or not.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub const HEADER: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                          xmlns:stream='http://etherx.jabber.org/streams'>";

/// The n-th address of the attackers, or (beyond them) of somebody else.
pub fn own_address(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 90, (n >> 8) as u8, n as u8))
}

/// An address that a whole botnet shares with nobody: so many a day are not needed.
pub fn botnet(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 100 + (n >> 16) as u8, (n >> 8) as u8, n as u8))
}

pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let tcp: TcpStream = socket.into();
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Writes what the kernel takes at once; says how much. An error: the server has closed the connection.
pub fn push(tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    tcp.set_nonblocking(true)?;
    let written = match tcp.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    };
    tcp.set_nonblocking(false)?;
    written
}

/// Reads what is there and drops it. `false`: the server has closed the connection.
pub fn drain(tcp: &mut TcpStream) -> bool {
    let mut buffer = [0; 16 * 1024];
    if tcp.set_nonblocking(true).is_err() {
        return false;
    }
    let open = loop {
        match tcp.read(&mut buffer) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
            Err(_) => break false,
        }
    };
    let _ = tcp.set_nonblocking(false);
    open
}

pub type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// Direct TLS, as a server speaks it.
pub fn encrypted(tcp: TcpStream) -> io::Result<Encrypted> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"xmpp-server".to_vec()];
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// Whoever attacks does not care whom.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
