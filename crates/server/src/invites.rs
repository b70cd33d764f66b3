//! Invitations: who has the token of one may make an account (XEP-0445), or becomes a contact of who invites without being
//! asked (XEP-0379). Made by the operator (`waft invite`) or by users (XEP-0401).
//!
//! They are kept in the file `invitations` of the data folder, an object a line, written whole and synced before anybody
//! hears of a new one. The tokens themselves are not in it, only their digests: who reads the file can use none.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use stream::{Crypto, Hash};
use xmpp::{BareJid, Stamp};

/// Of the element that carries a token. XEP-0379 §3.4.
pub const NS: &str = "urn:xmpp:pars:0";
/// Invitations of all hosts at once; beyond it no new one is made until others are used or over.
pub const INVITATIONS_MAX: usize = 10_000;
/// Letters and digits that are told apart when read aloud: 32 of them, five bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
/// 120 bits. XEP-0379 §5.1 wants 80.
const TOKEN_LETTERS: usize = 24;
/// A token that is longer was not made here.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Letters of the digest by which an invitation is named.
const ID_LETTERS: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// SHA-256 of the token, in hexadecimal digits.
    pub digest: String,
    /// The host that it is good for.
    pub domain: String,
    /// Who becomes a contact of whoever uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inviter: Option<BareJidText>,
    /// The localpart that the account has; nobody else registers under it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// An account may be made with it.
    pub account: bool,
    pub created: i64,
    /// Seconds since the epoch.
    pub expires: i64,
    pub uses_left: u32,
    /// The account's class: see `[account_class]` of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Localparts of accounts that are being made with it. The uses are taken from `uses_left`; after a crash the store
    /// says which of them came to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<String>,
}

/// A bare JID as text.
pub type BareJidText = String;

impl Claim {
    /// What an account that was made by it has in its blob [`MADE_BY`].
    pub fn mark(&self) -> Vec<u8> {
        self.digest.clone().into_bytes()
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Space and key of the blob that says by which invitation an account was made. It is written with the account itself.
pub const MADE_BY: (&str, &str) = ("invitation", "digest");

impl Invitation {
    /// How operators name it.
    pub fn id(&self) -> &str {
        self.digest.get(..ID_LETTERS).unwrap_or(&self.digest)
    }

    pub fn inviter(&self) -> Option<BareJid> {
        self.inviter.as_deref().and_then(|jid| BareJid::parse(jid).ok())
    }

    /// The link that carries a token. XEP-0401 §5.1, §5.4; XEP-0445 §2.
    pub fn uri(&self, token: &str) -> String {
        // A new account with a contact: the inviter's address carries both.
        match (&self.username, &self.inviter, self.account) {
            (None, Some(inviter), true) => format!("xmpp:{}?roster;preauth={token};ibr=y", escaped(inviter)),
            (None, Some(inviter), false) => format!("xmpp:{}?roster;preauth={token}", escaped(inviter)),
            (Some(name), _, _) => format!("xmpp:{}@{}?register;preauth={token}", escaped(name), escaped(&self.domain)),
            (None, None, _) => format!("xmpp:{}?register;preauth={token}", escaped(&self.domain)),
        }
    }

    fn is_over(&self, now: i64) -> bool {
        self.expires <= now || self.uses_left == 0
    }

    fn claim_of(&self, name: String) -> Claim {
        let (digest, is_named) = (self.digest.clone(), self.username.is_some());
        Claim { digest, name, is_named, inviter: self.inviter(), class: self.class.clone() }
    }

    /// A use is decided; `false`: it was none.
    fn release(&mut self, name: &str) -> bool {
        let at = self.claimed.iter().position(|it| it == name);
        at.map(|at| self.claimed.swap_remove(at)).is_some()
    }
}

/// An address within a URI. RFC 5122 §2.2.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'@'
            | b'!'
            | b'$'
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'='
            | b'['
            | b']'
            | b':' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What is wished of a new invitation.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub domain: String,
    pub inviter: Option<BareJid>,
    pub username: Option<String>,
    pub account: bool,
    pub seconds: i64,
    pub uses: u32,
    pub class: Option<String>,
}

/// A token that may be used, until it was or is given back.
#[derive(Debug)]
pub struct Claim {
    digest: String,
    name: String,
    /// The invitation is for one name.
    pub is_named: bool,
    pub inviter: Option<BareJid>,
    pub class: Option<String>,
}

#[derive(Default)]
pub struct Invitations {
    /// By digest.
    all: Mutex<BTreeMap<String, Invitation>>,
    file: OnceLock<PathBuf>,
    /// Files are written one after the other.
    writing: tokio::sync::Mutex<()>,
}

impl Invitations {
    /// Reads what there is; no file is nothing.
    ///
    /// # Errors
    /// For people: the file is there and cannot be read.
    pub fn open(&self, file: PathBuf) -> Result<(), String> {
        let unreadable = |error: &dyn std::fmt::Display| {
            format!(
                "cannot read {}: {error}\nlet the user that runs waft read it, or remove it: invitations are then void",
                file.display()
            )
        };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(unreadable(&error)),
        };
        let mut all = self.all.lock();
        for line in text.lines().take(INVITATIONS_MAX) {
            let invitation: Invitation = serde_json::from_str(line).map_err(|error| unreadable(&error))?;
            all.insert(invitation.digest.clone(), invitation);
        }
        drop(all);
        // Once, at the start.
        let _ = self.file.set(file);
        Ok(())
    }

