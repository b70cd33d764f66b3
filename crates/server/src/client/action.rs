//! What the client is for: send, watch, probe; and what is printed.

use super::PATIENCE;
use super::login::{Session, stanza_error, stream_error};
use crate::cli::{Action, SendType};
use crate::commands::{Failure, say};
use crate::crypto::AwsLc;
use serde_json::{Map, Value, json};
use std::time::Duration;
use stream::Crypto;
use tokio::time::Instant;
use xmpp::xml::Frame;
use xmpp::{BareJid, Element, Jid, ns};

const PING: &str = "urn:xmpp:ping";

pub async fn run(session: &mut Session, action: &Action, json: bool) -> Result<(), Failure> {
    if let Some(done) = super::presence::run(session, action, json).await {
        return done;
    }
    match action {
        Action::Send { to, text, kind } => send(session, to, text, *kind, json).await,
        Action::Watch { count, seconds, watchers } => watch(session, *count, *seconds, *watchers, json).await,
        Action::Probe { contact, seconds } => probe(session, contact, *seconds, json).await,
        // Done above.
        _ => Ok(()),
    }
}

/// Sends a message and waits until the server has taken it: with stream management until it is acknowledged, and in
/// any case until a ping that stands behind it is answered.
async fn send(session: &mut Session, to: &Jid, text: &str, kind: SendType, json: bool) -> Result<(), Failure> {
    let (message_id, ping_id) = (id(), id());
    let mut message = Element::new("message", ns::CLIENT).attr("to", to.as_str()).attr("id", &message_id);
    message = match kind {
        SendType::Normal => message,
        SendType::Chat => message.attr("type", "chat"),
        SendType::Headline => message.attr("type", "headline"),
    };
    let message = message
        .child(Element::new("body", ns::CLIENT).text(text))
        .child(Element::new("origin-id", ns::SID).attr("id", &message_id));
    let ping = Element::new("iq", ns::CLIENT)
        .attr("type", "get")
        .attr("id", &ping_id)
        .attr("to", session.jid.domain())
        .child(Element::new("ping", PING));
    let mut out = message.to_bytes(ns::CLIENT);
    out.extend(ping.to_bytes(ns::CLIENT));
    if session.managed {
        out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
    }
    session.wire.write(&out).await?;

    let deadline = Instant::now() + PATIENCE;
    let (mut acknowledged, mut answered) = (!session.managed, false);
    while !(acknowledged && answered) {
        let Some(stanza) = session.next(deadline).await? else {
            return Err(Failure::Said("the server did not acknowledge the message\nit may have been delivered nevertheless; sending it again may show it twice".into()));
        };
        if stanza.is("a", ns::SM) {
            acknowledged = stanza.attribute("h").and_then(|h| h.parse::<u32>().ok()).is_some_and(|h| h >= 1);
        } else if stanza.is("iq", ns::CLIENT) && stanza.attribute("id") == Some(&ping_id) {
            answered = true;
        } else if stanza.is("message", ns::CLIENT)
            && stanza.attribute("type") == Some("error")
            && stanza.attribute("id") == Some(&message_id)
        {
            return Err(Failure::Said(format!("the message was not taken: {}", stanza_error(&stanza))));
        }
    }
    if json {
        say(json!({ "kind": "sent", "id": message_id, "to": to.as_str() }));
    } else {
        say(format_args!("sent {message_id}"));
    }
    Ok(())
}

/// Becomes available and prints what comes.
async fn watch(
    session: &mut Session,
    count: Option<u64>,
    seconds: Option<u64>,
    watchers: bool,
    json: bool,
) -> Result<(), Failure> {
    session.wire.write(b"<presence/>").await?;
    if watchers {
        let asks = Element::new("watch", im::watchers::NS);
        let iq = Element::new("iq", ns::CLIENT).attr("type", "set").attr("id", id()).child(asks);
        session.wire.write(&iq.to_bytes(ns::CLIENT)).await?;
    }
    let far = Duration::from_secs(365 * 86_400);
    let deadline = Instant::now() + seconds.map_or(far, Duration::from_secs);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let stanza = tokio::select! {
            stanza = session.next(deadline) => stanza?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(stanza) = stanza else { break };
        // Our own presence comes back to us.
        let own = stanza.is("presence", ns::CLIENT) && stanza.attribute("from") == Some(session.jid.as_str());
        // Who watches, and what somebody has published: as documents.
        if let Some(list) = stanza.find("event", im::watchers::NS).or_else(|| stanza.find("query", im::watchers::NS)) {
            super::presence::print_watchers(list, json);
            left -= 1;
            continue;
        }
        if let Some(document) = stanza.find("event", im::tuples::NS).and_then(|it| it.find("presence", im::pidf::NS)) {
            super::presence::print_document(document, json);
            left -= 1;
            continue;
        }
        if !own && let Some(line) = Line::of(&stanza) {
            line.print(json);
            left -= 1;
        }
    }
    Ok(())
}

