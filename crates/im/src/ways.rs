//! Who comes before whom on the way of a stanza. This file alone says it; there are no priority numbers.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{Ingress, Item, SessionId, Ticket};
use crate::{
    block, inbox, leases, lost, messages, modules, nodes, operations, presence, pseudonyms, resume, roles, roster,
    session, strangers, subscription,
};
use std::sync::Arc;
use xmpp::write::Additions;
use xmpp::{IqType, Jid, PresenceType, Stanza, StanzaError, StanzaType};

/// OUTBOUND: what a stanza of the account's own client passes, by kind.
static MESSAGE_OUTBOUND: &[Step] = &[
    operations::outbound,
    roles::outbound,
    messages::service,
    block::outbound,
    messages::strip_outbound,
    messages::unseen,
    strangers::outbound,
    modules::amp::outbound,
    modules::displayed::outbound,
    messages::outbound,
    modules::retraction::kept,
    messages::copy_sent,
];
static SUBSCRIPTION_OUTBOUND: &[Step] =
    &[operations::outbound, roles::outbound, block::outbound, subscription::outbound];
static PRESENCE_OUTBOUND: &[Step] = &[
    operations::outbound,
    roles::outbound,
    block::outbound,
    modules::avatar::outbound,
    presence::outbound,
    modules::interest::presence,
];
static IQ_OUTBOUND: &[Step] = &[
    operations::outbound,
    roles::outbound,
    block::outbound,
    modules::unseen,
    modules::interest::answered,
    modules::outbound_iq,
];

/// INBOUND: what a stanza for the account or one of its resources passes, by kind.
static MESSAGE_INBOUND: &[Step] = &[
    roles::inbound,
    messages::service,
    block::inbound,
    messages::strip_inbound,
    strangers::inbound,
    modules::amp::inbound,
    messages::inbound,
    modules::retraction::kept,
    messages::copy_received,
    modules::push::received,
];
static SUBSCRIPTION_INBOUND: &[Step] = &[roles::inbound, block::inbound, subscription::inbound];
static PRESENCE_INBOUND: &[Step] =
    &[roles::inbound, block::inbound, modules::solicited::inbound, modules::interest::contact, presence::inbound];
static IQ_INBOUND: &[Step] = &[
    roles::inbound,
    block::inbound,
    modules::push::answered,
    modules::interest::contact_answered,
    modules::inbound_iq,
];

/// For an account that was removed a moment ago.
static GONE: &[Step] = &[gone];

/// A stanza on its way through an account.
pub struct Passage {
    pub stanza: Arc<Stanza>,
    /// Where it goes; for OUTBOUND without `to`: the own bare JID.
    pub to: Jid,
    /// The own session that sent it (OUTBOUND).
    pub session: Option<SessionId>,
    pub ingress: Ingress,
    pub ticket: Ticket,
    /// Position in this account's log, once it has one.
    pub position: Option<i64>,
    /// The record is part of the archive: the message has a stanza-id.
    pub archived: bool,
    /// Sessions that took it.
    pub taken_by: Vec<SessionId>,
    /// A rule keeps it from those who are there.
    pub quiet: bool,
}

impl Passage {
    /// Of a stanza that was here before and has no ticket any more.
    pub(crate) fn of(account: &Account, stanza: Arc<Stanza>) -> Passage {
        let to = stanza.to.clone().unwrap_or_else(|| account.jid.clone().into());
        let ingress = Ingress { stream: 0, ordinal: 0 };
        Passage {
            stanza,
            to,
            session: None,
            ingress,
            ticket: Ticket::default(),
            position: None,
            archived: false,
            taken_by: Vec::new(),
            quiet: false,
        }
    }
}

/// What a step says of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Next,
    Done,
}

pub type Step = fn(&mut Account, &mut Passage, &mut Effects) -> Result<Flow, StanzaError>;

