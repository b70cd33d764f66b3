//! What is implemented in crates that have no cards, and the titles of all.

use crate::xeps::Spec::{self, Rfc, Xep};

/// (specification, version, what is missing, crate).
pub static SPECS: &[(Spec, &str, &str, &str)] = &[
    (
        Rfc(6120),
        "2011",
        "server-to-server streams",
        "xmpp, stream, im",
    ),
    (Rfc(6121), "2011", "", "im"),
    (Rfc(7590), "2015", "", "stream, server"),
    (Rfc(7622), "2015", "", "xmpp"),
    (Rfc(4616), "2006", "", "stream"),
    (Rfc(5802), "2010", "", "stream"),
    (Rfc(7677), "2015", "", "stream"),
    (Rfc(9266), "2022", "", "stream"),
    (Rfc(8265), "2017", "", "stream, xmpp"),
    (Xep(368), "1.1.0", "", "server"),
    (Xep(386), "1.1.0", "", "stream, im"),
    (Xep(388), "1.0.4", "", "stream"),
    (Xep(440), "1.0.0", "", "stream"),
    (Xep(474), "0.5.0", "", "stream"),
    (Xep(478), "0.2.0", "", "stream"),
    (Xep(484), "0.2.0", "", "stream"),
];

/// As the series print them; for RFCs shortened.
pub fn title(spec: Spec) -> Option<&'static str> {
    TITLES
        .iter()
        .find(|(titled, _)| *titled == spec)
        .map(|(_, title)| *title)
}

static TITLES: &[(Spec, &str)] = &[
    (Rfc(4616), "The PLAIN SASL Mechanism"),
    (Rfc(5802), "SCRAM SASL Mechanisms"),
    (Rfc(6120), "XMPP: Core"),
    (Rfc(6121), "XMPP: Instant Messaging and Presence"),
    (Rfc(7395), "XMPP Subprotocol for WebSocket"),
    (Rfc(7590), "Use of TLS in XMPP"),
    (Rfc(7622), "XMPP: Address Format"),
    (Rfc(7677), "SCRAM-SHA-256 and SCRAM-SHA-256-PLUS"),
    (
        Rfc(8265),
        "Internationalized Strings Representing Usernames and Passwords",
    ),
    (Rfc(9266), "Channel Bindings for TLS 1.3"),
    (Xep(4), "Data Forms"),
    (Xep(12), "Last Activity"),
    (Xep(30), "Service Discovery"),
    (Xep(49), "Private XML Storage"),
    (Xep(54), "vcard-temp"),
    (Xep(59), "Result Set Management"),
    (Xep(68), "Field Standardization for Data Forms"),
    (Xep(77), "In-Band Registration"),
    (Xep(82), "XMPP Date and Time Profiles"),
    (Xep(92), "Software Version"),
    (Xep(115), "Entity Capabilities"),
    (Xep(128), "Service Discovery Extensions"),
    (Xep(153), "vCard-Based Avatars"),
    (Xep(157), "Contact Addresses for XMPP Services"),
    (Xep(160), "Best Practices for Handling Offline Messages"),
    (Xep(191), "Blocking Command"),
    (Xep(198), "Stream Management"),
    (Xep(199), "XMPP Ping"),
    (Xep(202), "Entity Time"),
    (Xep(203), "Delayed Delivery"),
    (Xep(280), "Message Carbons"),
    (Xep(297), "Stanza Forwarding"),
    (Xep(313), "Message Archive Management"),
    (Xep(334), "Message Processing Hints"),
    (Xep(352), "Client State Indication"),
    (Xep(359), "Unique and Stable Stanza IDs"),
    (Xep(368), "SRV records for XMPP over TLS"),
    (Xep(386), "Bind 2"),
    (Xep(388), "Extensible SASL Profile"),
    (Xep(440), "SASL Channel-Binding Type Capability"),
    (Xep(441), "Message Archive Management Preferences"),
    (Xep(474), "SASL SCRAM Downgrade Protection"),
    (Xep(478), "Stream Limits Advertisement"),
    (Xep(484), "Fast Authentication Streamlining Tokens"),
];
