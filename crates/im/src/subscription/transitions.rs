//! The states of a subscription and what each of the four stanzas makes of them: pure. RFC 6121 Appendix A.

use store::Subscription;
use xmpp::{PresenceType, StanzaType};

/// The four stanzas that manage a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// "May I?"
    Subscribe,
    /// "You may."
    Subscribed,
    /// "I no longer want to."
    Unsubscribe,
    /// "You may not", or no longer.
    Unsubscribed,
}

impl Act {
    pub fn of(kind: StanzaType) -> Option<Act> {
        match kind {
            StanzaType::Presence(PresenceType::Subscribe) => Some(Act::Subscribe),
            StanzaType::Presence(PresenceType::Subscribed) => Some(Act::Subscribed),
            StanzaType::Presence(PresenceType::Unsubscribe) => Some(Act::Unsubscribe),
            StanzaType::Presence(PresenceType::Unsubscribed) => Some(Act::Unsubscribed),
            _ => None,
        }
    }

    pub fn presence_type(self) -> PresenceType {
        match self {
            Act::Subscribe => PresenceType::Subscribe,
            Act::Subscribed => PresenceType::Subscribed,
            Act::Unsubscribe => PresenceType::Unsubscribe,
            Act::Unsubscribed => PresenceType::Unsubscribed,
        }
    }
}

/// What a subscription stanza does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub state: Subscription,
    /// From the user: is it routed to the contact? From the contact: is it delivered to the user?
    pub passes: bool,
    /// What the server answers the contact on the user's behalf.
    pub reply: Option<Act>,
}

/// A stanza of the user. RFC 6121 Appendix A.2, §3.4.2.
pub fn of_user(before: Subscription, act: Act) -> Transition {
    let mut state = before;
    let passes = match act {
        Act::Subscribe => {
            state.pending_out = !before.to;
            true
        }
        Act::Unsubscribe => {
            state.to = false;
            state.pending_out = false;
            true
        }
        Act::Subscribed if before.from => false,
        Act::Subscribed if before.pending_in => {
            state.pending_in = false;
            state.from = true;
            true
        }
        Act::Subscribed => {
            state.approved = true;
            false
        }
        Act::Unsubscribed => {
            state.from = false;
            state.pending_in = false;
            state.approved = false;
            before.from || before.pending_in
        }
    };
    Transition { state, passes, reply: None }
}

/// A stanza of the contact. RFC 6121 Appendix A.3, §3.4.2. A pre-approval stays until the user takes it back.
pub fn of_contact(before: Subscription, act: Act) -> Transition {
    let mut state = before;
    let (passes, reply) = match act {
        Act::Subscribe if before.from => (false, Some(Act::Subscribed)),
        Act::Subscribe if before.pending_in => (false, None),
        Act::Subscribe if before.approved => {
            state.from = true;
            (false, Some(Act::Subscribed))
        }
        Act::Subscribe => {
            state.pending_in = true;
            (true, None)
        }
        Act::Unsubscribe if before.from || before.pending_in => {
            state.from = false;
            state.pending_in = false;
            // Appendix A.3.2 would have the server answer "unsubscribed" (SHOULD). It tells the contact nothing new, and
            // would end a request that the contact has sent meanwhile; so it is not sent.
            (true, None)
        }
        Act::Subscribed if before.pending_out => {
            state.pending_out = false;
            state.to = true;
            (true, None)
        }
        Act::Unsubscribed if before.to || before.pending_out => {
            state.to = false;
            state.pending_out = false;
            (true, None)
        }
        Act::Unsubscribe | Act::Subscribed | Act::Unsubscribed => (false, None),
    };
    Transition { state, passes, reply }
}

