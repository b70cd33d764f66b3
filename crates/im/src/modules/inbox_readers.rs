//! Reading another's inbox: an archive query (XEP-0313) to the bare JID of an account whose access rules grant `read`.
//! The owner sees who has read it. RFC 2779 §2.3.6.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::readers::NS;
use xmpp::IqType;

pub static MODULE: Module = Module {
    name: "inbox readers",
    account_iq: &[(IqType::Get, NS, "readers", Who::Owner, show)],
    own_at_host: true,
    offered: |policy| policy.archive,
    ..Module::EMPTY
};

fn show(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    Ok(Answer::Result(Some(account.readers.shown())))
}

#[cfg(test)]
mod tests {
    use crate::effects::{Effect, QueryAnswer};
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account, jid};
    use store::{Change, Direction, Page, Record};

    const READ: &str = "<iq type='set' id='m1' from='nurse@verona.example/x' to='juliet@capulet.example'>\
        <query xmlns='urn:xmpp:mam:2'/></iq>";

    fn juliet(grant: &str) -> Scene {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        juliet.sends(
            "home",
            &format!(
                "<iq type='set' id='r'><rules xmlns='urn:waft:rules:0' etag='*'>\
            <rule xmlns='urn:ietf:params:xml:ns:common-policy' id='r'><conditions><identity>\
            <one id='xmpp:nurse@verona.example'/></identity></conditions><actions>\
            <read xmlns='urn:waft:rules:0'>{grant}</read></actions></rule></rules></iq>"
            ),
        );
        juliet
    }

    fn reads(juliet: &mut Scene) -> (Fx, Fx) {
        let mut fx = juliet.receive(READ);
        let at = fx.list.iter().position(|it| matches!(it, Effect::Query { .. })).expect("the archive is read");
        let Effect::Query { iq, session, then, .. } = fx.list.remove(at) else { unreachable!("just found") };
        let record = Record {
            position: 7_000_000,
            direction: Direction::Incoming,
            peer: jid("romeo@montague.example"),
            stanza: b"<message from='romeo@montague.example' to='juliet@capulet.example'><body>hi</body></message>"
                .to_vec(),
            pending: false,
            archived: true,
            dedupe: None,
            expires: None,
        };
        let page = Page { records: vec![record], complete: true, ..Page::default() };
        let answered = juliet.item(Item::Answered { iq, session, answer: QueryAnswer::Page(page), then });
        (fx, answered)
    }

    #[test]
    fn whoever_is_granted_it_reads_the_inbox_and_the_owner_sees_that_he_did() {
        let mut juliet = juliet("true");
        let (asked, answered) = reads(&mut juliet);
        assert!(matches!(&asked.commits()[..], [Change::BlobPut { .. }]), "it is noted before it is answered");
        let told = answered.told();
        assert!(told.iter().all(|(to, _)| to == "nurse@verona.example/x"));
        assert!(
            told[0].1.contains("<body>hi</body>") && told[0].1.contains("from='juliet@capulet.example'"),
            "{told:?}"
        );
        assert!(told[1].1.contains("<fin "), "{told:?}");
        reads(&mut juliet);
        let shown =
            juliet.sends("home", "<iq type='get' id='a'><readers xmlns='urn:waft:rules:0'/></iq>").delivered("home");
        assert!(shown[0].contains("jid='nurse@verona.example/x'") && shown[0].contains("times='2'"), "{shown:?}");
    }

    #[test]
    fn whoever_is_not_granted_it_hears_what_an_account_that_does_not_exist_would_say() {
        let mut juliet = juliet("false");
        let fx = juliet.receive(READ);
        assert!(fx.told()[0].1.contains("service-unavailable") && fx.commits().is_empty(), "{:?}", fx.told());
    }
}
