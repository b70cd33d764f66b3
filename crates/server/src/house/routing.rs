//! ④ Routing: who owns an address, and how it is told: an account here, the host itself, a component, another domain. One
//! stanza to one ([`House::tell`]), one to many ([`House::fan`]), and the answers that the house gives itself.

use super::entity::CellItem;
use super::{HostEntry, House, Ready};
use cluster::Posted;
use im::operations::{Link, Operation};
use im::{EdgeItem, Effect, Effects, Ingress, Item, Ticket};
use std::sync::Arc;
use xmpp::planted::{self, Bug};
use xmpp::{BareJid, IqType, Jid, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

impl House {
    /// ④ Who owns the address? An account here, the host itself, a component, another domain.
    pub fn tell(self: &Arc<House>, to: Jid, stanza: Arc<Stanza>, ingress: Ingress, ticket: Ticket, ready: &mut Ready) {
        let Some(host) = self.host(to.domain()) else { return self.tell_elsewhere(to, stanza, ticket, ready) };
        if to.local().is_none() {
            return self.tell_host(&host, stanza, to, ticket, ready);
        }
        let bare = self.owner(to.to_bare());
        // A probe that an account sends by itself goes to contacts whose presence it may see. If nobody is there who
        // could be available, nothing must be read to answer it: RFC 6121 §4.3.2 rule 3. What a client probes is
        // decided by the contact's account, so that a stranger cannot tell who is there. Who was there when a process
        // died may have ended a subscription, and the other side not have heard of it: their accounts answer
        // themselves, so that the two agree again (rule 1).
        let of_itself = ingress == im::presence::OWN;
        if of_itself
            && matches!(stanza.kind, StanzaType::Presence(PresenceType::Probe))
            && self.resident(&bare).is_none()
            && !self.cut_off.get().is_some_and(|all| all.contains(&bare))
        {
            if let Some(from) = &stanza.from {
                let away = Stanza::presence(PresenceType::Unavailable).with_from(to.to_bare()).with_to(from.clone());
                let from = from.clone();
                self.tell(from, Arc::new(away), ingress, ticket, ready);
            }
            return;
        }
        if matches!(stanza.kind, StanzaType::Presence(PresenceType::Subscribe)) {
            self.introduce_invited(&bare, &stanza, ready);
        }
        self.leave(&bare, CellItem::Im(Item::Inbound { stanza, to, ingress, ticket }), ready);
    }

    /// A request to subscribe that comes with the token of an invitation: the account hears first that its sender is
    /// welcome. XEP-0379 §3.5.
    fn introduce_invited(self: &Arc<House>, account: &BareJid, stanza: &Stanza, ready: &mut Ready) {
        let Some(preauth) = stanza.payload.child("preauth", crate::invites::NS).map(|it| it.to_element()) else {
            return;
        };
        let (Some(token), Some(from)) = (preauth.attribute("token"), &stanza.from) else { return };
        if self.invitations.introduces(token, account, &*self.crypto, self.now().utc) {
            tracing::info!(%account, contact = %from.to_bare(), "an invited contact has come");
            self.count("invitations_used");
            self.leave(account, CellItem::Im(Item::Introduce { contact: from.to_bare() }), ready);
            let house = self.clone();
            self.runtime.spawn(async move {
                if let Err(error) = house.invitations.write().await {
                    tracing::error!(%error, "the use of an invitation could not be written");
                }
            });
        }
    }

    /// Whose an address is: a name that an account gave itself is that account's.
    pub fn owner(&self, address: BareJid) -> BareJid {
        match address.local() {
            Some(local) if local.starts_with('~') => self.seams.aliases.open(&address).unwrap_or(address),
            _ => address,
        }
    }

    /// Does the host, if it is one of ours, have this operation set on?
    pub fn has_on(&self, domain: &str, operation: Operation) -> bool {
        self.policy(domain).is_none_or(|policy| operation.is_on(&policy))
    }

    /// ⑥ To a component or another domain: the pair of domains is the entity told.
    fn tell_elsewhere(self: &Arc<House>, to: Jid, stanza: Arc<Stanza>, ticket: Ticket, ready: &mut Ready) {
        if let Some(component) = self.components.get(to.domain()) {
            return self.tell_component(&component, to, stanza, ticket, ready);
        }
        let operation = self.operation(&stanza, Link::Server);
        let is_on = stanza.from.as_ref().is_none_or(|from| self.has_on(from.domain(), operation));
        let refused = match self.federation.get() {
            _ if !is_on => Some((StanzaCondition::ServiceUnavailable.into(), ticket)),
            Some(federation) => federation.send(to, &stanza, ticket).err(),
            None => Some((StanzaCondition::RemoteServerNotFound.into(), ticket)),
        };
        if let Some((error, ticket)) = refused
            // Nobody waits for an answer to presence that is only told.
            && !matches!(stanza.kind, StanzaType::Presence(kind) if kind != PresenceType::Subscribe)
        {
            self.answer_error(&stanza, &error, ticket, ready);
        }
    }

    /// One stanza to many: a shared payload, one item an entity. Who is not in memory has nobody who could hear it.
    pub fn fan(self: &Arc<House>, stanza: &Arc<Stanza>, targets: Vec<Jid>, ready: &mut Ready) {
        let ingress = Ingress { stream: 0, ordinal: 0 };
        let is_on =
            stanza.from.as_ref().is_none_or(|from| self.has_on(from.domain(), Operation::of(stanza, Link::Server)));
        let short = usize::from(planted::is(Bug::BroadcastShort));
        let count = targets.len().saturating_sub(short);
        // Most are of the same host as the one before: it is not looked up for each.
        let mut of_ours: Option<Jid> = None;
        for to in targets.into_iter().take(count) {
            if of_ours.as_ref().is_none_or(|it| it.domain() != to.domain()) {
                if self.host(to.domain()).is_none() {
                    self.fan_elsewhere(to, stanza, is_on, ready);
                    continue;
                }
                of_ours = Some(to.clone());
            }
            let Some(cell) = self.resident(&self.owner(to.to_bare())) else { continue };
            let item = CellItem::Im(Item::Inbound { stanza: stanza.clone(), to, ingress, ticket: Ticket::default() });
            match cell.cell.post(item) {
                Posted::Run => ready.push_back(cell),
                Posted::Queued | Posted::Gone(_) => {}
                Posted::Full(_) => self.count("mailbox_full"),
            }
        }
    }

    /// One of many who is of a component or another domain.
    fn fan_elsewhere(self: &Arc<House>, to: Jid, stanza: &Arc<Stanza>, is_on: bool, ready: &mut Ready) {
        if let Some(component) = self.components.get(to.domain()) {
            self.tell_component(&component, to, stanza.clone(), Ticket::default(), ready);
        } else if is_on && let Some(federation) = self.federation.get() {
            self.operation(stanza, Link::Server);
            // Presence that finds no room is not waited for by anybody.
            let _ = federation.send(to, stanza, Ticket::default());
        }
    }

    fn tell_host(
        self: &Arc<House>,
        host: &Arc<HostEntry>,
        stanza: Arc<Stanza>,
        to: Jid,
        ticket: Ticket,
        ready: &mut Ready,
    ) {
        if self.administer(&stanza, &to, &ticket) {
            return;
        }
        let mut fx = Effects::default();
        let now = self.now();
        {
            let mut host = host.host.lock();
            host.step(stanza, to, ticket, now, &mut fx);
        }
        for effect in fx.list {
            match effect {
                Effect::Tell { to, stanza, ingress, ticket } => self.tell(to, stanza, ingress, ticket, ready),
                Effect::Fan { stanza, targets } => self.fan(&stanza, targets, ready),
                Effect::Edge { edge, item } => self.edges.send(edge, item),
                Effect::Count(name) => self.count(name),
                Effect::Limit(name) => self.limit(name),
                other => tracing::error!(effect = ?std::mem::discriminant(&other), "a host has no such effect"),
            }
        }
    }

    /// Sends an error to a stanza's sender, if it may have one.
    pub fn answer_error(
        self: &Arc<House>,
        stanza: &Arc<Stanza>,
        error: &StanzaError,
        ticket: Ticket,
        ready: &mut Ready,
    ) {
        if let Some(limit) = error.limit {
            self.limit(limit);
        }
        let Some(answer) = stanza.error(error) else { return };
        self.reply(answer, ticket, ready);
    }

    /// An answer that the house itself gives, to whoever asked.
    pub(super) fn reply(self: &Arc<House>, answer: Stanza, ticket: Ticket, ready: &mut Ready) {
        let Some(to) = answer.to.clone() else { return };
        if self.host(to.domain()).is_none() {
            if let Some(component) = self.components.get(to.domain()) {
                // The same: if it is away, nobody hears of it.
                self.tell_component(&component, to, Arc::new(answer), ticket, ready);
            } else if let Some(federation) = self.federation.get() {
                // An error is not answered by an error.
                let _ = federation.send(to, &Arc::new(answer), ticket);
            }
            return;
        }
        if to.local().is_none() {
            return;
        }
        self.leave(
            &to.to_bare(),
            CellItem::Im(Item::Inbound {
                stanza: Arc::new(answer),
                to,
                ingress: Ingress { stream: 0, ordinal: 0 },
                ticket,
            }),
            ready,
        );
    }

    /// What an account that does not exist gets: the same as one where nobody is. RFC 6121 §8.5.1.
    pub(super) fn no_such_account(self: &Arc<House>, item: CellItem, ready: &mut Ready) {
        match item {
            CellItem::Im(Item::Inbound { stanza, to, ticket, ingress }) => match stanza.kind {
                StanzaType::Presence(PresenceType::Subscribe) => {
                    if let Some(from) = stanza.from.clone() {
                        let no = Stanza::presence(PresenceType::Unsubscribed)
                            .with_from(to.to_bare())
                            .with_to(from.to_bare());
                        let from: Jid = from.to_bare().into();
                        self.tell(from, Arc::new(no), ingress, ticket, ready);
                    }
                }
                StanzaType::Iq(IqType::Get | IqType::Set) if to.is_bare() => match im::modules::nobody(&stanza) {
                    Ok(content) => self.reply(stanza.result(content), ticket, ready),
                    Err(error) => self.answer_error(&stanza, &error, ticket, ready),
                },
                StanzaType::Message(_) | StanzaType::Iq(IqType::Get | IqType::Set) => {
                    self.answer_error(&stanza, &im::modules::unknown(), ticket, ready);
                }
                StanzaType::Presence(_) | StanzaType::Iq(_) => {}
            },
            CellItem::Im(Item::Attach(attach)) => {
                self.edges.send(attach.edge, EdgeItem::AttachRefused(StanzaCondition::NotAllowed.into()));
            }
            CellItem::Im(Item::Resume { edge, .. }) => self.edges.send(edge, EdgeItem::ResumeRefused { h: None }),
            CellItem::Im(_)
            | CellItem::Committed { .. }
            | CellItem::Failed { .. }
            | CellItem::Mended(_)
            | CellItem::ReadAgain(_)
            | CellItem::GoOn(_)
            | CellItem::Sweep
            | CellItem::Rest => {}
        }
    }

    /// The store could not be read: try again later.
    pub(super) fn not_now(self: &Arc<House>, item: CellItem, ready: &mut Ready) {
        let error: StanzaError = StanzaCondition::InternalServerError.into();
        match item {
            CellItem::Im(Item::Inbound { stanza, ticket, .. }) => {
                self.answer_error(&stanza, &error.with_type(xmpp::error::ErrorType::Wait), ticket, ready)
            }
            CellItem::Im(Item::Attach(attach)) => self.edges.send(attach.edge, EdgeItem::AttachRefused(error)),
            CellItem::Im(Item::Resume { edge, .. }) => self.edges.send(edge, EdgeItem::ResumeRefused { h: None }),
            _ => {}
        }
    }
}
