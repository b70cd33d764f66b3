//! Connected resources of an account. RFC 6121 §1: connected, available, interested.

use crate::account::Account;
use crate::doubts;
use crate::effects::{Delivery, EdgeItem, Effect, Effects};
use crate::inbox;
use crate::item::{Attach, DetachReason, EdgeRef, SessionId, Ticket};
use crate::late::{self, Late};
use crate::leases;
use crate::messages;
use crate::modules::{self, client_state, client_state::Held, fetch, interest::Interest, push, subscription_status};
use crate::policy::{Limits, ResourceConflict};
use crate::presence;
use crate::resume::{self, Management};
use crate::retention;
use crate::roles::{self, Roles};
use crate::rules::change;
use crate::strangers::Strangers;
use crate::watchers;
use std::collections::VecDeque;
use std::sync::Arc;
use store::{Change, SessionRow};
use xmpp::write::{Additions, to_stored};
use xmpp::{
    BareJid, FullJid, Jid, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType, StreamCondition, StreamFault,
};

/// One bound resource. Its stream (the *edge*) may come and go.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub jid: FullJid,
    /// The resource is random: nobody can know it but whom it was shown.
    pub is_secret: bool,
    /// `None`: the stream broke and the session waits for resumption.
    pub edge: Option<EdgeRef>,
    /// Has asked for the roster. RFC 6121 §2.2.
    pub interested: bool,
    /// Hears of each watcher. See [`crate::watchers`].
    pub watches_watchers: bool,
    /// Has asked for the block list. XEP-0191 §3.
    pub knows_blocks: bool,
    /// Has asked for the access rules.
    pub knows_rules: bool,
    pub carbons: bool,
    /// XEP-0352.
    pub inactive: bool,
    /// What waits while it is.
    pub held: Held,
    /// The last presence it broadcast; `None`: not available.
    pub presence: Option<Arc<Stanza>>,
    /// When it was sent.
    pub presence_at: Stamp,
    /// Of the last presence; RFC 6121 §4.7.2.3.
    pub priority: i8,
    /// What it is.
    pub roles: Roles,
    /// It is there, and is no presentity: nobody is shown it.
    pub unseen: bool,
    /// Whom directed presence went to. RFC 6121 §4.6.
    pub directed: Vec<Jid>,
    /// The latest of those whom it was taken back from.
    pub parted: VecDeque<Jid>,
    /// Stream management, when enabled. XEP-0198.
    pub management: Option<Management>,
    /// Without stream management: messages to keep that were queued to the stream and are not yet known to be written,
    /// with the number of the delivery on this stream.
    pub unwritten: VecDeque<(u64, Delivery)>,
    /// Deliveries queued to the present stream.
    pub queued: u64,
    /// … and of these, how many it said that it has written (not with stream management).
    pub written: u64,
    /// Rough bytes of those that it has not.
    pub queued_bytes: usize,
    /// Presence that waits for room in its queue.
    pub late: Option<Box<Late>>,
    /// Greatest position queued to it.
    pub cursor: i64,
    /// Stream identity for ingress ids; kept over resumption.
    pub stream: u64,
    /// What is archived up to this position the client reads from the archive by itself. XEP-0386 §3.2.
    pub archive_to: i64,
    pub client: Option<Box<str>>,
    pub since: Stamp,
    /// Has its row in the ledger been committed, and with what presence?
    pub in_ledger: bool,
    /// The row is behind; written with the next batch.
    pub ledger_touched: bool,
    /// What its client wants to be told of. XEP-0163 §4.2.
    pub interest: Interest,
    /// What the server has put into its presence of the avatar: the hash, or that there is none (empty). XEP-0398 §4.
    pub avatar_told: Option<Box<str>>,
    /// Whom it has written to.
    pub strangers: Strangers,
    /// A bound was passed: the session ends with this step and is given nothing more.
    pub overrun: bool,
}

impl Session {
    /// A resource that is connected and nothing more.
    pub fn new(id: SessionId, jid: FullJid, edge: EdgeRef, since: Stamp) -> Session {
        Session {
            id,
            jid,
            is_secret: false,
            edge: Some(edge),
            interested: false,
            watches_watchers: false,
            knows_blocks: false,
            knows_rules: false,
            carbons: false,
            inactive: false,
            held: Held::default(),
            presence: None,
            roles: Roles::ALL,
            unseen: false,
            presence_at: since,
            priority: 0,
            directed: Vec::new(),
            parted: VecDeque::new(),
            management: None,
            unwritten: VecDeque::new(),
            queued: 0,
            written: 0,
            queued_bytes: 0,
            late: None,
            cursor: 0,
            stream: 0,
            archive_to: 0,
            client: None,
            since,
            in_ledger: false,
            ledger_touched: false,
            interest: Interest::default(),
            avatar_told: None,
            strangers: Strangers::default(),
            overrun: false,
        }
    }

    /// What its client has not taken yet, in stanzas and rough bytes: not acknowledged (XEP-0198), or not written to its
    /// stream.
    pub fn waiting(&self) -> (u64, usize) {
        match &self.management {
            Some(management) => (management.unacked.len() as u64, management.unacked_bytes),
            None => (self.queued.saturating_sub(self.written), self.queued_bytes),
        }
    }

    /// RFC 6121 §1.4: has sent presence and not yet unavailable.
    pub fn is_available(&self) -> bool {
        self.presence.is_some()
    }

