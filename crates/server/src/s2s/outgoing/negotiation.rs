//! How our stream comes up, and for whom: TLS, proofs, other links that join.

use super::Talk;
use crate::s2s::hubs::{Hub, Join};
use crate::s2s::link::End;
use crate::s2s::trust;
use std::sync::Arc;
use stream::Pair;
use tokio::time::Instant;
use xmpp::StanzaCondition;

impl Talk {
    pub(super) async fn handshake(&mut self, direct_tls: bool) -> Result<(), End> {
        let failed = |why: String| End::Failed(format!("TLS: {why}"));
        let trust = self.peer.federation.trust.read().clone();
        let pair = self.members.first().link.pair.clone();
        let config = trust.dialling(&pair.from, direct_tls).map_err(|error| failed(error.to_string()))?;
        let name = trust::server_name(&pair.to).ok_or_else(|| failed("the domain has no name".into()))?;
        let patience = self.peer.policy.handshake;
        self.peer.line.flush(patience).await.map_err(|error| self.broken(&error.to_string()))?;
        self.peer.line.wire.start_tls_to(config, name).map_err(|error| failed(error.to_string()))?;
        self.peer.line.handshake(patience).await.map_err(|error| failed(error.to_string()))?;
        let chain = self.peer.line.wire.peer_certificates();
        let judged = self.peer.federation.judge_dialled(&pair.to, chain, self.target.delegation.as_deref());
        let judged = judged.map_err(End::Absent)?;
        self.peer.by_dane = judged.by_dane;
        self.stream.tls_up(judged.certificate, &mut self.peer.line.out);
        Ok(())
    }

    pub(super) fn authenticated(&mut self, pair: &Pair) {
        tracing::debug!(%pair, certified = self.stream.is_certified(), "authenticated with another server");
        self.peer.active = Instant::now();
        let first = !self.members.is_up();
        let Some(link) = self.members.prove(pair) else { return };
        self.peer.federation.met(&pair.to, self.peer.line.wire.peer_certificates());
        let by = self.peer.proof(self.stream.is_certified());
        self.peer.showing.proved(pair, by, self.stream.is_bidirectional());
        // What comes back on it is theirs by the same proof.
        if self.stream.is_bidirectional() {
            self.peer.federation.proved(&pair.inverse(), self.stream.is_certified());
        }
        self.peer.federation.reached(pair);
        if first {
            self.peer.flow.marks = self.stream.takes_marks();
            if self.peer.flow.marks {
                // That we take them, too.
                stream::server::marks::write_mark(&mut self.peer.line.out, 0);
            }
            self.manage(&link);
            self.open_to_others();
        } else {
            // This stream is not the one that broke: what was sent there goes first.
            self.peer.federation.give_up_resuming(&link, None);
        }
        self.peer.flow.carry(&link);
        self.peer.federation.stream_up(&pair.inverse(), self.stream.is_bidirectional());
    }

    /// Other links may join from now on.
    fn open_to_others(&mut self) {
        if !self.stream.takes_more_senders() {
            return;
        }
        let hub = Arc::new(Hub {
            pair: self.members.first().link.pair.clone(),
            address: self.target.address,
            takes_targets: self.stream.takes_more_targets(),
            joins: self.joining.clone(),
        });
        self.peer.federation.hubs.open(&hub);
        self.hub = Some(hub);
    }

    pub(super) fn joined(&mut self, Join { link, end }: Join) {
        if self.members.join(link.clone(), end) {
            link.wake_by(&self.peer.flow.wake);
            self.peer.active = Instant::now();
            self.stream.prove(link.pair.clone(), &mut self.peer.line.out);
        }
    }

    pub(super) fn refused(&mut self, pair: &Pair, condition: StanzaCondition) -> Result<(), End> {
        let end = match condition {
            StanzaCondition::ItemNotFound => End::Absent("it does not serve the domain"),
            StanzaCondition::RemoteServerTimeout
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::ResourceConstraint
            | StanzaCondition::InternalServerError
            | StanzaCondition::UndefinedCondition => End::Failed(format!("dialback: {}", condition.name())),
            other => End::Refused(other),
        };
        if *pair == self.members.first().link.pair {
            return Err(end);
        }
        if let Some(member) = self.members.take(pair) {
            member.ends(end);
        }
        Ok(())
    }
}
