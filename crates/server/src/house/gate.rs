//! The gate of one entity: effects wait here, in order, for the commits they stand behind. DESIGN.md D4.

use im::{Delivery, EdgeItem, Effect, Ticket};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
enum Entry {
    Commit {
        seq: u64,
        step: u64,
        state: State,
    },
    Held {
        step: u64,
        effect: Effect,
    },
    /// What it belongs to is not done before the effects that stand before it have happened.
    Kept {
        ticket: Ticket,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Committed,
    /// Failed, or the store knew the record already: what stands behind it in the same step does not happen.
    Void,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Committed,
    Void,
}

/// What a commit's outcome sets free.
#[derive(Debug, Default)]
pub struct Resolved {
    pub free: Vec<Effect>,
    pub dropped: Vec<Effect>,
    /// To be let go when the free effects have happened.
    pub tickets: Vec<Ticket>,
}

#[derive(Debug, Default)]
pub struct Gate {
    entries: VecDeque<Entry>,
    held: usize,
    seq: u64,
    step: u64,
    /// A commit of the step under way is pending.
    behind: bool,
}

impl Gate {
    /// A new step begins.
    pub fn begin_step(&mut self) {
        self.step += 1;
        self.behind = false;
    }

    /// A commit was handed to the store; gives the number by which [`Gate::resolve`] knows it.
    pub fn commit(&mut self) -> u64 {
        self.seq += 1;
        self.behind = true;
        self.entries.push_back(Entry::Commit { seq: self.seq, step: self.step, state: State::Pending });
        self.seq
    }

    /// Gives the effect back if it may happen now; else keeps it.
    pub fn pass(&mut self, effect: Effect) -> Option<Effect> {
        // Who asks sees what was written before, also when nothing else waits for that.
        let asks = matches!(effect, Effect::Query { .. }) && !self.entries.is_empty();
        if !self.behind && self.held == 0 && !asks {
            return Some(effect);
        }
        self.held += 1;
        self.entries.push_back(Entry::Held { step: self.step, effect });
        None
    }

    /// Keeps the ticket until what this step left here has happened; gives it back if nothing is left here.
    pub fn keep(&mut self, ticket: Ticket) -> Option<Ticket> {
        if !self.behind && self.held == 0 {
            return Some(ticket);
        }
        self.entries.push_back(Entry::Kept { ticket });
        None
    }

    /// A commit is on disk, or void. Gives the effects that are free now, in order, and those that do not happen.
    ///
    /// What is not delivered is not delivered by a later step either: a session that came back meanwhile was given again
    /// all that waited for it.
    pub fn resolve(&mut self, seq: u64, verdict: Verdict) -> Resolved {
        let mut resolved = Resolved::default();
        for entry in &mut self.entries {
            if let Entry::Commit { seq: s, state, .. } = entry
                && *s == seq
            {
                *state = match verdict {
                    Verdict::Committed => State::Committed,
                    Verdict::Void => State::Void,
                };
                break;
            }
        }
        let mut void_step = None;
        while let Some(front) = self.entries.front() {
            if matches!(front, Entry::Commit { state: State::Pending, .. }) {
                break;
            }
            match self.entries.pop_front() {
                Some(Entry::Commit { state, step, .. }) => {
                    if state == State::Void {
                        void_step = Some(step);
                    }
                }
                Some(Entry::Held { step, effect }) => {
                    self.held -= 1;
                    if void_step == Some(step) || resolved.has_dropped(&effect) {
                        resolved.dropped.push(effect);
                    } else {
                        resolved.free.push(effect);
                    }
                }
                Some(Entry::Kept { ticket }) => resolved.tickets.push(ticket),
                None => break,
            }
        }
        if void_step.is_some() {
            self.drop_repeated(&mut resolved);
        }
        if self.entries.is_empty() {
            // An account that idles holds no room.
            self.entries = VecDeque::new();
        }
        resolved
    }