    /// May be given messages for the bare JID. RFC 6121 §8.5.2.1.
    pub fn takes_messages(&self) -> bool {
        (self.presence.is_some() || self.unseen) && self.priority >= 0 && self.roles.inbox && !self.overrun
    }

    /// Is it given the presence of others?
    pub fn hears_presence(&self) -> bool {
        (self.presence.is_some() || self.unseen) && self.roles.watcher
    }

    /// Has it sent this address presence or a message?
    pub fn has_met(&self, address: &Jid) -> bool {
        self.directed.iter().any(|directed| directed.same_bare(address)) || self.strangers.knows(address)
    }

    /// Is its queue of what is not yet taken below (`quarters`/4) of its bounds?
    pub(crate) fn has_room(&self, limits: &Limits, quarters: usize) -> bool {
        let (stanzas, bytes) = match &self.management {
            Some(management) => (management.unacked.len(), management.unacked_bytes),
            None => (self.unwritten.len(), 0),
        };
        let stanzas_max = limits.unacked_stanzas_max * quarters / 4;
        let bytes_max = limits.unacked_bytes_max * quarters / 4;
        stanzas == 0 || (stanzas < stanzas_max && bytes < bytes_max)
    }

    /// Stanzas and bytes that it may be given at once, and have a quarter of its queue left.
    pub(crate) fn room(&self, limits: &Limits) -> (usize, usize) {
        let of = |max: usize, used: usize| (max - max / 4).saturating_sub(used);
        match &self.management {
            Some(management) => (
                of(limits.unacked_stanzas_max, management.unacked.len() + 1),
                of(limits.unacked_bytes_max, management.unacked_bytes),
            ),
            None => (limits.unacked_stanzas_max, limits.unacked_bytes_max),
        }
    }

    /// May it be given this message to keep, and stay within its bounds?
    pub(crate) fn fits(&self, stanza: &Stanza, limits: &Limits) -> bool {
        match &self.management {
            Some(management) => management.fits(resume::weight(stanza), limits),
            None => self.has_room(limits, 4),
        }
    }

    /// Its row of the ledger, as it should be now. DESIGN.md D11.
    pub fn ledger_row(&self, epoch: u64) -> SessionRow {
        let resumption = self.management.as_ref().and_then(|m| m.id.as_deref());
        SessionRow {
            resource: self.jid.resource_str().into(),
            epoch,
            resume_id_hash: resumption.map(SessionRow::hash_of_resume_id).unwrap_or_default(),
            presence: self.presence.as_deref().map(to_stored).unwrap_or_default(),
            directed: self.directed.clone(),
            since: self.since,
            received: self.management.as_ref().filter(|m| m.settled).and_then(|m| m.received_for_good()),
        }
    }
}

/// Binds a resource. RFC 6120 §7.
pub fn attach(account: &mut Account, attach: Attach, fx: &mut Effects) {
    let edge = attach.edge;
    match bind(account, attach, fx) {
        Ok(item) => fx.edge(edge, item),
        Err(error) => {
            fx.refused(&error);
            fx.edge(edge, EdgeItem::AttachRefused(error));
        }
    }
}

fn bind(account: &mut Account, attach: Attach, fx: &mut Effects) -> Result<EdgeItem, StanzaError> {
    if account.removed || account.disabled {
        return Err(StanzaCondition::NotAllowed.into());
    }
    if let Some(client) = attach.client.as_deref() {
        replace_where(account, |s| s.client.as_deref() == Some(client), fx);
    }
    let jid = choose_resource(account, attach.resource.as_deref(), attach.seed)?;
    replace_where(account, |s| s.jid == jid, fx);
    make_room(account, fx)?;

    let id = SessionId(account.next_session);
    account.next_session += 1;
    let mut session = Session::new(id, jid.clone(), attach.edge, account.now.utc);
    session.is_secret = attach.resource.is_none();
    session.stream = attach.stream;
    session.client = attach.client;
    if attach.bind2 {
        session.archive_to = account.inbox.last_position;
    }
    session.roles = attach.roles.and(account.roles);
    session.carbons = attach.carbons && session.roles.inbox;
    session.inactive = attach.inactive;
    let management = attach.management.map(|request| resume::enable(account, &mut session, request, fx));
    account.sessions.push(session);
    change::begin(account, fx);
    retention::look(account, fx);
    Ok(EdgeItem::Attached { session: id, jid, management })
}

/// The full JID to bind: what was asked for, or another one if that is in use and the policy says so, or a random one.
fn choose_resource(account: &Account, asked: Option<&str>, seed: u64) -> Result<FullJid, StanzaError> {
    let Some(asked) = asked else {
        return unused_resource(account, "", seed);
    };
    let bad = |_| StanzaError::from(StanzaCondition::BadRequest);
    let jid = account.jid.with_resource(asked).map_err(bad)?;
    // Only a resource with a stream is in the way; one that waits for resumption has none to lose.
    let in_use = account.sessions.iter().any(|s| s.jid == jid && s.edge.is_some());
    match account.policy.resource_conflict {
        ResourceConflict::RefuseNew if in_use => {
            Err(StanzaError::from(StanzaCondition::Conflict).with_type(xmpp::error::ErrorType::Modify))
        }
        ResourceConflict::Rename if in_use => unused_resource(account, &format!("{asked}."), seed),
        _ => Ok(jid),
    }
}

