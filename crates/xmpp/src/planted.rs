//! Mistakes on purpose, which the simulator must find. Without the feature `planted` there are none.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident,)+) => {
        /// One for each checker of the simulator, at least.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $bug,)+
        }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$bug),+];
        }
    };
}

bugs! {
    /// A stanza counts as done before its commit is on disk.
    AckBeforeCommit,
    /// A write that failed is told to nobody.
    SilentFailure,
    /// A message that is sent again is not recognised.
    NothingRecognised,
    /// What waits for another domain goes out newest first.
    QueueReversed,
    /// Now and then a message is written with the payload of the one before.
    WrongPayload,
    /// A stanza that the log knew already is never done.
    TicketForgotten,
    /// What waited for an account that was away is not read.
    BacklogUnread,
    /// The answer to a question about the archive is lost.
    AnswerLost,
    /// The last of those who are to be told of presence is not.
    BroadcastShort,
    /// Presence of a domain whose link is gone is not taken back.
    LeaseForever,
    /// A contact is not told that its subscription was ended.
    CancelUntold,
    /// Only one resource hears of a change of the roster.
    PushOmitted,
    /// Probes are answered without asking who may see.
    ViewSkipped,
    /// A stream that ended stays in the table.
    EdgeLeak,
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
