//! Mistakes on purpose, which the simulator must find. Without the feature `planted` there are none.

/// One for each checker of the simulator, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A stanza counts as done before its commit is on disk.
    AckBeforeCommit,
    /// A stanza that comes again after a resumption is not recognised.
    ResumeWithoutDedupe,
    /// What stands behind a commit does not wait for it.
    GateOpen,
    /// A write that failed is told to nobody.
    SilentFailure,
    /// A message is written with the payload of the one before.
    WrongPayload,
    /// One exit does not ask who may see.
    ViewSkipped,
    /// Presence of a domain whose link is gone is not taken back.
    LeaseForever,
    /// Sessions of before a crash are forgotten.
    LedgerIgnored,
    /// The contact is not told that its subscription was granted or ended.
    SubscriptionUntold,
    /// Other resources do not hear of a change of the roster.
    PushOmitted,
    /// A message counts as taken when it is written, not when it is acknowledged.
    TakenWhenWritten,
    /// A stream that ended stays in the table.
    EdgeLeak,
    /// A slow reader's queue has no bound.
    QueueUnbounded,
    /// The answer to a query is lost now and then.
    AnswerLost,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a mistake in what runs on this thread from now on.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Is this mistake to be made?
#[inline(always)]
pub fn is(bug: Bug) -> bool {
    #[cfg(feature = "planted")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "planted"))]
    {
        let _ = bug;
        false
    }
}