/// Dispatches an item to the one function that handles it.
pub fn step(account: &mut Account, item: Item, fx: &mut Effects) {
    let names = account.pseudonyms.clone();
    leases::look(account, fx);
    match item {
        Item::Attach(attach) => session::attach(account, attach, fx),
        Item::Resume { edge, id, h } => resume::resume(account, edge, &id, h, fx),
        Item::Manage { session, request } => resume::manage(account, session, request, fx),
        Item::Acked { session, h } => resume::acked(account, session, h, fx),
        Item::ClientState { session, active } => modules::client_state::set(account, session, active, fx),
        Item::Written { session, edge, deliveries } => session::written(account, session, edge, deliveries, fx),
        Item::Detached { session, edge, reason, deliveries, received } => {
            session::detached(account, session, edge, reason, deliveries, received, fx);
        }
        Item::TakeOver { session } => resume::take_over(account, session, fx),
        Item::Settled { session, received } => resume::settled(account, session, received, fx),
        Item::FromClient { session, stanza, ingress, ticket } => {
            outbound(account, session, stanza, ingress, ticket, fx)
        }
        // (The ticket goes when the answer is queued.)
        Item::Malformed { session, answer: stanza, ticket: _ticket } => {
            let delivery = Delivery { stanza, to: None, more: Additions::default(), position: None };
            session::deliver(account, session, delivery, fx);
        }
        Item::Inbound { stanza, to, ingress, ticket } => inbound(account, stanza, to, ingress, ticket, fx),
        Item::Ask { iq } => modules::ask(account, &iq, fx),
        Item::Answered { iq, session, answer, then } => then(account, &iq, session, answer, fx),
        Item::Pending { after, records } => inbox::pending_page(account, after, records, fx),
        Item::Dropped { effects } => session::dropped(account, effects, fx),
        Item::CommitFailed { bounce, error, ticket, stored } => {
            inbox::commit_failed(account, bounce, error, &ticket, stored, fx);
        }
        Item::Panicked { session, stored } => session::panicked(account, session, *stored, fx),
        Item::Tick => session::tick(account, fx),
        Item::Overdue { records } => inbox::overdue(account, &records, fx),
        Item::Kick { resource, fault } => session::kick(account, resource.as_deref(), fault, fx),
        Item::Befriend { contact, ticket } => roster::befriend(account, &contact, &ticket, fx),
        Item::SetRoles { roles, ticket } => session::set_roles(account, roles, ticket, fx),
        Item::Introduce { contact } => subscription::introduce(account, &contact, fx),
        Item::Disabled(disabled) => session::disable(account, disabled, fx),
        Item::Remove { ticket } => session::remove_account(account, ticket, fx),
        Item::ShutDown { ticket } => session::shut_down(account, &ticket, fx),
        Item::SubscriptionLost { stanza, to, ingress, ticket } => {
            let contact = stanza.from.as_ref().map(|from| from.to_bare());
            let had = contact.filter(|contact| account.roster.subscription(contact).to);
            inbound(account, stanza, to, ingress, ticket, fx);
            if let Some(contact) = had {
                lost::again(account, &contact, fx);
            }
        }
        Item::LedgerExpired => presence::ledger_expired(account, fx),
    }
    nodes::settle(account, fx);
    session::end_overrun(account, fx);
    pseudonyms::disguise(account, &names, fx);
}

/// OUTBOUND: a stanza from the account's own client. Its `from` becomes the session's full JID, whatever it said
/// (the stream refused what is not its own). RFC 6120 §8.1.2.1.
fn outbound(
    account: &mut Account,
    id: SessionId,
    mut stanza: Arc<Stanza>,
    ingress: Ingress,
    ticket: Ticket,
    fx: &mut Effects,
) {
    let Some(session) = account.session(id).filter(|_| !account.removed) else { return };
    // (Nobody else holds it yet: nothing is copied.)
    let stamped = Arc::make_mut(&mut stanza);
    stamped.from = Some(session.jid.clone().into());
    let own: Jid = account.jid.clone().into();
    if stamped.is_message() && stamped.to.is_none() {
        // RFC 6120 §10.3.1.
        stamped.to = Some(own.clone());
    }
    let to = stanza.to.clone().unwrap_or(own);
    let steps = match stanza.kind {
        StanzaType::Message(_) => MESSAGE_OUTBOUND,
        StanzaType::Presence(kind) if is_subscription(kind) => SUBSCRIPTION_OUTBOUND,
        StanzaType::Presence(_) => PRESENCE_OUTBOUND,
        StanzaType::Iq(_) => IQ_OUTBOUND,
    };
    walk(
        account,
        Passage {
            stanza,
            to,
            session: Some(id),
            ingress,
            ticket,
            position: None,
            archived: false,
            taken_by: Vec::new(),
            quiet: false,
        },
        steps,
        fx,
    );
}

