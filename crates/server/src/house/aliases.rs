//! Names under which users watch who do not want to be known (`im::pseudonyms`): made of the account and of whom it
//! watches, and opened again by this server alone. Nothing is kept: whatever comes to such a name finds its owner by it,
//! after a restart too.
//!
//! A name is `~`, then in base 32: a tag over everything, by which a name of ours is known and no other passes, and the
//! account's localpart under a keystream that the tag begins (deterministic encryption by a synthetic initialisation
//! vector, with HMAC-SHA-256 for both).

use std::sync::Arc;
use stream::{Crypto, Hash};
use xmpp::BareJid;

const TAG_BYTES: usize = 10;
/// Of the digest of whom it is for.
const WHOM_BYTES: usize = 6;
/// The length of a name says no more of the account's than this.
const STEP_BYTES: usize = 16;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Longest localpart that has such names: they fit into a localpart themselves.
const LOCAL_BYTES_MAX: usize = 500;

pub struct Aliases {
    key: Vec<u8>,
    crypto: Arc<dyn Crypto>,
}

impl Aliases {
    pub fn new(secret: &[u8], crypto: Arc<dyn Crypto>) -> Aliases {
        Aliases { key: crypto.hmac(Hash::Sha256, secret, b"names of watchers"), crypto }
    }

    /// The localpart of the name that `local` of `domain` has for `whom`; `None` for a localpart that is too long.
    pub fn make(&self, local: &str, domain: &str, whom: &BareJid) -> Option<String> {
        if local.len() > LOCAL_BYTES_MAX {
            return None;
        }
        let mut text = self.crypto.digest(Hash::Sha256, whom.as_str().as_bytes())[..WHOM_BYTES].to_vec();
        text.extend_from_slice(local.as_bytes());
        text.resize(text.len().next_multiple_of(STEP_BYTES), 0);
        let tag = self.tag(&text, domain);
        self.mask(&tag, &mut text);
        Some(format!("~{}", base32(&[tag, text].concat())))
    }

    /// Whose name it is, if it is one of ours.
    pub fn open(&self, name: &BareJid) -> Option<BareJid> {
        let bytes = from_base32(name.local()?.strip_prefix('~')?)?;
        let (tag, text) = bytes.split_at_checked(TAG_BYTES)?;
        let mut text = text.to_vec();
        self.mask(tag, &mut text);
        if text.len() < WHOM_BYTES || !self.crypto.eq_constant_time(&self.tag(&text, name.domain()), tag) {
            return None;
        }
        let local = std::str::from_utf8(&text[WHOM_BYTES..]).ok()?.trim_end_matches('\0');
        BareJid::parse(&format!("{local}@{}", name.domain())).ok()
    }

    fn tag(&self, text: &[u8], domain: &str) -> Vec<u8> {
        let message = [&[0][..], domain.as_bytes(), &[0], text].concat();
        self.crypto.hmac(Hash::Sha256, &self.key, &message)[..TAG_BYTES].to_vec()
    }

    /// Hides the text, or shows it again.
    fn mask(&self, tag: &[u8], text: &mut [u8]) {
        for (at, part) in (0u32..).zip(text.chunks_mut(Hash::Sha256.len())) {
            let stream = self.crypto.hmac(Hash::Sha256, &self.key, &[&[1][..], &at.to_be_bytes(), tag].concat());
            part.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

impl std::fmt::Debug for Aliases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aliases")
    }
}

fn base32(bytes: &[u8]) -> String {
    let (mut out, mut bits, mut held) = (String::new(), 0u32, 0u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    }
    out
}

/// `None` for what [`base32`] does not write.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        held = ((held << 5) | value as u32) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    (held & ((1 << bits) - 1) == 0 && bits < 5).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::AwsLc;

    fn aliases(secret: &[u8]) -> Aliases {
        Aliases::new(secret, Arc::new(AwsLc))
    }

    fn bare(text: &str) -> BareJid {
        BareJid::parse(text).expect("a bare JID")
    }

    #[test]
    fn a_name_is_the_same_each_time_and_opens_to_its_owner_alone() {
        let ours = aliases(b"secret");
        let (juliet, nurse) = (bare("juliet@capulet.example"), bare("nurse@capulet.example"));
        for local in ["romeo", "r", "ro\u{308}meo", &"x".repeat(LOCAL_BYTES_MAX)] {
            let owner = bare(&format!("{local}@montague.example"));
            let local = owner.local().expect("one");
            let make = |whom| ours.make(local, "montague.example", whom).expect("a name");
            assert_eq!(make(&juliet), make(&juliet));
            assert_ne!(make(&juliet), make(&nurse), "two presentities cannot compare them");
            let name = bare(&format!("{}@montague.example", make(&juliet)));
            assert_eq!(name.local(), Some(&*make(&juliet)), "it is prepared already");
            assert_eq!(ours.open(&name), Some(owner.clone()));
            // After a restart, and by nobody else.
            assert_eq!(aliases(b"secret").open(&name), Some(owner.clone()));
            assert_eq!(aliases(b"another").open(&name), None);
            assert_eq!(ours.open(&bare(&format!("{}@verona.example", make(&juliet)))), None);
        }
        assert_eq!(ours.make(&"x".repeat(LOCAL_BYTES_MAX + 1), "montague.example", &juliet), None);
    }

    #[test]
    fn names_tell_neither_the_account_nor_the_length_of_its_name() {
        let ours = aliases(b"secret");
        let juliet = bare("juliet@capulet.example");
        let lengths =
            ["r", "romeo", "mercutio"].map(|local| ours.make(local, "a.example", &juliet).expect("one").len());
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    }

    #[test]
    fn what_is_no_name_of_ours_is_an_address_like_others() {
        let ours = aliases(b"secret");
        let name = ours.make("romeo", "a.example", &bare("juliet@b.example")).expect("one");
        let changed = format!("{}{}", &name[..name.len() - 1], if name.ends_with('a') { 'b' } else { 'a' });
        for local in ["~", "~romeo", "romeo", "~1", &changed, &format!("{name}a"), &name[..8]] {
            assert_eq!(ours.open(&bare(&format!("{local}@a.example"))), None, "{local}");
        }
    }
}
