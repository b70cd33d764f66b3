//! Which events the clients of contacts want, by the hash of what they are: XEP-0115 §5.4 for all accounts of a host.
//!
//! What is remembered is proved: a version is the hash of a text, and the events are read from that very text, so that no
//! client can say anything of another's version. What stands here is a memo of a pure function; to lose it costs a question.

use crate::modules::caps;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use xmpp::Element;

/// Versions that are remembered; then it begins anew.
const VERSIONS_MAX: usize = 1_000;
/// Bytes of the text of one version.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Nodes that one client may be interested in.
pub const NODES_MAX: usize = 256;
const NOTIFY: &str = "+notify";

/// The names of nodes. XEP-0163 §4.2.
pub type Wanted = Arc<[Box<str>]>;

#[derive(Debug, Clone, Default)]
pub struct Capabilities(Arc<Mutex<BTreeMap<Box<str>, Wanted>>>);

impl Capabilities {
    /// What clients of this version want, if it is known.
    pub fn wanted(&self, version: &str) -> Option<Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(version).cloned()
    }

    /// What a client wants that answered with `info`; remembered for all if that is what `version` is the hash of.
    pub fn learn(&self, version: &str, info: &Element) -> Wanted {
        let text = caps::verification_input(info);
        let names = text.split('<').filter_map(|factor| factor.strip_suffix(NOTIFY));
        let wanted: Wanted = names.take(NODES_MAX).map(Into::into).collect();
        if text.len() <= TEXT_BYTES_MAX && caps::base64(&Sha1::digest(text.as_bytes())) == version {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= VERSIONS_MAX {
                known.clear();
            }
            known.insert(version.into(), wanted.clone());
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp::ns::DISCO_INFO;

    fn info(features: &[&str]) -> Element {
        let features = features.iter().map(|var| Element::new("feature", DISCO_INFO).attr("var", *var));
        Element::new("query", DISCO_INFO).children_from(features)
    }

    #[test]
    fn a_version_is_remembered_if_it_is_the_hash_of_the_answer_and_only_then() {
        let known = Capabilities::default();
        let told = info(&["urn:a+notify", "urn:b"]);
        let version = caps::base64(&Sha1::digest(b"urn:a+notify<urn:b<"));
        assert_eq!(&*known.learn("another", &told), ["urn:a".into()]);
        assert!(known.wanted("another").is_none());
        assert_eq!(&*known.learn(&version, &told), ["urn:a".into()]);
        assert_eq!(known.wanted(&version).as_deref(), Some(["urn:a".into()].as_slice()));
        // The same text, told otherwise.
        let other = info(&["urn:a+notify<urn:b"]);
        assert_eq!(&*known.learn(&version, &other), ["urn:a".into()]);
    }

    #[test]
    fn no_more_versions_are_remembered_than_the_bound() {
        let known = Capabilities::default();
        for n in 0..=VERSIONS_MAX {
            let feature = format!("urn:{n}+notify");
            let version = caps::base64(&Sha1::digest(format!("{feature}<").as_bytes()));
            known.learn(&version, &info(&[&feature]));
            assert!(known.wanted(&version).is_some());
        }
        assert_eq!(known.0.lock().expect("nobody panicked").len(), 1);
    }
}
