//! An account in memory: its state, its gate, and its turns.

use super::effects;
use super::gate::{Gate, Verdict};
use super::later::{Later, Left};
use super::mending::{Hurt, Lapsed, Mended, Mending, ReadAgain};
use super::questions::Questions;
use super::{AccountCell, House, Ready};
use cluster::Ran;
use im::{Account, EdgeItem, Item, Now, Ticket};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use store::{Fence, Outcome};
use xmpp::StreamFault;
use xmpp::planted::{self, Bug};

/// How long an account stays in memory after its last use, milliseconds.
const IDLE_MS: u64 = 30_000;

#[derive(Debug)]
pub struct Resident {
    pub account: Account,
    pub gate: Gate,
    pub(super) fence: Fence,
    pub(super) mending: Mending,
    pub(super) questions: Questions,
    pub(super) later: Later,
    /// The nearest tick that was asked for, monotonic milliseconds.
    pub(super) wake_at: Option<u64>,
    /// Stays in memory until then, monotonic milliseconds.
    pub fresh_until: u64,
    sweep_at: Option<u64>,
    may_go: bool,
}

impl Resident {
    pub fn new(account: Account, fence: Fence) -> Resident {
        Resident {
            account,
            gate: Gate::default(),
            fence,
            mending: Mending::default(),
            questions: Questions::default(),
            later: Later::default(),
            wake_at: None,
            fresh_until: 0,
            sweep_at: None,
            may_go: false,
        }
    }

    fn may_go(&self) -> bool {
        self.mending.is_lost()
            || (self.may_go && !self.mending.is_under_way() && self.account.is_idle() && self.gate.is_empty())
    }
}

/// What lies in an account's mailbox.
#[derive(Debug)]
pub enum CellItem {
    Im(Item),
    /// The writer says: this commit is on disk, with these outcomes.
    Committed {
        seq: u64,
        outcomes: Vec<Outcome>,
        ticket: Ticket,
    },
    /// The writer says: this commit failed. If it `passes`, what stands behind it happens nevertheless.
    Failed {
        seq: u64,
        passes: bool,
        lapsed: Lapsed,
    },
    /// The stored part, read again after such a commit, if it could be.
    ReadAgain(Box<ReadAgain>),
    /// A step panicked; the stored part was read again, if it could be.
    Mended(Box<Mended>),
    /// What is left of the step before.
    GoOn(VecDeque<Left>),
    /// Look whether anybody needs the account in memory.
    Sweep,
    /// Leave memory, if nobody is there.
    Rest,
}

/// So many stanzas of one mailbox may pass between two looks at the clock.
const STANZAS_A_LOOK: u32 = 32;

impl House {
    /// One turn of a cell; its caller is the runner. What is left in its mailbox waits behind the others that are ready.
    pub(super) fn run_cell(self: &Arc<House>, cell: &Arc<AccountCell>, ready: &mut Ready) {
        let mut orphans = Vec::new();
        // One look at the clock serves the stanzas that wait.
        let mut now = self.now();
        let mut looked = 0;
        let ran = cell.cell.run(
            |resident, item| {
                let stanza = matches!(item, CellItem::Im(Item::FromClient { .. } | Item::Inbound { .. }));
                looked += 1;
                if looked > 1 && (!stanza || looked % STANZAS_A_LOOK == 0) {
                    now = self.now();
                }
                if resident.mending.is_lost() {
                    orphans.push(item);
                    return None;
                }
                self.step(cell, resident, item, now, ready);
                if resident.mending.is_lost() {
                    orphans.extend(resident.mending.left().map(CellItem::Im));
                    // What it decided before is not for who comes after it.
                    while let Some(left) = resident.later.end_step() {
                        self.go_on(cell, resident, left, ready);
                    }
                }
                resident.later.end_step().map(CellItem::GoOn)
            },
            Resident::may_go,
        );
        match ran {
            Ran::Idle => {}
            // What is left is for the account that begins anew, as what came before it is.
            Ran::More if !orphans.is_empty() => {
                orphans.extend(cell.cell.close());
                self.forget(cell);
            }
            Ran::More => ready.push_back(cell.clone()),
            Ran::Gone => self.forget(cell),
        }
        for item in orphans {
            self.leave(&cell.jid, item, ready);
        }
    }