/// Asks for a contact's presence and prints the answers.
async fn probe(session: &mut Session, contact: &BareJid, seconds: u64, json: bool) -> Result<(), Failure> {
    let probe =
        Element::new("presence", ns::CLIENT).attr("type", "probe").attr("to", contact.as_str()).attr("id", id());
    session.wire.write(&probe.to_bytes(ns::CLIENT)).await?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut answers = 0;
    while let Some(stanza) = session.next(deadline).await? {
        let from_contact =
            stanza.attribute("from").and_then(|from| Jid::parse(from).ok()).is_some_and(|from| from.same_bare(contact));
        if !stanza.is("presence", ns::CLIENT) || !from_contact {
            continue;
        }
        if let Some(line) = Line::of(&stanza) {
            line.print(json);
            answers += 1;
        }
        // Nothing follows a no.
        if stanza.attribute("type").is_some() {
            break;
        }
    }
    match answers {
        0 => Err(Failure::Said(format!(
            "no answer about {contact} within {seconds} s\na server answers only those who may see the contact's presence"
        ))),
        _ => Ok(()),
    }
}

impl Session {
    /// The next stanza or acknowledgement; `None` at the deadline. Answers what a client must answer.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<Element>, String> {
        loop {
            let frame = match tokio::time::timeout_at(deadline, self.wire.next()).await {
                Err(_) => return Ok(None),
                Ok(frame) => frame?,
            };
            let element = match frame {
                Some(Frame::Element(raw)) => raw.to_element(),
                Some(Frame::Header(_)) => continue,
                Some(Frame::Close) | None => return Err("the server ended the stream".into()),
            };
            if element.is("error", ns::STREAM) {
                return Err(stream_error(&element));
            }
            if element.is("r", ns::SM) {
                let answer = format!("<a xmlns='{}' h='{}'/>", ns::SM, self.handled);
                self.wire.write(answer.as_bytes()).await?;
                continue;
            }
            if &*element.ns == ns::CLIENT {
                self.handled = self.handled.wrapping_add(1);
                if element.is("iq", ns::CLIENT) && matches!(element.attribute("type"), Some("get" | "set")) {
                    self.answer(&element).await?;
                    continue;
                }
            }
            return Ok(Some(element));
        }
    }

    /// Pings are answered, all other requests refused: RFC 6120 §8.2.3 wants an answer.
    async fn answer(&mut self, request: &Element) -> Result<(), String> {
        let answer = Element::new("iq", ns::CLIENT)
            .attr_opt("id", request.attribute("id"))
            .attr_opt("to", request.attribute("from"));
        let answer = if request.find("ping", PING).is_some() {
            answer.attr("type", "result")
        } else if request.find("query", ns::ROSTER).is_some() {
            // A roster push; RFC 6121 §2.1.6.
            answer.attr("type", "result")
        } else {
            let condition = Element::new("service-unavailable", ns::STANZA_ERRORS);
            answer
                .attr("type", "error")
                .child(Element::new("error", ns::CLIENT).attr("type", "cancel").child(condition))
        };
        self.wire.write(&answer.to_bytes(ns::CLIENT)).await
    }
}

