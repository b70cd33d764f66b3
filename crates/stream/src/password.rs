//! Passwords, and the keys that prove them. RFC 5802 §3, RFC 8265.

use crate::crypto::{Crypto, Hash};
use zeroize::{Zeroize, Zeroizing};

/// Iterations for new SCRAM-SHA-256 keys. RFC 7677 §4 asks for 4,096 at least; peers use 10,000.
pub const SHA256_ITERATIONS: u32 = 10_000;
/// Iterations for new SCRAM-SHA-1 keys. RFC 5802 §5.1 asks for 4,096 at least; peers use 10,000.
pub const SHA1_ITERATIONS: u32 = 10_000;
/// Bytes of the salt of new keys, and of the salts that unknown users are given.
pub const SALT_BYTES: usize = 16;

/// Proves a password, and is none. RFC 5802 §3. Same shape as the store's keys.
#[derive(Clone)]
pub struct ScramKeys {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl Drop for ScramKeys {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys({} iterations)", self.iterations)
    }
}

/// Prepares a password: OpaqueString, RFC 8265 §4.2. `None` if it cannot be one (empty, control characters, …).
pub fn prepare_password(password: &str) -> Option<Zeroizing<String>> {
    // The profile of resourceparts is OpaqueString too (RFC 7622 §3.4), and so is its bound of 1023 bytes.
    xmpp::jid::prepare_resource(password).ok().map(Zeroizing::new)
}

/// Keys for a new or changed password, salt given (16 random bytes: [`SALT_BYTES`]). Slow by design: run it where
/// blocking is allowed. `None` if [`prepare_password`] refuses the password.
pub fn scram_keys(crypto: &dyn Crypto, hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Option<ScramKeys> {
    let password = prepare_password(password)?;
    let salted = Zeroizing::new(crypto.pbkdf2(hash, password.as_bytes(), salt, iterations));
    let client_key = Zeroizing::new(crypto.hmac(hash, &salted, b"Client Key"));
    Some(ScramKeys {
        salt: salt.to_vec(),
        iterations,
        stored_key: crypto.digest(hash, &client_key),
        server_key: crypto.hmac(hash, &salted, b"Server Key"),
    })
}

/// Is it this password? Slow by design: run it where blocking is allowed. `hash` is the one that `keys` were made
/// with. The comparison takes the same time whatever differs.
pub fn verify_plain(crypto: &dyn Crypto, hash: Hash, password: &str, keys: &ScramKeys) -> bool {
    scram_keys(crypto, hash, password, &keys.salt, keys.iterations)
        .is_some_and(|made| crypto.eq_constant_time(&made.stored_key, &keys.stored_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn a_password_is_verified_by_its_keys() {
        let crypto = Fake::default();
        for hash in [Hash::Sha1, Hash::Sha256] {
            let keys = scram_keys(&crypto, hash, "pencil", b"salt", 8).expect("pencil can be a password");
            assert!(verify_plain(&crypto, hash, "pencil", &keys));
            assert!(!verify_plain(&crypto, hash, "Pencil", &keys));
            assert!(!verify_plain(&crypto, hash, "", &keys));
        }
    }

    #[test]
    fn passwords_are_prepared_by_opaque_string() {
        // RFC 8265 §4.3: composed, other spaces made plain; case and inner spaces stay.
        let prepared = |text| prepare_password(text).map(|password| password.to_string());
        assert_eq!(prepared("Correct Horse").as_deref(), Some("Correct Horse"));
        assert_eq!(prepared("e\u{301}\u{a0}x").as_deref(), Some("\u{e9} x"));
        assert_eq!(prepared(""), None);
        assert_eq!(prepared("my cat is a \u{9}by"), None);
    }
}
