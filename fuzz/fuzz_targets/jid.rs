//! Addresses: what is taken is prepared, and is taken as it is the second time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmpp::Jid;

fuzz_target!(|text: &str| {
    if let Ok(jid) = Jid::parse(text) {
        let shown = jid.to_string();
        assert!(shown.len() <= 3 * 1023 + 2);
        assert_eq!(Jid::parse(&shown).expect("what we write we read").to_string(), shown);
        assert_eq!(jid.to_bare().to_string(), shown.split('/').next().unwrap_or_default());
    }
});
