//! Hashes that are quick and prove nothing: what is fuzzed is what a peer says.

use stream::{Crypto, Hash};

pub struct Quick;

impl Crypto for Quick {
    fn hmac(&self, hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
        self.digest(hash, &[key, message].concat())
    }
    fn digest(&self, hash: Hash, message: &[u8]) -> Vec<u8> {
        let sum = message.iter().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
        vec![sum; hash.len()]
    }
    fn pbkdf2(&self, hash: Hash, password: &[u8], salt: &[u8], _: u32) -> Vec<u8> {
        self.hmac(hash, password, salt)
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(7);
    }
    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}
