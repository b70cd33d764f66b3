//! What an operator tells users once.

use crate::client::Client;
use crate::server::Server;
use serde_json::json;

fn set(server: &Server, occasion: &str, text: Option<&str>) {
    let act = json!({"do": "notice-set", "occasion": occasion, "subject": null, "text": text});
    let answer = server.ask(&json!({"do": "act", "act": act}));
    assert_eq!(answer["is"], "value", "{answer}");
}

#[test]
fn a_welcome_is_heard_by_who_is_new_and_the_message_of_the_day_once_by_everybody() {
    let server = Server::start("");
    server.ensure("old@localhost");
    set(&server, "welcome", Some("Be welcome"));
    set(&server, "motd", Some("Mind the gap"));
    server.ensure("new@localhost");

    let mut new = Client::available(&server, "new", "first");
    new.expect("<body>Be welcome</body>");
    new.expect("<body>Mind the gap</body>");
    let mut old = Client::available(&server, "old", "first");
    let heard = old.expect("<body>Mind the gap</body>");
    assert!(!heard.contains("Be welcome"), "{heard}");
    // Whoever is there when there is another hears it at once; whoever comes again hears none twice.
    set(&server, "motd", Some("All is well"));
    new.expect("<body>All is well</body>");
    let mut again = Client::available(&server, "old", "second");
    let heard = again.sync();
    assert!(!heard.contains("Mind the gap"), "{heard}");
    // Without one nothing is told.
    set(&server, "welcome", None);
    set(&server, "motd", None);
    server.ensure("late@localhost");
    let mut late = Client::available(&server, "late", "first");
    let heard = late.sync();
    assert!(!heard.contains("<body>"), "{heard}");
}

// XEP-0133 §4.25, §4.11: a form that edits shows what there is, and what is not filled in any more goes.
#[test]
fn a_form_that_edits_shows_what_there_is_and_an_empty_line_of_a_text_stays() {
    let server = Server::start("[admin]\naccounts = [\"root@localhost\"]\n[limits]\nrates = false\n");
    let mut root = Client::session(&server, "root", "x");
    let mut runs = |node: &str, form: &str| {
        root.send(format!(
            "<iq type='set' id='{node}' to='localhost'><command xmlns='http://jabber.org/protocol/commands' \
             node='{node}'>{form}</command></iq>"
        ));
        root.expect(&format!("id='{node}'")) + &root.expect("</iq>")
    };
    let filled = |var: &str, values: &[&str]| {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        format!("<x xmlns='jabber:x:data' type='submit'><field var='{var}'>{values}</field></x>")
    };
    let admin = |node: &str| format!("http://jabber.org/protocol/admin#{node}");
    let lines = ["We move", "", "on Sunday"];
    runs(&admin("set-motd"), &filled("motd", &lines));
    let form = runs(&admin("edit-motd"), "");
    assert!(
        form.contains("<value>We move</value><value></value><value>on Sunday</value>")
            || form.contains("<value>We move</value><value/><value>on Sunday</value>"),
        "{form}"
    );
    assert!(!runs(&admin("set-motd"), "").contains("We move"), "a new one begins empty");
    runs(&admin("edit-blacklist"), &filled("blacklistjids", &["bad.example", "*.Worse.example"]));
    let form = runs(&admin("edit-blacklist"), "");
    assert!(form.contains("<value>bad.example</value>") && form.contains("<value>*.worse.example</value>"), "{form}");
    // Written otherwise it is the same; one that is none changes nothing.
    runs(&admin("edit-blacklist"), &filled("blacklistjids", &["BAD.example"]));
    assert!(
        runs(&admin("edit-blacklist"), &filled("blacklistjids", &["good.example", "@"])).contains("<not-acceptable ")
    );
    let form = runs(&admin("edit-blacklist"), "");
    assert_eq!(form.matches(".example</value>").count(), 1, "{form}");
    assert!(form.contains("<value>bad.example</value>"), "{form}");
    assert!(runs("urn:waft:admin:0#drain", "").contains("<value>0</value>"));
}
