//! Hashes, randomness and comparison for `stream`, by aws-lc-rs.

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use std::num::NonZeroU32;
use stream::{Crypto, Hash};

/// The only implementation that serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl Crypto for AwsLc {
    fn hmac(&self, hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
        let algorithm = match hash {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
    }

    fn digest(&self, hash: Hash, message: &[u8]) -> Vec<u8> {
        let algorithm = match hash {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, message).as_ref().to_vec()
    }

    fn pbkdf2(&self, hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let algorithm = match hash {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut out = vec![0; hash.len()];
        pbkdf2::derive(algorithm, NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN), salt, password, &mut out);
        out
    }

    fn random(&self, out: &mut [u8]) {
        rand::fill(out).expect("the system's random generator works: without it nothing here is secret");
    }

    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(a, b).is_ok()
    }
}

/// What the store keeps of a new password: keys of both SCRAM hashes, fresh salts. Takes milliseconds: run it where
/// blocking is allowed. `None` if the password cannot be one (empty, control characters; RFC 8265 §4).
pub fn credentials(password: &str, iterations: u32) -> Option<store::Credentials> {
    let keys = |hash| keys(hash, password, iterations);
    Some(store::Credentials { scram_sha1: Some(keys(Hash::Sha1)?), scram_sha256: Some(keys(Hash::Sha256)?) })
}

/// Those of one hash.
pub fn keys(hash: Hash, password: &str, iterations: u32) -> Option<store::ScramKeys> {
    let mut salt = [0; stream::password::SALT_BYTES];
    AwsLc.random(&mut salt);
    let keys = stream::scram_keys(&AwsLc, hash, password, &salt, iterations)?;
    Some(store::ScramKeys {
        salt: keys.salt.clone(),
        iterations: keys.iterations,
        stored_key: keys.stored_key.clone(),
        server_key: keys.server_key.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hmac_gives_the_vectors_of_rfc_2202_and_rfc_4231() {
        assert_eq!(hex(&AwsLc.hmac(Hash::Sha1, &[0x0b; 20], b"Hi There")), "b617318655057264e28bc0b6fb378c8ef146be00");
        assert_eq!(
            hex(&AwsLc.hmac(Hash::Sha256, &[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn pbkdf2_gives_the_vectors_of_rfc_6070_and_rfc_7677() {
        assert_eq!(
            hex(&AwsLc.pbkdf2(Hash::Sha1, b"password", b"salt", 4096)),
            "4b007901b765489abead49d926f721d065a429c1"
        );
        assert_eq!(
            hex(&AwsLc.pbkdf2(Hash::Sha256, b"password", b"salt", 4096)),
            "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"
        );
    }

    #[test]
    fn digests_are_those_of_fips_180() {
        assert_eq!(hex(&AwsLc.digest(Hash::Sha1, b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex(&AwsLc.digest(Hash::Sha256, b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn comparison_tells_equal_from_different_and_from_longer() {
        assert!(AwsLc.eq_constant_time(b"abc", b"abc"));
        assert!(!AwsLc.eq_constant_time(b"abc", b"abd"));
        assert!(!AwsLc.eq_constant_time(b"abc", b"abcd"));
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        AwsLc.random(&mut a);
        AwsLc.random(&mut b);
        assert_ne!(a, b);
    }
}
