//! What a stream asks before it is bound: who is this, is it the password, which resource. The house answers; each
//! answer has a deadline in the negotiation's.

use super::{Edge, End};
use crate::house::AccountCell;
use im::{Attach, EdgeItem, Item};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use stream::event::{BindRequest, Bound, Event, ManageRequest, Managed, ResumeRequest};
use xmpp::{BareJid, StanzaCondition, StanzaError};

/// An entity answers its edge within this time, or the stream gets an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of randomness in a resumption id. LIMITS.md §2 row 9: unguessable.
const RESUME_ID_BYTES: usize = 18;

impl Edge {
    /// Lets the stream take what was read; answers what it asks.
    pub(super) async fn take_input(&mut self) -> Result<(), End> {
        if self.input.is_empty() && !self.poke {
            return Ok(());
        }
        self.poke = false;
        let input = std::mem::take(&mut self.input);
        let mut rest: &[u8] = &input;
        let mut out = Vec::new();
        let result = loop {
            match self.stream.next(&mut rest, &mut out) {
                Ok(Some(event)) => {
                    let done = match self.on_event(event) {
                        // Before a stream is bound, most often: its future is gone when it talks.
                        Ok(Some(question)) => Box::pin(self.answer(question, &mut out)).await,
                        // What a stanza sets off for thousands is this stream's to wait for, with a turn for others.
                        Ok(None) => match self.rest.take() {
                            Some(rest) => {
                                Box::pin(rest.work()).await;
                                Ok(())
                            }
                            None => Ok(()),
                        },
                        Err(end) => Err(end),
                    };
                    if let Err(end) = done {
                        break Err(end);
                    }
                    if self.is_blocked() {
                        self.poke = true;
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(fault) => break Err(End::Fault(fault)),
            }
        };
        if !rest.is_empty() {
            self.input = rest.to_vec();
        }
        super::wire::recycle(input);
        if !out.is_empty() && self.outlet.lock().wire.write(&out).is_err() {
            return Err(End::Lost);
        }
        result
    }

    /// What a bound stream says all day. Gives back what it cannot answer at once.
    fn on_event(&mut self, event: Event) -> Result<Option<Event>, End> {
        match event {
            Event::Stanza(stanza) => self.on_stanza(stanza),
            Event::BadStanza(fault) => self.on_bad_stanza(*fault),
            Event::Acked(h) => {
                self.outlet.lock().ack_asked = None;
                self.tell_account(|session| Item::Acked { session, h });
            }
            Event::AckRequested => self.on_ack_request(),
            Event::ClientState { active } => self.tell_account(|session| Item::ClientState { session, active }),
            Event::Manage(request) => {
                let request = self.management(request);
                self.tell_account(|session| Item::Manage { session, request });
            }
            Event::Closed => return Err(End::Closed),
            question => return Ok(Some(question)),
        }
        Ok(None)
    }

    /// What a stream asks until it is bound.
    async fn answer(&mut self, event: Event, out: &mut Vec<u8>) -> Result<(), End> {
        match event {
            Event::StartTls => {
                self.flush(out).await?;
                self.handshake().await?;
            }
            Event::Lookup(lookup) => {
                let found = self.house.look_up(&lookup).await;
                match found {
                    Ok(account) => self.stream.looked_up(account, self.house.now().utc, out),
                    Err(_) => self.stream.auth_unavailable(out),
                }
            }
            Event::CheckPassword(check) => match self.house.check_password(check, &self.config.crypto).await {
                Some(good) => self.stream.password_checked(good, out),
                None => self.stream.auth_unavailable(out),
            },
            Event::Authenticated(who) => {
                self.authenticated = true;
                self.permit.authenticated();
                self.house.count("logins");
                crate::latency::LOGINS.add(self.began.elapsed());
                tracing::info!(account = %who.account, mechanism = who.mechanism.name(), address = %self.address, "authenticated");
                if who.mechanism == stream::sasl::Mechanism::Anonymous && !self.house.open_anonymous(&who.account) {
                    return Err(End::Fault(xmpp::StreamFault::InternalError));
                }
            }
            Event::AuthFailed(failed) => {
                self.house.count("auth_failures");
                tracing::info!(account = ?failed.account, mechanism = ?failed.mechanism.map(|m| m.name()), condition = ?failed.condition, address = %self.address, "login failed");
                self.authenticated = false;
                // Only what could be a guess counts against the address, not an abort or our own trouble.
                if failed.is_guess() {
                    let wait = self.permit.failed(failed.account.as_ref(), self.house.now().mono_ms);
                    if wait > 0 {
                        self.house.limit("auth_failures_delay_after");
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                }
            }
            Event::PutToken(token) => {
                let stored = match self.stream.account().cloned() {
                    Some(account) => self.house.put_token(&account, token).await,
                    None => false,
                };
                self.stream.token_stored(stored, out);
            }
            Event::Invited(token) => {
                let outcome = self.house.admit(&token, self.stream.host().unwrap_or_default());
                if outcome.is_err() {
                    // Whoever tries tokens is slowed down, and then kept out, as whoever tries passwords.
                    let wait = self.permit.failed(None, self.house.now().mono_ms);
                    if wait > 0 {
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                }
                self.stream.admitted(outcome, out);
            }
            Event::Register(registration) => {
                let permitted = self.permit_to_register(registration.token.is_some());
                let outcome = self.house.register(registration, permitted).await;
                if permitted && outcome.is_err() {
                    self.permit.not_registered(self.address);
                }
                self.stream.registered(outcome, out);
            }
            Event::Bind(request) => self.bind(request, out).await?,
            Event::Resume(request) => self.resume(request, out).await?,
            Event::Stanza(_)
            | Event::BadStanza(_)
            | Event::Acked(_)
            | Event::AckRequested
            | Event::ClientState { .. }
            | Event::Manage(_)
            | Event::Closed => {}
        }
        Ok(())
    }

    fn permit_to_register(&self, invited: bool) -> bool {
        self.permit.may_register(self.address, invited, self.house.now().mono_ms)
    }

    fn management(&self, request: ManageRequest) -> im::item::ManagementRequest {
        use base64::Engine;
        let mut random = [0; RESUME_ID_BYTES];
        self.config.crypto.random(&mut random);
        // CLUSTER rule 10: the epoch is in every resumption id.
        let id = format!(
            "{:x}-{}",
            self.house.store.epoch(),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
        );
        im::item::ManagementRequest { resume: request.resume, max: request.max, id: id.into() }
    }

    /// RFC 6120 §7, XEP-0386: the account gives the session.
    async fn bind(&mut self, request: BindRequest, out: &mut Vec<u8>) -> Result<(), End> {
        let Some(account) = self.stream.account().cloned() else {
            return Err(End::Fault(xmpp::StreamFault::InternalError));
        };
        let mut seed = [0; 8];
        self.config.crypto.random(&mut seed);
        let attach = Attach {
            edge: self.handle.id,
            resource: request.resource,
            seed: u64::from_le_bytes(seed),
            client: request.client,
            bind2: request.bind2,
            carbons: request.carbons,
            inactive: request.inactive,
            management: request.management.map(|m| self.management(m)),
            stream: self.incarnation,
            roles: roles_of(&request.others).and(self.config.roles),
            secure: self.stream.is_encrypted(),
        };
        let cell = self.ask_account(&account, Item::Attach(attach));
        match self.reply(out).await? {
            EdgeItem::Attached { session, jid, management } => {
                self.cell = Some(cell);
                self.session = Some(session);
                if management.is_some() {
                    self.incarnation = super::talk::managed_incarnation(self.incarnation);
                }
                tracing::debug!(%jid, "bound");
                self.house.has_come(&account);
                let more = if request.bind2 { self.house.archive_metadata(&account).await } else { None };
                self.stream
                    .bound(Bound { jid, managed: management.map(managed), more: more.into_iter().collect() }, out);
                self.outlet.lock().count(self.stream.counting());
                Ok(())
            }
            EdgeItem::AttachRefused(error) => {
                self.stream.bind_refused(&error, out);
                Ok(())
            }
            EdgeItem::Close(fault) => Err(End::Fault(fault)),
            _ => {
                self.stream.bind_refused(&StanzaError::from(StanzaCondition::InternalServerError), out);
                Ok(())
            }
        }
    }

    /// XEP-0198 §5: the id finds the account; it must be the one that authenticated.
    async fn resume(&mut self, request: ResumeRequest, out: &mut Vec<u8>) -> Result<(), End> {
        let owner = self.house.resumable.get(&request.id).map(|o| o.clone());
        let account = self.stream.account().cloned();
        // A session of before a restart is known by its account's ledger alone.
        let Some(account) = account.filter(|account| owner.is_none_or(|owner| owner == *account)) else {
            self.stream.resume_refused(StanzaCondition::ItemNotFound, None, out);
            return Ok(());
        };
        let cell = self.ask_account(&account, Item::Resume { edge: self.handle.id, id: request.id, h: request.h });
        match self.reply(out).await? {
            EdgeItem::Resumed { session, jid, id, received, stream, .. } => {
                self.cell = Some(cell);
                self.session = Some(session);
                self.incarnation = super::talk::managed_incarnation(stream);
                self.received = received;
                self.managed_from = 0;
                self.handle.set_done_prefix(received);
                self.house.count("resumptions");
                tracing::debug!(%jid, "resumed");
                self.stream.resumed(jid, &id, received, out);
                self.outlet.lock().count(self.stream.counting());
                Ok(())
            }
            EdgeItem::ResumeRefused { h } => {
                self.stream.resume_refused(StanzaCondition::ItemNotFound, h, out);
                Ok(())
            }
            EdgeItem::Close(fault) => Err(End::Fault(fault)),
            _ => {
                self.stream.resume_refused(StanzaCondition::InternalServerError, None, out);
                Ok(())
            }
        }
    }

    /// Posts to the account and gives its cell, which stays in memory while it has a session.
    fn ask_account(&self, account: &BareJid, item: Item) -> Arc<AccountCell> {
        self.house.post(account, item);
        self.house.cell(account)
    }

    /// The entity's answer: the next item in the queue.
    async fn reply(&mut self, out: &mut Vec<u8>) -> Result<EdgeItem, End> {
        self.flush_some(out)?;
        let next = poll_fn(|cx| self.handle.poll_first(cx.waker()));
        tokio::time::timeout(ANSWER_TIMEOUT, next).await.map_err(|_| End::Fault(xmpp::StreamFault::InternalError))
    }

    fn flush_some(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        if !out.is_empty() {
            self.outlet.lock().wire.write(out).map_err(|_| End::Lost)?;
            out.clear();
        }
        Ok(())
    }

    /// Writes `out` and waits until the kernel has it all.
    async fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        self.flush_some(out)?;
        let flushed = poll_fn(|cx| self.outlet.lock().wire.poll_flush(cx));
        match tokio::time::timeout(self.config.limits.write_timeout, flushed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Lost),
        }
    }
}

pub(super) fn managed(granted: im::effects::Managed) -> Managed {
    Managed { max: granted.id.is_some().then_some(granted.max), id: granted.id, location: granted.location }
}

/// The roles that a bind request asks for: all, if it says none; none, if what it says is not known.
fn roles_of(others: &[xmpp::Element]) -> im::roles::Roles {
    use im::roles::{NS, Roles};
    match others.iter().find(|it| it.is("roles", NS)) {
        Some(roles) => Roles::parse(roles).unwrap_or(Roles::NONE),
        None => Roles::ALL,
    }
}
