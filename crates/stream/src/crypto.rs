//! What the caller's crypto library does for us. DESIGN D12: `server` implements it, tests have a pure one.

/// The hash functions of the mechanisms we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    /// Length of a digest, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no digest is empty")]
    pub const fn len(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
        }
    }
}

/// Hashes, randomness and comparison. All functions are total: no error can come back.
pub trait Crypto: Send + Sync {
    /// HMAC, RFC 2104; [`Hash::len`] bytes.
    fn hmac(&self, hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8>;
    /// The digest; [`Hash::len`] bytes.
    fn digest(&self, hash: Hash, message: &[u8]) -> Vec<u8>;
    /// PBKDF2 with HMAC, one block: `Hi()` of RFC 5802 §2.2; [`Hash::len`] bytes. Slow by design.
    fn pbkdf2(&self, hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8>;
    /// Fills `out` from a generator fit for secrets.
    fn random(&self, out: &mut [u8]);
    /// Compares without telling by its time where the two differ. Different lengths are different.
    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool;
}