    /// Makes one; gives its token, which nobody can know again, when it is on disk.
    ///
    /// # Errors
    /// For people: there are too many, or it could not be written.
    pub async fn create(&self, wish: Wish, crypto: &dyn Crypto, now: Stamp) -> Result<(String, Invitation), String> {
        let now = seconds(now);
        let mut bytes = [0; TOKEN_LETTERS];
        crypto.random(&mut bytes);
        let token: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
        let invitation = Invitation {
            digest: digest(crypto, &token),
            domain: wish.domain,
            inviter: wish.inviter.map(|jid| jid.to_string()),
            username: wish.username,
            account: wish.account,
            created: now,
            expires: now.saturating_add(wish.seconds),
            uses_left: wish.uses,
            class: wish.class,
            claimed: Vec::new(),
        };
        {
            let mut all = self.all.lock();
            all.retain(|_, it| !it.is_over(now) || !it.claimed.is_empty());
            if all.len() >= INVITATIONS_MAX {
                return Err(
                    "there are too many invitations\nrevoke some: waft invite list, waft invite revoke ID".into()
                );
            }
            let is_taken = |it: &Invitation| it.domain == invitation.domain && it.username == invitation.username;
            if invitation.username.is_some() && all.values().any(is_taken) {
                return Err("there is an invitation for that name already\nrevoke it first: waft invite list".into());
            }
            all.insert(invitation.digest.clone(), invitation.clone());
        }
        if let Err(error) = self.write().await {
            self.all.lock().remove(&invitation.digest);
            return Err(format!("the invitation could not be written: {error}"));
        }
        Ok((token, invitation))
    }

    /// How many a user has out.
    pub fn of_user(&self, user: &BareJid, now: Stamp) -> usize {
        let now = seconds(now);
        self.all.lock().values().filter(|it| it.inviter.as_deref() == Some(user.as_str()) && !it.is_over(now)).count()
    }

    pub fn list(&self, now: Stamp) -> Vec<Invitation> {
        let now = seconds(now);
        self.all.lock().values().filter(|it| !it.is_over(now)).cloned().collect()
    }

    /// Takes one back, by its id. `false`: there is none, or the id names several.
    ///
    /// # Errors
    /// For people: it could not be written.
    pub async fn revoke(&self, id: &str) -> Result<bool, String> {
        {
            let mut all = self.all.lock();
            let mut named = all.keys().filter(|digest| id.len() >= 4 && digest.starts_with(id));
            let (Some(digest), None) = (named.next().cloned(), named.next()) else { return Ok(false) };
            all.remove(&digest);
        }
        self.write().await.map_err(|error| format!("that it is revoked could not be written: {error}"))?;
        Ok(true)
    }

    /// May an account be made at the host with this token? Whether it has expired is asked here alone (XEP-0445 §4).
    pub fn admits(&self, token: &str, domain: &str, crypto: &dyn Crypto, now: Stamp) -> bool {
        let Some(digest) = digest_of(crypto, token) else { return false };
        let all = self.all.lock();
        all.get(&digest).is_some_and(|it| it.account && it.domain == domain && !it.is_over(seconds(now)))
    }

    /// Takes one use of a token for a new account; [`Invitations::keep`] or [`Invitations::give_back`] it. `None`: it may
    /// not be used so, or no more. It is to be written before the account is made.
    pub fn claim(&self, token: &str, account: &BareJid, crypto: &dyn Crypto) -> Option<Claim> {
        let digest = digest_of(crypto, token)?;
        let mut all = self.all.lock();
        let it = all.get_mut(&digest)?;
        let fits = it.username.as_deref().is_none_or(|name| account.local() == Some(name));
        if !it.account || it.domain != account.domain() || !fits || it.uses_left == 0 {
            return None;
        }
        it.uses_left -= 1;
        let name = account.local().unwrap_or_default().to_owned();
        it.claimed.push(name.clone());
        Some(it.claim_of(name))
    }

