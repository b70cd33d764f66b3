//! By the client's certificate: whom it names is who it is. RFC 4422 appendix A, XEP-0178 §2.

use super::{Condition, Context, Exchange, Step, claim};
use crate::event::Account;
use xmpp::{BareJid, Jid};

pub(crate) struct Named {
    account: BareJid,
}

/// The message is the authorization identity, or empty. RFC 4422 §A.2.
pub(crate) fn start(message: &[u8], cx: &Context<'_>) -> Result<Step, Condition> {
    let authzid = std::str::from_utf8(message).map_err(|_| Condition::MalformedRequest)?;
    let certificate = cx.tls.and_then(|tls| tls.client_certificate.as_ref()).filter(|certificate| certificate.valid);
    let certificate = certificate.ok_or(Condition::NotAuthorized)?;
    // Only the XmppAddr count, never a common name; and only those of this host.
    let mut accounts: Vec<Jid> = certificate.xmpp_addresses.iter().filter_map(|text| Jid::parse(text).ok()).collect();
    accounts.retain(|jid| jid.is_bare() && jid.local().is_some() && jid.domain() == cx.host);
    accounts.sort();
    accounts.dedup();

    let account = match (authzid, accounts.as_slice()) {
        ("", []) => return Err(Condition::NotAuthorized),
        ("", [only]) => only,
        // XEP-0178 §2: it must say which.
        ("", _) => return Err(Condition::InvalidAuthzid),
        (said, all) => {
            let said = Jid::parse(said).map_err(|_| Condition::InvalidAuthzid)?;
            all.iter().find(|jid| **jid == said).ok_or(Condition::InvalidAuthzid)?
        }
    };
    let account = claim(account.local().unwrap_or_default(), None, cx)?;
    Ok(Step::Lookup(account.clone(), Exchange::ExternalNamed(Named { account })))
}

impl Named {
    pub fn looked_up(self, account: Option<Account>) -> Step {
        match account {
            Some(_) => Step::Done { account: self.account, additional: None, token: None },
            None => Step::Failed(Condition::NotAuthorized, Some(self.account)),
        }
    }
}
