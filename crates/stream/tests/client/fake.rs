//! A pure [`Crypto`], deterministic: each instance counts its own "randomness".

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use stream::{Crypto, Hash};

#[derive(Default)]
pub struct Fake {
    /// How often randomness was drawn.
    pub drawn: AtomicU64,
    /// How often secrets were compared.
    pub comparisons: AtomicU64,
}

impl Crypto for Fake {
    fn hmac(&self, hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
        match hash {
            Hash::Sha1 => {
                let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Hash::Sha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    fn digest(&self, hash: Hash, message: &[u8]) -> Vec<u8> {
        match hash {
            Hash::Sha1 => Sha1::digest(message).to_vec(),
            Hash::Sha256 => Sha256::digest(message).to_vec(),
        }
    }

    fn pbkdf2(&self, hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut out = vec![0; hash.len()];
        match hash {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut out),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out),
        }
        out
    }

    fn random(&self, out: &mut [u8]) {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let block = Sha256::digest(drawn.to_be_bytes());
        for (byte, random) in out.iter_mut().zip(block.iter().cycle()) {
            *byte = *random;
        }
    }

    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool {
        self.comparisons.fetch_add(1, Ordering::Relaxed);
        a == b
    }
}
