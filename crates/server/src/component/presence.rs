//! Presence that a component told of its users ends with its stream, and is asked for again when it is back.

use crate::house::{House, Ready};
use im::{Ingress, Ticket};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use xmpp::{BareJid, Jid, PresenceType, Stanza, StanzaType};

/// Available presences of one component that are remembered. More are not, and are not taken back.
const LEASES_MAX: usize = 200_000;
/// Contacts of one component that are probed when it is back.
const LOST_MAX: usize = 20_000;

/// Who was told that whom is available.
#[derive(Debug, Default)]
pub struct Leases {
    /// Of a full JID at the component: who was told.
    told: HashMap<Jid, HashSet<Jid>>,
    count: usize,
    /// (who saw it, contact at the component): told `unavailable` by us.
    lost: HashSet<(BareJid, BareJid)>,
}

impl Leases {
    /// A stanza of the component is told on.
    pub fn note(&mut self, stanza: &Stanza) {
        let StanzaType::Presence(kind) = stanza.kind else { return };
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return };
        match kind {
            PresenceType::Available if self.count < LEASES_MAX => {
                self.count += usize::from(self.told.entry(from.clone()).or_default().insert(to.clone()));
            }
            PresenceType::Unavailable => {
                if let Some(told) = self.told.get_mut(from) {
                    self.count -= usize::from(told.remove(to));
                    if told.is_empty() {
                        self.told.remove(from);
                    }
                }
            }
            _ => {}
        }
    }

    /// The component is gone: everything that must be taken back.
    fn end(&mut self) -> Vec<(Jid, Jid)> {
        self.count = 0;
        let ended: Vec<(Jid, Jid)> = std::mem::take(&mut self.told)
            .into_iter()
            .flat_map(|(from, told)| told.into_iter().map(move |to| (from.clone(), to)))
            .collect();
        let room = LOST_MAX.saturating_sub(self.lost.len());
        self.lost.extend(ended.iter().take(room).map(|(from, to)| (to.to_bare(), from.to_bare())));
        ended
    }
}

impl House {
    /// Tells `unavailable` in the name of all whom the component had shown.
    pub(super) fn end_presence_of(self: &Arc<House>, component: &super::Component) {
        let ended = component.leases.lock().end();
        let mut ready = Ready::new();
        for (from, to) in ended {
            let away = Stanza::presence(PresenceType::Unavailable).with_from(from).with_to(to.clone());
            self.tell(to, Arc::new(away), Ingress { stream: 0, ordinal: 0 }, Ticket::default(), &mut ready);
            self.work(&mut ready);
        }
    }

    /// Asks a component that is back for what was taken back. RFC 6121 §4.3.
    pub(super) fn probe_component(self: &Arc<House>, component: &super::Component) {
        let lost = std::mem::take(&mut component.leases.lock().lost);
        let mut ready = Ready::new();
        for (here, there) in lost {
            // Those of other domains ask their own server.
            if self.host(here.domain()).is_none() {
                continue;
            }
            let probe = Stanza::presence(PresenceType::Probe).with_from(here).with_to(there.clone());
            self.tell_component(component, there.into(), Arc::new(probe), Ticket::default(), &mut ready);
        }
        self.work(&mut ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(leases: &mut Leases, kind: PresenceType, from: &str, to: &str) {
        let jid = |text| Jid::parse(text).expect("the test's JID is right");
        leases.note(&Stanza::presence(kind).with_from(jid(from)).with_to(jid(to)));
    }

    #[test]
    fn who_was_told_available_and_not_unavailable_is_told_at_the_end() {
        let mut leases = Leases::default();
        says(&mut leases, PresenceType::Available, "a@irc.example/x", "juliet@capulet.example/balcony");
        says(&mut leases, PresenceType::Available, "a@irc.example/x", "juliet@capulet.example/balcony");
        says(&mut leases, PresenceType::Available, "b@irc.example/x", "juliet@capulet.example/balcony");
        says(&mut leases, PresenceType::Unavailable, "b@irc.example/x", "juliet@capulet.example/balcony");
        assert_eq!(leases.count, 1);
        let ended = leases.end();
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].0.as_str(), "a@irc.example/x");
        assert!(leases.end().is_empty() && leases.count == 0);
        assert_eq!(leases.lost.len(), 1);
    }
}