    /// The account was made: the use is spent, also after a restart.
    pub async fn keep(&self, claim: &Claim) {
        {
            let mut all = self.all.lock();
            if let Some(it) = all.get_mut(&claim.digest) {
                it.release(&claim.name);
            }
            all.retain(|digest, it| *digest != claim.digest || it.uses_left > 0 || !it.claimed.is_empty());
        }
        // (If not, it is asked again after a restart what became of it.)
        if let Err(error) = self.write().await {
            tracing::error!(%error, "the use of an invitation could not be written");
        }
    }

    pub async fn give_back(&self, claim: &Claim) {
        if let Some(it) = self.all.lock().get_mut(&claim.digest)
            && it.release(&claim.name)
        {
            it.uses_left = it.uses_left.saturating_add(1);
        }
        if let Err(error) = self.write().await {
            tracing::error!(%error, "that an invitation was not used could not be written");
        }
    }

    /// Uses of which an end of the process left open whether their accounts were made.
    pub fn open_claims(&self) -> Vec<(String, Claim)> {
        let all = self.all.lock();
        let of = |it: &Invitation| -> Vec<(String, Claim)> {
            it.claimed.iter().map(|name| (it.domain.clone(), it.claim_of(name.clone()))).collect()
        };
        all.values().flat_map(of).collect()
    }

    /// Does somebody who wants to be a contact of `inviter` come by an invitation of theirs? Then a use of it is spent;
    /// the caller writes. XEP-0379 §3.5.
    pub fn introduces(&self, token: &str, inviter: &BareJid, crypto: &dyn Crypto, now: Stamp) -> bool {
        let Some(digest) = digest_of(crypto, token) else { return false };
        let mut all = self.all.lock();
        let Some(it) = all.get_mut(&digest) else { return false };
        if it.inviter.as_deref() != Some(inviter.as_str()) || it.username.is_some() || it.is_over(seconds(now)) {
            return false;
        }
        it.uses_left -= 1;
        if it.uses_left == 0 {
            all.remove(&digest);
        }
        true
    }

    /// Is the name kept for somebody who was invited under it? XEP-0445 §5.
    pub fn reserves(&self, account: &BareJid, now: Stamp) -> bool {
        let now = seconds(now);
        let mut all = self.all.lock().clone().into_values();
        all.any(|it| it.domain == account.domain() && it.username.as_deref() == account.local() && !it.is_over(now))
    }

    /// # Errors
    /// Those of the file system.
    pub async fn write(&self) -> std::io::Result<()> {
        let Some(file) = self.file.get().cloned() else { return Ok(()) };
        let _turn = self.writing.lock().await;
        let mut text = String::new();
        for invitation in self.all.lock().values() {
            text.push_str(&serde_json::to_string(invitation).map_err(std::io::Error::other)?);
            text.push('\n');
        }
        let written = tokio::task::spawn_blocking(move || crate::data::write_secret(&file, text.as_bytes())).await;
        written.map_err(std::io::Error::other)?
    }
}

fn seconds(at: Stamp) -> i64 {
    at.0 / 1_000_000
}

