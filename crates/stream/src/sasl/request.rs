//! What a client asks for with SASL2 besides authentication: XEP-0388 §2.3, with Bind 2 (XEP-0386), stream management
//! (XEP-0198 §9), client state (XEP-0352), carbons (XEP-0280) and tokens (XEP-0484) inline.

use super::token::TokenWishes;
use super::wire::{Profile, SASL2};
use super::{Condition, Mechanism};
use crate::crypto::{Crypto, Hash};
use crate::event::{BindRequest, ResumeRequest, UserAgent};
use crate::frame::random_id;
use crate::management;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xmpp::{BareJid, Element};
use zeroize::Zeroizing;

pub(crate) const BIND2: &str = "urn:xmpp:bind:0";
pub(crate) const FAST: &str = "urn:xmpp:fast:0";
pub(crate) const CARBONS: &str = "urn:xmpp:carbons:2";
pub(crate) const CSI: &str = "urn:xmpp:csi:0";
/// Longest id, software or device name that is kept.
const AGENT_BYTES_MAX: usize = 256;
/// Longest tag that goes into a resourcepart.
const TAG_BYTES_MAX: usize = 256;
/// Random or hashed bytes that we add to it.
const RESOURCE_ID_BYTES: usize = 9;

/// `<authenticate/>`.
#[derive(Default)]
pub(crate) struct Request {
    pub mechanism: String,
    pub initial: Option<Zeroizing<Vec<u8>>>,
    pub agent: Option<UserAgent>,
    pub bind: Option<BindRequest>,
    pub resume: Option<ResumeRequest>,
    /// `<fast/>` stood there: the mechanism is one for tokens.
    pub fast: bool,
    pub tokens: TokenWishes,
}

impl Request {
    /// # Errors
    /// `incorrect-encoding` for the initial response, `malformed-request` for a `count` or `<resume/>` that is none.
    pub fn read(element: &Element) -> Result<Request, Condition> {
        let mut request =
            Request { mechanism: element.attribute("mechanism").unwrap_or_default().to_owned(), ..Request::default() };
        for child in element.elements() {
            match (&*child.name, &*child.ns) {
                ("initial-response", SASL2) => {
                    let text = Zeroizing::new(child.text_content());
                    request.initial = Some(Profile::Sasl2.decode(&text)?);
                }
                ("user-agent", SASL2) => request.agent = Some(agent(child)),
                ("bind", BIND2) => request.bind = Some(bind(child)),
                ("resume", management::NS) => {
                    let resume = management::resume(|name| child.attribute(name).map(str::to_owned));
                    request.resume = Some(resume.ok_or(Condition::MalformedRequest)?);
                }
                ("fast", FAST) => {
                    request.fast = true;
                    request.tokens.invalidate = child.attribute("invalidate").is_some_and(management::boolean);
                    let count = child.attribute("count").map(str::parse).transpose();
                    request.tokens.count = count.map_err(|_| Condition::MalformedRequest)?;
                }
                ("request-token", FAST) => {
                    request.tokens.request = child.attribute("mechanism").and_then(Mechanism::from_name);
                }
                _ => {}
            }
        }
        Ok(request)
    }

    pub fn client(&self) -> Option<&str> {
        self.agent.as_ref().and_then(|agent| agent.id.as_deref())
    }
}

fn agent(element: &Element) -> UserAgent {
    let kept = |text: String| Some(text).filter(|text| !text.is_empty() && text.len() <= AGENT_BYTES_MAX);
    let child = |name| element.find(name, SASL2).and_then(|child| kept(child.text_content())).map(Into::into);
    UserAgent {
        id: element.attribute("id").and_then(|id| kept(id.to_owned())).map(Into::into),
        software: child("software"),
        device: child("device"),
    }
}

/// What else a bind request may carry to those who know it.
const OTHERS_MAX: usize = 8;

fn bind(element: &Element) -> BindRequest {
    let known = [BIND2, management::NS, CARBONS, CSI];
    let others = element.elements().filter(|child| !known.contains(&&*child.ns));
    let enable = element.find("enable", management::NS);
    BindRequest {
        tag: element.find("tag", BIND2).map(|tag| tag.text_content().into()),
        bind2: true,
        carbons: element.find("enable", CARBONS).is_some(),
        inactive: element.find("inactive", CSI).is_some(),
        others: others.take(OTHERS_MAX).cloned().collect(),
        management: enable.map(|enable| management::enable(|name| enable.attribute(name).map(str::to_owned))),
        ..BindRequest::default()
    }
}

/// `[tag]/[id]`, the same for one client's installation and tag, else random. The client's id cannot be told from it.
/// XEP-0386 §3.2.1.
pub(crate) fn resource(bind: &BindRequest, account: &BareJid, secret: &[u8], crypto: &dyn Crypto) -> String {
    let tag = bind.tag.as_deref().unwrap_or_default();
    let id = match &bind.client {
        Some(client) => {
            let message = ["resource", account.as_str(), client, tag].join("\0");
            let hash = crypto.hmac(Hash::Sha256, secret, message.as_bytes());
            URL_SAFE_NO_PAD.encode(&hash[..RESOURCE_ID_BYTES])
        }
        None => random_id(crypto, RESOURCE_ID_BYTES),
    };
    let named = Some(tag).filter(|tag| !tag.is_empty() && tag.len() <= TAG_BYTES_MAX);
    // A tag that cannot stand in a resourcepart is left out.
    named.and_then(|tag| xmpp::jid::prepare_resource(&format!("{tag}/{id}")).ok()).unwrap_or(id)
}
