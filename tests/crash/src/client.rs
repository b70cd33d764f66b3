//! A small client on a blocking socket: SCRAM, binding, stream management's counting.

use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use xmpp::Element;
use xmpp::ns::{CLIENT, STREAM};
use xmpp::xml::{Frame, Limits, Scanner};

pub const SM: &str = "urn:xmpp:sm:3";
/// How long an answer may take before the server counts as stuck.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client {
    tcp: TcpStream,
    scanner: Scanner,
    input: Vec<u8>,
    at: usize,
    /// Stanzas read since stream management was enabled; `None` while it is not.
    pub handled: Option<u32>,
    /// When all that was read until then was acknowledged, last.
    pub acked_at: Option<Instant>,
    /// How long the slowest answer took.
    pub slowest: Duration,
    /// We closed our side of the stream.
    is_closed: bool,
}

/// What reading gives.
pub enum Got {
    Element(Element),
    /// Nothing within the time.
    Nothing,
    /// The stream, or the connection, has ended.
    End,
}

/// What resumption comes to.
pub enum Resumed {
    /// The `h` told.
    Yes(u32),
    /// The `h` told, if the server knew it.
    No(Option<u32>),
}

impl Client {
    /// Connects and authenticates; the next step is [`Client::bind`] or [`Client::resume`].
    pub fn login(address: SocketAddr, user: &str, password: &str) -> io::Result<Client> {
        let tcp = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        tcp.set_nodelay(true)?;
        Client::over(tcp, user, password)
    }

    /// The same on a connection that is there.
    pub fn over(tcp: TcpStream, user: &str, password: &str) -> io::Result<Client> {
        let scanner = Scanner::new(Limits::SERVER);
        let mut client = Client {
            tcp,
            scanner,
            input: Vec::new(),
            at: 0,
            handled: None,
            acked_at: None,
            slowest: Duration::ZERO,
            is_closed: false,
        };
        client.open()?;
        client.scram(user, password)?;
        client.scanner.restart();
        client.open()?;
        Ok(client)
    }

    fn open(&mut self) -> io::Result<()> {
        self.send(
            "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
        )?;
        self.until(|e| *e.name == *"features").map(drop)
    }

    fn scram(&mut self, user: &str, password: &str) -> io::Result<()> {
        let mut nonce = [0; 18];
        rand::fill(&mut nonce).map_err(|_| io::Error::other("no randomness"))?;
        let first = format!("n={user},r={}", BASE64.encode(nonce));
        let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
        self.send(&format!("<auth {sasl} mechanism='SCRAM-SHA-256'>{}</auth>", BASE64.encode(format!("n,,{first}"))))?;
        let challenge = self.until(|e| *e.name == *"challenge" || *e.name == *"failure")?;
        let server = decode(&challenge)?;
        let field = |key: &str| server.split(',').find_map(|f| f.strip_prefix(key)).unwrap_or_default();
        let salt = BASE64.decode(field("s=")).map_err(io::Error::other)?;
        let rounds: NonZeroU32 = field("i=").parse().map_err(io::Error::other)?;
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let key = mac(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, key.as_ref());
        let bare = format!("c=biws,r={}", field("r="));
        let signature = mac(stored.as_ref(), format!("{first},{server},{bare}").as_bytes());
        let proof: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let answer = BASE64.encode(format!("{bare},p={}", BASE64.encode(proof)));
        self.send(&format!("<response {sasl}>{answer}</response>"))?;
        match self.until(|e| *e.name == *"success" || *e.name == *"failure")? {
            e if *e.name == *"success" => Ok(()),
            e => Err(io::Error::other(format!("{user} cannot log in: {e:?}"))),
        }
    }

