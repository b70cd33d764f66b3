//! From a connection to a bound resource. RFC 6120 §4 to §7.

use super::scram::{Binding, Scram};
use super::wire::Wire;
use super::{PATIENCE, trust};
use crate::cli::{self, ClientMechanism};
use crate::crypto::AwsLc;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use std::time::Duration;
use stream::{Crypto, Hash};
use xmpp::xml::{Frame, escape_attribute};
use xmpp::{Element, FullJid, Jid, ns};

/// A bound resource.
pub struct Session {
    pub wire: Wire,
    pub jid: FullJid,
    /// Stream management was enabled (XEP-0198).
    pub managed: bool,
    /// Stanzas taken from the server since then.
    pub handled: u32,
}

/// Connects and logs in as the command line says.
///
/// # Errors
/// For people.
pub async fn login(arguments: &cli::Client, password: &str) -> Result<Session, String> {
    let domain = arguments.jid.domain().to_string();
    let tls = trust::tls(arguments, &domain)?;
    let mut wire = Wire::connect(&place(arguments)).await?;
    let mut features = if arguments.direct_tls {
        wire.start_tls(tls, &domain).await?;
        open(&mut wire, &arguments.jid).await?
    } else {
        let features = open_plain(&mut wire, &domain).await?;
        if features.find("starttls", ns::TLS).is_none() {
            return Err("the server offers no STARTTLS here, and nothing is sent in clear\ntry --direct-tls, or another port with --host ADDR:PORT".into());
        }
        wire.write(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
        let answer = element(&mut wire).await?;
        if !answer.is("proceed", ns::TLS) {
            return Err("the server refuses STARTTLS now\nlook into its log".into());
        }
        wire.start_tls(tls, &domain).await?;
        open(&mut wire, &arguments.jid).await?
    };
    authenticate(&mut wire, &features, arguments, password).await?;
    wire.restart();
    features = open(&mut wire, &arguments.jid).await?;
    let jid = bind(&mut wire, &features, arguments.jid.resource()).await?;
    let mut session = Session { wire, jid, managed: false, handled: 0 };
    if features.find("sm", ns::SM).is_some() {
        session.wire.write(b"<enable xmlns='urn:xmpp:sm:3'/>").await?;
        // Stanzas may come before the answer only if the server counts them behind it.
        session.managed = element(&mut session.wire).await?.is("enabled", ns::SM);
    }
    Ok(session)
}

/// Where to connect: `--host`, else the domain; with the port that belongs to the kind of TLS.
fn place(arguments: &cli::Client) -> String {
    let port = if arguments.direct_tls { 5223 } else { 5222 };
    let host = arguments.host.as_deref().unwrap_or(arguments.jid.domain());
    let has_port = match host.rsplit_once(':') {
        // `::1` is an address without a port, `[::1]:5222` one with.
        Some((before, after)) => after.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']')),
        None => false,
    };
    if has_port {
        host.to_string()
    } else if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The next element at the top level; a stream error is told.
///
/// # Errors
/// For people.
pub async fn element(wire: &mut Wire) -> Result<Element, String> {
    loop {
        match tokio::time::timeout(PATIENCE, wire.next()).await {
            Err(_) => return Err("the server does not answer".into()),
            Ok(frame) => match frame? {
                Some(Frame::Element(raw)) => {
                    let element = raw.to_element();
                    return if element.is("error", ns::STREAM) { Err(stream_error(&element)) } else { Ok(element) };
                }
                Some(Frame::Header(_)) => {}
                Some(Frame::Close) | None => return Err("the server ended the connection".into()),
            },
        }
    }
}

/// What a stream error says.
pub fn stream_error(error: &Element) -> String {
    let condition = error
        .elements()
        .find(|child| &*child.ns == ns::STREAM_ERRORS && &*child.name != "text")
        .map_or("undefined-condition", |child| &child.name);
    match error.find("text", ns::STREAM_ERRORS) {
        Some(text) => format!("the server ended the stream: {condition} ({})", text.text_content()),
        None => format!("the server ended the stream: {condition}"),
    }
}

/// What a stanza error says.
pub fn stanza_error(stanza: &Element) -> String {
    let Some(error) = stanza.find("error", ns::CLIENT) else { return "an error that is not explained".into() };
    let condition = error
        .elements()
        .find(|child| &*child.ns == ns::STANZA_ERRORS && &*child.name != "text")
        .map_or("undefined-condition", |child| &child.name);
    match error.find("text", ns::STANZA_ERRORS) {
        Some(text) => format!("{condition} ({})", text.text_content()),
        None => condition.to_string(),
    }
}

/// Opens the stream before TLS: who we are is nobody's business yet.
async fn open_plain(wire: &mut Wire, domain: &str) -> Result<Element, String> {
    header(wire, domain, None).await
}

