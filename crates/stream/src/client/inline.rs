//! What SASL2 carries inline: tokens, then resumption, then binding. XEP-0388 §2.6.1, XEP-0386 §3.2.

use super::{ClientStream, Inline, Stage, Wait};
use crate::event::{AuthFailed, Event};
use crate::sasl::Condition;
use crate::sasl::request::{FAST, resource};
use crate::sasl::token::TokenChange;
use crate::sasl::wire::{self, Profile, SASL2};
use crate::{features, management};
use xmpp::{Element, StanzaCondition};

impl ClientStream {
    /// Asks for the next thing, or tells the success when all is done.
    pub(super) fn inline(&mut self, out: &mut Vec<u8>) {
        let Some(inline) = self.negotiation.as_mut().and_then(|negotiation| negotiation.inline.as_mut()) else {
            return;
        };
        if let Some(change) = inline.changes.front() {
            let (TokenChange::Put { token, .. } | TokenChange::End { token }) = change;
            self.events.push_back(Event::PutToken(token.clone()));
            self.waits = Some(Wait::Token);
        } else if let Some(resume) = inline.resume.take() {
            self.events.push_back(Event::Resume(resume));
            self.waits = Some(Wait::Resume);
        } else if let Some(mut bind) = inline.bind.take() {
            let account = self.account.as_ref().expect("inline requests come after authentication");
            bind.resource = Some(resource(&bind, account, &self.config.secret, &*self.crypto).into());
            self.events.push_back(Event::Bind(bind));
            self.waits = Some(Wait::Bind);
        } else {
            let account = self.account.clone().expect("inline requests come after authentication");
            self.success(account.as_str(), out, |_, _| {});
            self.stage = Stage::Binding;
            features::after_auth(out, &self.frames, &self.config, self.policy(), true, false);
        }
    }

    /// `<success/>`, with what `told` adds. XEP-0388 §2.6.1.
    pub(super) fn success(&mut self, identity: &str, out: &mut Vec<u8>, told: impl FnOnce(&Inline, &mut Vec<u8>)) {
        let Some(inline) = self.negotiation().inline.take() else {
            return;
        };
        wire::begin_success(out, inline.additional.as_deref(), identity);
        if let Some((condition, h)) = inline.resume_failed {
            management::write_failed(out, condition, h);
        }
        told(&inline, out);
        if let Some((token, expires)) = &inline.token {
            let token = Element::new("token", FAST).attr("expiry", expires.to_xmpp()).attr("token", token);
            token.write(out, SASL2);
        }
        out.extend_from_slice(wire::SUCCESS_END);
        self.frames.set_limits(self.config.limits_after_auth.clone());
    }

    pub(super) fn is_inline(&self) -> bool {
        self.negotiation.as_ref().is_some_and(|negotiation| negotiation.inline.is_some())
    }

    /// Answers [`Event::PutToken`]. A token that could not be stored is not told; one that could not be ended fails the
    /// authentication, as it must not stay good unnoticed (XEP-0484 §3.6).
    pub fn token_stored(&mut self, stored: bool, out: &mut Vec<u8>) {
        if !self.answers(Wait::Token) {
            return;
        }
        let Some(inline) = self.negotiation().inline.as_mut() else {
            return;
        };
        match inline.changes.pop_front() {
            Some(TokenChange::Put { token, tell: true }) if stored => {
                inline.token = Some((String::from_utf8_lossy(&token.secret.0).into_owned(), token.expires));
            }
            Some(TokenChange::End { .. }) if !stored => {
                return self.inline_failed(StanzaCondition::InternalServerError, out);
            }
            _ => {}
        }
        self.inline(out);
    }

    /// Authenticated, but what must come with the success cannot be: nothing has happened, the client may try again.
    pub(super) fn inline_failed(&mut self, reason: StanzaCondition, out: &mut Vec<u8>) {
        self.negotiation().inline = None;
        let account = self.account.take();
        let condition = Condition::TemporaryAuthFailure;
        Profile::Sasl2.failure(out, condition, Some(reason));
        self.events.push_back(Event::AuthFailed(AuthFailed { account, mechanism: None, condition }));
        self.count_failure();
    }
}