/// INBOUND: a stanza for the account or one of its resources.
fn inbound(account: &mut Account, stanza: Arc<Stanza>, to: Jid, ingress: Ingress, ticket: Ticket, fx: &mut Effects) {
    let (mut stanza, mut to) = (stanza, to);
    // A name that the account gave itself. Answers find who asked by it.
    let is_answer = matches!(stanza.kind, StanzaType::Iq(IqType::Result | IqType::Error));
    let is_own = to.same_bare(&account.jid) || is_answer;
    let meant = if is_own { None } else { pseudonyms::meant(account, &stanza, &to) };
    let is_for_nobody = !is_own && meant.is_none();
    if let Some(meant) = meant {
        (stanza, to) = (meant, account.jid.clone().into());
    }
    let steps = match stanza.kind {
        _ if account.removed || is_for_nobody => GONE,
        StanzaType::Message(_) => MESSAGE_INBOUND,
        StanzaType::Presence(kind) if is_subscription(kind) => SUBSCRIPTION_INBOUND,
        StanzaType::Presence(_) => PRESENCE_INBOUND,
        StanzaType::Iq(_) => IQ_INBOUND,
    };
    walk(
        account,
        Passage {
            stanza,
            to,
            session: None,
            ingress,
            ticket,
            position: None,
            archived: false,
            taken_by: Vec::new(),
            quiet: false,
        },
        steps,
        fx,
    );
}

/// What an account that does not exist says. RFC 6121 §8.5.1.
fn gone(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    match passage.stanza.kind {
        StanzaType::Presence(_) | StanzaType::Iq(IqType::Result | IqType::Error) => Ok(Flow::Done),
        StanzaType::Iq(IqType::Get | IqType::Set) => modules::as_nobody(account, passage, fx).map(|()| Flow::Done),
        StanzaType::Message(_) => Err(modules::unknown()),
    }
}

pub(crate) fn is_subscription(kind: PresenceType) -> bool {
    use PresenceType::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};
    matches!(kind, Subscribe | Subscribed | Unsubscribe | Unsubscribed)
}

/// Step by step, until one is done with the stanza. An error is answered here and nowhere else.
fn walk(account: &mut Account, mut passage: Passage, steps: &[Step], fx: &mut Effects) {
    for step in steps {
        match step(account, &mut passage, fx) {
            Ok(Flow::Next) => {}
            Ok(Flow::Done) => return,
            Err(error) => {
                let Some(from) = passage.stanza.from.clone() else { return };
                answer(account, &from, &passage.stanza, &error, &passage.ticket, fx);
                return;
            }
        }
    }
}