async fn open(wire: &mut Wire, jid: &Jid) -> Result<Element, String> {
    let bare = jid.to_bare();
    header(wire, jid.domain(), Some(bare.as_str())).await
}

/// Sends a header; gives the features that come back.
async fn header(wire: &mut Wire, to: &str, from: Option<&str>) -> Result<Element, String> {
    let mut out = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en' to='".to_vec();
    escape_attribute(&mut out, to);
    if let Some(from) = from {
        out.extend_from_slice(b"' from='");
        escape_attribute(&mut out, from);
    }
    out.extend_from_slice(b"'>");
    wire.write(&out).await?;
    let features = element(wire).await?;
    if features.is("features", ns::STREAM) {
        Ok(features)
    } else {
        Err(format!("the server sent <{}/> where it should say what it offers", features.name))
    }
}

/// The best mechanism that both sides have, first in this list.
const PREFERENCE: [ClientMechanism; 5] = [
    ClientMechanism::ScramSha256Plus,
    ClientMechanism::ScramSha1Plus,
    ClientMechanism::ScramSha256,
    ClientMechanism::ScramSha1,
    ClientMechanism::Plain,
];

fn name(mechanism: ClientMechanism) -> &'static str {
    match mechanism {
        ClientMechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        ClientMechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
        ClientMechanism::ScramSha256 => "SCRAM-SHA-256",
        ClientMechanism::ScramSha1 => "SCRAM-SHA-1",
        ClientMechanism::Plain => "PLAIN",
    }
}

fn is_plus(mechanism: ClientMechanism) -> bool {
    matches!(mechanism, ClientMechanism::ScramSha256Plus | ClientMechanism::ScramSha1Plus)
}

/// SASL, RFC 6120 §6.
async fn authenticate(
    wire: &mut Wire,
    features: &Element,
    arguments: &cli::Client,
    password: &str,
) -> Result<(), String> {
    let offered: Vec<String> = features
        .find("mechanisms", ns::SASL)
        .map(|list| list.elements().map(Element::text_content).collect())
        .unwrap_or_default();
    let exporter =
        wire.tls().and_then(|tls| tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok());
    // XEP-0440: a server that names its bindings must name ours.
    let bindings = features.find("sasl-channel-binding", "urn:xmpp:sasl-cb:0");
    let exporter = exporter
        .filter(|_| bindings.is_none_or(|list| list.elements().any(|it| it.attribute("type") == Some("tls-exporter"))));
    let usable = |mechanism: &ClientMechanism| {
        offered.iter().any(|it| it == name(*mechanism)) && (!is_plus(*mechanism) || exporter.is_some())
    };
    let mechanism = match arguments.mechanism {
        Some(wanted) if usable(&wanted) => wanted,
        Some(wanted) => {
            return Err(format!("the server does not offer {} here; it offers {}", name(wanted), offered.join(", ")));
        }
        None => PREFERENCE.into_iter().find(usable).ok_or_else(|| {
            format!("the server offers no mechanism that this client knows; it offers {}", offered.join(", "))
        })?,
    };
    let user = arguments.jid.local().unwrap_or_default();
    let hash = match mechanism {
        ClientMechanism::Plain => {
            let message = zeroize::Zeroizing::new(format!("\0{user}\0{password}"));
            let answer = sasl(
                wire,
                &format!("<auth xmlns='{}' mechanism='PLAIN'>{}</auth>", ns::SASL, BASE64.encode(message.as_bytes())),
            )
            .await?;
            return if answer.is("success", ns::SASL) { Ok(()) } else { Err(unexpected(&answer)) };
        }
        ClientMechanism::ScramSha1 | ClientMechanism::ScramSha1Plus => Hash::Sha1,
        ClientMechanism::ScramSha256 | ClientMechanism::ScramSha256Plus => Hash::Sha256,
    };
    let binding = match exporter {
        Some(bytes) if is_plus(mechanism) => Binding::Exporter(bytes.to_vec()),
        Some(_) if !offered.iter().any(|it| it.ends_with("-PLUS")) => Binding::NotOffered,
        _ => Binding::None,
    };
    let mut nonce = [0; 18];
    AwsLc.random(&mut nonce);
    let mut scram = Scram::new(&AwsLc, hash, user, password, binding, &URL_SAFE_NO_PAD.encode(nonce))?;
    let first = BASE64.encode(scram.first());
    let mut answer =
        sasl(wire, &format!("<auth xmlns='{}' mechanism='{}'>{first}</auth>", ns::SASL, name(mechanism))).await?;
    if !answer.is("challenge", ns::SASL) {
        return Err(unexpected(&answer));
    }
    let last = BASE64.encode(scram.last(&decoded(&answer)?)?);
    answer = sasl(wire, &format!("<response xmlns='{}'>{last}</response>", ns::SASL)).await?;
    // The server's proof comes with the success, or as one more challenge. RFC 6120 §6.3.10.
    scram.verify(&decoded(&answer)?)?;
    if answer.is("challenge", ns::SASL) {
        answer = sasl(wire, &format!("<response xmlns='{}'/>", ns::SASL)).await?;
    }
    if answer.is("success", ns::SASL) { Ok(()) } else { Err(unexpected(&answer)) }
}

