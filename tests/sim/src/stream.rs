//! A client's end of a stream: connecting, SCRAM, elements in, text out.

use crate::network::{HostNet, Pipe};
use crate::node::CLIENTS;
use crate::random::Random;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use server::world::simulated::Pipe as _;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::timeout;
use xmpp::Element;
use xmpp::xml::{Frame, Limits, Scanner};

pub const PASSWORD: &str = "secret of the scenes";
/// How long a client waits for an answer while it logs in.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Stream {
    pipe: Pipe,
    scanner: Scanner,
    input: Vec<u8>,
    at: usize,
}

impl Stream {
    /// Connects and authenticates; binding or resuming comes next.
    pub async fn login(
        host: &HostNet,
        server: IpAddr,
        domain: &str,
        user: &str,
        random: &mut Random,
    ) -> io::Result<Stream> {
        let pipe = timeout(PATIENCE, host.dial(SocketAddr::new(server, CLIENTS))).await??;
        let mut stream = Stream { pipe, scanner: Scanner::new(Limits::SERVER), input: Vec::new(), at: 0 };
        stream.open(domain).await?;
        stream.scram(user, random).await?;
        stream.scanner.restart();
        stream.open(domain).await?;
        Ok(stream)
    }

    async fn open(&mut self, domain: &str) -> io::Result<()> {
        let header = format!(
            "<stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        self.send(&header).await?;
        self.until(|it| *it.name == *"features").await.map(drop)
    }

    async fn scram(&mut self, user: &str, random: &mut Random) -> io::Result<()> {
        let first = format!("n={user},r={:016x}{:016x}", random.draw(), random.draw());
        let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
        let auth = BASE64.encode(format!("n,,{first}"));
        self.send(&format!("<auth {sasl} mechanism='SCRAM-SHA-256'>{auth}</auth>")).await?;
        let challenge = self.until(|it| *it.name == *"challenge" || *it.name == *"failure").await?;
        if *challenge.name != *"challenge" {
            return Err(io::Error::other("no challenge"));
        }
        let server = BASE64.decode(challenge.text_content()).map_err(io::Error::other)?;
        let server = String::from_utf8(server).map_err(io::Error::other)?;
        let field = |key: &str| server.split(',').find_map(|it| it.strip_prefix(key)).unwrap_or_default();
        let salt = BASE64.decode(field("s=")).map_err(io::Error::other)?;
        let rounds: NonZeroU32 = field("i=").parse().map_err(io::Error::other)?;
        let salted = salted(&salt, rounds);
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let key = mac(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, key.as_ref());
        let bare = format!("c=biws,r={}", field("r="));
        let signature = mac(stored.as_ref(), format!("{first},{server},{bare}").as_bytes());
        let proof: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let answer = BASE64.encode(format!("{bare},p={}", BASE64.encode(proof)));
        self.send(&format!("<response {sasl}>{answer}</response>")).await?;
        match self.until(|it| *it.name == *"success" || *it.name == *"failure").await? {
            it if *it.name == *"success" => Ok(()),
            it => Err(io::Error::other(format!("{user} cannot log in: {it:?}"))),
        }
    }

    /// Writes all of it, waiting while nothing is taken.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.pipe.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout(PATIENCE, poll_fn(|cx| self.pipe.poll_write_ready(cx))).await??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next element; `None` at the end of the stream.
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> io::Result<Option<Element>> {
        loop {
            while self.at < self.input.len() {
                let mut rest = &self.input[self.at..];
                let frame = self.scanner.next(&mut rest);
                self.at = self.input.len() - rest.len();
                match frame.map_err(|fault| io::Error::other(format!("the server wrote no XML: {fault:?}")))? {
                    Some(Frame::Element(raw)) => return Ok(Some(raw.to_element())),
                    Some(Frame::Close) => return Ok(None),
                    Some(Frame::Header(_)) | None => {}
                }
            }
            poll_fn(|cx| self.pipe.poll_read_ready(cx)).await?;
            self.input.resize(8 * 1024, 0);
            self.at = 0;
            let read = self.pipe.try_read(&mut self.input);
            self.input.truncate(read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads up to the element that is `wanted`; what comes before it is dropped.
    pub async fn until(&mut self, wanted: impl Fn(&Element) -> bool) -> io::Result<Element> {
        self.until_with(wanted, |_| {}).await
    }

    /// Reads up to the element that is `wanted`; what comes before it goes to `other`.
    pub async fn until_with(
        &mut self,
        wanted: impl Fn(&Element) -> bool,
        mut other: impl FnMut(Element),
    ) -> io::Result<Element> {
        let read = async {
            loop {
                match self.next().await? {
                    Some(element) if wanted(&element) => return Ok(element),
                    Some(element) if *element.name == *"error" && *element.ns == *xmpp::ns::STREAM => {
                        return Err(io::Error::other(format!("{element:?}")));
                    }
                    Some(element) => other(element),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        timeout(PATIENCE, read).await?
    }

    /// As the loss of a radio link.
    pub fn abandon(self, told: bool) {
        self.pipe.abandon(told);
    }
}

/// PBKDF2, once for all who have the same salt.
fn salted(salt: &[u8], rounds: NonZeroU32) -> [u8; 32] {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<u8>, [u8; 32]>>> = LazyLock::new(Mutex::default);
    *KNOWN.lock().entry(salt.to_vec()).or_insert_with(|| {
        let mut out = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, PASSWORD.as_bytes(), &mut out);
        out
    })
}
