//! The links that share one stream of ours, and what is proved for each. XEP-0220 §2.6.

use crate::s2s::hubs::JOINED_MAX;
use crate::s2s::link::End;
use crate::s2s::queue::Link;
use std::sync::Arc;
use std::time::Duration;
use stream::Pair;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// One of the stream's links.
pub struct Member {
    pub link: Arc<Link>,
    pub state: Proof,
    since: Instant,
    /// Who waits for its end; the first link's own task is the stream's.
    end: Option<oneshot::Sender<End>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is proved for it yet.
    Wanted,
    Asked,
    Up,
}

impl Member {
    /// Whoever waits for it hears that its stream has ended.
    pub fn ends(self, end: End) {
        if let Some(waits) = self.end {
            // Its task may be gone with the server.
            let _ = waits.send(end);
        }
    }
}

/// The first is the one that the stream began for.
pub struct Members(Vec<Member>);

impl Members {
    pub fn of(link: &Arc<Link>) -> Members {
        Members(vec![Member { link: link.clone(), state: Proof::Wanted, since: Instant::now(), end: None }])
    }

    pub fn first(&self) -> &Member {
        &self.0[0]
    }

    pub fn first_mut(&mut self) -> &mut Member {
        &mut self.0[0]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub fn is_alone(&self) -> bool {
        self.0.len() == 1
    }

    pub fn has(&self, pair: &Pair) -> bool {
        self.0.iter().any(|member| member.link.pair == *pair)
    }

    pub fn is_up(&self) -> bool {
        self.0.iter().any(|member| member.state == Proof::Up)
    }

    /// Nothing is proved for any of them, nor asked.
    pub fn are_wanted(&self) -> bool {
        self.0.iter().all(|member| member.state == Proof::Wanted)
    }

    pub fn have_stanzas(&self) -> bool {
        self.0.iter().any(|member| member.link.has_stanzas())
    }

    /// Another link joins: it is to be proved. `false`: there is no room for it, and whoever waits hears that it was
    /// dropped.
    pub fn join(&mut self, link: Arc<Link>, end: oneshot::Sender<End>) -> bool {
        if self.0.len() >= JOINED_MAX || self.has(&link.pair) || !self.is_up() {
            return false;
        }
        self.0.push(Member { link, state: Proof::Asked, since: Instant::now(), end: Some(end) });
        true
    }

    /// Proved: stanzas of the pair may go. `None`: they may already, or it is nobody's here.
    pub fn prove(&mut self, pair: &Pair) -> Option<Arc<Link>> {
        let member = self.0.iter_mut().find(|it| it.link.pair == *pair && it.state != Proof::Up)?;
        member.state = Proof::Up;
        Some(member.link.clone())
    }

    /// Takes out one that joined.
    pub fn take(&mut self, pair: &Pair) -> Option<Member> {
        let at = self.0.iter().skip(1).position(|member| member.link.pair == *pair)?;
        Some(self.0.swap_remove(at + 1))
    }

    /// Whoever joined and hears nothing has a stream of its own; its task hears that its end was dropped.
    pub fn forget_unheard(&mut self, patience: Duration) {
        self.0.retain(|it| it.end.is_none() || it.state == Proof::Up || it.since.elapsed() < patience);
    }

    /// All, at the stream's end.
    pub fn take_all(&mut self) -> Vec<Member> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: &str) -> Arc<Link> {
        Arc::new(Link::new(Pair::new(from, "montague.example"), "capulet.example"))
    }

    fn pair(from: &str) -> Pair {
        Pair::new(from, "montague.example")
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_joins_when_the_first_is_proved_and_goes_when_it_hears_nothing() {
        let mut members = Members::of(&link("capulet.example"));
        let (end, mut ended) = oneshot::channel();
        assert!(!members.join(link("nurse.example"), end) && ended.try_recv().is_err());
        assert!(members.prove(&pair("capulet.example")).is_some() && members.is_up());
        assert!(members.prove(&pair("capulet.example")).is_none(), "once");
        let (end, ended) = oneshot::channel();
        assert!(members.join(link("nurse.example"), end));
        assert!(!members.join(link("nurse.example"), oneshot::channel().0), "it is there");
        members.forget_unheard(Duration::from_secs(1));
        assert!(members.has(&pair("nurse.example")));
        tokio::time::advance(Duration::from_secs(1)).await;
        members.forget_unheard(Duration::from_secs(1));
        assert!(members.is_alone() && ended.await.is_err());
    }

    #[test]
    fn the_first_is_not_taken_out_and_there_is_a_bound_to_the_others() {
        let mut members = Members::of(&link("capulet.example"));
        members.prove(&pair("capulet.example"));
        assert!(members.take(&pair("capulet.example")).is_none());
        let joined = (0..2 * JOINED_MAX).filter(|n| members.join(link(&format!("{n}.example")), oneshot::channel().0));
        assert_eq!(joined.count(), JOINED_MAX - 1);
        assert!(members.take(&pair("7.example")).is_some() && !members.has(&pair("7.example")));
    }
}