    /// Binds a resource and, if wanted, enables stream management; gives the id to resume by.
    pub fn bind(&mut self, resource: &str, managed: bool) -> io::Result<Option<String>> {
        self.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
             </bind></iq>"
        ))?;
        let bound = self.until(|e| e.is("iq", CLIENT))?;
        if bound.attribute("type") != Some("result") {
            return Err(io::Error::other(format!("not bound: {bound:?}")));
        }
        if !managed {
            return Ok(None);
        }
        self.send(&format!("<enable xmlns='{SM}' resume='true'/>"))?;
        let enabled = self.until(|e| e.is("enabled", SM) || e.is("failed", SM))?;
        if !enabled.is("enabled", SM) {
            return Err(io::Error::other(format!("not managed: {enabled:?}")));
        }
        self.handled = Some(0);
        Ok(enabled.attribute("id").map(str::to_owned))
    }

    /// Asks to resume the session `id`, of which `handled` stanzas were read. After [`Resumed::No`] one can bind.
    pub fn resume(&mut self, id: &str, handled: u32) -> io::Result<Resumed> {
        self.send(&format!("<resume xmlns='{SM}' previd='{id}' h='{handled}'/>"))?;
        let answer = self.until(|e| e.is("resumed", SM) || e.is("failed", SM))?;
        let h = answer.attribute("h").and_then(|h| h.parse().ok());
        if answer.is("failed", SM) {
            return Ok(Resumed::No(h));
        }
        self.handled = Some(handled);
        h.map(Resumed::Yes).ok_or_else(|| io::Error::other("resumed without an 'h'"))
    }

    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.tcp.write_all(text.as_bytes())
    }

    /// Says goodbye, and waits until the server has too; what still comes goes to `other`.
    pub fn end(mut self, mut other: impl FnMut(Element)) -> io::Result<()> {
        self.say_goodbye()?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Got::Element(element) => other(element),
                Got::End => return Ok(()),
                Got::Nothing => return Err(stuck("the end of the stream")),
            }
        }
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        self.is_closed = true;
        if let Some(h) = self.handled {
            self.send(&format!("<a xmlns='{SM}' h='{h}'/>"))?;
        }
        self.send("</stream:stream>")
    }

    /// The next element within `wait`. Requests for acknowledgement are answered here.
    pub fn next(&mut self, wait: Duration) -> io::Result<Got> {
        let until = Instant::now() + wait;
        loop {
            while self.at < self.input.len() {
                let mut rest = &self.input[self.at..];
                let frame = self.scanner.next(&mut rest);
                self.at = self.input.len() - rest.len();
                match frame.map_err(|fault| io::Error::other(format!("the server wrote no XML: {fault:?}")))? {
                    Some(Frame::Element(raw)) => {
                        let element = raw.to_element();
                        if element.is("r", SM) {
                            if let Some(h) = self.handled {
                                self.acked_at = Some(Instant::now());
                                self.send(&format!("<a xmlns='{SM}' h='{h}'/>"))?;
                            }
                            continue;
                        }
                        if element.is("error", STREAM) {
                            return Err(io::Error::other(format!("the server ends the stream: {element:?}")));
                        }
                        if *element.ns == *CLIENT
                            && let Some(h) = &mut self.handled
                        {
                            *h = h.wrapping_add(1);
                        }
                        return Ok(Got::Element(element));
                    }
                    Some(Frame::Close) => {
                        // The last acknowledgement and our end of the stream; the server may be gone already.
                        let _ = self.say_goodbye();
                        return Ok(Got::End);
                    }
                    Some(Frame::Header(_)) | None => {}
                }
            }
            self.input.resize(32 * 1024, 0);
            self.at = 0;
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
            self.tcp.set_read_timeout(Some(left))?;
            let read = self.tcp.read(&mut self.input);
            self.input.truncate(read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Ok(Got::End),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(Got::Nothing);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What a killed server leaves.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Got::End),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads up to the element that is `wanted`; what comes before it is dropped.
    fn until(&mut self, wanted: impl Fn(&Element) -> bool) -> io::Result<Element> {
        self.until_with(wanted, |_| {})
    }

    /// Reads up to the element that is `wanted`; what comes before it goes to `other`.
    pub fn until_with(
        &mut self,
        wanted: impl Fn(&Element) -> bool,
        mut other: impl FnMut(Element),
    ) -> io::Result<Element> {
        let begun = Instant::now();
        let until = begun + ANSWER_TIMEOUT;
        loop {
            match self.next(until.saturating_duration_since(Instant::now()))? {
                Got::Element(element) if wanted(&element) => {
                    self.slowest = self.slowest.max(begun.elapsed());
                    return Ok(element);
                }
                Got::Element(element) => other(element),
                Got::Nothing => return Err(stuck("an answer")),
                Got::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Sends an iq, `id` being its id, and gives the answer; what comes before it goes to `other`.
    pub fn ask(&mut self, iq: &str, id: &str, other: impl FnMut(Element)) -> io::Result<Element> {
        self.send(iq)?;
        self.until_with(|e| e.is("iq", CLIENT) && e.attribute("id") == Some(id), other)
    }
}

/// The server lives and does not answer; unlike the end of a connection, this is its fault.
pub fn stuck(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} did not come within {ANSWER_TIMEOUT:?}"))
}

pub fn is_stuck(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

fn decode(element: &Element) -> io::Result<String> {
    if *element.name != *"challenge" {
        return Err(io::Error::other(format!("no challenge: {element:?}")));
    }
    let bytes = BASE64.decode(element.text_content()).map_err(io::Error::other)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
