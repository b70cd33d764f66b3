//! Salted Challenge Response: the client proves that it knows the password, the server that it knows the keys.
//! RFC 5802, RFC 7677.

use super::offer::ChannelBinding;
use super::{Condition, Context, Exchange, Step, claim, fake_keys};
use crate::crypto::Hash;
use crate::event::Account;
use crate::password::ScramKeys;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xmpp::BareJid;
use zeroize::Zeroizing;

/// Random bytes that we add to the client's nonce.
const NONCE_BYTES: usize = 18;

/// The client has said who it is.
pub(crate) struct Named {
    hash: Hash,
    account: BareJid,
    /// What `c=` must say: the GS2 header, and the binding data with `-PLUS`.
    binding: Vec<u8>,
    client_first_bare: String,
    client_nonce: String,
}

/// The client has its challenge.
pub(crate) struct Challenged {
    hash: Hash,
    account: BareJid,
    binding: Vec<u8>,
    keys: ScramKeys,
    /// Else the keys are made up.
    known: bool,
    nonce: String,
    /// `client-first-message-bare + "," + server-first-message + ","`.
    auth_message: String,
}

/// Reads the client-first-message. RFC 5802 §7.
pub(crate) fn start(hash: Hash, plus: bool, message: &[u8], cx: &Context<'_>) -> Result<Step, Condition> {
    let message = std::str::from_utf8(message).map_err(|_| Condition::MalformedRequest)?;
    let mut parts = message.splitn(3, ',');
    let (flag, authzid, bare) = match (parts.next(), parts.next(), parts.next()) {
        (Some(flag), Some(authzid), Some(bare)) => (flag, authzid, bare),
        _ => return Err(Condition::MalformedRequest),
    };
    let mut binding = format!("{flag},{authzid},").into_bytes();
    binding.extend_from_slice(bound_to(flag, plus, cx)?);
    let authzid = match authzid {
        "" => None,
        said => Some(name(said.strip_prefix("a=").ok_or(Condition::MalformedRequest)?)?),
    };

    // A mandatory extension `m=` would stand first, and we know none: so `n=` must.
    let mut attributes = bare.split(',');
    let user = attributes.next().and_then(|first| first.strip_prefix("n="));
    let user = name(user.ok_or(Condition::MalformedRequest)?)?;
    let nonce = attributes.next().and_then(|second| second.strip_prefix("r="));
    let nonce = nonce.filter(|nonce| is_printable(nonce)).ok_or(Condition::MalformedRequest)?;

    let account = claim(&user, authzid.as_deref(), cx)?;
    let named = Named {
        hash,
        account: account.clone(),
        binding,
        client_first_bare: bare.to_owned(),
        client_nonce: nonce.to_owned(),
    };
    Ok(Step::Lookup(account, Exchange::ScramNamed(Box::new(named))))
}

/// Checks the GS2 flag against the mechanism and gives the binding data. RFC 5802 §6.
fn bound_to<'a>(flag: &str, plus: bool, cx: &Context<'a>) -> Result<&'a [u8], Condition> {
    match (flag, plus) {
        ("n", false) => Ok(b""),
        // The client could bind and believes that we cannot: somebody took `-PLUS` out of our offer.
        ("y", false) if cx.offer.mechanisms.iter().any(|mechanism| mechanism.is_plus()) => {
            Err(Condition::NotAuthorized)
        }
        ("y", false) => Ok(b""),
        (flag, true) => {
            let wanted = flag.strip_prefix("p=").ok_or(Condition::MalformedRequest)?;
            let offered = cx.offer.bindings.iter().find(|binding| binding.name() == wanted);
            offered.and_then(|binding| ChannelBinding::data(*binding, cx.tls)).ok_or(Condition::MalformedRequest)
        }
        _ => Err(Condition::MalformedRequest),
    }
}

impl Named {
    /// Writes the server-first-message: the same for a user that does not exist.
    pub fn looked_up(self, account: Option<Account>, cx: &Context<'_>) -> Step {
        let keys = account.and_then(|account| match self.hash {
            Hash::Sha1 => account.scram_sha1,
            Hash::Sha256 => account.scram_sha256,
        });
        let known = keys.is_some();
        // Made in either case, so that both take as long.
        let fake = fake_keys(self.hash, &self.account, cx);
        let keys = keys.unwrap_or(fake);

        let mut random = [0; NONCE_BYTES];
        cx.crypto.random(&mut random);
        self.challenge(keys, known, &STANDARD.encode(random), cx)
    }

    fn challenge(self, keys: ScramKeys, known: bool, our_nonce: &str, cx: &Context<'_>) -> Step {
        let nonce = format!("{}{our_nonce}", self.client_nonce);
        let mut challenge = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        if cx.config.downgrade_protection {
            challenge.push_str(",h=");
            challenge.push_str(&cx.offer.digest(cx.crypto, self.hash));
        }
        let challenged = Challenged {
            hash: self.hash,
            account: self.account,
            binding: self.binding,
            keys,
            known,
            nonce,
            auth_message: format!("{},{challenge},", self.client_first_bare),
        };
        Step::Challenge(challenge.into_bytes(), Exchange::ScramChallenged(Box::new(challenged)))
    }
}