pub fn id() -> String {
    let mut bytes = [0; 8];
    AwsLc.random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is printed of a stanza.
#[derive(Debug, Clone, PartialEq, Default)]
struct Line {
    kind: &'static str,
    from: String,
    /// The `type`; of presence `available` when there is none.
    of_type: String,
    id: Option<String>,
    show: Option<String>,
    priority: Option<String>,
    /// Body, status, or what an error says.
    text: Option<String>,
    /// When it was sent, if it was kept (XEP-0203).
    delayed: Option<String>,
    /// Of a subscription with a duration: its seconds or end, or why it is over.
    lease: Option<String>,
    stanza_id: Option<String>,
}

impl Line {
    /// `None` for what says nothing to people (chat states, receipts).
    fn of(stanza: &Element) -> Option<Line> {
        let child =
            |name: &str| stanza.find(name, ns::CLIENT).map(Element::text_content).filter(|text| !text.is_empty());
        let error = stanza.attribute("type") == Some("error");
        let mut line = Line {
            from: stanza.attribute("from").unwrap_or_default().to_string(),
            of_type: stanza.attribute("type").unwrap_or_default().to_string(),
            id: stanza.attribute("id").map(str::to_string),
            delayed: stanza.find("delay", ns::DELAY).and_then(|delay| delay.attribute("stamp")).map(str::to_string),
            stanza_id: stanza.find("stanza-id", ns::SID).and_then(|it| it.attribute("id")).map(str::to_string),
            ..Line::default()
        };
        if stanza.is("message", ns::CLIENT) {
            line.kind = "message";
            line.text = Some(if error { stanza_error(stanza) } else { child("body").or_else(|| child("subject"))? });
            if line.of_type.is_empty() {
                line.of_type = "normal".into();
            }
        } else if stanza.is("presence", ns::CLIENT) {
            line.kind = "presence";
            let lease = stanza.find("lease", im::leases::NS);
            let of = |name: &str| lease.and_then(|lease| lease.attribute(name)).map(str::to_owned);
            line.lease = of("reason").or_else(|| of("until")).or_else(|| of("seconds"));
            line.show = child("show");
            line.priority = child("priority");
            line.text = if error { Some(stanza_error(stanza)) } else { child("status") };
            if line.of_type.is_empty() {
                line.of_type = "available".into();
            }
        } else {
            return None;
        }
        Some(line)
    }

    fn print(&self, json: bool) {
        if json {
            say(self.json());
        } else {
            say(self.plain());
        }
    }

    fn plain(&self) -> String {
        // One line, whatever was sent.
        let text =
            self.text.as_deref().unwrap_or_default().replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mut out = format!("{} {}", self.kind, self.from);
        if self.kind == "presence" || self.of_type == "error" {
            out.push_str(&format!(" {}", self.of_type));
        }
        if let Some(show) = &self.show {
            out.push_str(&format!(" {show}"));
        }
        if let Some(lease) = &self.lease {
            out.push_str(&format!(" (lease: {lease})"));
        }
        if let Some(stamp) = &self.delayed {
            out.push_str(&format!(" [{stamp}]"));
        }
        if !text.is_empty() {
            out.push_str(&format!(": {text}"));
        }
        out
    }

    fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), self.kind.into());
        out.insert("from".into(), self.from.as_str().into());
        out.insert("type".into(), self.of_type.as_str().into());
        let name = match (self.kind, self.of_type.as_str()) {
            (_, "error") => "error",
            ("presence", _) => "status",
            _ => "body",
        };
        for (key, value) in [
            ("id", &self.id),
            ("show", &self.show),
            ("priority", &self.priority),
            (name, &self.text),
            ("delayed", &self.delayed),
            ("lease", &self.lease),
            ("stanza_id", &self.stanza_id),
        ] {
            if let Some(value) = value {
                out.insert(key.into(), value.as_str().into());
            }
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(xml: &str) -> Option<Line> {
        Line::of(&Element::parse(xml.as_bytes(), ns::CLIENT).expect("is well-formed"))
    }

    #[test]
    fn a_message_is_one_line_whatever_its_body() {
        let line =
            line("<message from='bob@b.example/x' type='chat'><body>one\ntwo</body></message>").expect("has a body");
        assert_eq!(line.plain(), "message bob@b.example/x: one\\ntwo");
        assert_eq!(line.json()["body"], "one\ntwo");
    }

    #[test]
    fn presence_says_type_show_and_status() {
        let here = line("<presence from='bob@b.example/x'><show>away</show><status>tea</status></presence>")
            .expect("is presence");
        assert_eq!(here.plain(), "presence bob@b.example/x available away: tea");
        let gone = line("<presence from='bob@b.example/x' type='unavailable'/>").expect("is presence");
        assert_eq!(gone.plain(), "presence bob@b.example/x unavailable");
    }

    #[test]
    fn a_chat_state_is_not_printed() {
        assert_eq!(
            line(
                "<message from='bob@b.example/x' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
            ),
            None
        );
    }

    #[test]
    fn an_error_says_its_condition() {
        let line = line("<message from='bob@b.example' type='error'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>").expect("is an error");
        assert_eq!(line.plain(), "message bob@b.example error: service-unavailable");
        assert_eq!(line.json()["error"], "service-unavailable");
    }
}
