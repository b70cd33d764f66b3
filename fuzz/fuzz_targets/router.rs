//! The router of an account: whatever its own client or anybody else sends, never a panic, never an answer to an answer,
//! never many for one.
#![no_main]

#[path = "account.rs"]
mod account;

use account::{Fuzzed, OTHERS};
use im::Effect;
use libfuzzer_sys::fuzz_target;
use xmpp::xml::{Frame, Limits, Scanner};
use xmpp::{Jid, Stanza};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
/// What one stanza may set off: the account has four contacts and two sessions.
const EFFECTS_MAX: usize = 200;

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let mut fuzzed = Fuzzed::new();
    let mut scanner = Scanner::new(Limits::SERVER);
    let mut header = HEADER;
    while scanner.next(&mut header).is_ok_and(|it| it.is_some()) {}
    let mut rest = data;
    for turn in 0..32u8 {
        let Ok(Some(Frame::Element(raw))) = scanner.next(&mut rest) else { return };
        let Ok(mut stanza) = Stanza::parse(raw.bytes()) else { continue };
        let may_be_answered = stanza.may_be_answered_with_error();
        let inbound = choice.rotate_right(turn.into()) & 1 == 1;
        let effects = if inbound {
            stanza.from = Jid::parse(OTHERS[usize::from(turn) % OTHERS.len()]).ok();
            fuzzed.hears(stanza)
        } else {
            fuzzed.says(stanza)
        };
        assert!(effects.len() <= EFFECTS_MAX, "{} effects of one stanza", effects.len());
        if !may_be_answered {
            let errors = effects.iter().filter(|it| matches!(it, Effect::Tell { stanza, .. } if stanza.is_error()));
            // An error of its own client goes on to where it was sent.
            assert!(errors.count() <= usize::from(!inbound), "an answer is answered with an error");
        }
    }
});
