//! The socket of the client, plain and then TLS, and the frames on it.

use super::{PATIENCE, trust};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::net::TcpStream;
use xmpp::xml::{Frame, Limits, Scanner};

const READ_BYTES: usize = 16 * 1024;

pub struct Wire {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    scanner: Scanner,
    /// Read, and not yet scanned.
    input: Vec<u8>,
    /// Not yet taken by the kernel.
    output: Vec<u8>,
}

impl Wire {
    /// Connects to the first address that answers; `at` is a name or address with a port.
    ///
    /// # Errors
    /// For people.
    pub async fn connect(at: &str) -> Result<Wire, String> {
        let advice = "is the server running there? name another place with --host ADDR:PORT";
        let addresses = tokio::net::lookup_host(at).await.map_err(|error| {
            format!("{at} cannot be found: {error}\nname the server's address with --host ADDR:PORT")
        })?;
        let mut last = format!("{at} has no address\nname the server's address with --host ADDR:PORT");
        for address in addresses {
            match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    let _ = tcp.set_nodelay(true);
                    return Ok(Wire {
                        tcp,
                        tls: None,
                        scanner: Scanner::new(Limits::SERVER),
                        input: Vec::new(),
                        output: Vec::new(),
                    });
                }
                Ok(Err(error)) => last = format!("cannot connect to {address}: {error}\n{advice}"),
                Err(_) => last = format!("{address} does not answer\n{advice}"),
            }
        }
        Err(last)
    }

    pub fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_deref()
    }

    /// Makes the connection TLS. Nothing that came in clear may be left over.
    ///
    /// # Errors
    /// For people.
    pub async fn start_tls(&mut self, config: Arc<ClientConfig>, domain: &str) -> Result<(), String> {
        if !self.input.is_empty() || self.scanner.is_mid_frame() {
            return Err(
                "the server (or somebody on the way) sent bytes in clear behind <proceed/>: the connection is not used"
                    .into(),
            );
        }
        let name = ServerName::try_from(domain.trim_matches(['[', ']']).to_string())
            .map_err(|_| format!("{domain} is no name that a certificate can be checked for\nwrite internationalised domains as A-labels (xn--…)"))?;
        let mut tls = Box::new(ClientConnection::new(config, name).map_err(|error| trust::explain(&error, domain))?);
        let shake = async {
            while tls.is_handshaking() || tls.wants_write() {
                flush_tls(&mut tls, &mut self.output);
                flush(&self.tcp, &mut self.output)
                    .await
                    .map_err(|error| format!("the connection broke in the TLS handshake: {error}"))?;
                if !tls.is_handshaking() {
                    break;
                }
                let bytes = read_some(&self.tcp)
                    .await
                    .map_err(|error| format!("the connection broke in the TLS handshake: {error}"))?;
                if bytes.is_empty() {
                    return Err("the server ended the connection in the TLS handshake".to_string());
                }
                if let Err(error) = feed(&mut tls, &bytes, &mut self.input) {
                    // The alert tells the server why.
                    flush_tls(&mut tls, &mut self.output);
                    let _ = flush(&self.tcp, &mut self.output).await;
                    return Err(trust::explain(&error, domain));
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, shake)
            .await
            .map_err(|_| "the server does not answer in the TLS handshake".to_string())??;
        self.tls = Some(tls);
        self.scanner = Scanner::new(Limits::SERVER);
        Ok(())
    }

    /// The next frame is a stream header.
    pub fn restart(&mut self) {
        self.scanner.restart();
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// For people.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.tls {
            None => self.output.extend_from_slice(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes).map_err(|error| format!("TLS refused to send: {error}"))?;
                flush_tls(tls, &mut self.output);
            }
        }
        flush(&self.tcp, &mut self.output).await.map_err(|error| format!("the connection broke: {error}"))
    }

    /// The next frame; `None` when the server has closed the connection. May be dropped while it waits: nothing is
    /// lost.
    ///
    /// # Errors
    /// For people.
    pub async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if !self.input.is_empty() {
                let mut rest = self.input.as_slice();
                let frame = self
                    .scanner
                    .next(&mut rest)
                    .map_err(|fault| format!("the server sent what is no XMPP: {fault:?}"))?;
                let taken = self.input.len() - rest.len();
                self.input.drain(..taken);
                if let Some(frame) = frame {
                    return Ok(Some(frame));
                }
            }
            let bytes = read_some(&self.tcp).await.map_err(|error| format!("the connection broke: {error}"))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            match &mut self.tls {
                None => self.input.extend_from_slice(&bytes),
                Some(tls) => {
                    feed(tls, &bytes, &mut self.input)
                        .map_err(|error| format!("TLS with the server broke: {error}"))?;
                    flush_tls(tls, &mut self.output);
                }
            }
            flush(&self.tcp, &mut self.output).await.map_err(|error| format!("the connection broke: {error}"))?;
        }
    }

    /// Says that nothing more comes from here.
    pub async fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            flush_tls(tls, &mut self.output);
        }
        let _ = flush(&self.tcp, &mut self.output).await;
    }
}

/// What is there to read, at least a byte; empty at the end.
async fn read_some(tcp: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        tcp.readable().await?;
        match tcp.try_read(&mut bytes) {
            Ok(n) => {
                bytes.truncate(n);
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends all that waits; what was sent is taken out at once, so that it may be dropped while it waits.
async fn flush(tcp: &TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        tcp.writable().await?;
        match tcp.try_write(output) {
            Ok(n) => drop(output.drain(..n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// TLS records that wait go to `output`.
fn flush_tls(tls: &mut ClientConnection, output: &mut Vec<u8>) {
    while tls.wants_write() {
        // Writing to memory cannot fail.
        if tls.write_tls(output).is_err() {
            return;
        }
    }
}

/// Gives TLS what was read, and takes what is clear.
fn feed(tls: &mut ClientConnection, mut bytes: &[u8], clear: &mut Vec<u8>) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes).map_err(|error| rustls::Error::General(error.to_string()))?;
        let state = tls.process_new_packets()?;
        let from = clear.len();
        clear.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut clear[from..]).map_err(|error| rustls::Error::General(error.to_string()))?;
    }
    Ok(())
}
