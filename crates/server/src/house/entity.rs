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

/// A turn of an account: what its steps have in common.
pub(super) struct Turn<'a> {
    pub cell: &'a Arc<AccountCell>,
    pub resident: &'a mut Resident,
    pub now: Now,
    /// Cells that have become ready meanwhile: they run behind this one.
    pub ready: &'a mut Ready,
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
    /// `now`: of the cells before it, and of those behind.
    pub(super) fn run_cell(self: &Arc<House>, cell: &Arc<AccountCell>, ready: &mut Ready, now: &mut Now) {
        let mut orphans = Vec::new();
        // One look at the clock serves the stanzas that wait.
        let mut looked = 0;
        let ran = cell.cell.run(
            |resident, item| {
                let stanza = matches!(item, CellItem::Im(Item::FromClient { .. } | Item::Inbound { .. }));
                looked += 1;
                if looked > 1 && (!stanza || looked % STANZAS_A_LOOK == 0) {
                    *now = self.now();
                }
                if resident.mending.is_lost() {
                    orphans.push(item);
                    return None;
                }
                let turn = &mut Turn { cell, resident, now: *now, ready };
                self.step(turn, item);
                if turn.resident.mending.is_lost() {
                    orphans.extend(turn.resident.mending.left().map(CellItem::Im));
                    // What it decided before is not for who comes after it.
                    while let Some(left) = turn.resident.later.end_step() {
                        self.go_on(turn, left);
                    }
                }
                turn.resident.later.end_step().map(CellItem::GoOn)
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

    pub(super) fn step(self: &Arc<House>, turn: &mut Turn<'_>, item: CellItem) {
        match item {
            CellItem::Im(item) if turn.resident.mending.keeps() => {
                if !turn.resident.mending.wait(item) {
                    self.give_up(turn);
                }
                return;
            }
            CellItem::Im(item) => {
                if let Some(item) = turn.resident.questions.put_behind(item) {
                    self.one_step(turn, CellItem::Im(item));
                }
            }
            item => self.one_step(turn, item),
        }
        while !turn.resident.mending.keeps()
            && let Some(item) = turn.resident.questions.next_behind()
        {
            self.one_step(turn, CellItem::Im(item));
        }
    }

    fn one_step(self: &Arc<House>, turn: &mut Turn<'_>, item: CellItem) {
        turn.resident.may_go = false;
        match item {
            CellItem::Im(item) => self.im_step(turn, item),
            CellItem::Committed { seq, outcomes, ticket } => {
                self.committed(turn, seq, &outcomes, ticket);
            }
            CellItem::Failed { seq, passes, lapsed } => self.failed(turn, seq, passes, lapsed),
            CellItem::ReadAgain(read) => self.was_read_again(turn, *read),
            CellItem::Mended(mended) => self.mended(turn, *mended),
            CellItem::GoOn(left) => self.go_on(turn, left),
            CellItem::Rest => {
                turn.resident.fresh_until = 0;
                turn.resident.may_go = turn.resident.account.is_idle();
            }
            CellItem::Sweep => {
                turn.resident.sweep_at = None;
                turn.resident.may_go = turn.resident.account.is_idle() && turn.now.mono_ms >= turn.resident.fresh_until;
            }
        }
        let Turn { cell, resident, now, .. } = turn;
        if !resident.may_go && resident.sweep_at.is_none() && !resident.mending.keeps() && resident.account.is_idle() {
            resident.fresh_until = resident.fresh_until.max(now.mono_ms + IDLE_MS);
            resident.sweep_at = Some(resident.fresh_until);
            self.timers.sweep(resident.fresh_until, cell);
        }
    }

    /// What a step left, or the next part of it.
    fn go_on(self: &Arc<House>, turn: &mut Turn<'_>, left: VecDeque<Left>) {
        for it in left {
            match it {
                Left::Effect(effect) => self.perform(turn, effect),
                Left::Ticket(ticket) => drop(turn.resident.later.keep(ticket)),
            }
        }
    }

    /// A step of the account itself.
    fn im_step(self: &Arc<House>, turn: &mut Turn<'_>, item: Item) {
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
            turn.resident.wake_at = None;
        }
        if let Item::Answered { session: Some(session), .. } = &item {
            turn.resident.questions.answered(*session);
        }
        turn.resident.gate.begin_step();
        let account = &mut turn.resident.account;
        let mut fx = effects::room();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| account.step(item, turn.now, &mut fx)));
        if outcome.is_err() {
            if let Some(ticket) = ticket.filter(|_| !hurt.is_answered()) {
                std::mem::forget(ticket);
            }
            if let Some(edge) = asker {
                self.edges.send(edge, EdgeItem::Close(StreamFault::InternalError));
            }
            return self.step_panicked(turn, hurt, fx);
        }
        // What is done is acknowledged: with an error as its outcome not before that is on its way.
        self.take_effects(turn, fx);
        let ticket = if is_error { ticket.and_then(|ticket| turn.resident.gate.keep(ticket)) } else { ticket };
        drop(ticket.and_then(|ticket| turn.resident.later.keep(ticket)));
    }

    /// What was written is on disk, and what stood behind it happens: unless the record was there already.
    fn committed(self: &Arc<House>, turn: &mut Turn<'_>, seq: u64, outcomes: &[Outcome], ticket: Ticket) {
        let void = outcomes.iter().any(|o| matches!(o, Outcome::Duplicate(_)));
        let dropped = self.resolve(turn, seq, if void { Verdict::Void } else { Verdict::Committed });
        let mut fx = effects::room();
        if !dropped.is_empty() {
            turn.resident.gate.begin_step();
            turn.resident.account.step(Item::Dropped { effects: dropped }, turn.now, &mut fx);
        }
        if void && planted::is(Bug::TicketForgotten) {
            std::mem::forget(ticket);
            return;
        }
        self.take_effects(turn, fx);
        drop(turn.resident.later.keep(ticket));
    }
}
