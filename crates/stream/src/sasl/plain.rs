//! The password itself, only ever under TLS. RFC 4616.

use super::{Condition, Context, Exchange, Step, claim, fake_keys};
use crate::crypto::Hash;
use crate::event::{Account, CheckPassword};
use crate::password::prepare_password;
use xmpp::BareJid;
use zeroize::Zeroizing;

pub(crate) struct Named {
    account: BareJid,
    password: Zeroizing<String>,
}

pub(crate) struct Checked {
    account: BareJid,
    known: bool,
}

/// `[authzid] NUL authcid NUL password`. RFC 4616 §2.
pub(crate) fn start(message: &[u8], cx: &Context<'_>) -> Result<Step, Condition> {
    let message = std::str::from_utf8(message).map_err(|_| Condition::MalformedRequest)?;
    let mut parts = message.split('\0');
    let (Some(authzid), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Condition::MalformedRequest);
    };
    if user.is_empty() || password.is_empty() {
        return Err(Condition::MalformedRequest);
    }
    let account = claim(user, Some(authzid).filter(|authzid| !authzid.is_empty()), cx)?;
    // What cannot be a password is not this one's.
    let password = prepare_password(password).ok_or(Condition::NotAuthorized)?;
    let named = Named { account: account.clone(), password };
    Ok(Step::Lookup(account, Exchange::PlainNamed(Box::new(named))))
}

impl Named {
    /// Asks for the check, also of a user that does not exist.
    pub fn looked_up(self, account: Option<Account>, cx: &Context<'_>) -> Step {
        let missing = account.as_ref().and_then(|account| match (&account.scram_sha256, &account.scram_sha1) {
            (None, Some(_)) => Some(Hash::Sha256),
            (Some(_), None) => Some(Hash::Sha1),
            _ => None,
        });
        let keys = account.and_then(|account| match (account.scram_sha256, account.scram_sha1) {
            (Some(keys), _) => Some((Hash::Sha256, keys)),
            (None, Some(keys)) => Some((Hash::Sha1, keys)),
            (None, None) => None,
        });
        let known = keys.is_some();
        let (hash, keys) = keys.unwrap_or_else(|| (Hash::Sha256, fake_keys(Hash::Sha256, &self.account, cx)));
        let check = CheckPassword { account: self.account.clone(), hash, password: self.password, keys, missing };
        Step::Check(Box::new(check), Exchange::PlainChecked(Checked { account: self.account, known }))
    }
}

impl Checked {
    pub fn checked(self, good: bool) -> Step {
        match good && self.known {
            true => Step::Done { account: self.account, additional: None, token: None },
            false => Step::Failed(Condition::NotAuthorized, Some(self.account)),
        }
    }
}