/// `prefix` and 13 random letters and digits (64 bits). RFC 6120 §7.6.
fn unused_resource(account: &Account, prefix: &str, mut seed: u64) -> Result<FullJid, StanzaError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    for _ in 0..16 {
        let random: String = (0..13).map(|i| char::from(LETTERS[(seed >> (5 * i) & 31) as usize])).collect();
        let text = format!("{prefix}{random}");
        let jid = account.jid.with_resource(&text).or_else(|_| account.jid.with_resource(&random));
        let jid = jid.map_err(|_| StanzaError::from(StanzaCondition::BadRequest))?;
        if account.sessions.iter().all(|s| s.jid != jid) {
            return Ok(jid);
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f).rotate_left(23);
    }
    Err(StanzaCondition::Conflict.into())
}

/// Room for one session more; the one that waits longest for resumption goes first. RFC 6120 §7.6.2.1.
fn make_room(account: &mut Account, fx: &mut Effects) -> Result<(), StanzaError> {
    while account.sessions.len() >= account.policy.limits.sessions_per_account_max {
        let Some(oldest) = resume::oldest_hibernated(account) else {
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint).over("sessions_per_account_max"));
        };
        end(account, oldest, fx);
    }
    Ok(())
}

/// Ends sessions that a new one replaces. RFC 6120 §7.7.2.2; XEP-0386 §3.2.
fn replace_where(account: &mut Account, which: impl Fn(&Session) -> bool, fx: &mut Effects) {
    close_where(account, which, &StreamFault::ReplacedByNewSession, fx);
}

/// Ends sessions, and their streams with `fault`.
fn close_where(account: &mut Account, which: impl Fn(&Session) -> bool, fault: &StreamFault, fx: &mut Effects) {
    let ids: Vec<SessionId> = account.sessions.iter().filter(|s| which(s)).map(|s| s.id).collect();
    for id in ids {
        let Some(session) = account.session_mut(id) else { continue };
        session.overrun = true;
        if let Some(edge) = session.edge.take() {
            fx.edge(edge, EdgeItem::Close(fault.clone()));
        }
        end(account, id, fx);
    }
}

/// A step ended in its middle: what is stored counts, and the session that asked for it is not gone on with.
pub fn panicked(account: &mut Account, id: Option<SessionId>, stored: store::AccountRecord, fx: &mut Effects) {
    account.restore_for_sessions(stored, fx);
    if let Some(id) = id {
        close_where(account, |s| s.id == id, &StreamFault::InternalError, fx);
    }
    for session in account.sessions.iter_mut().filter(|s| s.in_ledger) {
        session.ledger_touched = true;
    }
    account.watchers.again(account.now.mono_ms);
    inbox::batch_soon(account, fx);
}

/// The session's stream has written so many of its deliveries.
pub fn written(account: &mut Account, id: SessionId, edge: EdgeRef, deliveries: u64, fx: &mut Effects) {
    if let Some(session) = account.session_mut(id).filter(|s| s.edge == Some(edge)) {
        // (Each of what is left is as large as each of the rest was.)
        let (before, left) =
            (session.queued.saturating_sub(session.written), session.queued.saturating_sub(deliveries));
        session.queued_bytes = (session.queued_bytes as u64 * left / before.max(1)) as usize;
        session.written = deliveries;
    }
    inbox::written(account, id, edge, deliveries, fx);
    late::follow(account, id, fx);
}

/// The stream is gone: the session ends, or waits for resumption. XEP-0198 §7.
///
/// `deliveries` of those queued to the stream were written to it, `received` stanzas were taken in from it.
pub fn detached(
    account: &mut Account,
    id: SessionId,
    edge: EdgeRef,
    reason: DetachReason,
    deliveries: u64,
    received: u32,
    fx: &mut Effects,
) {
    inbox::written(account, id, edge, deliveries, fx);
    let Some(session) = account.session_mut(id) else { return };
    if session.edge != Some(edge) {
        return;
    }
    session.edge = None;
    let resumable = match &mut session.management {
        Some(management) => {
            management.received = received;
            management.id.is_some() && (reason == DetachReason::Lost || management.successor.is_some())
        }
        None => false,
    };
    if resumable {
        // What was queued before management was enabled is nobody's to acknowledge.
        let unwritten: Vec<Delivery> = session.unwritten.drain(..).map(|(_, delivery)| delivery).collect();
        resume::hibernate(account, id, fx);
        if !unwritten.is_empty() {
            inbox::return_untaken(account, id, unwritten, fx);
        }
    } else {
        push::lost(account, id, fx);
        end(account, id, fx);
    }
}

