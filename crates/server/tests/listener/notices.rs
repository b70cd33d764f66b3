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
