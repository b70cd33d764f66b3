//! Authentication. RFC 6120 §6, XEP-0388.

use super::{Attempt, ClientStream, Inline, Stage, Wait};
use crate::event::{Account, AuthFailed, Authenticated, BindRequest, Event, Lookup};
use crate::sasl::offer::Offer;
use crate::sasl::request::Request;
use crate::sasl::token::{self, TokenWishes};
use crate::sasl::wire::{self, Profile};
use crate::sasl::{self, Condition, Context, Exchange, Mechanism, Step};
use xmpp::xml::Raw;
use xmpp::{BareJid, Element, Stamp, StreamFault};
use zeroize::Zeroizing;

impl ClientStream {
    pub(super) fn sasl(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let element = raw.to_element();
        let Some(profile) = Profile::of(raw.ns()) else {
            return Err(StreamFault::StanzaBeforeAuth);
        };
        let attempt = self.negotiation().attempt.take();
        if attempt.as_ref().is_some_and(|attempt| attempt.profile != profile) {
            return Err(StreamFault::StanzaBeforeAuth);
        }
        match (raw.name(), attempt) {
            ("auth", attempt) => {
                // A new handshake discards the one that is under way. RFC 6120 §6.4.2.
                if attempt.is_some() && self.count_failure() {
                    return Ok(());
                }
                self.auth(&element, out);
            }
            ("authenticate", None) => self.authenticate(&element, out),
            ("response", Some(mut attempt)) => {
                let decoded = profile.decode(&Zeroizing::new(element.text_content()));
                let exchange = attempt.exchange.take();
                let step = match decoded {
                    Ok(message) => {
                        let offer = self.offer();
                        sasl::respond(exchange, &message, &self.context(&attempt.request, &offer))
                    }
                    Err(condition) => condition.into(),
                };
                self.stepped(attempt, step, out);
            }
            ("abort", attempt) => {
                self.failed(profile, attempt.map(|attempt| attempt.mechanism), Condition::Aborted, None, out);
            }
            // No handshake is under way.
            ("response", None) => self.failed(profile, None, Condition::MalformedRequest, None, out),
            // XEP-0388 §2.4.
            _ => return Err(StreamFault::UnsupportedStanzaType(raw.name().into())),
        }
        Ok(())
    }

    /// `<auth/>`, RFC 6120 §6.4.2.
    fn auth(&mut self, element: &Element, out: &mut Vec<u8>) {
        let text = Zeroizing::new(element.text_content());
        let initial = if text.is_empty() { Ok(None) } else { Profile::Sasl.decode(&text).map(Some) };
        let mechanism = element.attribute("mechanism").unwrap_or_default().to_owned();
        match initial {
            Ok(initial) => {
                let request = Request { mechanism, initial, ..Request::default() };
                self.begin(Profile::Sasl, request, out);
            }
            Err(condition) => self.failed(Profile::Sasl, Mechanism::from_name(&mechanism), condition, None, out),
        }
    }

    /// `<authenticate/>`, XEP-0388 §2.3.
    fn authenticate(&mut self, element: &Element, out: &mut Vec<u8>) {
        match Request::read(element) {
            Ok(request) => self.begin(Profile::Sasl2, request, out),
            Err(condition) => self.failed(Profile::Sasl2, None, condition, None, out),
        }
    }

    fn begin(&mut self, profile: Profile, request: Request, out: &mut Vec<u8>) {
        let offer = self.offer();
        match self.pick(profile, &request, &offer) {
            Ok(mechanism) => {
                let step = {
                    let context = self.context(&request, &offer);
                    sasl::start(mechanism, request.initial.as_deref().map(Vec::as_slice), &context)
                };
                let attempt = Attempt {
                    profile,
                    mechanism,
                    exchange: Exchange::Initial(mechanism),
                    request,
                    disabled: false,
                    now: Stamp::default(),
                };
                self.stepped(attempt, step, out);
            }
            Err(condition) => {
                self.failed(profile, Mechanism::from_name(&request.mechanism), condition, None, out);
            }
        }
    }

    /// Only what was offered, where it was offered.
    fn pick(&self, profile: Profile, request: &Request, offer: &Offer) -> Result<Mechanism, Condition> {
        let host = self.policy();
        if profile == Profile::Sasl2 && !offer.sasl2 {
            let hidden = host.sasl2 && !self.encrypted;
            return Err(if hidden { Condition::EncryptionRequired } else { Condition::InvalidMechanism });
        }
        if request.fast {
            let mechanism = Mechanism::from_name(&request.mechanism);
            return mechanism.filter(|mechanism| offer.fast.contains(mechanism)).ok_or(Condition::InvalidMechanism);
        }
        offer.pick(&request.mechanism, host, self.encrypted)
    }

