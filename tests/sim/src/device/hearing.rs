//! What a client makes of what it is told.

use super::{ARCHIVE, Device, FORWARD, PAGE, PING, Phase, ROSTER, RSM, SM, STANZA_IDS, Unacked};
use crate::ledger::Entry;
use xmpp::Element;
use xmpp::ns::CLIENT;

impl Device {
    /// Takes an element; gives what to answer.
    pub(super) fn take(&mut self, element: &Element) -> Option<String> {
        if element.is("r", SM) {
            return Some(format!("<a xmlns='{SM}' h='{}'/>", self.handled));
        }
        if element.is("a", SM) {
            let h = element.attribute("h").and_then(|it| it.parse().ok())?;
            self.take_ack(h);
            return None;
        }
        if *element.ns != *CLIENT {
            return None;
        }
        self.handled = self.handled.wrapping_add(1);
        let text = String::from_utf8(element.to_bytes(CLIENT)).unwrap_or_default();
        self.trace(&format!("< {text}"));
        match &*element.name {
            "message" => self.take_message(element),
            "presence" => self.take_presence(element),
            "iq" => return self.take_iq(element),
            _ => {}
        }
        None
    }

    pub(super) fn take_ack(&mut self, h: u32) {
        if !self.managed {
            return;
        }
        let count = h.wrapping_sub(self.acked);
        if count as usize > self.unacked.len() {
            let what = format!("device {} has h={h} for {} of {}", self.n, self.acked, self.unacked.len());
            self.shared.ledger.lock().wrong("outcome", what);
            return;
        }
        self.acked = h;
        let mut ledger = self.shared.ledger.lock();
        for it in self.unacked.drain(..count as usize) {
            if let Some(message) = it.message.and_then(|id| ledger.messages.get_mut(&id)) {
                message.acked = true;
            }
            if let Some(status) = it.status {
                ledger.superseded(self.n, status);
            }
        }
    }

    fn take_message(&mut self, element: &Element) {
        if element.attribute("type") == Some("error") {
            let condition = element.find("error", CLIENT).and_then(|it| it.elements().next());
            let condition = condition.map(|it| it.name.to_string()).unwrap_or_default();
            let mut name = element.attribute("id").unwrap_or_default().split('-').skip(1);
            let number = |it: Option<&str>| it.and_then(|it| it.parse::<u64>().ok());
            if let (Some(device), Some(number)) = (number(name.next()), number(name.next())) {
                // It has its outcome: it is not sent again.
                let id = (device as usize, number);
                self.unacked.iter_mut().filter(|it| it.message == Some(id)).for_each(|it| it.over = true);
                let mut ledger = self.shared.ledger.lock();
                if let Some(message) = ledger.messages.get_mut(&id) {
                    message.errors += 1;
                    message.error = Some(condition);
                }
            }
            return;
        }
        if let Some(result) = element.find("result", ARCHIVE) {
            let forwarded = result.find("forwarded", FORWARD).and_then(|it| it.find("message", CLIENT));
            if let (Some(message), Phase::Look) = (forwarded, self.phase()) {
                self.archive.push(Entry {
                    stanza_id: result.attribute("id").unwrap_or_default().to_owned(),
                    from: message.attribute("from").unwrap_or_default().to_owned(),
                    to: message.attribute("to").unwrap_or_default().to_owned(),
                    id: message.attribute("id").map(str::to_owned),
                    body: message.find("body", CLIENT).map(Element::text_content).unwrap_or_default(),
                });
            }
            return;
        }
        let Some(body) = element.find("body", CLIENT).map(Element::text_content) else { return };
        let stanza_id = element
            .elements()
            .find(|it| it.is("stanza-id", STANZA_IDS) && it.attribute("by") == Some(&self.bare))
            .and_then(|it| it.attribute("id").map(str::to_owned));
        let from = element.attribute("from").unwrap_or_default();
        let mut ledger = self.shared.ledger.lock();
        match ledger.recognise(self.account, from, &body) {
            Ok(id) => ledger.delivered(self.n, self.binding, id, stanza_id),
            Err(why) => ledger.wrong("invented", format!("device {}: {why}", self.n)),
        }
    }

