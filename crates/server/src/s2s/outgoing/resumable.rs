//! A stream of ours that broke, and may be resumed by the next. XEP-0198 §5.

use super::Talk;
use crate::s2s::Federation;
use crate::s2s::flow::{Dead, Rest};
use crate::s2s::link::End;
use crate::s2s::queue::Link;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A stream is resumed within so long, when the other side names no time.
const RESUME_WITHIN: Duration = Duration::from_secs(120);

/// What a stream that broke left, for the next attempt.
pub struct Resumable {
    id: Box<str>,
    /// The time that was agreed on, and when it is over.
    within: Duration,
    until: Instant,
    rest: Rest,
}

impl Federation {
    /// What was sent on a stream that is not resumed goes again.
    pub(super) fn give_up_resuming(self: &Arc<Federation>, link: &Arc<Link>, handled: Option<u32>) {
        if let Some((_, left)) = self.resumable.remove(&link.pair) {
            left.rest.give_back(self, handled);
        }
    }

    /// Between attempts: what will not be resumed any more goes again.
    pub fn look_at_resumable(self: &Arc<Federation>, link: &Arc<Link>, end: &End) {
        let over = |left: &Resumable| Instant::now() >= left.until;
        let hopeless = !matches!(end, End::Broken(_) | End::Failed(_));
        if self.resumable.get(&link.pair).is_some_and(|left| hopeless || over(&left)) {
            self.give_up_resuming(link, None);
        }
    }
}

impl Talk {
    /// The other side would know the stream again by this id.
    pub(super) fn enabled(&mut self, id: Option<Box<str>>, max: Option<u32>) {
        let within = max.map_or(RESUME_WITHIN, |max| Duration::from_secs(u64::from(max)).min(RESUME_WITHIN));
        self.resumption = id.map(|id| (id, within));
        self.peer.flow.enabled_in();
    }

    /// It does not go on with the stream that broke, or manages no stream at all.
    pub(super) fn not_managed(&mut self, h: Option<u32>) {
        if !self.peer.flow.is_held() {
            return self.peer.flow.unmanaged();
        }
        let link = self.members.first().link.clone();
        self.peer.federation.give_up_resuming(&link, h);
        self.peer.flow.unmanaged();
        if self.stream.enable(&mut self.peer.line.out) {
            self.peer.flow.enabled_out();
        }
    }

    /// Goes on with the stream that broke, or asks for acknowledgements.
    pub(super) fn manage(&mut self, link: &Arc<Link>) {
        let resumable = self.peer.federation.resumable.get(&link.pair).map(|left| {
            let h = left.rest.taken();
            (left.id.clone(), left.until, h)
        });
        if let Some((id, until, h)) = resumable {
            if Instant::now() < until && self.stream.resume(&id, h, &mut self.peer.line.out) {
                self.peer.flow.hold();
                return;
            }
            self.peer.federation.give_up_resuming(link, None);
        }
        if self.stream.enable(&mut self.peer.line.out) {
            self.peer.flow.enabled_out();
        }
    }

    pub(super) fn resumed(&mut self, h: u32) -> Result<(), End> {
        let pair = self.members.first().link.pair.clone();
        let Some((_, left)) = self.peer.federation.resumable.remove(&pair) else { return Ok(()) };
        tracing::debug!(%pair, "a stream to another server is resumed");
        self.peer.federation.house.count("s2s_resumed");
        self.resumption = Some((left.id, left.within));
        if let Err(Dead(why)) = self.peer.flow.resume(left.rest, h, &mut self.peer.line.out) {
            return Err(self.broken(why));
        }
        self.peer.federation.presence.renewed(&pair.inverse());
        Ok(())
    }

    /// What is not acknowledged is left to a stream that resumes this one, or goes again.
    pub(super) fn leave_rest(&mut self, end: &End) {
        let alone = self.members.is_alone() && self.peer.error.is_none();
        if matches!(end, End::Broken(_))
            && alone
            && !self.peer.flow.is_settled()
            && let Some((id, within)) = self.resumption.take()
            && let Some(rest) = self.peer.flow.rest()
        {
            let pair = self.members.first().link.pair.clone();
            let left = Resumable { id, within, until: Instant::now() + within, rest };
            self.peer.federation.resumable.insert(pair, left);
            return;
        }
        self.peer.flow.end();
    }
}