/// What must be said to part from a contact, both ways. RFC 6121 §2.5.2; a request that waits, on either side, ends too.
pub fn to_part(state: Subscription) -> impl Iterator<Item = Act> {
    let unsubscribe = (state.to || state.pending_out).then_some(Act::Unsubscribe);
    let unsubscribed = (state.from || state.pending_in).then_some(Act::Unsubscribed);
    unsubscribe.into_iter().chain(unsubscribed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nine states of Appendix A.1, as the RFC names them.
    fn state(name: &str) -> Subscription {
        let (base, pending) = name.split_once('+').unwrap_or((name, ""));
        Subscription {
            to: matches!(base, "To" | "Both"),
            from: matches!(base, "From" | "Both"),
            pending_out: pending.contains("Out"),
            pending_in: pending.contains("In"),
            approved: false,
        }
    }

    fn approved(name: &str) -> Subscription {
        Subscription { approved: true, ..state(name) }
    }

    const STATES: [&str; 9] = ["None", "None+Out", "None+In", "None+OutIn", "To", "To+In", "From", "From+Out", "Both"];

    /// (does it pass?, the new state), in the order of [`STATES`].
    type Table = [(bool, &'static str); 9];

    fn check(table: Table, transition: fn(Subscription, Act) -> Transition, act: Act) {
        for (before, (passes, after)) in STATES.into_iter().zip(table) {
            let found = transition(state(before), act);
            assert_eq!((found.passes, found.state), (passes, state(after)), "{act:?} in {before}");
        }
    }

    #[test]
    fn outbound_subscribe_follows_table_2() {
        check(
            [
                (true, "None+Out"),
                (true, "None+Out"),
                (true, "None+OutIn"),
                (true, "None+OutIn"),
                (true, "To"),
                (true, "To+In"),
                (true, "From+Out"),
                (true, "From+Out"),
                (true, "Both"),
            ],
            of_user,
            Act::Subscribe,
        );
    }

    #[test]
    fn outbound_unsubscribe_follows_table_3() {
        check(
            [
                (true, "None"),
                (true, "None"),
                (true, "None+In"),
                (true, "None+In"),
                (true, "None"),
                (true, "None+In"),
                (true, "From"),
                (true, "From"),
                (true, "From"),
            ],
            of_user,
            Act::Unsubscribe,
        );
    }

    #[test]
    fn outbound_subscribed_follows_table_4() {
        for (before, passes, after) in [
            ("None", false, approved("None")),
            ("None+Out", false, approved("None+Out")),
            ("None+In", true, state("From")),
            ("None+OutIn", true, state("From+Out")),
            ("To", false, approved("To")),
            ("To+In", true, state("Both")),
            ("From", false, state("From")),
            ("From+Out", false, state("From+Out")),
            ("Both", false, state("Both")),
        ] {
            assert_eq!(
                of_user(state(before), Act::Subscribed),
                Transition { state: after, passes, reply: None },
                "{before}"
            );
        }
    }

    #[test]
    fn outbound_unsubscribed_follows_table_5_and_takes_a_pre_approval_back() {
        let table: Table = [
            (false, "None"),
            (false, "None+Out"),
            (true, "None"),
            (true, "None+Out"),
            (false, "To"),
            (true, "To"),
            (true, "None"),
            (true, "None+Out"),
            (true, "To"),
        ];
        check(table, of_user, Act::Unsubscribed);
        for (before, (passes, after)) in STATES.into_iter().zip(table) {
            let found = of_user(approved(before), Act::Unsubscribed);
            assert_eq!((found.passes, found.state), (passes, state(after)), "{before}, approved");
        }
    }

    #[test]
    fn inbound_subscribe_follows_table_6() {
        check(
            [
                (true, "None+In"),
                (true, "None+OutIn"),
                (false, "None+In"),
                (false, "None+OutIn"),
                (true, "To+In"),
                (false, "To+In"),
                (false, "From"),
                (false, "From+Out"),
                (false, "Both"),
            ],
            of_contact,
            Act::Subscribe,
        );
        for before in STATES {
            let reply = state(before).from.then_some(Act::Subscribed);
            assert_eq!(of_contact(state(before), Act::Subscribe).reply, reply, "{before}");
        }
    }

    #[test]
    fn a_pre_approved_request_is_answered_by_the_server_and_not_delivered() {
        for (before, after) in [("None", "From"), ("None+Out", "From+Out"), ("To", "Both")] {
            let found = of_contact(approved(before), Act::Subscribe);
            assert_eq!(
                found,
                Transition { state: approved(after), passes: false, reply: Some(Act::Subscribed) },
                "{before}"
            );
        }
    }

    #[test]
    fn inbound_unsubscribe_follows_table_7() {
        check(
            [
                (false, "None"),
                (false, "None+Out"),
                (true, "None"),
                (true, "None+Out"),
                (false, "To"),
                (true, "To"),
                (true, "None"),
                (true, "None+Out"),
                (true, "To"),
            ],
            of_contact,
            Act::Unsubscribe,
        );
    }

    #[test]
    fn inbound_subscribed_follows_table_8() {
        check(
            [
                (false, "None"),
                (true, "To"),
                (false, "None+In"),
                (true, "To+In"),
                (false, "To"),
                (false, "To+In"),
                (false, "From"),
                (true, "Both"),
                (false, "Both"),
            ],
            of_contact,
            Act::Subscribed,
        );
    }

    #[test]
    fn inbound_unsubscribed_follows_table_9() {
        check(
            [
                (false, "None"),
                (true, "None"),
                (false, "None+In"),
                (true, "None+In"),
                (true, "None"),
                (true, "None+In"),
                (false, "From"),
                (true, "From"),
                (true, "From"),
            ],
            of_contact,
            Act::Unsubscribed,
        );
    }

    #[test]
    fn every_transition_is_idempotent() {
        for act in [Act::Subscribe, Act::Subscribed, Act::Unsubscribe, Act::Unsubscribed] {
            for before in STATES.into_iter().flat_map(|name| [state(name), approved(name)]) {
                for transition in [of_user, of_contact] {
                    let once = transition(before, act).state;
                    assert_eq!(transition(once, act).state, once, "{act:?} in {before:?}");
                    let contradicts = once.to && once.pending_out || once.from && once.pending_in;
                    assert!(!contradicts, "{act:?} in {before:?}");
                }
            }
        }
    }
}