/// One step; a failure is told.
async fn sasl(wire: &mut Wire, out: &str) -> Result<Element, String> {
    wire.write(out.as_bytes()).await?;
    let answer = element(wire).await?;
    if !answer.is("failure", ns::SASL) {
        return Ok(answer);
    }
    let condition =
        answer.elements().find(|child| &*child.name != "text").map_or("not-authorized", |child| &*child.name);
    let text = answer.find("text", ns::SASL).map(|text| format!(" ({})", text.text_content())).unwrap_or_default();
    Err(match condition {
        "not-authorized" => format!("login failed: there is no such account, or the password is wrong{text}"),
        other => format!("login failed: {other}{text}"),
    })
}

fn decoded(answer: &Element) -> Result<String, String> {
    BASE64
        .decode(answer.text_content().trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| "the server's SASL message is not understood".into())
}

fn unexpected(answer: &Element) -> String {
    format!("the server sent <{}/>, which does not belong here", answer.name)
}

/// Resource binding, RFC 6120 §7.
async fn bind(wire: &mut Wire, features: &Element, resource: Option<&str>) -> Result<FullJid, String> {
    if features.find("bind", ns::BIND).is_none() {
        return Err("the server offers no resource binding".into());
    }
    let mut bind = Element::new("bind", ns::BIND);
    if let Some(resource) = resource {
        bind = bind.child(Element::new("resource", ns::BIND).text(resource));
    }
    let request = Element::new("iq", ns::CLIENT).attr("type", "set").attr("id", "bind").child(bind);
    wire.write(&request.to_bytes(ns::CLIENT)).await?;
    let answer = element(wire).await?;
    if answer.attribute("type") == Some("error") {
        return Err(format!("the server does not bind the resource: {}", stanza_error(&answer)));
    }
    let jid = answer
        .find("bind", ns::BIND)
        .and_then(|bind| bind.find("jid", ns::BIND))
        .map(Element::text_content)
        .unwrap_or_default();
    let jid = FullJid::parse(&jid).map_err(|_| format!("the server bound \"{jid}\", which is no full JID"))?;
    // RFC 3921 servers want a session as well.
    if let Some(session) = features.find("session", ns::SESSION)
        && session.find("optional", ns::SESSION).is_none()
    {
        let request = Element::new("iq", ns::CLIENT)
            .attr("type", "set")
            .attr("id", "session")
            .child(Element::new("session", ns::SESSION));
        wire.write(&request.to_bytes(ns::CLIENT)).await?;
        element(wire).await?;
    }
    Ok(jid)
}

impl Session {
    /// Ends the stream in order: what was taken is acknowledged, the server's goodbye is waited for, not for long.
    pub async fn end(&mut self) {
        let mut out = String::new();
        if self.managed {
            out.push_str(&format!("<a xmlns='{}' h='{}'/>", ns::SM, self.handled));
        }
        out.push_str("</stream:stream>");
        if self.wire.write(out.as_bytes()).await.is_ok() {
            let goodbye =
                async { while let Ok(Some(Frame::Header(_) | Frame::Element(_))) = self.wire.next().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
        }
        self.wire.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn place_of(arguments: &[&str]) -> String {
        let arguments =
            ["waft", "client", "--jid", "alice@a.example"].iter().chain(arguments).chain(&["probe", "bob@b.example"]);
        match cli::Cli::try_parse_from(arguments).expect("is correct").command {
            Some(cli::Command::Client(client)) => place(&client),
            other => panic!("not a client: {other:?}"),
        }
    }

    #[test]
    fn the_server_is_the_domain_unless_told_otherwise() {
        assert_eq!(place_of(&[]), "a.example:5222");
        assert_eq!(place_of(&["--direct-tls"]), "a.example:5223");
        assert_eq!(place_of(&["--host", "127.0.0.1"]), "127.0.0.1:5222");
        assert_eq!(place_of(&["--host", "127.0.0.1:6222"]), "127.0.0.1:6222");
        assert_eq!(place_of(&["--host", "::1"]), "[::1]:5222");
        assert_eq!(place_of(&["--host", "[::1]:6222"]), "[::1]:6222");
        assert_eq!(place_of(&["--host", "[::1]"]), "[::1]:5222");
    }
}
