//! The client's side of SCRAM, RFC 5802 and RFC 7677.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use stream::{Crypto, Hash};
use zeroize::Zeroizing;

/// More rounds than this are refused: a server could keep a client busy for hours.
const ITERATIONS_MAX: u32 = 1_000_000;

/// How the exchange is bound to the TLS channel. RFC 5802 §6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// `p=tls-exporter`, with its bytes.
    Exporter(Vec<u8>),
    /// `y`: the client could, the server did not offer it.
    NotOffered,
    /// `n`.
    None,
}

/// One exchange: `first`, then `last` of the server's challenge, then `verify` of its success.
pub struct Scram<'c> {
    crypto: &'c dyn Crypto,
    hash: Hash,
    password: Zeroizing<String>,
    gs2: String,
    binding: Binding,
    /// `client-first-message-bare`.
    bare: String,
    nonce: String,
    server_signature: Option<Vec<u8>>,
}

impl<'c> Scram<'c> {
    /// `user` is the localpart; `nonce` random printable characters without a comma.
    ///
    /// # Errors
    /// If the password cannot be one (RFC 8265 §4).
    pub fn new(
        crypto: &'c dyn Crypto,
        hash: Hash,
        user: &str,
        password: &str,
        binding: Binding,
        nonce: &str,
    ) -> Result<Scram<'c>, String> {
        let password = stream::prepare_password(password)
            .ok_or("this cannot be a password: it has control characters in it, or is empty")?;
        let gs2 = match binding {
            Binding::Exporter(_) => "p=tls-exporter,,",
            Binding::NotOffered => "y,,",
            Binding::None => "n,,",
        };
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Ok(Scram {
            crypto,
            hash,
            password,
            gs2: gs2.into(),
            binding,
            bare: format!("n={user},r={nonce}"),
            nonce: nonce.into(),
            server_signature: None,
        })
    }

    /// `client-first-message`.
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.bare)
    }

    /// `client-final-message` for a `server-first-message`. Slow by design.
    ///
    /// # Errors
    /// If the server's message is none, is not for us, or asks for too much.
    pub fn last(&mut self, server_first: &str) -> Result<String, String> {
        let (mut nonce, mut salt, mut iterations) = (None, None, None);
        for field in server_first.split(',') {
            match field.split_once('=') {
                Some(("r", value)) => nonce = Some(value),
                Some(("s", value)) => salt = BASE64.decode(value).ok(),
                Some(("i", value)) => iterations = value.parse::<u32>().ok(),
                Some(("m", _)) => {
                    return Err("the server demands an extension of SCRAM that this client does not know".into());
                }
                _ => {}
            }
        }
        let (Some(nonce), Some(salt), Some(iterations)) = (nonce, salt, iterations) else {
            return Err("the server's first SCRAM message is not understood".into());
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's SCRAM nonce is not made from ours: somebody may be on the way".into());
        }
        if iterations == 0 || iterations > ITERATIONS_MAX {
            return Err(format!(
                "the server asks for {iterations} rounds of hashing; at most {ITERATIONS_MAX} are done"
            ));
        }
        let mut bound = self.gs2.clone().into_bytes();
        if let Binding::Exporter(bytes) = &self.binding {
            bound.extend_from_slice(bytes);
        }
        let without_proof = format!("c={},r={nonce}", BASE64.encode(bound));
        let message = format!("{},{server_first},{without_proof}", self.bare);

        let salted = Zeroizing::new(self.crypto.pbkdf2(self.hash, self.password.as_bytes(), &salt, iterations));
        let client_key = Zeroizing::new(self.crypto.hmac(self.hash, &salted, b"Client Key"));
        let stored_key = self.crypto.digest(self.hash, &client_key);
        let signature = self.crypto.hmac(self.hash, &stored_key, message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        let server_key = self.crypto.hmac(self.hash, &salted, b"Server Key");
        self.server_signature = Some(self.crypto.hmac(self.hash, &server_key, message.as_bytes()));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Does the server know the password too? For a `server-final-message`.
    ///
    /// # Errors
    /// If it does not: then it is not the server it says it is.
    pub fn verify(&self, server_final: &str) -> Result<(), String> {
        let given = server_final
            .split(',')
            .find_map(|field| field.strip_prefix("v="))
            .and_then(|value| BASE64.decode(value).ok());
        match (given, &self.server_signature) {
            (Some(given), Some(expected)) if self.crypto.eq_constant_time(&given, expected) => Ok(()),
            _ => {
                Err("the server could not prove that it knows the password's keys: it is not the one it says it is"
                    .into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::AwsLc;

    #[test]
    fn the_exchange_is_that_of_rfc_5802() {
        let mut scram = Scram::new(&AwsLc, Hash::Sha1, "user", "pencil", Binding::None, "fyko+d2lbbFgONRv9qkxdawL")
            .expect("is a password");
        assert_eq!(scram.first(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let last =
            scram.last("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096").expect("is correct");
        assert_eq!(last, "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
        scram.verify("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=").expect("is the server's signature");
    }

    #[test]
    fn the_exchange_is_that_of_rfc_7677() {
        let mut scram = Scram::new(&AwsLc, Hash::Sha256, "user", "pencil", Binding::None, "rOprNGfwEbeRWgbNEkqO")
            .expect("is a password");
        let last = scram
            .last("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
            .expect("is correct");
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").expect("is the server's signature");
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let mut scram =
            Scram::new(&AwsLc, Hash::Sha256, "user", "pencil", Binding::None, "abc").expect("is a password");
        assert!(scram.verify("v=").is_err());
        scram.last("r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").expect("is correct");
        assert!(scram.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
        assert!(scram.verify("e=other-error").is_err());
    }

    #[test]
    fn a_nonce_that_is_not_ours_ends_the_exchange() {
        let mut scram =
            Scram::new(&AwsLc, Hash::Sha256, "user", "pencil", Binding::None, "abc").expect("is a password");
        assert!(scram.last("r=xyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_err());
        assert!(scram.last("r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_err());
        assert!(scram.last("r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000").is_err());
    }
}