/// Ends a session for good: presence unavailable (`presence::session_ended`), the row of the ledger, and what it had
/// not taken goes elsewhere (`inbox::return_untaken`). RFC 6121 §4.5, XEP-0198 §4.
///
/// Its stream, if there is one still, was told by the caller.
pub fn end(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(index) = account.sessions.iter().position(|s| s.id == id) else { return };
    let mut session = account.sessions.remove(index);
    let mut untaken: Vec<Delivery> = session.unwritten.drain(..).map(|(_, delivery)| delivery).collect();
    if let Some(management) = session.management.take() {
        untaken.extend(resume::ended(account, management, fx));
    }
    let in_ledger = session.in_ledger;
    let resource: Box<str> = session.jid.resource_str().into();
    presence::session_ended(account, session, fx);
    let mut changes = inbox::marks(account, fx);
    if in_ledger {
        changes.push(Change::SessionDelete { account: account.jid.clone(), resource });
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
    inbox::return_untaken(account, id, untaken, fx);
}

/// Timeouts: sessions that nobody resumed, marks and ledger rows that are due. Asks to be woken for the next.
pub fn tick(account: &mut Account, fx: &mut Effects) {
    resume::end_overdue(account, fx);
    change::tick(account, fx);
    if account.inbox.batch_is_due(account.now.mono_ms) {
        commit_batch(account, fx);
    }
    if let Some(change) = watchers::write(account) {
        fx.commit(vec![change], None, &Ticket::default());
    }
    let probes = fetch::end_overdue(account, fx);
    let questions = subscription_status::end_overdue(account, fx);
    // (This tick may have been asked for by somebody else, and early.)
    doubts::ask(account, fx);
    let timers = [
        account.inbox.batch_at(),
        account.watchers.due_at(),
        account.doubts.due_at(),
        probes,
        questions,
        leases::due_at(account),
    ];
    let next = resume::next_end(account).into_iter().chain(timers.into_iter().flatten()).min();
    if let Some(mono_ms) = next {
        fx.push(Effect::WakeAt { mono_ms });
    }
}

/// Commits what was left for the next batch: pending marks and rows of the ledger.
pub(crate) fn commit_batch(account: &mut Account, fx: &mut Effects) {
    inbox::expire_old(account, fx);
    let mut changes = inbox::marks(account, fx);
    changes.extend(retention::trim(account));
    for session in &mut account.sessions {
        if std::mem::take(&mut session.ledger_touched) && session.in_ledger {
            changes.push(Change::SessionPut { account: account.jid.clone(), row: session.ledger_row(account.epoch) });
        }
    }
    inbox::batch_done(account);
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
}

/// The row of the ledger is behind: it is written within a second.
pub fn touch_ledger(account: &mut Account, id: SessionId, fx: &mut Effects) {
    if let Some(session) = account.session_mut(id) {
        session.ledger_touched = true;
        inbox::batch_soon(account, fx);
    }
}

/// The operator gives the account other roles. Sessions that have one that is taken away begin anew.
pub fn set_roles(account: &mut Account, roles: Roles, ticket: Ticket, fx: &mut Effects) {
    account.roles = roles;
    let (owner, space, key) = (account.jid.clone(), store::SETTINGS.into(), roles::KEY.into());
    let change = match roles {
        Roles::ALL => Change::BlobDelete { account: owner, space, key },
        some => Change::BlobPut { account: owner, space, key, value: some.to_element().to_bytes("") },
    };
    fx.commit_for_operator(vec![change], &ticket);
    close_where(
        account,
        |s| s.roles.and(roles) != s.roles,
        &StreamFault::Other(xmpp::StreamCondition::Reset, "other roles"),
        fx,
    );
}

/// Ends all sessions, or that of one resource.
pub fn kick(account: &mut Account, resource: Option<&str>, fault: StreamFault, fx: &mut Effects) {
    close_where(account, |s| resource.is_none_or(|r| s.jid.resource_str() == r), &fault, fx);
}

/// Nobody logs in any more, and whoever is there goes; or all is as it was.
pub fn disable(account: &mut Account, disabled: bool, fx: &mut Effects) {
    account.disabled = disabled;
    if disabled {
        let fault = StreamFault::Other(StreamCondition::NotAuthorized, "The account is disabled.");
        kick(account, None, fault, fx);
    }
}

/// The account goes: contacts are told, sessions closed, rows deleted. XEP-0077 §3.2.
pub fn remove_account(account: &mut Account, ticket: Ticket, fx: &mut Effects) {
    account.removed = true;
    modules::outcome::refuse_all(account, fx);
    presence::leave_all_rosters(account, fx);
    // The client that asked hears of the success, then all streams are closed: both when nothing is left on disk.
    let mut last = Effects::default();
    if let Some((id, iq)) = account.leaving.take() {
        modules::answer(account, &iq, Some(id), Ok(None), &mut last);
    }
    let mut kicked = Effects::default();
    kick(account, None, StreamFault::AccountRemoved, &mut kicked);
    for effect in kicked.list {
        if matches!(effect, Effect::Edge { .. }) { last.push(effect) } else { fx.push(effect) }
    }
    let jid: BareJid = account.jid.clone();
    fx.commit(vec![Change::AccountRemove { account: jid }], None, &ticket);
    fx.list.append(&mut last.list);
    fx.push(Effect::Unload);
}

/// Last things: marks and rows of the ledger. The ledger tells the next process whose sessions these were.
pub fn shut_down(account: &mut Account, ticket: &Ticket, fx: &mut Effects) {
    inbox::keep_unlogged(account, fx);
    commit_batch(account, fx);
    let last = watchers::settle(account);
    // The last commit, though there be nothing in it: those before are done when it is.
    fx.commit(last.into_iter().collect(), None, ticket);
}

/// The one way to give a session a stanza: queues it to the stream if there is one, and to the resumption queue when
/// management is on.
///
/// A session whose queue would grow beyond `unacked_stanzas_max` or `unacked_bytes_max` ends with this step; what is
/// in the log stays pending. For an inactive client some things wait ([`client_state`]), and presence does where the
/// queue is full ([`late`]).
pub fn deliver(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    let Some(session) = account.sessions.iter_mut().find(|s| s.id == id) else { return };
    let mut now = Some(delivery);
    if session.inactive && !session.overrun {
        now = now.and_then(|delivery| session.held.hold(delivery));
        if now.is_some() {
            release(account, id, fx);
        }
    }
    if let Some(delivery) = now {
        give(account, id, delivery, fx);
    }
}

/// To the stream, or behind what waits for room in its queue.
fn give(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    if let Some(delivery) = late::wait(account, id, delivery, fx) {
        queue(account, id, delivery, fx);
    }
}

/// What waited for the client goes out.
pub(crate) fn release(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(session) = account.session_mut(id) else { return };
    for delivery in session.held.take() {
        give(account, id, delivery, fx);
    }
}

/// Queues a stanza that need not wait.
pub(crate) fn queue(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    let limits = &account.policy.limits;
    let Some(session) = account.sessions.iter_mut().find(|s| s.id == id) else { return };
    if session.overrun {
        return;
    }
    let keep = delivery.position.is_some() || inbox::is_kept(&account.jid, &delivery.stanza);
    let fits = match &mut session.management {
        Some(management) if session.edge.is_none() => management.push_unsent(delivery.clone(), limits),
        Some(management) => management.push(delivery.clone(), limits),
        None => !keep || session.unwritten.len() < limits.unacked_stanzas_max,
    };
    if !fits {
        let full = session.management.as_ref().is_none_or(|it| it.unacked.len() >= limits.unacked_stanzas_max);
        fx.push(Effect::Limit(if full { "unacked_stanzas_max" } else { "unacked_bytes_max" }));
        session.overrun = true;
        account.overrun = true;
        return;
    }
    if let Some(position) = delivery.position {
        session.cursor = session.cursor.max(position);
        account.inbox.held(position, id);
    }
    if let Some(edge) = session.edge {
        session.queued += 1;
        if session.management.is_none() {
            session.queued_bytes += delivery.stanza.weight();
        }
        if keep && session.management.is_none() {
            session.unwritten.push_back((session.queued, delivery.clone()));
        }
        fx.edge(edge, EdgeItem::Deliver { number: session.queued, delivery });
    } else if is_of_commit(account, &delivery) {
        // It waits for a stream to come. If the log had it already, or what it is the result of failed, `dropped` hears of
        // it; and a stream that resumes meanwhile stands behind the commit, too.
        fx.edge(EdgeRef::NOBODY, EdgeItem::Deliver { number: 0, delivery });
    }
}

/// The same stanza to several sessions of the account that `which` picks; says how many.
pub fn deliver_where(
    account: &mut Account,
    which: impl Fn(&Session) -> bool,
    stanza: &Arc<Stanza>,
    to: Option<&Jid>,
    fx: &mut Effects,
) -> usize {
    let ids: Vec<SessionId> = account.sessions.iter().filter(|s| which(s)).map(|s| s.id).collect();
    for id in &ids {
        let delivery = Delivery { stanza: stanza.clone(), to: to.cloned(), more: Additions::default(), position: None };
        deliver(account, *id, delivery, fx);
    }
    ids.len()
}

/// Ends the sessions that passed a bound in this step.
pub(crate) fn end_overrun(account: &mut Account, fx: &mut Effects) {
    while std::mem::take(&mut account.overrun) {
        close_where(account, |s| s.overrun, &StreamFault::SlowReader, fx);
        fx.push(Effect::Count("sessions_overrun"));
    }
}

/// Deliveries that did not happen, as the commit before them wrote nothing: the counters forget them.
pub fn dropped(account: &mut Account, effects: Vec<Effect>, fx: &mut Effects) {
    let (mut unlogged, mut held) = (Vec::new(), Vec::new());
    let mut page_was_dropped = false;
    for effect in effects {
        let (edge, number, delivery) = match effect {
            Effect::Edge { edge, item: EdgeItem::Deliver { number, delivery } } => (edge, number, delivery),
            // A stream waits for these whatever became of the commit.
            effect @ (Effect::Edge { .. } | Effect::Resumable { .. } | Effect::WakeAt { .. }) => {
                fx.push(effect);
                continue;
            }
            Effect::ReadPending { .. } => {
                page_was_dropped = true;
                continue;
            }
            _ => continue,
        };
        if edge == EdgeRef::NOBODY {
            forget_waiting(account, &delivery);
            continue;
        }
        let Some(session) = account.sessions.iter_mut().find(|s| s.edge == Some(edge)) else {
            // The stream was lost meanwhile.
            if is_of_commit(account, &delivery) {
                forget_waiting(account, &delivery);
            }
            continue;
        };
        // Nothing is left to be written up to this number.
        fx.edge(edge, EdgeItem::Skipped { number });
        if let Some(management) = &mut session.management {
            management.forget(&delivery);
        }
        let at = session.unwritten.iter().position(|(_, d)| Arc::ptr_eq(&d.stanza, &delivery.stanza));
        at.and_then(|at| session.unwritten.remove(at));
        match delivery.position {
            // Its record may be in the log nevertheless: the commit need not have been its own.
            Some(position) => account.inbox.unheld(position, session.id),
            None if inbox::is_kept(&account.jid, &delivery.stanza) => unlogged.push(delivery.stanza),
            // It may have waited for any stanza, such as one that came twice.
            None if client_state::can_wait(&delivery.stanza) => held.push((session.id, delivery)),
            None => {}
        }
    }
    for (id, delivery) in held {
        deliver(account, id, delivery, fx);
    }
    for stanza in unlogged {
        messages::again(account, &stanza, fx);
    }
    if page_was_dropped {
        inbox::ask_again(account, fx);
    }
    inbox::flush_waiting(account, fx);
}

/// Is there nothing to deliver if the commit before it wrote nothing? So it is with what the log has, with copies, and with
/// results.
fn is_of_commit(account: &Account, delivery: &Delivery) -> bool {
    match delivery.stanza.kind {
        StanzaType::Message(_) => delivery.position.is_some() || !inbox::is_kept(&account.jid, &delivery.stanza),
        StanzaType::Iq(_) => true,
        StanzaType::Presence(_) => false,
    }
}

/// Sessions without a stream do not have it in their queues any more.
fn forget_waiting(account: &mut Account, delivery: &Delivery) {
    for session in account.sessions.iter_mut().filter(|session| session.edge.is_none()) {
        if let Some(management) = &mut session.management {
            management.forget_stanza(&delivery.stanza);
        }
        if let Some(position) = delivery.position {
            account.inbox.unheld(position, session.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, ManagementRequest};
    use crate::testing::{Fx, Scene, account};

    const EDGE: EdgeRef = EdgeRef(900);

    fn asks(resource: Option<&str>) -> Attach {
        Attach {
            edge: EDGE,
            resource: resource.map(Into::into),
            seed: 0x0123_4567_89ab_cdef,
            client: None,
            bind2: false,
            carbons: false,
            inactive: false,
            management: None,
            stream: 42,
            roles: Roles::ALL,
            secure: true,
        }
    }

    fn bound(fx: &Fx) -> FullJid {
        match fx.edge_items().pop() {
            Some((_, EdgeItem::Attached { jid, .. })) => jid.clone(),
            other => panic!("not attached: {other:?}"),
        }
    }

    fn refused(fx: &Fx) -> StanzaCondition {
        match fx.edge_items().pop() {
            Some((_, EdgeItem::AttachRefused(error))) => error.condition,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn closed(fx: &Fx) -> Vec<(String, StreamFault)> {
        let closed = |(resource, item): (String, &EdgeItem)| match item {
            EdgeItem::Close(fault) => Some((resource, fault.clone())),
            _ => None,
        };
        fx.edge_items().into_iter().filter_map(closed).collect()
    }

    fn juliet() -> Scene {
        account("juliet@capulet.example")
    }

    /// The session of the resource has stream management and waits for its resumption since `lost_at`.
    fn hibernated(scene: Scene, resource: &str, lost_at: u64) -> Scene {
        scene.with(resource, 0).having(resource, |session| {
            session.edge = None;
            session.management = Some(Management {
                id: Some(format!("id-{}", session.id.0).into()),
                max_seconds: 300,
                lost_at: Some(lost_at),
                ends_at: Some(lost_at + 300_000),
                ..Management::default()
            });
        })
    }

    #[test]
    fn a_client_is_bound_to_the_resource_that_it_asks_for() {
        let mut juliet = juliet();
        let fx = juliet.item(Item::Attach(asks(Some("balcony"))));
        assert_eq!(bound(&fx).as_str(), "juliet@capulet.example/balcony");
        assert_eq!(juliet.sessions.len(), 1);
        assert_eq!(juliet.sessions[0].stream, 42);
        assert!(!juliet.sessions[0].is_available());
    }

    // RFC 6120 §7.6.
    #[test]
    fn a_client_that_asks_for_none_is_bound_to_a_random_resource() {
        let mut juliet = juliet();
        let first = bound(&juliet.item(Item::Attach(asks(None))));
        assert!(first.resource_str().len() >= 12, "{first}");
        // The same seed again: not the same resource.
        let second = bound(&juliet.item(Item::Attach(asks(None))));
        assert_ne!(first, second);
        assert_eq!(juliet.sessions.len(), 2);
    }

    // RFC 6120 §7.7.2.2, behaviour 3.
    #[test]
    fn a_resource_in_use_goes_to_the_new_client() {
        let mut juliet = juliet().with("home", 0);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::ReplacedByNewSession)]);
        assert_eq!(bound(&fx).resource_str(), "home");
        assert_eq!(juliet.sessions.len(), 1);
        assert_eq!(juliet.sessions[0].edge, Some(EDGE));
    }

    // RFC 6120 §7.7.2.2, behaviour 1.
    #[test]
    fn a_resource_in_use_is_renamed_where_the_policy_says_so() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.resource_conflict = ResourceConflict::Rename);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert!(bound(&fx).resource_str().starts_with("home."), "{}", bound(&fx));
        assert_eq!(juliet.sessions.len(), 2);
    }

    // RFC 6120 §7.7.2.2, behaviour 2.
    #[test]
    fn a_resource_in_use_is_refused_where_the_policy_says_so() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.resource_conflict = ResourceConflict::RefuseNew);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert_eq!(refused(&fx), StanzaCondition::Conflict);
        assert_eq!(juliet.sessions.len(), 1);
    }

    #[test]
    fn a_resource_whose_stream_is_lost_is_in_nobodys_way() {
        for policy in [ResourceConflict::RefuseNew, ResourceConflict::Rename, ResourceConflict::ReplaceOld] {
            let mut juliet = hibernated(juliet(), "home", 1).policy(|p| p.resource_conflict = policy);
            let fx = juliet.item(Item::Attach(asks(Some("home"))));
            assert_eq!(bound(&fx).resource_str(), "home", "{policy:?}");
            assert_eq!(juliet.sessions.len(), 1);
        }
    }

    // XEP-0386 §3.2.
    #[test]
    fn a_client_that_comes_back_ends_its_earlier_session() {
        let mut juliet = juliet().with("home.1", 0).having("home.1", |s| s.client = Some("installation".into()));
        let fx = juliet.item(Item::Attach(Attach { client: Some("installation".into()), ..asks(Some("home.2")) }));
        assert_eq!(closed(&fx), [("home.1".to_owned(), StreamFault::ReplacedByNewSession)]);
        assert_eq!(juliet.sessions.len(), 1);
    }

    // RFC 6120 §7.6.2.1; LIMITS.md: 16 sessions.
    #[test]
    fn one_session_too_many_is_refused() {
        let mut juliet = (0..16).fold(juliet(), |scene, n| scene.with(&format!("r{n}"), 0));
        assert_eq!(refused(&juliet.item(Item::Attach(asks(Some("one"))))), StanzaCondition::ResourceConstraint);
        assert_eq!(juliet.sessions.len(), 16);
    }

    #[test]
    fn the_session_that_waits_longest_makes_room_for_a_new_one() {
        let scene = (0..14).fold(juliet(), |scene, n| scene.with(&format!("r{n}"), 0));
        let mut juliet = hibernated(hibernated(scene, "younger", 20), "older", 10);
        let fx = juliet.item(Item::Attach(asks(Some("one"))));
        assert_eq!(bound(&fx).resource_str(), "one");
        let left: Vec<&str> = juliet.sessions.iter().map(|s| s.jid.resource_str()).collect();
        assert!(left.contains(&"younger") && !left.contains(&"older"), "{left:?}");
    }

    #[test]
    fn a_disabled_account_has_no_sessions_and_binds_nothing() {
        let mut juliet = juliet().with("home", 0);
        let fx = juliet.item(Item::Disabled(true));
        assert!(
            matches!(&closed(&fx)[..], [(home, StreamFault::Other(StreamCondition::NotAuthorized, _))] if home == "home")
        );
        assert!(juliet.sessions.is_empty());
        assert_eq!(refused(&juliet.item(Item::Attach(asks(None)))), StanzaCondition::NotAllowed);
        juliet.item(Item::Disabled(false));
        bound(&juliet.item(Item::Attach(asks(None))));
    }

    // XEP-0386 §3.2: carbons, client state and stream management with the bind.
    #[test]
    fn what_the_bind_asks_for_is_on_from_the_start() {
        let mut juliet = juliet();
        let management = Some(ManagementRequest { resume: true, max: None, id: "sm".into() });
        let fx = juliet.item(Item::Attach(Attach { carbons: true, inactive: true, management, ..asks(Some("home")) }));
        let managed = match fx.edge_items().pop() {
            Some((_, EdgeItem::Attached { management, .. })) => management.clone().expect("managed"),
            other => panic!("{other:?}"),
        };
        assert_eq!((managed.id.as_deref(), managed.max), (Some("sm"), 300));
        assert!(fx.list.iter().any(|e| matches!(e, Effect::Resumable { id, yes: true } if **id == *"sm")));
        assert!(juliet.sessions[0].carbons && juliet.sessions[0].inactive);
    }

    // RFC 6121 §4.5.
    #[test]
    fn a_session_that_closes_its_stream_ends() {
        let mut juliet = juliet().with("home", 0).with("phone", 0);
        let fx = juliet.closes("home");
        assert_eq!(juliet.sessions.len(), 1);
        assert!(fx.delivered("phone")[0].contains("type='unavailable'"), "{:?}", fx.list);
        let deleted = |c: &Change| matches!(c, Change::SessionDelete { resource, .. } if **resource == *"home");
        assert!(fx.commits().iter().any(deleted));
    }

    #[test]
    fn a_stream_that_is_not_the_sessions_any_more_ends_nothing() {
        let mut juliet = juliet().with("home", 0);
        let session = juliet.id("home");
        let reason = DetachReason::Lost;
        let fx = juliet.item(Item::Detached { session, edge: EdgeRef(1), reason, deliveries: 0, received: 0 });
        assert!(fx.is_empty());
        assert_eq!(juliet.sessions.len(), 1);
    }

    #[test]
    fn kicking_a_resource_leaves_the_others() {
        let mut juliet = juliet().with("home", 0).with("phone", 0);
        let fault = StreamFault::Other(xmpp::StreamCondition::PolicyViolation, "by the operator");
        let fx = juliet.item(Item::Kick { resource: Some("home".into()), fault: fault.clone() });
        assert_eq!(closed(&fx), [("home".to_owned(), fault.clone())]);
        let fx = juliet.item(Item::Kick { resource: None, fault: fault.clone() });
        assert_eq!(closed(&fx), [("phone".to_owned(), fault)]);
        assert!(juliet.sessions.is_empty());
    }

    // XEP-0077 §3.2.
    #[test]
    fn a_removed_account_closes_its_streams_and_is_deleted_last() {
        let mut juliet = hibernated(juliet().with("home", 0), "phone", 1);
        let fx = juliet.item(Item::Remove { ticket: Ticket::default() });
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::AccountRemoved)]);
        assert!(juliet.sessions.is_empty() && juliet.removed);
        assert!(matches!(fx.commits().last(), Some(Change::AccountRemove { .. })));
        assert!(matches!(fx.list.last(), Some(Effect::Unload)));
        let fx = juliet.item(Item::Attach(asks(None)));
        assert_eq!(refused(&fx), StanzaCondition::NotAllowed);
    }

    #[test]
    fn a_touched_row_of_the_ledger_is_written_within_a_second() {
        let mut juliet = juliet().with("home", 0);
        let id = juliet.id("home");
        let mut fx = Effects::default();
        touch_ledger(&mut juliet.account, id, &mut fx);
        assert!(matches!(fx.list[..], [Effect::WakeAt { mono_ms: 2_000 }]), "{:?}", fx.list);
        assert!(juliet.after_ms(999).commits().is_empty());
        let commits = juliet.after_ms(1).commits();
        let row = match &commits[..] {
            [Change::SessionPut { row, .. }] => row,
            other => panic!("{other:?}"),
        };
        assert_eq!((&*row.resource, row.epoch), ("home", 7));
        assert!(String::from_utf8_lossy(&row.presence).contains("<priority>0</priority>"));
        assert!(juliet.after_ms(5_000).commits().is_empty());
    }

    #[test]
    fn a_tick_asks_for_the_next_one() {
        let mut juliet = hibernated(juliet(), "home", 1_000);
        let fx = juliet.after_ms(10);
        assert!(matches!(fx.list[..], [Effect::WakeAt { mono_ms: 301_000 }]), "{:?}", fx.list);
    }

    // XEP-0352.
    #[test]
    fn client_state_is_a_flag_of_the_session() {
        let mut juliet = juliet().with("home", 0);
        let session = juliet.id("home");
        juliet.item(Item::ClientState { session, active: false });
        assert!(juliet.sessions[0].inactive);
        juliet.item(Item::ClientState { session, active: true });
        assert!(!juliet.sessions[0].inactive);
    }

    // LIMITS.md: 1,000 stanzas unacknowledged.
    #[test]
    fn a_session_whose_queue_runs_over_is_closed() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.limits.unacked_stanzas_max = 3);
        let juliet =
            juliet.account.sessions.first_mut().map(|s| s.management = Some(Management::default())).map(|()| juliet);
        let mut juliet = juliet.expect("a session");
        let chat_state = "<message from='romeo@montague.example/x' to='juliet@capulet.example/home' type='chat'>\
            <composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
        for _ in 0..3 {
            assert_eq!(juliet.receive(chat_state).written_to(), ["home"]);
        }
        let fx = juliet.receive(chat_state);
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::SlowReader)]);
        assert!(fx.written_to().is_empty() && juliet.sessions.is_empty());
    }

    #[test]
    fn deliveries_behind_a_commit_that_wrote_nothing_leave_the_others_their_numbers() {
        let mut juliet = juliet().with("home", 0);
        let mut fx = juliet.receive("<message from='romeo@montague.example/x' type='chat'><body>1</body></message>");
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        let effects = fx.list.split_off(at + 1);
        juliet.receive("<message from='romeo@montague.example/x' type='chat'><body>2</body></message>");
        assert_eq!(juliet.sessions[0].queued, 2);
        let fx = juliet.item(Item::Dropped { effects });
        assert!(matches!(fx.edge_items()[0], (_, EdgeItem::Skipped { number: 1 })), "{:?}", fx.list);
        let numbers: Vec<u64> = juliet.sessions[0].unwritten.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [2]);
        // Nobody has it; whether it is in the log, the log says.
        assert_eq!(juliet.inbox.waiting(), 1);
        assert!(fx.list.iter().any(|e| matches!(e, Effect::ReadPending { .. })));
    }

    // A carbon copy of a message that came twice.
    #[test]
    fn a_message_behind_a_delivery_that_did_not_happen_is_taken_when_it_is_written() {
        let mut juliet = juliet().with("home", 0);
        let (edge, session) = (juliet.edge("home"), juliet.id("home"));
        let copy = "<message from='juliet@capulet.example' to='juliet@capulet.example/home'><sent xmlns='urn:xmpp:carbons:2'/></message>";
        let copy = Delivery {
            stanza: Arc::new(crate::testing::stanza(copy)),
            to: None,
            more: Additions::default(),
            position: None,
        };
        let mut fx = Effects::default();
        deliver(&mut juliet.account, session, copy, &mut fx);
        let position = juliet
            .receive("<message from='romeo@montague.example/x' type='chat'><body>1</body></message>")
            .appended()[0]
            .position;
        juliet.item(Item::Dropped { effects: fx.list });
        // The stream has written the one message and passed over the other delivery.
        juliet.item(Item::Written { session, edge, deliveries: 2 });
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
    }

    #[test]
    fn a_session_that_lost_its_stream_is_not_given_later_what_a_commit_that_failed_stood_before() {
        let mut juliet = hibernated(juliet(), "phone", 1_000).with("home", 0).having("phone", |s| s.carbons = true);
        let waits = |juliet: &Scene| -> usize {
            juliet.sessions.iter().filter_map(|s| s.management.as_ref()).map(|m| m.unacked.len()).sum()
        };
        let before = waits(&juliet);
        let to_home = "<message from='romeo@montague.example/x' to='juliet@capulet.example/home' type='chat'>\
            <body>1</body></message>";
        let mut fx = juliet.receive(to_home);
        assert_eq!(waits(&juliet), before + 1, "a copy");
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        assert_eq!(waits(&juliet), before);
    }

    #[test]
    fn a_stream_hears_that_it_is_bound_whatever_became_of_a_commit_before() {
        let mut juliet = juliet().with("home", 0);
        let mut fx = juliet.item(Item::Attach(asks(Some("home"))));
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        let fx = juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        assert_eq!(bound(&fx).resource_str(), "home");
    }
}