/// An error for the stanza's sender, if the stanza may be answered with one. RFC 6120 §8.3.1.
pub(crate) fn answer(
    account: &mut Account,
    from: &Jid,
    stanza: &Arc<Stanza>,
    error: &StanzaError,
    ticket: &Ticket,
    fx: &mut Effects,
) {
    fx.refused(error);
    let Some(answer) = stanza.error(error) else { return };
    let answer = Arc::new(answer);
    let own = account.sessions.iter().find(|s| *s.jid == *from).map(|s| s.id);
    match own {
        Some(id) => {
            session::deliver(
                account,
                id,
                Delivery { stanza: answer, to: None, more: Additions::default(), position: None },
                fx,
            );
        }
        None => fx.push(Effect::Tell {
            to: from.clone(),
            stanza: answer,
            ingress: Ingress { stream: 0, ordinal: 0 },
            ticket: ticket.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::item::{Ingress, Item, SessionId, Ticket};
    use crate::testing::{Scene, account_with, contact, jid, stanza};
    use store::AccountRecord;

    /// Juliet has blocked Tybalt, and Romeo sees her.
    fn juliet() -> Scene {
        let stored = AccountRecord {
            roster: vec![contact("romeo@montague.example", "both")],
            blocks: vec![jid("tybalt@capulet.example")],
            ..AccountRecord::default()
        };
        account_with("juliet@capulet.example", stored).with("home", 0)
    }

    #[test]
    fn an_error_on_the_way_out_goes_to_the_session_that_sent_the_stanza() {
        let mut juliet = juliet().with("phone", 0);
        let fx = juliet.sends("home", "<message to='tybalt@capulet.example/x' id='m1'><body>hi</body></message>");
        assert_eq!(fx.written_to(), ["home"]);
        let error = fx.delivered("home").remove(0);
        assert!(error.contains("type='error'") && error.contains("id='m1'"), "{error}");
        assert!(error.contains("from='tybalt@capulet.example/x'"), "{error}");
        assert!(fx.told_to().is_empty() && fx.commits().is_empty());
    }

    #[test]
    fn an_error_on_the_way_in_goes_to_the_sender() {
        let mut juliet = juliet();
        let fx =
            juliet.receive("<message from='tybalt@capulet.example/x' id='m1' type='chat'><body>hi</body></message>");
        assert_eq!(fx.told_to(), ["tybalt@capulet.example/x"]);
        assert!(fx.told()[0].1.contains("<service-unavailable"), "{:?}", fx.told());
        assert!(fx.written_to().is_empty() && fx.commits().is_empty());
    }

    // RFC 6120 §8.3.1, §8.2.3.
    #[test]
    fn neither_an_error_nor_a_result_is_answered() {
        let mut juliet = juliet();
        for xml in [
            "<message from='tybalt@capulet.example/x' type='error'><body>hi</body></message>",
            "<iq from='tybalt@capulet.example/x' type='error' id='1'/>",
            "<iq from='tybalt@capulet.example/x' type='result' id='1'/>",
            "<iq from='romeo@montague.example/x' to='juliet@capulet.example/gone' type='result' id='1'/>",
            "<presence from='tybalt@capulet.example/x' type='error'/>",
            "<presence from='tybalt@capulet.example/x'/>",
        ] {
            let fx = juliet.receive(xml);
            assert!(fx.is_empty(), "{xml}: {:?}", fx.list);
        }
    }

    // RFC 6120 §8.1.2.1.
    #[test]
    fn every_stanza_of_a_client_is_stamped_with_its_full_jid() {
        let mut juliet = juliet();
        for xml in [
            "<message from='juliet@capulet.example' to='romeo@montague.example'><body>hi</body></message>",
            "<presence from='juliet@capulet.example' to='romeo@montague.example/x'/>",
            "<iq from='juliet@capulet.example' to='romeo@montague.example/x' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        ] {
            let told = juliet.sends("home", xml).told();
            assert!(told[0].1.contains("from='juliet@capulet.example/home'"), "{told:?}");
        }
    }

    #[test]
    fn a_stanza_of_a_session_that_has_ended_goes_nowhere() {
        let mut juliet = juliet();
        let stanza = std::sync::Arc::new(stanza("<message to='romeo@montague.example'><body>hi</body></message>"));
        let ingress = Ingress { stream: 1, ordinal: 1 };
        let fx = juliet.item(Item::FromClient { session: SessionId(99), stanza, ingress, ticket: Ticket::default() });
        assert!(fx.is_empty());
    }

    // RFC 6120 §10.3.2, §10.3.3.
    #[test]
    fn without_an_address_presence_is_broadcast_and_an_iq_answered() {
        let mut juliet = juliet();
        assert_eq!(juliet.sends("home", "<presence/>").told_to(), ["romeo@montague.example"]);
        let fx = juliet.sends("home", "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
        assert!(fx.delivered("home")[0].contains("type='result'"), "{:?}", fx.list);
        let fx = juliet.sends("home", "<iq type='get' id='1'><query xmlns='nobody:knows'/></iq>");
        assert!(fx.delivered("home")[0].contains("<service-unavailable"), "{:?}", fx.list);
        assert!(juliet.sends("home", "<iq type='result' id='1'/>").is_empty());
    }
}
