//! Message expiration, XEP-0023, and the rules of XEP-0079 ([`super::amp`]) that say the same: a message that waited until
//! its time was over is not delivered.

use super::amp;
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Module, xep};
use xmpp::{Stamp, Stanza};

const NS: &str = "jabber:x:expire";

pub static MODULE: Module =
    Module { name: "expiry", specs: &[xep(23, "1.3")], host_features: &[NS], account_features: &[NS], ..Module::EMPTY };

/// When the delivery of a message that came now would be pointless; the earliest time that it says.
pub fn of(message: &Stanza, now: Stamp) -> Option<Stamp> {
    own(message, now).into_iter().chain(amp::expires(message)).min()
}

/// A message that came at that time and waited is about to be delivered: is its time over? Rules of XEP-0079 are obeyed.
pub(crate) fn is_over(account: &mut Account, message: &Stanza, came: Stamp, fx: &mut Effects) -> bool {
    let over = own(message, came).is_some_and(|at| at <= account.now.utc);
    over || amp::overdue(account, message, fx)
}

fn own(message: &Stanza, came: Stamp) -> Option<Stamp> {
    let seconds: u32 = message.payload.child("x", NS)?.attribute("seconds")?.trim().parse().ok()?;
    Some(came.plus_seconds(i64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, account, stanza};

    fn message(content: &str) -> String {
        format!("<message from='romeo@montague.example/x' type='chat' id='m1'><body>hi</body>{content}</message>")
    }

    #[test]
    fn the_time_is_read_from_the_message() {
        let at = |seconds| Some(START.plus_seconds(seconds));
        let amp = |rules: &str| format!("<amp xmlns='http://jabber.org/protocol/amp'>{rules}</amp>");
        let drop = "<rule condition='expire-at' action='drop' value='2026-01-01T00:01:00Z'/>";
        let other = "<rule condition='deliver' action='drop' value='stored'/>";
        let rows = [
            ("".to_owned(), None),
            ("<x xmlns='jabber:x:expire' seconds='1800'/>".into(), at(1800)),
            ("<x xmlns='jabber:x:expire' seconds='-1'/>".into(), None),
            ("<x xmlns='jabber:x:expire'/>".into(), None),
            (amp(drop), at(60)),
            (amp(&drop.replace("drop", "alert")), at(60)),
            (amp(&drop.replace("drop", "notify")), None),
            (amp(&drop.replace("2026", "soon")), None),
            (amp(&format!("{other}{drop}")), None),
            (format!("{}<x xmlns='jabber:x:expire' seconds='5'/>", amp(drop)), at(5)),
        ];
        for (content, expected) in rows {
            assert_eq!(of(&stanza(&message(&content)), START), expected, "{content}");
        }
    }

    #[test]
    fn a_message_that_waits_is_logged_with_its_time() {
        let mut juliet = account("juliet@capulet.example");
        let fx = juliet.receive(&message("<x xmlns='jabber:x:expire' seconds='60'/>"));
        assert_eq!(fx.appended()[0].expires, Some(START.plus_seconds(60)));
    }
}
