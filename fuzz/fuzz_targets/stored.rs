//! Rows of the store, and stanzas as a router sees them: what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmpp::write::to_stored;
use xmpp::{Stanza, StanzaCondition, StanzaError};

fuzz_target!(|data: &[u8]| {
    let Ok(stanza) = Stanza::parse(data) else { return };
    let stored = to_stored(&stanza);
    let again = Stanza::parse(&stored).expect("what we store we read");
    assert_eq!((again.kind, &again.id, &again.from, &again.to), (stanza.kind, &stanza.id, &stanza.from, &stanza.to));
    assert_eq!(to_stored(&again), stored);
    if let Some(error) = stanza.error(&StanzaError::from(StanzaCondition::ServiceUnavailable)) {
        assert!(error.is_error() && !error.may_be_answered_with_error());
    }
});
