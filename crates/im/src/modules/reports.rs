//! Blocking Command Reports, XEP-0377: why somebody is blocked, for the operator. It is counted and logged, and goes
//! nowhere else.

use crate::effects::{Effect, Effects};
use crate::module::{Module, xep};
use xmpp::{Element, Jid, StanzaCondition, StanzaError};

pub const NS: &str = "urn:xmpp:reporting:1";
const SPAM: &str = "urn:xmpp:reporting:spam";
const ABUSE: &str = "urn:xmpp:reporting:abuse";
/// Characters of the user's explanation that are passed on, and of a reason that is not known.
const TEXT_MAX: usize = 500;
const REASON_MAX: usize = 100;

pub static MODULE: Module = Module {
    name: "reports",
    specs: &[xep(377, "0.4.1")],
    host_features: &[NS],
    account_features: &[NS],
    ..Module::EMPTY
};

/// What a user says of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub about: Jid,
    pub reason: Box<str>,
    pub text: Box<str>,
    /// Stanza-ids of the messages that it is about.
    pub messages: Vec<Box<str>>,
}

/// So many messages of one report are named.
const MESSAGES_MAX: usize = 50;

/// The report in an item of a block command. §4, §6.
///
/// # Errors
/// `bad-request` for one without a reason.
pub fn of(item: &Element, about: &Jid) -> Result<Option<Report>, StanzaError> {
    let Some(report) = item.find("report", NS) else { return Ok(None) };
    let cut = |text: &str, max: usize| text.trim().chars().take(max).collect::<String>().into_boxed_str();
    let reason = report.attribute("reason").filter(|reason| !reason.is_empty()).ok_or(StanzaCondition::BadRequest)?;
    let text = report.find("text", NS).map(Element::text_content).unwrap_or_default();
    let ids = report.elements().filter(|child| child.is("stanza-id", xmpp::ns::SID));
    let messages = ids.filter_map(|id| id.attribute("id")).take(MESSAGES_MAX).map(|id| cut(id, REASON_MAX)).collect();
    Ok(Some(Report { about: about.clone(), reason: cut(reason, REASON_MAX), text: cut(&text, TEXT_MAX), messages }))
}

/// Counts it and tells the house.
pub fn tell(report: Report, fx: &mut Effects) {
    fx.push(Effect::Count(match &*report.reason {
        SPAM => "reports_spam",
        ABUSE => "reports_abuse",
        _ => "reports_other",
    }));
    fx.push(Effect::Report(report));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, Scene, account, jid};

    fn blocks(scene: &mut Scene, item: &str) -> Fx {
        let item = format!("<item jid='tybalt@capulet.example'>{item}</item>");
        scene.sends("home", &format!("<iq type='set' id='1'><block xmlns='urn:xmpp:blocking'>{item}</block></iq>"))
    }

    fn reports(fx: &Fx) -> Vec<Report> {
        let report = |effect: &Effect| if let Effect::Report(report) = effect { Some(report.clone()) } else { None };
        fx.list.iter().filter_map(report).collect()
    }

    // §6, example 6.
    #[test]
    fn a_report_goes_to_the_operator_and_its_address_is_blocked() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let report = format!(
            "<report xmlns='{NS}' reason='{SPAM}'><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='42'/>\
             <text xml:lang='en'> Never came trouble to my house like this. </text></report>"
        );
        let fx = blocks(&mut juliet, &report);
        let told = Report {
            about: jid("tybalt@capulet.example"),
            reason: SPAM.into(),
            text: "Never came trouble to my house like this.".into(),
            messages: vec!["42".into()],
        };
        assert_eq!(reports(&fx), [told]);
        assert!(fx.list.iter().any(|e| matches!(e, Effect::Count("reports_spam"))));
        assert!(juliet.blocks.contains(&jid("tybalt@capulet.example")));
        // Another report about the same one.
        assert_eq!(reports(&blocks(&mut juliet, &report)).len(), 1);
    }

    #[test]
    fn a_report_without_a_reason_is_refused_with_its_block() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let fx = blocks(&mut juliet, &format!("<report xmlns='{NS}'/>"));
        assert!(fx.delivered("home")[0].contains("<bad-request"), "{:?}", fx.delivered("home"));
        assert!(juliet.blocks.is_empty() && reports(&fx).is_empty());
    }

    #[test]
    fn a_block_without_a_report_reports_nothing() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        assert_eq!(reports(&blocks(&mut juliet, "")), []);
        assert!(!juliet.blocks.is_empty());
    }
}
