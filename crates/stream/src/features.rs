//! What is offered after a header. RFC 6120 §4.3.2, in the order of XEP-0170: TLS, SASL, then what a session needs.

use crate::config::{Config, HostAuth, Tls};
use crate::frame::{FEATURES_END, Frames};
use crate::management;
use crate::sasl::Mechanism;
use crate::sasl::offer::Offer;
use crate::sasl::request::{CARBONS, CSI};
use xmpp::xml::Limits;

/// Before authentication.
pub(crate) fn before_auth(
    out: &mut Vec<u8>,
    frames: &Frames,
    config: &Config,
    host: &HostAuth,
    offer: &Offer,
    encrypted: bool,
) {
    frames.begin_features(out);
    match config.tls {
        // RFC 6120 §5.4.1: while TLS is required nothing else is to be had.
        Tls::Required if !encrypted => {
            out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>");
        }
        Tls::Optional if !encrypted => out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        Tls::Required | Tls::Optional | Tls::Direct | Tls::Absent => {}
    }
    if !offer.bindings.is_empty() {
        out.extend_from_slice(b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
        for binding in &offer.bindings {
            write(out, &["<channel-binding type='", binding.name(), "'/>"]);
        }
        out.extend_from_slice(b"</sasl-channel-binding>");
    }
    if !offer.mechanisms.is_empty() {
        out.extend_from_slice(b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
        mechanisms(out, &offer.mechanisms);
        out.extend_from_slice(b"</mechanisms>");
    }
    if offer.sasl2 {
        sasl2(out, offer, config);
    }
    if registers(host, encrypted, config.tls) {
        if host.invitations {
            // XEP-0445 §3. COMPAT: Conversations and its kin look for the second, of an earlier text.
            out.extend_from_slice(b"<register xmlns='urn:xmpp:ibr-token:0'/><register xmlns='urn:xmpp:invite'/>");
        }
        out.extend_from_slice(b"<register xmlns='http://jabber.org/features/iq-register'/>");
    }
    limits(out, &config.limits_before_auth, config.idle_seconds);
    out.extend_from_slice(FEATURES_END);
}

/// After authentication. `bind`: no resource is bound yet; `managed`: stream management is on already.
pub(crate) fn after_auth(
    out: &mut Vec<u8>,
    frames: &Frames,
    config: &Config,
    host: &HostAuth,
    bind: bool,
    managed: bool,
) {
    frames.begin_features(out);
    if bind {
        // RFC 6120 §7.1; the session of RFC 3921 §3 is a matter of form, for older clients.
        out.extend_from_slice(b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>");
        out.extend_from_slice(b"<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>");
    }
    if !managed {
        out.extend_from_slice(management::FEATURE);
    }
    write(out, &["<csi xmlns='", CSI, "'/>"]);
    // RFC 6121 §2.6.1, §3.4.1.
    out.extend_from_slice(b"<ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>");
    out.extend_from_slice(&host.caps);
    limits(out, &config.limits_after_auth, config.idle_seconds);
    out.extend_from_slice(FEATURES_END);
}

/// May an account be made here, if only with an invitation? Passwords do not cross a network in clear: where TLS is optional, the listener is on
/// loopback, or behind a proxy that ended TLS.
pub(crate) fn registers(host: &HostAuth, encrypted: bool, tls: Tls) -> bool {
    (host.registration_open || host.invitations) && (encrypted || tls == Tls::Optional)
}

/// XEP-0388 §2.1, with what can be had inline: resumption (XEP-0198 §9.2), Bind 2 (XEP-0386 §3.1), tokens (XEP-0484
/// §3.1).
fn sasl2(out: &mut Vec<u8>, offer: &Offer, config: &Config) {
    out.extend_from_slice(b"<authentication xmlns='urn:xmpp:sasl:2'>");
    mechanisms(out, &offer.mechanisms);
    out.extend_from_slice(b"<inline>");
    out.extend_from_slice(management::FEATURE);
    out.extend_from_slice(b"<bind xmlns='urn:xmpp:bind:0'><inline>");
    for feature in [CARBONS, CSI, management::NS] {
        write(out, &["<feature var='", feature, "'/>"]);
    }
    for feature in &config.bind_features {
        write(out, &["<feature var='", feature, "'/>"]);
    }
    out.extend_from_slice(b"</inline></bind>");
    if !offer.fast.is_empty() {
        out.extend_from_slice(b"<fast xmlns='urn:xmpp:fast:0'>");
        mechanisms(out, &offer.fast);
        out.extend_from_slice(b"</fast>");
    }
    out.extend_from_slice(b"</inline></authentication>");
}

fn mechanisms(out: &mut Vec<u8>, mechanisms: &[Mechanism]) {
    for mechanism in mechanisms {
        write(out, &["<mechanism>", mechanism.name(), "</mechanism>"]);
    }
}

/// XEP-0478.
fn limits(out: &mut Vec<u8>, limits: &Limits, idle_seconds: Option<u32>) {
    out.extend_from_slice(b"<limits xmlns='urn:xmpp:stream-limits:0'>");
    write(out, &["<max-bytes>", &limits.element_bytes_max.to_string(), "</max-bytes>"]);
    if let Some(seconds) = idle_seconds {
        write(out, &["<idle-seconds>", &seconds.to_string(), "</idle-seconds>"]);
    }
    out.extend_from_slice(b"</limits>");
}

fn write(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