    pub(super) fn step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: CellItem,
        now: Now,
        ready: &mut Ready,
    ) {
        match item {
            CellItem::Im(item) if resident.mending.keeps() => {
                if !resident.mending.wait(item) {
                    self.give_up(cell, resident);
                }
                return;
            }
            CellItem::Im(item) => {
                if let Some(item) = resident.questions.put_behind(item) {
                    self.one_step(cell, resident, CellItem::Im(item), now, ready);
                }
            }
            item => self.one_step(cell, resident, item, now, ready),
        }
        while !resident.mending.keeps()
            && let Some(item) = resident.questions.next_behind()
        {
            self.one_step(cell, resident, CellItem::Im(item), now, ready);
        }
    }

    fn one_step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: CellItem,
        now: Now,
        ready: &mut Ready,
    ) {
        resident.may_go = false;
        match item {
            CellItem::Im(item) => self.im_step(cell, resident, item, now, ready),
            CellItem::Committed { seq, outcomes, ticket } => {
                self.committed(cell, resident, seq, &outcomes, ticket, now, ready);
            }
            CellItem::Failed { seq, passes, lapsed } => self.failed(cell, resident, seq, passes, lapsed, now, ready),
            CellItem::ReadAgain(read) => self.was_read_again(cell, resident, *read, now, ready),
            CellItem::Mended(mended) => self.mended(cell, resident, *mended, now, ready),
            CellItem::GoOn(left) => self.go_on(cell, resident, left, ready),
            CellItem::Rest => {
                resident.fresh_until = 0;
                resident.may_go = resident.account.is_idle();
            }
            CellItem::Sweep => {
                resident.sweep_at = None;
                resident.may_go = resident.account.is_idle() && now.mono_ms >= resident.fresh_until;
            }
        }
        if !resident.may_go && resident.sweep_at.is_none() && !resident.mending.keeps() && resident.account.is_idle() {
            resident.fresh_until = resident.fresh_until.max(now.mono_ms + IDLE_MS);
            resident.sweep_at = Some(resident.fresh_until);
            self.timers.sweep(resident.fresh_until, cell);
        }
    }

    /// What a step left, or the next part of it.
    fn go_on(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        left: VecDeque<Left>,
        ready: &mut Ready,
    ) {
        for it in left {
            match it {
                Left::Effect(effect) => self.perform(cell, resident, effect, ready),
                Left::Ticket(ticket) => drop(resident.later.keep(ticket)),
            }
        }
    }

    /// A step of the account itself.
    fn im_step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: Item,
        now: Now,
        ready: &mut Ready,
    ) {
        // Kept over the step: what a panic leaves undone must never be acknowledged.
        let ticket = match &item {
            Item::FromClient { ticket, .. } | Item::Inbound { ticket, .. } | Item::SubscriptionLost { ticket, .. } => {
                Some(ticket.clone())
            }
            _ => None,
        };
        let hurt = Hurt::by(&item);
        let asker = match &item {
            Item::Attach(attach) => Some(attach.edge),
            Item::Resume { edge, .. } => Some(*edge),
            _ => None,
        };
        let is_error = matches!(&item, Item::Inbound { stanza, .. } if stanza.is_error());
        if matches!(item, Item::Tick) {
            resident.wake_at = None;
        }
        if let Item::Answered { session: Some(session), .. } = &item {
            resident.questions.answered(*session);
        }
        resident.gate.begin_step();
        let account = &mut resident.account;
        let mut fx = effects::room();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| account.step(item, now, &mut fx)));
        if outcome.is_err() {
            if let Some(ticket) = ticket.filter(|_| !hurt.is_answered()) {
                std::mem::forget(ticket);
            }
            if let Some(edge) = asker {
                self.edges.send(edge, EdgeItem::Close(StreamFault::InternalError));
            }
            return self.step_panicked(cell, resident, hurt, fx, now, ready);
        }
        // What is done is acknowledged: with an error as its outcome not before that is on its way.
        self.take_effects(cell, resident, fx, ready);
        let ticket = if is_error { ticket.and_then(|ticket| resident.gate.keep(ticket)) } else { ticket };
        drop(ticket.and_then(|ticket| resident.later.keep(ticket)));
    }

    /// What was written is on disk, and what stood behind it happens: unless the record was there already.
    #[expect(clippy::too_many_arguments, reason = "a turn of the account, and what the writer says")]
    fn committed(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        seq: u64,
        outcomes: &[Outcome],
        ticket: Ticket,
        now: Now,
        ready: &mut Ready,
    ) {
        let void = outcomes.iter().any(|o| matches!(o, Outcome::Duplicate(_)));
        let dropped = self.resolve(cell, resident, seq, if void { Verdict::Void } else { Verdict::Committed }, ready);
        let mut fx = effects::room();
        if !dropped.is_empty() {
            resident.gate.begin_step();
            resident.account.step(Item::Dropped { effects: dropped }, now, &mut fx);
        }
        if void && planted::is(Bug::TicketForgotten) {
            std::mem::forget(ticket);
            return;
        }
        self.take_effects(cell, resident, fx, ready);
        drop(resident.later.keep(ticket));
    }
}
