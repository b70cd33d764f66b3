//! The task of one connection of a component.

use super::{Component, Connected, Policy, Queued};
use crate::edge::line::{Io, Line};
use crate::edge::socket::Socket;
use crate::house::{House, Ready};
use crate::limits_hit::{self, Of};
use crate::listen::admission::Permit;
use crate::s2s::flow::InFlight;
use im::watchers::Authenticated;
use im::{Ingress, Ticket};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stream::{ComponentEvent, ComponentStream};
use tokio::time::{Instant, sleep_until};
use xmpp::write::{Additions, Wire as Namespace, write_stanza};
use xmpp::{Jid, StreamCondition, StreamFault};

enum End {
    Closed,
    Lost,
    Fault(StreamFault),
}

/// Counts a stream until it is dropped.
struct Run(Arc<House>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.components.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves one connection to its end.
pub async fn serve(house: Arc<House>, socket: Socket, address: IpAddr, permit: Permit) {
    house.components.running.fetch_add(1, Ordering::AcqRel);
    let run = Run(house.clone());
    let policy = house.components.policy();
    let mut incarnation = [0; 8];
    house.crypto.random(&mut incarnation);
    let mut connection = Connection {
        stream: ComponentStream::new(policy.stream.clone(), house.crypto.clone()),
        line: Line::new(socket),
        component: None,
        unflushed: Vec::new(),
        in_flight: Arc::default(),
        incarnation: u64::from_le_bytes(incarnation),
        received: 0,
        began: Instant::now(),
        heard: false,
        policy,
        permit,
        address,
        house,
    };
    let end = connection.run().await;
    connection.finish(end).await;
    drop(run);
}

struct Connection {
    house: Arc<House>,
    policy: Arc<Policy>,
    permit: Permit,
    address: IpAddr,
    stream: ComponentStream,
    line: Line,
    /// Once it has proved itself.
    component: Option<Arc<Component>>,
    /// Written, but not yet with the kernel.
    unflushed: Vec<Queued>,
    in_flight: Arc<InFlight>,
    incarnation: u64,
    received: u32,
    began: Instant,
    /// The first byte came.
    heard: bool,
}

impl Connection {
    async fn run(&mut self) -> End {
        let mut stopping = self.house.components.stopping();
        loop {
            if !self.in_flight.is_full()
                && let Err(end) = self.take_input()
            {
                return end;
            }
            if let Err(end) = self.write_queue() {
                return end;
            }
            if stopping.is_said() && self.line.wire.unsent() == 0 {
                return End::Fault(StreamFault::SystemShutdown);
            }
            if self.component.as_ref().is_some_and(|component| component.is_removed()) {
                return End::Fault(StreamFault::Other(StreamCondition::HostGone, "The component was removed."));
            }
            let may_read = !self.in_flight.is_full() && !self.stream.is_waiting();
            let deadline = self.deadline();
            let component = self.component.clone();
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                () = stopping.changed() => {}
                () = sleep_until(deadline) => if let Err(end) = self.timed_out() { return end },
                io = self.line.progress(may_read) => match io {
                    Ok(Io::Read(true)) => self.heard = true,
                    Ok(Io::Flushed) => self.unflushed.clear(),
                    Ok(Io::Read(false)) | Err(_) => return End::Lost,
                },
                () = wake_of(component.as_deref()) => {}
                () = self.in_flight.done.notified() => {}
            }
        }
    }

    fn deadline(&self) -> Instant {
        let at = match (&self.component, self.heard) {
            // The kernel notices when nobody is there any more.
            (Some(_), _) => Instant::now() + Duration::from_secs(3_600),
            (None, true) => self.began + self.policy.negotiation,
            (None, false) => self.began + self.policy.first_byte,
        };
        self.line.deadline(at)
    }

    fn timed_out(&mut self) -> Result<(), End> {
        if self.line.takes_nothing() {
            return Err(End::Lost);
        }
        if self.component.is_none() && Instant::now() >= self.deadline() {
            return Err(End::Fault(StreamFault::NegotiationTimeout));
        }
        Ok(())
    }

    fn take_input(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.line.input);
        let mut rest = input.as_slice();
        while !self.in_flight.is_full() {
            let event = match self.stream.next(&mut rest, &mut self.line.out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return Err(End::Fault(fault)),
            };
            match event {
                ComponentEvent::Proved(domain) => self.proved(&domain)?,
                ComponentEvent::Stanza(stanza) => {
                    let Some(component) = self.component.clone() else { continue };
                    self.received = self.received.wrapping_add(1);
                    let ingress = Ingress { stream: self.incarnation, ordinal: self.received };
                    self.house.tell_of_component(&component, stanza, ingress, self.in_flight.ticket());
                }
                ComponentEvent::BadStanza(mut fault) => {
                    if fault.stanza.to.is_none() {
                        let domain = self.stream.domain().and_then(|domain| xmpp::BareJid::of_domain(domain).ok());
                        fault.stanza.to = domain.map(Into::into);
                    }
                    let mut ready = Ready::new();
                    self.house.answer_error(&Arc::new(fault.stanza), &fault.error, Ticket::default(), &mut ready);
                    self.house.work(&mut ready);
                }
                ComponentEvent::PeerError(condition) => {
                    tracing::warn!(component = ?self.stream.domain(), %condition, "a component ends its stream with an error");
                }
                ComponentEvent::Closed => return Err(End::Closed),
            }
        }
        self.line.input = rest.to_vec();
        Ok(())
    }

    /// The secret is right: the domain is its, if nobody has it.
    fn proved(&mut self, domain: &str) -> Result<(), End> {
        let connected = Connected { address: self.address, since: self.house.now().utc };
        let component = self.house.components.get(domain).filter(|component| component.attach(connected));
        let Some(component) = component else {
            tracing::warn!(component = domain, address = %self.address, "a second stream of a component that is connected was refused");
            return Err(End::Fault(StreamFault::Other(
                StreamCondition::Conflict,
                "The component is connected already.",
            )));
        };
        self.house.seams.proofs.insert((Box::default(), domain.into()), Authenticated::Component);
        self.permit.authenticated();
        self.stream.accept(&mut self.line.out);
        tracing::info!(component = domain, address = %self.address, "a component is connected");
        self.house.probe_component(&component);
        self.component = Some(component);
        Ok(())
    }

    fn write_queue(&mut self) -> Result<(), End> {
        if let Some(component) = &self.component {
            while self.line.room() > 0
                && let Some(queued) = component.take()
            {
                write(&mut self.line.out, &queued.stanza, &queued.to);
                self.unflushed.push(queued);
            }
        }
        if self.line.send().map_err(|_| End::Lost)? {
            self.unflushed.clear();
        }
        Ok(())
    }

    async fn finish(mut self, end: End) {
        if let End::Fault(fault) = &end {
            tracing::debug!(address = %self.address, ?fault, "stream error to a component");
            if *fault == stream::component::wrong_secret() {
                tracing::warn!(address = %self.address, "a component did not know its secret");
                self.house.count("component_auth_failures");
                let pause = self.permit.failed(None, self.house.now().mono_ms);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        let component = self.component.take();
        let proved = component.is_some();
        if let Some(component) = component {
            self.gone(&component);
        }
        match &end {
            End::Closed => self.stream.close(&mut self.line.out),
            End::Fault(fault) => {
                let of = if proved { Of::Component } else { Of::Stranger };
                if let Some(limit) = limits_hit::by(fault, of) {
                    self.house.limit(limit);
                }
                self.stream.fail(fault, &mut self.line.out);
            }
            End::Lost => return,
        }
        self.line.last_words().await;
        self.line.wire.hear_out().await;
    }

    /// Nothing reaches the component any more: what waited goes back, what was seen of it ends.
    fn gone(&mut self, component: &Component) {
        tracing::info!(component = %component.domain, "a component is gone");
        let waiting = component.detach();
        // What the kernel never took did not leave.
        let unsent = if self.line.wire.unsent() > 0 { std::mem::take(&mut self.unflushed) } else { Vec::new() };
        let error = component.away();
        let mut ready = Ready::new();
        for queued in unsent.into_iter().chain(waiting) {
            self.house.count("component_bounced");
            self.house.bounce_of_component(queued.stanza, queued.to, &error, queued.ticket, &mut ready);
            self.house.work(&mut ready);
        }
        self.house.end_presence_of(component);
    }
}

fn write(out: &mut Vec<u8>, stanza: &xmpp::Stanza, to: &Jid) {
    write_stanza(out, stanza, Some(to), &Additions::default(), Namespace::Component);
}

/// Something waits in the component's queue, and with it what others on this thread had for it; or it was removed.
async fn wake_of(component: Option<&Component>) {
    match component {
        Some(component) => {
            component.wake.notified().await;
            tokio::task::yield_now().await;
        }
        None => std::future::pending().await,
    }
}
