//! Headers and features. RFC 6120 §4.3.2, §4.7.

use super::{ClientStream, Stage};
use crate::config::HostAuth;
use crate::event::TlsInfo;
use crate::features;
use crate::frame::{Said, check_header, default_lang};
use crate::sasl::offer::Offer;
use xmpp::xml::Header;
use xmpp::{Jid, StreamCondition, StreamFault, ns};

impl ClientStream {
    /// RFC 6120 §4.7.
    pub(super) fn header(&mut self, header: Header, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let from = header.from.as_deref().filter(|from| !from.is_empty()).map(Jid::parse);
        let negotiation = self.negotiation.get_or_insert_default();
        negotiation.from = from.as_ref().and_then(|from| from.as_ref().ok()).cloned();
        negotiation.silent_version = header.version.is_none();
        check_header(&header, ns::CLIENT)?;

        let host = self.served(header.to.as_deref())?;
        if let Some(Err(_)) = from {
            return Err(StreamFault::Other(StreamCondition::ImproperAddressing, "The stream's 'from' is no address."));
        }
        self.check_from(&host)?;
        self.lang = default_lang(&header);
        self.host = Some(host);
        self.open(out);
        if self.account.is_none() {
            self.stage = Stage::Negotiating;
            features::before_auth(out, &self.frames, &self.config, self.policy(), &self.offer(), self.encrypted);
        } else {
            self.stage = Stage::Binding;
            features::after_auth(out, &self.frames, &self.config, self.policy(), true, false);
        }
        Ok(())
    }

    /// The host that a header's `to` names. RFC 6120 §4.7.2, §4.9.3.6.
    fn served(&self, to: Option<&str>) -> Result<Box<str>, StreamFault> {
        let host: Box<str> = match to.filter(|to| !to.is_empty()) {
            None => self.config.default_host.clone().ok_or_else(|| StreamFault::HostUnknown("".into()))?,
            Some(to) if self.config.hosts.contains_key(to) => to.into(),
            Some(to) => xmpp::jid::prepare_domain(to).map_err(|_| StreamFault::ToMalformed)?.into(),
        };
        match self.config.hosts.contains_key(&host) && self.account().is_none_or(|account| account.domain() == &*host) {
            true => Ok(host),
            false => Err(StreamFault::HostUnknown(host)),
        }
    }

    /// A client's `from` is an address at the host, and its own. RFC 6120 §4.9.3.9, XEP-0388 §2.1.
    fn check_from(&self, host: &str) -> Result<(), StreamFault> {
        let Some(from) = self.negotiation.as_ref().and_then(|negotiation| negotiation.from.as_ref()) else {
            return Ok(());
        };
        let other = from.domain() != host
            || self.account().is_some_and(|account| from.local().is_some() && !from.same_bare(account));
        if other { Err(StreamFault::FromNotOurs(from.as_str().into())) } else { Ok(()) }
    }

    /// Writes our header.
    pub(super) fn open(&mut self, out: &mut Vec<u8>) {
        let negotiation = self.negotiation.as_deref();
        let to = negotiation.and_then(|negotiation| negotiation.from.as_ref()).map(Jid::bare_str);
        let said = Said {
            // RFC 6120 §4.9.1.3.
            from: self.host.as_deref().or(self.config.default_host.as_deref()).unwrap_or_default(),
            to,
            version: !negotiation.is_some_and(|negotiation| negotiation.silent_version),
            lang: &self.config.lang,
        };
        self.frames.open(out, &*self.crypto, ns::CLIENT, &said);
    }

    /// The policy of the stream's host.
    pub(super) fn policy(&self) -> &HostAuth {
        self.host.as_ref().and_then(|host| self.config.hosts.get(host)).expect("a header has named one of our hosts")
    }

    pub(super) fn offer(&self) -> Offer {
        Offer::new(self.policy(), self.config.tls, self.tls())
    }

    pub(super) fn tls(&self) -> Option<&TlsInfo> {
        self.negotiation.as_ref().and_then(|negotiation| negotiation.tls.as_ref())
    }
}