    fn context<'a>(&'a self, request: &'a Request, offer: &'a Offer) -> Context<'a> {
        let from = self.negotiation.as_ref().and_then(|negotiation| negotiation.from.as_ref());
        Context {
            crypto: &*self.crypto,
            config: &self.config,
            host: self.host.as_deref().unwrap_or_default(),
            tls: self.tls(),
            from: from.filter(|_| self.encrypted),
            client: request.client(),
            offer,
        }
    }

    fn stepped(&mut self, mut attempt: Attempt, step: Step, out: &mut Vec<u8>) {
        match step {
            Step::Challenge(data, exchange) => {
                attempt.profile.challenge(out, &data);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Lookup(account, exchange) => {
                let (mechanism, client) = (attempt.mechanism, attempt.request.client().map(Into::into));
                self.events.push_back(Event::Lookup(Lookup { account, mechanism, client }));
                self.waits = Some(Wait::Lookup);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Check(check, exchange) => {
                self.events.push_back(Event::CheckPassword(*check));
                self.waits = Some(Wait::Password);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Done { account, .. } if attempt.disabled => {
                let condition = Condition::AccountDisabled;
                self.failed(attempt.profile, Some(attempt.mechanism), condition, Some(account), out);
            }
            Step::Done { account, additional, token } => self.authenticated(attempt, account, additional, token, out),
            Step::Failed(condition, account) => {
                self.failed(attempt.profile, Some(attempt.mechanism), condition, account, out);
            }
        }
    }

    /// Answers [`Event::Lookup`]. `now` is UTC, for the expiry of tokens.
    pub fn looked_up(&mut self, account: Option<Account>, now: Stamp, out: &mut Vec<u8>) {
        if !self.answers(Wait::Lookup) {
            return;
        }
        let mut attempt = self.negotiation().attempt.take().expect("a lookup belongs to an attempt");
        attempt.now = now;
        attempt.disabled = account.as_ref().is_some_and(|account| account.disabled);
        let exchange = attempt.exchange.take();
        let offer = self.offer();
        let step = sasl::looked_up(exchange, account, now, &self.context(&attempt.request, &offer));
        self.stepped(attempt, step, out);
    }

    /// Answers [`Event::CheckPassword`].
    pub fn password_checked(&mut self, good: bool, out: &mut Vec<u8>) {
        if !self.answers(Wait::Password) {
            return;
        }
        let mut attempt = self.negotiation().attempt.take().expect("a check belongs to an attempt");
        let step = sasl::checked(attempt.exchange.take(), good);
        self.stepped(attempt, step, out);
    }

    /// Answers [`Event::Lookup`] or [`Event::CheckPassword`] when we cannot say: `temporary-auth-failure`.
    pub fn auth_unavailable(&mut self, out: &mut Vec<u8>) {
        let wait = if self.waits == Some(Wait::Password) { Wait::Password } else { Wait::Lookup };
        if !self.answers(wait) {
            return;
        }
        let attempt = self.negotiation().attempt.take().expect("a question belongs to an attempt");
        self.failed(attempt.profile, Some(attempt.mechanism), Condition::TemporaryAuthFailure, None, out);
    }

    /// Tells the failure. The stream and what was said before stay as they were. RFC 6120 §6.4.5, XEP-0388 §2.6.2.
    fn failed(
        &mut self,
        profile: Profile,
        mechanism: Option<Mechanism>,
        condition: Condition,
        account: Option<BareJid>,
        out: &mut Vec<u8>,
    ) {
        profile.failure(out, condition, None);
        self.events.push_back(Event::AuthFailed(AuthFailed { account, mechanism, condition }));
        self.count_failure();
    }

    /// Says whether it was one too many.
    pub(super) fn count_failure(&mut self) -> bool {
        let negotiation = self.negotiation();
        negotiation.failures += 1;
        let too_many = negotiation.failures >= self.config.auth_attempts_max;
        if too_many {
            self.fault = Some(StreamFault::TooManyAuthFailures);
        }
        too_many
    }

    fn authenticated(
        &mut self,
        mut attempt: Attempt,
        account: BareJid,
        additional: Option<Vec<u8>>,
        token: Option<Box<token::Used>>,
        out: &mut Vec<u8>,
    ) {
        let mechanism = attempt.mechanism;
        let agent = attempt.request.agent.take();
        let changes = match self.policy().fast {
            // Nobody comes back to an anonymous account.
            Some(fast) if attempt.profile == Profile::Sasl2 && mechanism != Mechanism::Anonymous => {
                let client = agent.as_ref().and_then(|agent| agent.id.as_deref());
                let offered = self.offer().fast;
                let request = attempt.request.tokens.request.filter(|mechanism| offered.contains(mechanism));
                let wishes = TokenWishes { request, ..attempt.request.tokens };
                token::changes(token.map(|used| *used), wishes, client, fast, attempt.now, &*self.crypto)
            }
            _ => Ok(Vec::new()),
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(condition) => return self.failed(attempt.profile, Some(mechanism), condition, Some(account), out),
        };
        let client = agent.as_ref().and_then(|agent| agent.id.clone());
        self.account = Some(account.clone());
        self.events.push_back(Event::Authenticated(Authenticated { account, mechanism, agent }));
        match attempt.profile {
            Profile::Sasl => {
                wire::success(out, additional.as_deref());
                self.frames.restart();
                self.frames.set_limits(self.config.limits_after_auth.clone());
                self.stage = Stage::Header;
            }
            Profile::Sasl2 => {
                let bind = attempt.request.bind.take().map(|bind| BindRequest { client, ..bind });
                self.negotiation().inline = Some(Inline {
                    additional,
                    changes: changes.into(),
                    resume: attempt.request.resume.take(),
                    manage_asked: bind.as_ref().is_some_and(|bind| bind.management.is_some()),
                    bind,
                    ..Inline::default()
                });
                self.inline(out);
            }
        }
    }
}