fn digest_of(crypto: &dyn Crypto, token: &str) -> Option<String> {
    (!token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then(|| digest(crypto, token))
}

fn digest(crypto: &dyn Crypto, token: &str) -> String {
    crypto.digest(Hash::Sha256, token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::AwsLc;

    const NOW: Stamp = Stamp(1_000_000_000_000_000);
    const LATER: Stamp = Stamp(2_000_000_000_000_000);

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).expect("an address")
    }

    fn wish() -> Wish {
        Wish { domain: "example.org".into(), account: true, seconds: 86_400, uses: 1, ..Wish::default() }
    }

    fn load(folder: &tempfile::TempDir) -> Invitations {
        let invitations = Invitations::default();
        invitations.open(folder.path().join("invitations")).expect("it can be read, or is not there");
        invitations
    }

    fn invitations() -> (tempfile::TempDir, Invitations) {
        let folder = tempfile::tempdir().expect("a folder");
        let invitations = load(&folder);
        (folder, invitations)
    }

    #[tokio::test]
    async fn a_token_makes_as_many_accounts_as_it_says_and_survives_a_restart_until_then() {
        let (folder, invitations) = invitations();
        let (token, _) = invitations.create(Wish { uses: 2, ..wish() }, &AwsLc, NOW).await.expect("there is room");
        assert_eq!(token.len(), TOKEN_LETTERS);
        for name in ["alice@example.org", "bob@example.org"] {
            let again = load(&folder);
            assert!(again.admits(&token, "example.org", &AwsLc, NOW));
            let claim = again.claim(&token, &jid(name), &AwsLc).expect("a use is left");
            again.keep(&claim).await;
        }
        let again = load(&folder);
        assert!(!again.admits(&token, "example.org", &AwsLc, NOW));
        assert!(again.claim(&token, &jid("carol@example.org"), &AwsLc).is_none());
    }

    #[tokio::test]
    async fn the_file_does_not_hold_the_token() {
        let (folder, invitations) = invitations();
        let (token, _) = invitations.create(wish(), &AwsLc, NOW).await.expect("there is room");
        let text = std::fs::read_to_string(folder.path().join("invitations")).expect("it was written");
        assert!(text.contains("example.org") && !text.contains(&token), "{text}");
    }

    #[tokio::test]
    async fn a_token_is_good_for_its_host_its_name_and_its_time_alone() {
        let (_folder, invitations) = invitations();
        let wish = Wish { username: Some("alice".into()), ..wish() };
        let (token, _) = invitations.create(wish, &AwsLc, NOW).await.expect("there is room");
        assert!(!invitations.admits(&token, "example.net", &AwsLc, NOW));
        assert!(!invitations.admits("wrong", "example.org", &AwsLc, NOW));
        assert!(!invitations.admits(&token, "example.org", &AwsLc, LATER));
        assert!(invitations.claim(&token, &jid("bob@example.org"), &AwsLc).is_none());
        assert!(invitations.reserves(&jid("alice@example.org"), NOW));
        assert!(!invitations.reserves(&jid("alice@example.org"), LATER));
        assert!(invitations.claim(&token, &jid("alice@example.org"), &AwsLc).is_some());
    }

    // XEP-0445 §4: a token counts as used only when the registration has succeeded.
    #[tokio::test]
    async fn what_came_to_nothing_is_given_back() {
        let (folder, invitations) = invitations();
        let (token, _) = invitations.create(wish(), &AwsLc, NOW).await.expect("there is room");
        let claim = invitations.claim(&token, &jid("alice@example.org"), &AwsLc).expect("a use is left");
        assert!(invitations.claim(&token, &jid("bob@example.org"), &AwsLc).is_none());
        assert_eq!(load(&folder).open_claims().len(), 0, "it is not written yet");
        invitations.write().await.expect("it can be written");
        let after_a_crash = load(&folder);
        let open = after_a_crash.open_claims();
        let (domain, left) = open.first().expect("it is not decided");
        assert_eq!((domain.as_str(), left.name(), left.mark()), ("example.org", "alice", claim.mark()));
        assert!(after_a_crash.claim(&token, &jid("bob@example.org"), &AwsLc).is_none());
        after_a_crash.give_back(left).await;
        assert!(load(&folder).claim(&token, &jid("bob@example.org"), &AwsLc).is_some());
        invitations.give_back(&claim).await;
        invitations.give_back(&claim).await;
        assert!(invitations.claim(&token, &jid("bob@example.org"), &AwsLc).is_some());
    }

    #[tokio::test]
    async fn a_contact_is_introduced_once_and_to_the_inviter_alone() {
        let (_folder, invitations) = invitations();
        let wish = Wish { inviter: Some(jid("romeo@example.org")), ..wish() };
        let (token, _) = invitations.create(wish, &AwsLc, NOW).await.expect("there is room");
        assert!(!invitations.introduces(&token, &jid("tybalt@example.org"), &AwsLc, NOW));
        assert!(!invitations.introduces(&token, &jid("romeo@example.org"), &AwsLc, LATER));
        assert!(invitations.introduces(&token, &jid("romeo@example.org"), &AwsLc, NOW));
        assert!(!invitations.introduces(&token, &jid("romeo@example.org"), &AwsLc, NOW));
    }

    #[tokio::test]
    async fn a_revoked_invitation_is_void() {
        let (_folder, invitations) = invitations();
        let (token, invitation) = invitations.create(wish(), &AwsLc, NOW).await.expect("there is room");
        assert!(!invitations.revoke("abc").await.expect("nothing is written"));
        assert!(invitations.revoke(invitation.id()).await.expect("it can be written"));
        assert!(!invitations.admits(&token, "example.org", &AwsLc, NOW));
    }

    #[test]
    fn links_are_as_the_specifications_write_them() {
        let of = |username: Option<&str>, inviter: Option<&str>, account| {
            let it = Invitation {
                digest: String::new(),
                domain: "example.org".into(),
                inviter: inviter.map(str::to_owned),
                username: username.map(str::to_owned),
                account,
                created: 0,
                expires: 0,
                uses_left: 1,
                class: None,
                claimed: Vec::new(),
            };
            it.uri("T")
        };
        assert_eq!(of(None, None, true), "xmpp:example.org?register;preauth=T");
        assert_eq!(of(Some("juliet"), None, true), "xmpp:juliet@example.org?register;preauth=T");
        assert_eq!(of(None, Some("romeo@example.org"), true), "xmpp:romeo@example.org?roster;preauth=T;ibr=y");
        assert_eq!(of(None, Some("romeo@example.org"), false), "xmpp:romeo@example.org?roster;preauth=T");
        assert_eq!(of(Some("a#b"), None, true), "xmpp:a%23b@example.org?register;preauth=T");
    }
}
