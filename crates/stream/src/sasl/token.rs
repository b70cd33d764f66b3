//! Hashed tokens: one round trip with a secret that the server gave before. XEP-0484, draft-schmaus-kitten-sasl-ht-09.

use super::offer::token_binding;
use super::{Condition, Context, Exchange, Mechanism, Step, claim};
use crate::config::Fast;
use crate::crypto::{Crypto, Hash};
use crate::event::{Account, Secret, Token};
use crate::frame::random_id;
use xmpp::{BareJid, Stamp};

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
const MICROS: i64 = 1_000_000;

pub(crate) struct Named {
    mechanism: Mechanism,
    account: BareJid,
    /// HMAC(token, "Initiator" || binding data).
    hashed: Vec<u8>,
}

/// A token that was good.
#[derive(Debug)]
pub(crate) struct Used {
    pub token: Token,
    /// It was the one before: the client never heard of the newer.
    pub previous: bool,
}

/// `authcid NUL hashed-token`. draft-schmaus-kitten-sasl-ht-09 §3.1.
pub(crate) fn start(mechanism: Mechanism, message: &[u8], cx: &Context<'_>) -> Result<Step, Condition> {
    let nul = message.iter().position(|byte| *byte == 0).ok_or(Condition::MalformedRequest)?;
    let user = std::str::from_utf8(&message[..nul]).map_err(|_| Condition::MalformedRequest)?;
    if user.is_empty() {
        return Err(Condition::MalformedRequest);
    }
    let account = claim(user, None, cx)?;
    let named = Named { mechanism, account: account.clone(), hashed: message[nul + 1..].to_vec() };
    Ok(Step::Lookup(account, Exchange::TokenNamed(Box::new(named))))
}

impl Named {
    /// The newer token is tried first, then the one before. XEP-0484 §5.1.
    pub fn looked_up(self, account: Option<Account>, now: Stamp, cx: &Context<'_>) -> Step {
        let failed = |condition| Step::Failed(condition, Some(self.account.clone()));
        let binding = match token_binding(self.mechanism) {
            None => &[][..],
            Some(binding) => match binding.data(cx.tls) {
                Some(data) => data,
                None => return failed(Condition::NotAuthorized),
            },
        };
        let hmac = |secret: &[u8], who: &str| cx.crypto.hmac(Hash::Sha256, secret, &[who.as_bytes(), binding].concat());
        let is_this = |secret: &[u8]| cx.crypto.eq_constant_time(&hmac(secret, "Initiator"), &self.hashed);

        let tokens = account.map(|account| account.tokens).unwrap_or_default();
        // A token is good for the mechanism that it was asked for, no other. XEP-0484 §3.4.
        let token =
            tokens.into_iter().find(|token| token.mechanism == self.mechanism && Some(&*token.client) == cx.client);
        let Some(token) = token else {
            let _same_time = is_this(&cx.config.secret);
            return failed(Condition::NotAuthorized);
        };
        let old = token.previous.as_ref().filter(|(secret, _)| is_this(&secret.0)).map(|(_, expires)| *expires);
        let previous = !is_this(&token.secret.0);
        let expires = match (previous, old) {
            (false, _) => token.expires,
            (true, Some(expires)) => expires,
            (true, None) => return failed(Condition::NotAuthorized),
        };
        if expires <= now {
            return failed(Condition::CredentialsExpired);
        }
        let secret = match &token.previous {
            Some((secret, _)) if previous => secret,
            _ => &token.secret,
        };
        let additional = Some(hmac(&secret.0, "Responder"));
        let account = self.account;
        Step::Done { account, additional, token: Some(Box::new(Used { token, previous })) }
    }
}

/// What is to happen to tokens when an authentication has succeeded.
#[derive(Debug)]
pub(crate) enum TokenChange {
    /// `tell`: it is new, the client hears of it when it is stored.
    Put { token: Token, tell: bool },
    /// Good no more. It is kept as one that has expired, so that whoever knows it is told so.
    End { token: Token },
}

/// What the client said of tokens. XEP-0484 §3.2, §3.4, §3.6.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TokenWishes {
    /// `<fast count=…/>`.
    pub count: Option<u32>,
    pub invalidate: bool,
    /// `<request-token mechanism=…/>`, of those offered.
    pub request: Option<Mechanism>,
}

/// Decides on tokens: rotation, replays, invalidation, requests.
///
/// # Errors
/// `not-authorized` for a `count` that was seen before. XEP-0484 §3.4.
pub(crate) fn changes(
    used: Option<Used>,
    wishes: TokenWishes,
    client: Option<&str>,
    fast: Fast,
    now: Stamp,
    crypto: &dyn Crypto,
) -> Result<Vec<TokenChange>, Condition> {
    let mut changes = Vec::new();
    let fresh = |client: &str, mechanism, previous| Token {
        client: client.into(),
        mechanism,
        secret: Secret(random_id(crypto, TOKEN_BYTES).into_bytes()),
        expires: Stamp(now.0.saturating_add(i64::from(fast.lifetime_seconds) * MICROS)),
        previous,
        count: 0,
    };
    let mut request = wishes.request;
    if let Some(Used { mut token, previous }) = used {
        // The counts of the token before are not kept: without 0-RTT, TLS itself forbids replays.
        let seen = |count: u32| token.count > 0 && count <= token.count;
        if !previous && wishes.count.is_some_and(seen) {
            return Err(Condition::NotAuthorized);
        }
        let issued = token.expires.0.saturating_sub(i64::from(fast.lifetime_seconds) * MICROS);
        let is_old = now.0.saturating_sub(issued) > i64::from(fast.rotate_after_seconds) * MICROS;
        let asked = request == Some(token.mechanism);
        if wishes.invalidate {
            changes.push(match asked {
                true => TokenChange::Put { token: fresh(&token.client, token.mechanism, None), tell: true },
                false => {
                    token.previous = None;
                    token.expires = now;
                    TokenChange::End { token }
                }
            });
        } else if previous || is_old || asked {
            // The one that was used stays good until the client uses the new one. XEP-0484 §3.5.
            let used = match token.previous.take() {
                Some(before) if previous => before,
                _ => (token.secret.clone(), token.expires),
            };
            changes.push(TokenChange::Put { token: fresh(&token.client, token.mechanism, Some(used)), tell: true });
        } else {
            let count = wishes.count.unwrap_or(token.count);
            if token.previous.take().is_some() || count != token.count {
                token.count = count;
                changes.push(TokenChange::Put { token, tell: false });
            }
        }
        if asked {
            request = None;
        }
    }
    // A token belongs to a client: without its id there is none. XEP-0484 §4.1.
    if let (Some(mechanism), Some(client)) = (request, client) {
        changes.push(TokenChange::Put { token: fresh(client, mechanism, None), tell: true });
    }
    Ok(changes)
}
