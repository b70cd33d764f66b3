//! External components: services of their own domains, such as gateways, that connect to this server. XEP-0114.
//!
//! A component's domain is an entity like an account or a pair of domains: stanzas for it are told to it, and what it
//! says enters the house where everything enters. It has no store: while it is away, senders hear an error.
//! - [`connection`]: the task of one connection.
//! - [`presence`]: what a component said of its users ends with its stream.
//!
//! ```text
//! house ── tell, fan ──► Component (queue) ──► its stream
//! house ◄── tell ─────── its stream: from its own domain only
//! ```

pub mod connection;
pub mod presence;

use crate::config::Config;
use crate::house::{House, Ready};
use crate::stopping::{Stop, Stopping};
use im::{Ingress, Ticket};
use parking_lot::{Mutex, RwLock};
use presence::Leases;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stream::{ComponentConfig, Secret};
use tokio::sync::Notify;
use tokio::time::Instant;
use xmpp::error::ErrorType;
use xmpp::{Jid, PresenceType, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Bounds and secrets, as the configuration says now.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub stream: Arc<ComponentConfig>,
    pub queue_items_max: usize,
    pub queue_bytes_max: usize,
    /// From the first byte to the handshake.
    pub negotiation: Duration,
    pub first_byte: Duration,
}

impl Policy {
    /// # Errors
    /// For people: a secret cannot be read any more.
    pub fn of(config: &Config) -> Result<Policy, String> {
        let limits = &config.limits;
        let mut components = HashMap::new();
        for component in &config.components {
            let Some(file) = &component.secret else { continue };
            let secret = crate::config::policy::read_secret(file)?;
            components.insert(component.domain().into(), Secret(secret.as_bytes().to_vec()));
        }
        Ok(Policy {
            stream: Arc::new(ComponentConfig {
                components,
                limits_before_auth: limits.before_auth(),
                limits_after_auth: limits.after_auth_of_components(),
                ..ComponentConfig::default()
            }),
            queue_items_max: limits.component_queue_stanzas_max,
            queue_bytes_max: limits.component_queue_bytes_max,
            negotiation: Duration::from_secs(u64::from(limits.authentication_seconds)),
            first_byte: Duration::from_secs(u64::from(limits.first_byte_seconds)),
        })
    }
}

/// All components of the configuration.
#[derive(Default)]
pub struct Components {
    policy: RwLock<Arc<Policy>>,
    all: RwLock<HashMap<Box<str>, Arc<Component>>>,
    /// What is queued goes out, then the streams end.
    stopping: Stop,
    /// Streams that have not ended.
    running: AtomicU32,
}

