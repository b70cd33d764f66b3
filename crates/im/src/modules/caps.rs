//! Entity Capabilities, XEP-0115, of the server itself: its disco#info as one hash in the stream features.
//!
//! Clients' capabilities ride in their presence untouched.

use super::disco::info_of_host;
use crate::module::{Module, xep};
use crate::policy::HostPolicy;
use xmpp::Element;
use xmpp::ns::{DATA_FORM, DISCO_INFO};

pub const NS: &str = "http://jabber.org/protocol/caps";
/// Names the software.
pub const NODE: &str = "urn:waft:server";

pub static MODULE: Module = Module { name: "caps", specs: &[xep(115, "1.6.0")], host_features: &[NS], ..Module::EMPTY };

/// `<c/>` for the stream features. XEP-0115 §6.3.
pub fn stream_feature(policy: &HostPolicy, sha1: fn(&[u8]) -> [u8; 20]) -> Element {
    let digest = sha1(verification_input(&info_of_host(policy)).as_bytes());
    Element::new("c", NS).attr("hash", "sha-1").attr("node", NODE).attr("ver", base64(&digest))
}

/// Is it the node that the stream feature leads to? XEP-0115 §6.2. (Whoever asks for an old hash hears what is true
/// now, and sees that it does not match.)
pub fn is_ours(node: &str) -> bool {
    node.strip_prefix(NODE).is_some_and(|rest| rest.starts_with('#'))
}

/// The string S that is hashed, from a disco#info `<query/>`. XEP-0115 §5.1.
pub fn verification_input(info: &Element) -> String {
    let of = |name: &'static str, ns: &'static str| info.elements().filter(move |child| child.is(name, ns));
    let attribute = |element: &Element, name: &str| element.attribute(name).unwrap_or_default().to_owned();

    let mut identities: Vec<[String; 4]> = of("identity", DISCO_INFO)
        .map(|identity| ["category", "type", "xml:lang", "name"].map(|name| attribute(identity, name)))
        .collect();
    identities.sort();
    let mut features: Vec<String> = of("feature", DISCO_INFO).map(|feature| attribute(feature, "var")).collect();
    features.sort();
    let mut forms: Vec<(String, Vec<String>)> = of("x", DATA_FORM).filter_map(form_factors).collect();
    forms.sort();

    let mut s = String::new();
    let factors = identities.iter().map(|identity| identity.join("/")).chain(features);
    for factor in factors.chain(forms.into_iter().flat_map(|(form_type, rest)| std::iter::once(form_type).chain(rest)))
    {
        s.push_str(&factor);
        s.push('<');
    }
    s
}

/// FORM_TYPE, and the other fields with their sorted values. `None` for a form without it (XEP-0115 §5.4, 3.6).
fn form_factors(form: &Element) -> Option<(String, Vec<String>)> {
    let mut form_type = None;
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for field in form.elements().filter(|child| child.is("field", DATA_FORM)) {
        let mut values: Vec<String> =
            field.elements().filter(|child| child.is("value", DATA_FORM)).map(Element::text_content).collect();
        values.sort();
        match field.attribute("var") {
            Some("FORM_TYPE") if field.attribute("type") == Some("hidden") => form_type = values.into_iter().next(),
            Some("FORM_TYPE") | None => {}
            Some(var) => fields.push((var.to_owned(), values)),
        }
    }
    fields.sort();
    Some((form_type?, fields.into_iter().flat_map(|(var, values)| std::iter::once(var).chain(values)).collect()))
}

/// RFC 4648 §4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0].iter()).take(3).fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        for at in 0..4 {
            let sextet = (word >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { ALPHABET[sextet] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bare;

    // XEP-0115 §5.2.
    #[test]
    fn the_simple_example_gives_its_string() {
        let info = Element::parse(
            b"<query xmlns='http://jabber.org/protocol/disco#info'>\
              <identity category='client' type='pc' name='Exodus 0.9.1'/>\
              <feature var='http://jabber.org/protocol/caps'/>\
              <feature var='http://jabber.org/protocol/muc'/>\
              <feature var='http://jabber.org/protocol/disco#items'/>\
              <feature var='http://jabber.org/protocol/disco#info'/></query>",
            DISCO_INFO,
        )
        .expect("well-formed");
        assert_eq!(
            verification_input(&info),
            "client/pc//Exodus 0.9.1<http://jabber.org/protocol/caps<http://jabber.org/protocol/disco#info<\
             http://jabber.org/protocol/disco#items<http://jabber.org/protocol/muc<"
        );
    }

    // XEP-0115 §5.3.
    #[test]
    fn the_complex_example_gives_its_string() {
        let info = Element::parse(
            "<query xmlns='http://jabber.org/protocol/disco#info'>\
             <identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>\
             <identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>\
             <feature var='http://jabber.org/protocol/caps'/>\
             <x xmlns='jabber:x:data' type='result'>\
             <field var='os'><value>Mac</value></field>\
             <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>\
             <field var='ip_version' type='text-multi'><value>ipv6</value><value>ipv4</value></field>\
             </x></query>"
                .as_bytes(),
            DISCO_INFO,
        )
        .expect("well-formed");
        assert_eq!(
            verification_input(&info),
            "client/pc/el/Ψ 0.11<client/pc/en/Psi 0.11<http://jabber.org/protocol/caps<\
             urn:xmpp:dataforms:softwareinfo<ip_version<ipv4<ipv6<os<Mac<"
        );
    }

    // RFC 4648 §10.
    #[test]
    fn base64_gives_the_vectors_of_its_specification() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_stream_feature_carries_the_hash_of_the_hosts_info() {
        let policy = HostPolicy::of(bare("capulet.example"));
        let feature = stream_feature(&policy, |input| {
            assert!(input.starts_with(b"pubsub/pep//<server/im//waft<"));
            [0; 20]
        });
        assert_eq!(feature.attribute("ver"), Some("AAAAAAAAAAAAAAAAAAAAAAAAAAA="));
    }
}