    fn take_presence(&mut self, element: &Element) {
        let from = element.attribute("from").unwrap_or_default().to_owned();
        // Answers to a question of our own: they say how it is, not how it will be.
        let is_answer = element.attribute("id") == Some("probe");
        match element.attribute("type") {
            None => {
                let status = element.find("status", CLIENT).map(Element::text_content).unwrap_or_default();
                self.shared.ledger.lock().saw(self.n, &from, &status);
                if !is_answer {
                    self.view.insert(from, status);
                }
            }
            Some("unavailable") if is_answer => {}
            // The server has it that we are not there, and tells us nothing until we are: what we know ends with it.
            Some("unavailable") if from == self.jid => self.view.clear(),
            Some("unavailable") => {
                if from.contains('/') {
                    self.view.remove(&from);
                } else {
                    self.view.retain(|it, _| it.split('/').next() != Some(&from));
                }
            }
            Some("subscribe") => {
                self.requests.insert(from);
            }
            Some(_) => {}
        }
    }

    fn take_iq(&mut self, element: &Element) -> Option<String> {
        let id = element.attribute("id").unwrap_or_default().to_owned();
        let from = element.attribute("from");
        match element.attribute("type") {
            Some("get") if element.find("ping", PING).is_some() => {
                let to = from.map(|it| format!(" to='{it}'")).unwrap_or_default();
                return self.answer(format!("<iq type='result' id='{id}'{to}/>"));
            }
            Some("set") => {
                if let Some(query) = element.find("query", ROSTER)
                    && from.is_none_or(|it| it == self.bare)
                {
                    self.take_items(query);
                }
                return self.answer(format!("<iq type='result' id='{id}'/>"));
            }
            Some("get") => {
                let to = from.map(|it| format!(" to='{it}'")).unwrap_or_default();
                return self.answer(format!(
                    "<iq type='error' id='{id}'{to}><error type='cancel'>\
                     <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                ));
            }
            _ => {}
        }
        if let Some(question) = self.shared.ledger.lock().questions.get_mut(&(self.n, id.clone())) {
            question.answers += 1;
        }
        if id.starts_with("rules") {
            self.rules_answered(&id, element);
        } else if id.starts_with("fetch") {
            let text = String::from_utf8(element.to_bytes(CLIENT)).unwrap_or_default();
            let from = from.unwrap_or_default();
            for words in text.split(">s:").skip(1).filter_map(|it| it.split('<').next()) {
                self.shared.ledger.lock().saw(self.n, from, &format!("s:{words}"));
            }
        } else if id.starts_with("look-roster") {
            let items = element.find("query", ROSTER).map(items).unwrap_or_default();
            if let Some(it) = self.shared.ledger.lock().finals.get_mut(&self.n) {
                it.roster = items.into_iter().filter_map(|(jid, item)| Some((jid, item?))).collect();
            }
        } else if id.starts_with("roster") {
            self.roster.clear();
            if let Some(query) = element.find("query", ROSTER) {
                self.take_items(query);
            }
        } else if let Some(fin) = element.find("fin", ARCHIVE)
            && self.phase() == Phase::Look
        {
            let last = fin.find("set", RSM).and_then(|it| it.find("last", RSM)).map(Element::text_content);
            if fin.attribute("complete") != Some("true")
                && let Some(last) = last
            {
                return self.next_page(&last);
            }
            self.tell_final();
        }
        None
    }

    fn next_page(&mut self, last: &str) -> Option<String> {
        self.iqs += 1;
        let id = format!("archive-{}", self.iqs);
        self.answer(format!(
            "<iq type='set' id='{id}'><query xmlns='{ARCHIVE}'><set xmlns='{RSM}'><max>{PAGE}</max>\
             <after>{last}</after></set></query></iq>"
        ))
    }

    /// What is sent without having been thought of: it counts as our stanza all the same.
    fn answer(&mut self, text: String) -> Option<String> {
        if self.managed {
            self.unacked.push_back(Unacked { text: text.clone(), message: None, status: None, over: false });
        }
        self.trace(&format!("> {text}"));
        Some(text)
    }

    fn take_items(&mut self, query: &Element) {
        for (jid, item) in items(query) {
            let watcher = self.shared.ledger.lock().account_of(&jid);
            let sees = item.as_ref().is_some_and(|(subscription, _)| subscription == "from" || subscription == "both");
            if let Some(watcher) = watcher {
                self.shared.ledger.lock().allow(self.account, watcher, sees);
            }
            match item {
                Some(item) => self.roster.insert(jid, item),
                None => self.roster.remove(&jid),
            };
        }
    }
}

/// Items of a roster: subscription, and whether an answer is waited for. `None`: removed.
fn items(query: &Element) -> Vec<(String, Option<(String, bool)>)> {
    let all = query.elements().filter(|it| it.is("item", ROSTER));
    all.map(|it| {
        let jid = it.attribute("jid").unwrap_or_default().to_owned();
        let subscription = it.attribute("subscription").unwrap_or("none").to_owned();
        let asks = it.attribute("ask").is_some();
        (jid, (subscription != "remove").then_some((subscription, asks)))
    })
    .collect()
}
