//! From the vCard4 that Prosody keeps (XEP-0292, RFC 6351) to vcard-temp (XEP-0054), which clients ask for.

use xmpp::Element;

const TEMP: &str = "vcard-temp";
pub const NS: &str = "urn:ietf:params:xml:ns:vcard-4.0";
/// The node that it lies in.
pub const NS_NODE: &str = "urn:xmpp:vcard4";

/// Properties with one text, and what kind of value holds it.
const SIMPLE: [(&str, &str, &str); 9] = [
    ("fn", "text", "FN"),
    ("nickname", "text", "NICKNAME"),
    ("title", "text", "TITLE"),
    ("role", "text", "ROLE"),
    ("note", "text", "DESC"),
    ("url", "uri", "URL"),
    ("bday", "date", "BDAY"),
    ("categories", "text", "CATEGORIES"),
    ("geo", "uri", "GEO"),
];

const NAME: [(&str, &str); 5] =
    [("surname", "FAMILY"), ("given", "GIVEN"), ("additional", "MIDDLE"), ("prefix", "PREFIX"), ("suffix", "SUFFIX")];

const ADDRESS: [(&str, &str); 7] = [
    ("pobox", "POBOX"),
    ("ext", "EXTADD"),
    ("street", "STREET"),
    ("locality", "LOCALITY"),
    ("region", "REGION"),
    ("code", "PCODE"),
    ("country", "CTRY"),
];

/// The card; `photo`: media type and base64 of the avatar.
pub fn to_temp(card: &Element, photo: Option<(&str, &str)>) -> Element {
    let mut out = Element::new("vCard", TEMP);
    for property in card.elements() {
        out = out.children_from(converted(property));
    }
    match photo {
        Some((kind, data)) => {
            out.child(Element::new("PHOTO", TEMP).child(text("TYPE", kind)).child(text("BINVAL", data)))
        }
        None => out,
    }
}

fn converted(property: &Element) -> Option<Element> {
    if let Some((_, kind, name)) = SIMPLE.iter().find(|(name, _, _)| *name == &*property.name) {
        return value(property, kind).map(|it| text(name, &it));
    }
    match &*property.name {
        "n" => parts(property, "N", &NAME),
        "adr" => parts(property, "ADR", &ADDRESS).map(|it| at(property, it)),
        "email" => {
            let mail = Element::new("EMAIL", TEMP).child(Element::new("INTERNET", TEMP));
            Some(at(property, mail.child(text("USERID", &value(property, "text")?))))
        }
        "tel" => {
            let number = value(property, "uri").or_else(|| value(property, "text"))?;
            let number = number.strip_prefix("tel:").unwrap_or(&number);
            Some(at(property, Element::new("TEL", TEMP).child(text("NUMBER", number))))
        }
        "impp" => value(property, "uri")?.strip_prefix("xmpp:").map(|jid| text("JABBERID", jid)),
        "org" => Some(Element::new("ORG", TEMP).child(text("ORGNAME", &value(property, "text")?))),
        _ => None,
    }
}

fn text(name: &str, content: &str) -> Element {
    Element::new(name, TEMP).text(content)
}

fn value(property: &Element, kind: &str) -> Option<String> {
    let value = property.elements().find(|child| *child.name == *kind)?.text_content();
    if value.is_empty() { None } else { Some(value) }
}

fn parts(property: &Element, name: &str, names: &[(&str, &str)]) -> Option<Element> {
    let found: Vec<Element> =
        names.iter().filter_map(|(from, to)| value(property, from).map(|it| text(to, &it))).collect();
    if found.is_empty() { None } else { Some(Element::new(name, TEMP).children_from(found)) }
}

/// At home, or at work, as the parameters say.
fn at(property: &Element, mut out: Element) -> Element {
    let parameters = property.elements().filter(|child| *child.name == *"parameters");
    let kinds = parameters.flat_map(Element::elements).filter(|child| *child.name == *"type");
    for kind in kinds.flat_map(Element::elements).map(Element::text_content) {
        if let Some(name) = match kind.as_str() {
            "home" => Some("HOME"),
            "work" => Some("WORK"),
            _ => None,
        } {
            out = out.child(Element::new(name, TEMP));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_keeps_names_addresses_and_photo() {
        let card = format!(
            "<vcard xmlns='{NS}'><fn><text>Juliet</text></fn><n><surname>Capulet</surname><given/></n>\
             <tel><parameters><type><text>work</text></type></parameters><uri>tel:+39-1</uri></tel>\
             <email><text>j@capulet.example</text></email><unknown/></vcard>"
        );
        let card = Element::parse(card.as_bytes(), "").expect("is XML");
        let temp = String::from_utf8(to_temp(&card, Some(("image/png", "AA=="))).to_bytes("")).expect("is UTF-8");
        assert_eq!(
            temp,
            "<vCard xmlns='vcard-temp'><FN>Juliet</FN><N><FAMILY>Capulet</FAMILY></N>\
             <TEL><NUMBER>+39-1</NUMBER><WORK/></TEL><EMAIL><INTERNET/><USERID>j@capulet.example</USERID></EMAIL>\
             <PHOTO><TYPE>image/png</TYPE><BINVAL>AA==</BINVAL></PHOTO></vCard>"
        );
    }
}