impl Challenged {
    /// Checks the client-final-message; the server's signature goes with the success.
    pub fn respond(self, message: &[u8], cx: &Context<'_>) -> Step {
        match self.proven(message, cx) {
            Ok(signature) => Step::Done {
                account: self.account,
                additional: Some(format!("v={}", STANDARD.encode(signature)).into_bytes()),
                token: None,
            },
            Err(condition) => Step::Failed(condition, Some(self.account)),
        }
    }

    fn proven(&self, message: &[u8], cx: &Context<'_>) -> Result<Vec<u8>, Condition> {
        let message = std::str::from_utf8(message).map_err(|_| Condition::MalformedRequest)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Condition::MalformedRequest)?;
        let proof = Zeroizing::new(STANDARD.decode(proof).map_err(|_| Condition::MalformedRequest)?);
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|first| first.strip_prefix("c="));
        let nonce = attributes.next().and_then(|second| second.strip_prefix("r="));
        let (Some(binding), Some(nonce)) = (binding, nonce) else {
            return Err(Condition::MalformedRequest);
        };
        let binding = STANDARD.decode(binding).map_err(|_| Condition::MalformedRequest)?;
        if nonce != self.nonce || binding != self.binding {
            return Err(Condition::NotAuthorized);
        }

        let auth_message = format!("{}{without_proof}", self.auth_message);
        let signature = cx.crypto.hmac(self.hash, &self.keys.stored_key, auth_message.as_bytes());
        if proof.len() != signature.len() {
            return Err(Condition::NotAuthorized);
        }
        let client_key: Zeroizing<Vec<u8>> =
            Zeroizing::new(proof.iter().zip(&signature).map(|(proof, signature)| proof ^ signature).collect());
        let stored_key = cx.crypto.digest(self.hash, &client_key);
        if !cx.crypto.eq_constant_time(&stored_key, &self.keys.stored_key) || !self.known {
            return Err(Condition::NotAuthorized);
        }
        Ok(cx.crypto.hmac(self.hash, &self.keys.server_key, auth_message.as_bytes()))
    }
}

/// A saslname: `=2C` is a comma, `=3D` an equals sign, nothing else may follow `=`. RFC 5802 §5.1.
fn name(text: &str) -> Result<String, Condition> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match part.get(..2) {
            Some("2C") => (',', &part[2..]),
            Some("3D") => ('=', &part[2..]),
            _ => return Err(Condition::MalformedRequest),
        };
        name.push(escaped);
        name.push_str(rest);
    }
    if name.is_empty() { Err(Condition::MalformedRequest) } else { Ok(name) }
}

/// Printable ASCII but the comma, which cannot stand here. RFC 5802 §7.
fn is_printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::fake::Fake;
    use crate::password::scram_keys;
    use crate::sasl::offer::Offer;

    /// One exchange of `user` with the password `pencil`, our nonce given: challenge and signature.
    fn exchange(hash: Hash, first: &str, our_nonce: &str, salt: &str, last: &str) -> (String, Option<String>) {
        let config = Config { downgrade_protection: false, ..Config::default() };
        let cx = Context {
            crypto: &Fake::default(),
            config: &config,
            host: "example.org",
            tls: None,
            from: None,
            client: None,
            offer: &Offer::default(),
        };
        let salt = STANDARD.decode(salt).expect("the vector's salt is base64");
        let keys = scram_keys(cx.crypto, hash, "pencil", &salt, 4096).expect("pencil can be a password");
        let Ok(Step::Lookup(_, Exchange::ScramNamed(named))) = start(hash, false, first.as_bytes(), &cx) else {
            panic!("the client is named by its first message");
        };
        let Step::Challenge(challenge, Exchange::ScramChallenged(challenged)) =
            named.challenge(keys, true, our_nonce, &cx)
        else {
            panic!("a challenge follows");
        };
        let signature = match challenged.respond(last.as_bytes(), &cx) {
            Step::Done { additional, .. } => additional,
            _ => None,
        };
        let text = |bytes| String::from_utf8(bytes).expect("SCRAM is text");
        (text(challenge), signature.map(text))
    }

    #[test]
    fn the_example_of_rfc_5802_section_5_succeeds() {
        let (challenge, signature) = exchange(
            Hash::Sha1,
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        );
        assert_eq!(challenge, "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
        assert_eq!(signature.as_deref(), Some("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
    }

    #[test]
    fn the_example_of_rfc_7677_section_3_succeeds() {
        let (challenge, signature) = exchange(
            Hash::Sha256,
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(challenge, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert_eq!(signature.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn one_bit_of_the_proof_decides() {
        let last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Tw=";
        let first = "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL";
        assert_eq!(exchange(Hash::Sha1, first, "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92", last).1, None);
    }

    #[test]
    fn names_are_unescaped_and_nothing_else_may_be_escaped() {
        assert_eq!(name("a=2Cb=3Dc").as_deref(), Ok("a,b=c"));
        assert_eq!(name("=3D2C").as_deref(), Ok("=2C"));
        for bad in ["", "a=", "a=2", "a=2c", "a=41", "a=é"] {
            assert_eq!(name(bad), Err(Condition::MalformedRequest), "{bad}");
        }
    }
}