    /// Takes out what still waits here and delivers what was dropped.
    fn drop_repeated(&mut self, resolved: &mut Resolved) {
        if !resolved.dropped.iter().any(|effect| delivery_of(effect).is_some()) {
            return;
        }
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Held { effect, .. } if resolved.has_dropped(&effect) => {
                    self.held -= 1;
                    resolved.dropped.push(effect);
                }
                entry => self.entries.push_back(entry),
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Resolved {
    /// Does the effect deliver, to whatever stream, what is not delivered?
    fn has_dropped(&self, effect: &Effect) -> bool {
        let Some(delivery) = delivery_of(effect).filter(|delivery| !delivery.stanza.is_presence()) else {
            return false;
        };
        self.dropped
            .iter()
            .filter_map(delivery_of)
            .any(|dropped| Arc::ptr_eq(&dropped.stanza, &delivery.stanza) && dropped.position == delivery.position)
    }
}

fn delivery_of(effect: &Effect) -> Option<&Delivery> {
    match effect {
        Effect::Edge { item: EdgeItem::Deliver { delivery, .. }, .. } => Some(delivery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &'static str) -> Effect {
        Effect::Count(name)
    }
    fn names(effects: &[Effect]) -> Vec<&'static str> {
        effects.iter().map(|e| if let Effect::Count(n) = e { *n } else { "?" }).collect()
    }

    #[test]
    fn an_effect_without_a_commit_before_it_passes_at_once() {
        let mut gate = Gate::default();
        gate.begin_step();
        assert!(gate.pass(mark("a")).is_some());
    }

    #[test]
    fn effects_behind_a_commit_wait_for_it_and_keep_their_order_over_steps() {
        let mut gate = Gate::default();
        gate.begin_step();
        assert!(gate.pass(mark("before")).is_some());
        let one = gate.commit();
        assert!(gate.pass(mark("a")).is_none());
        gate.begin_step();
        assert!(gate.pass(mark("soft")).is_none());
        let two = gate.commit();
        assert!(gate.pass(mark("b")).is_none());
        assert!(gate.resolve(two, Verdict::Committed).free.is_empty());
        assert_eq!(names(&gate.resolve(one, Verdict::Committed).free), ["a", "soft", "b"]);
        assert!(gate.is_empty());
    }

    #[test]
    fn a_commit_with_nothing_held_behind_it_lets_the_next_step_pass() {
        let mut gate = Gate::default();
        gate.begin_step();
        gate.commit();
        gate.begin_step();
        assert!(gate.pass(mark("tell")).is_some());
    }

    #[test]
    fn a_ticket_is_kept_until_what_stands_before_it_has_happened() {
        let mut gate = Gate::default();
        gate.begin_step();
        assert!(gate.keep(Ticket::default()).is_some());
        let one = gate.commit();
        gate.begin_step();
        assert!(gate.keep(Ticket::default()).is_some(), "this step left nothing here");
        gate.begin_step();
        let two = gate.commit();
        gate.pass(mark("error"));
        assert!(gate.keep(Ticket::default()).is_none());
        assert_eq!(gate.resolve(two, Verdict::Committed).tickets.len(), 0);
        let resolved = gate.resolve(one, Verdict::Committed);
        assert_eq!((names(&resolved.free), resolved.tickets.len()), (vec!["error"], 1));
        assert!(gate.is_empty());
    }

    #[test]
    fn a_question_waits_for_what_was_written_before_it() {
        let question = || {
            let iq = std::sync::Arc::new(xmpp::Stanza::iq(xmpp::IqType::Get, "q"));
            Effect::Query { query: im::Query::Uptime, iq, session: None, then: |_, _, _, _, _| {} }
        };
        let mut gate = Gate::default();
        gate.begin_step();
        assert!(gate.pass(question()).is_some());
        let one = gate.commit();
        gate.begin_step();
        assert!(gate.pass(question()).is_none());
        assert_eq!(gate.resolve(one, Verdict::Committed).free.len(), 1);
    }

    #[test]
    fn what_a_void_commit_drops_is_not_delivered_by_later_steps_either() {
        let delivery = |body: &str| {
            let stanza = Arc::new(xmpp::Stanza::message(xmpp::MessageType::Chat).with_id(body));
            Delivery { stanza, to: None, more: xmpp::write::Additions::default(), position: Some(1) }
        };
        let gives = |edge, delivery: &Delivery| Effect::Edge {
            edge: im::EdgeRef(edge),
            item: EdgeItem::Deliver { number: 1, delivery: delivery.clone() },
        };
        let ids = |effects: &[Effect]| -> Vec<String> {
            effects.iter().filter_map(delivery_of).filter_map(|d| d.stanza.id.as_deref().map(str::to_owned)).collect()
        };
        let (refused, other) = (delivery("refused"), delivery("other"));
        let mut gate = Gate::default();
        gate.begin_step();
        let one = gate.commit();
        gate.pass(gives(1, &refused));
        // A stream that resumes is given it again: once behind no commit of its own, once behind one.
        gate.begin_step();
        gate.pass(gives(2, &refused));
        gate.pass(gives(2, &other));
        gate.begin_step();
        let two = gate.commit();
        gate.pass(gives(3, &refused));
        gate.pass(gives(3, &other));
        let resolved = gate.resolve(one, Verdict::Void);
        assert_eq!((ids(&resolved.free), ids(&resolved.dropped).len()), (vec!["other".to_owned()], 3));
        let resolved = gate.resolve(two, Verdict::Committed);
        assert_eq!((ids(&resolved.free), ids(&resolved.dropped).len()), (vec!["other".to_owned()], 0));
        gate.begin_step();
        assert!(gate.pass(mark("nothing is held")).is_some());
    }

    #[test]
    fn a_void_commit_drops_what_stands_behind_it_in_its_own_step_only() {
        let mut gate = Gate::default();
        gate.begin_step();
        let one = gate.commit();
        gate.pass(mark("lost"));
        gate.begin_step();
        gate.pass(mark("kept"));
        let resolved = gate.resolve(one, Verdict::Void);
        assert_eq!((names(&resolved.free), names(&resolved.dropped)), (vec!["kept"], vec!["lost"]));
    }
}
