//! Documents of access rules: what is taken is shown again as it was, means the same when it is stored and read, and
//! whoever cannot be judged sees nothing.
#![no_main]

#[path = "account.rs"]
mod account;

use account::Fuzzed;
use im::rules::Rules;
use im::view::{Exit, view};
use im::{EdgeItem, Effect};
use libfuzzer_sys::fuzz_target;
use xmpp::{Jid, Stanza};

const WATCHERS: [&str; 4] =
    ["romeo@montague.example/garden", "nurse@capulet.example", "a@sub.work.example", "stranger@elsewhere.example/x"];

fn set(fuzzed: &mut Fuzzed, ruleset: &[u8]) -> Option<bool> {
    let before = b"<iq type='set' id='1'><rules xmlns='urn:waft:rules:0' etag='*'>";
    let xml = [before, ruleset, b"</rules></iq>"].concat();
    let effects = fuzzed.says(Stanza::parse(&xml).ok()?);
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Edge { item: EdgeItem::Deliver { delivery, .. }, .. } if delivery.stanza.id.as_deref() == Some("1") => {
            Some(!delivery.stanza.is_error())
        }
        _ => None,
    });
    told
}

fn seen(fuzzed: &Fuzzed) -> Vec<String> {
    let watchers = WATCHERS.iter().filter_map(|it| Jid::parse(it).ok());
    let views =
        |watcher: Jid| Exit::ALL.iter().map(move |exit| format!("{:?}", view(&fuzzed.account, &watcher, *exit)));
    watchers.flat_map(views).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut fuzzed = Fuzzed::new();
    let before = seen(&fuzzed);
    let Some(taken) = set(&mut fuzzed, data) else { return };
    if !taken {
        assert_eq!(seen(&fuzzed), before, "what is refused changes nothing");
        return;
    }
    let shown = im::rules::edit::shown(&fuzzed.account).to_bytes("jabber:client");
    let views = seen(&fuzzed);
    assert_eq!(set(&mut fuzzed, &shown), Some(true), "{}", String::from_utf8_lossy(&shown));
    assert_eq!(im::rules::edit::shown(&fuzzed.account).to_bytes("jabber:client"), shown);
    fuzzed.account.rules = Rules::from_stored(Some(&fuzzed.account.rules.to_stored()));
    assert!(!fuzzed.account.rules.is_unreadable());
    assert_eq!(seen(&fuzzed), views, "stored and read again");
    // Whatever else lies in the store forbids, and does not panic.
    fuzzed.account.rules = Rules::from_stored(Some(data));
    let _ = seen(&fuzzed);
});