impl Components {
    /// Takes the configuration's components; those that stay keep their streams, those that are gone lose them.
    pub fn set(&self, policy: Policy) {
        let domains: Vec<Box<str>> = policy.stream.components.keys().cloned().collect();
        let mut all = self.all.write();
        all.retain(|domain, component| {
            let stays = domains.contains(domain);
            if !stays {
                component.remove();
            }
            stays
        });
        for domain in domains {
            all.entry(domain.clone()).or_insert_with(|| Arc::new(Component::new(&domain)));
        }
        *self.policy.write() = Arc::new(policy);
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// The component whose domain this is.
    pub fn get(&self, domain: &str) -> Option<Arc<Component>> {
        self.all.read().get(domain).cloned()
    }

    /// All of them, by domain.
    pub fn list(&self) -> Vec<Arc<Component>> {
        let mut all: Vec<_> = self.all.read().values().cloned().collect();
        all.sort_by(|a, b| a.domain.cmp(&b.domain));
        all
    }

    pub fn stopping(&self) -> Stopping {
        self.stopping.listen()
    }

    /// Lets what is queued go out, then ends all streams.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.say();
        let deadline = Instant::now() + patience;
        while self.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A stanza for a component.
#[derive(Debug)]
pub struct Queued {
    pub stanza: Arc<Stanza>,
    /// Where it goes: a broadcast's stanza has no own `to`.
    pub to: Jid,
    /// Of the sender: it is done when the kernel has the bytes.
    pub ticket: Ticket,
}

/// The stream of a component that is here.
#[derive(Debug, Clone)]
pub struct Connected {
    pub address: IpAddr,
    pub since: Stamp,
}

/// One component: its queue while it is connected.
#[derive(Debug)]
pub struct Component {
    pub domain: Box<str>,
    state: Mutex<State>,
    pub wake: Notify,
    pub leases: Mutex<Leases>,
}

#[derive(Debug, Default)]
struct State {
    connected: Option<Connected>,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// The configuration names it no more.
    removed: bool,
}

/// What became of something queued.
#[derive(Debug)]
pub enum Pushed {
    Queued,
    Away(Ticket),
    Full(Ticket),
}

impl Component {
    fn new(domain: &str) -> Component {
        Component { domain: domain.into(), state: Mutex::default(), wake: Notify::new(), leases: Mutex::default() }
    }

    /// Queues a stanza; only for a component that is connected.
    pub fn push(&self, queued: Queued, policy: &Policy) -> Pushed {
        let mut state = self.state.lock();
        if state.connected.is_none() {
            return Pushed::Away(queued.ticket);
        }
        let weight = queued.stanza.weight();
        if state.queue.len() >= policy.queue_items_max || state.bytes + weight > policy.queue_bytes_max {
            return Pushed::Full(queued.ticket);
        }
        state.bytes += weight;
        state.queue.push_back(queued);
        drop(state);
        self.wake.notify_one();
        Pushed::Queued
    }

    pub fn take(&self) -> Option<Queued> {
        let mut state = self.state.lock();
        let queued = state.queue.pop_front()?;
        state.bytes -= queued.stanza.weight();
        Some(queued)
    }

    /// A stream has proved the secret. `false`: another one is there.
    fn attach(&self, connected: Connected) -> bool {
        let mut state = self.state.lock();
        if state.connected.is_some() || state.removed {
            return false;
        }
        state.connected = Some(connected);
        true
    }

    /// It has ended; gives what waited for it.
    fn detach(&self) -> VecDeque<Queued> {
        let mut state = self.state.lock();
        state.connected = None;
        state.bytes = 0;
        std::mem::take(&mut state.queue)
    }

    fn remove(&self) {
        self.state.lock().removed = true;
        self.wake.notify_one();
    }

    fn is_removed(&self) -> bool {
        self.state.lock().removed
    }

    pub fn connected(&self) -> Option<Connected> {
        self.state.lock().connected.clone()
    }

    /// For the operator.
    pub fn shown(&self) -> crate::admin::Component {
        let (queue, bytes) = self.waiting();
        let connected = self.connected();
        crate::admin::Component {
            domain: self.domain.to_string(),
            connected: connected.as_ref().map(|it| it.since.to_xmpp()),
            address: connected.map(|it| it.address.to_string()),
            queue: queue as u64,
            queue_bytes: bytes as u64,
        }
    }

    /// Stanzas that wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.bytes)
    }

    /// What senders hear while it is away. RFC 6120 §8.3.3.17: the service is known, and cannot be reached; what was
    /// sent may be sent again later. Not `service-unavailable`, which says that nobody offers it.
    fn away(&self) -> StanzaError {
        StanzaError::from(StanzaCondition::RemoteServerTimeout)
            .with_type(ErrorType::Wait)
            .with_text(format!("The service {} is not connected to the server.", self.domain))
    }

    fn full(&self) -> StanzaError {
        StanzaError::from(StanzaCondition::ResourceConstraint)
            .with_type(ErrorType::Wait)
            .with_text(format!("Too much waits for the service {}.", self.domain))
            .over("component_queue_stanzas_max")
    }
}

impl House {
    /// To a component: queued for its stream, or an error for the sender.
    pub fn tell_component(
        self: &Arc<House>,
        component: &Component,
        to: Jid,
        stanza: Arc<Stanza>,
        ticket: Ticket,
        ready: &mut Ready,
    ) {
        let queued = Queued { stanza: stanza.clone(), to: to.clone(), ticket };
        let (error, ticket) = match component.push(queued, &self.components.policy()) {
            Pushed::Queued => return,
            Pushed::Away(ticket) => (component.away(), ticket),
            Pushed::Full(ticket) => {
                self.limit("component_queue_stanzas_max");
                (component.full(), ticket)
            }
        };
        self.count("component_bounced");
        self.bounce_of_component(stanza, to, &error, ticket, ready);
    }

