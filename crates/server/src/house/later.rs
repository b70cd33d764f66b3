//! What is left of a step that sets off more than others should wait for: it goes on before all else of the account, when
//! others had their turn.

use im::{Effect, Ticket};
use std::collections::VecDeque;

/// Entities that one step of an account tells something: a fifth of a millisecond or so.
const TOLD_A_STEP: usize = 128;

/// Something that a step leaves behind.
#[derive(Debug)]
pub enum Left {
    Effect(Effect),
    /// Given up when all before it has happened.
    Ticket(Ticket),
}

/// What a step of an account may still do, and what it leaves; empty between two steps.
#[derive(Debug)]
pub struct Later {
    left: VecDeque<Left>,
    may_tell: usize,
}

impl Default for Later {
    fn default() -> Later {
        Later { left: VecDeque::new(), may_tell: TOLD_A_STEP }
    }
}

impl Later {
    /// The part of an effect that may happen now. Behind something that is left nothing overtakes it.
    pub fn now(&mut self, effect: Effect) -> Option<Effect> {
        if !self.left.is_empty() {
            self.left.push_back(Left::Effect(effect));
            return None;
        }
        let asks = match &effect {
            Effect::Tell { .. } => 1,
            Effect::Fan { targets, .. } => targets.len(),
            _ => return Some(effect),
        };
        if asks <= self.may_tell {
            self.may_tell -= asks;
            return Some(effect);
        }
        let part = match effect {
            Effect::Fan { stanza, mut targets } if self.may_tell > 0 => {
                // Their order is nobody's concern, and the last are taken off without moving the others.
                let part = targets.split_off(targets.len() - self.may_tell);
                self.left.push_back(Left::Effect(Effect::Fan { stanza: stanza.clone(), targets }));
                Some(Effect::Fan { stanza, targets: part })
            }
            effect => {
                self.left.push_back(Left::Effect(effect));
                None
            }
        };
        self.may_tell = 0;
        part
    }

    /// Gives the ticket back if nothing is left before it.
    pub fn keep(&mut self, ticket: Ticket) -> Option<Ticket> {
        if self.left.is_empty() {
            return Some(ticket);
        }
        self.left.push_back(Left::Ticket(ticket));
        None
    }

    /// The step ends: what is left.
    pub fn end_step(&mut self) -> Option<VecDeque<Left>> {
        self.may_tell = TOLD_A_STEP;
        (!self.left.is_empty()).then(|| std::mem::take(&mut self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use xmpp::{Jid, PresenceType, Stanza};

    fn fan(targets: usize) -> Effect {
        let to = |n| Jid::parse(&format!("w{n}@example.org")).expect("a JID in a test");
        let stanza = Arc::new(Stanza::presence(PresenceType::Available));
        Effect::Fan { stanza, targets: (0..targets).map(to).collect() }
    }

    fn told(effect: Option<Effect>) -> Vec<Jid> {
        match effect {
            Some(Effect::Fan { targets, .. }) => targets,
            None => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// Step by step, as the house goes on.
    fn steps(effects: Vec<Effect>) -> Vec<Vec<Jid>> {
        let (mut later, mut steps) = (Later::default(), Vec::new());
        let mut left: VecDeque<Left> = effects.into_iter().map(Left::Effect).collect();
        while !left.is_empty() {
            let mut step = Vec::new();
            for it in left {
                let Left::Effect(effect) = it else { panic!("no ticket was kept") };
                step.extend(told(later.now(effect)));
            }
            steps.push(step);
            left = later.end_step().unwrap_or_default();
        }
        steps
    }

    #[test]
    fn a_step_tells_so_many_and_each_is_told_once() {
        let steps = steps(vec![fan(3 * TOLD_A_STEP + 1)]);
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [TOLD_A_STEP, TOLD_A_STEP, TOLD_A_STEP, 1]);
        let mut all: Vec<Jid> = steps.concat();
        all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        all.dedup();
        assert_eq!(all.len(), 3 * TOLD_A_STEP + 1);
    }

    #[test]
    fn nothing_overtakes_what_is_left() {
        let mut later = Later::default();
        assert_eq!(told(later.now(fan(TOLD_A_STEP + 1))).len(), TOLD_A_STEP);
        assert!(later.now(Effect::Count("behind")).is_none());
        assert!(later.keep(Ticket::default()).is_none());
        let left = later.end_step().expect("three are left");
        assert!(matches!(
            left.iter().collect::<Vec<_>>()[..],
            [Left::Effect(Effect::Fan { .. }), Left::Effect(Effect::Count("behind")), Left::Ticket(_)]
        ));
        assert!(later.end_step().is_none());
        assert!(later.keep(Ticket::default()).is_some());
    }
}