    /// Nobody waits for what becomes of presence, but for an answer to a request.
    fn bounce_of_component(
        self: &Arc<House>,
        stanza: Arc<Stanza>,
        to: Jid,
        error: &StanzaError,
        ticket: Ticket,
        ready: &mut Ready,
    ) {
        if matches!(stanza.kind, StanzaType::Presence(kind) if kind != PresenceType::Subscribe) {
            return;
        }
        let stanza = match &stanza.to {
            Some(_) => stanza,
            None => Arc::new((*stanza).clone().with_to(to)),
        };
        self.answer_error(&stanza, error, ticket, ready);
    }

    /// A stanza that a component sent enters the house.
    fn tell_of_component(self: &Arc<House>, component: &Component, stanza: Stanza, ingress: Ingress, ticket: Ticket) {
        self.count("component_stanzas_in");
        let Some(to) = stanza.to.clone() else { return };
        component.leases.lock().note(&stanza);
        let mut ready = Ready::new();
        self.tell(to, Arc::new(stanza), ingress, ticket, &mut ready);
        self.work(&mut ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp::MessageType;

    fn component() -> Component {
        Component::new("irc.capulet.example")
    }

    fn connected() -> Connected {
        Connected { address: IpAddr::from([127, 0, 0, 1]), since: Stamp(0) }
    }

    fn queued() -> Queued {
        let to = Jid::parse("#balcony@irc.capulet.example").expect("the test's JID is right");
        let stanza = Arc::new(Stanza::message(MessageType::Chat).with_to(to.clone()));
        Queued { stanza, to, ticket: Ticket::default() }
    }

    fn policy(items: usize, bytes: usize) -> Policy {
        Policy { queue_items_max: items, queue_bytes_max: bytes, ..Policy::default() }
    }

    #[test]
    fn only_a_component_that_is_connected_takes_stanzas() {
        let component = component();
        assert!(matches!(component.push(queued(), &policy(9, 9_999)), Pushed::Away(_)));
        assert!(component.attach(connected()));
        assert!(matches!(component.push(queued(), &policy(9, 9_999)), Pushed::Queued));
        assert_eq!(component.detach().len(), 1);
        assert!(matches!(component.push(queued(), &policy(9, 9_999)), Pushed::Away(_)));
    }

    #[test]
    fn the_queue_is_bounded_in_stanzas_and_in_bytes() {
        let component = component();
        component.attach(connected());
        component.push(queued(), &policy(1, 9_999));
        assert!(matches!(component.push(queued(), &policy(1, 9_999)), Pushed::Full(_)));
        assert!(matches!(component.push(queued(), &policy(9, 10)), Pushed::Full(_)));
        assert!(component.take().is_some());
        assert_eq!(component.waiting(), (0, 0));
    }

    #[test]
    fn a_second_stream_is_not_attached_until_the_first_has_ended() {
        let component = component();
        assert!(component.attach(connected()));
        assert!(!component.attach(connected()));
        component.detach();
        assert!(component.attach(connected()));
    }

    #[test]
    fn a_component_that_the_configuration_names_no_more_takes_no_stream() {
        let components = Components::default();
        let stream = ComponentConfig {
            components: [("irc.capulet.example".into(), Secret(b"s".to_vec()))].into(),
            ..ComponentConfig::default()
        };
        components.set(Policy { stream: Arc::new(stream), ..Policy::default() });
        let component = components.get("irc.capulet.example").expect("it was set");
        components.set(Policy::default());
        assert!(components.get("irc.capulet.example").is_none());
        assert!(!component.attach(connected()));
    }
}
