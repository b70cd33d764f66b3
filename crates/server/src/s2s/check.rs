//! `waft check`: walks the way to a domain and back, step by step, as a link would, and says where it ends and why.

use super::dns::{self, DnsFault, Nowhere, Target};
use super::{Federation, Policy, trust};
use crate::admin::{Check, CheckState, CheckStep};
use crate::edge::line::{Io, Line};
use crate::edge::socket::Socket;
use im::Ticket;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stream::server::OutEvent;
use stream::{OutgoingStream, Pair, PeerCertificate};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use xmpp::{BareJid, Element, IqType, Stanza, StanzaType};

/// For all steps together.
const PATIENCE: Duration = Duration::from_secs(50);
/// For the answer to the ping, which may need streams both ways.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether the link has failed meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of one answer that are kept while an element is not whole; the stream has its own, smaller, bound.
const ELEMENTS_MAX: usize = 64;
/// Pings that are out at once.
const PINGS_MAX: usize = 64;
/// Who asks when we look at ourselves: nobody may say that it is us (RFC 2606 §2).
const NOBODY: &str = "check.invalid";

/// Pings of checks that wait for an answer, by id.
#[derive(Debug, Default)]
pub struct Pings(Mutex<HashMap<Box<str>, oneshot::Sender<()>>>);

impl Pings {
    /// Was this the answer to one of them?
    pub fn answered(&self, stanza: &Stanza) -> bool {
        if !matches!(stanza.kind, StanzaType::Iq(IqType::Result | IqType::Error)) {
            return false;
        }
        let Some(id) = &stanza.id else { return false };
        match self.0.lock().remove(id) {
            // Who waited may have given up.
            Some(waits) => waits.send(()).is_ok(),
            None => false,
        }
    }
}

/// One walk.
struct Walk {
    federation: Arc<Federation>,
    policy: Arc<Policy>,
    /// From ours to theirs.
    pair: Pair,
    /// The domain is served here.
    ourselves: bool,
    report: Arc<Mutex<Report>>,
}

#[derive(Debug)]
struct Report {
    steps: Vec<CheckStep>,
    step: &'static str,
    since: Instant,
}

impl Report {
    fn begin(&mut self, step: &'static str) {
        self.step = step;
        self.since = Instant::now();
    }

    fn end(&mut self, state: CheckState, detail: impl Into<String>, remedy: &str) {
        let milliseconds = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.steps.push(CheckStep {
            step: self.step.into(),
            state,
            milliseconds,
            detail: detail.into(),
            remedy: (!remedy.is_empty()).then(|| remedy.into()),
        });
    }
}

/// The walk ends here; the report says why.
struct Ended;

/// Walks from `from`, a domain served here, to `domain`; both prepared.
pub async fn check(federation: &Arc<Federation>, from: &str, domain: &str, ourselves: bool) -> Check {
    let report = Arc::new(Mutex::new(Report { steps: Vec::new(), step: "policy", since: Instant::now() }));
    let walk = Walk {
        federation: federation.clone(),
        policy: federation.policy(),
        pair: Pair::new(if ourselves { NOBODY } else { from }, domain),
        ourselves,
        report: report.clone(),
    };
    if timeout(PATIENCE, walk.all()).await.is_err() {
        report.lock().end(
            CheckState::Failed,
            "it took too long",
            "try again; the other server or the way to it is slow",
        );
    }
    let steps = std::mem::take(&mut report.lock().steps);
    let ok = steps.iter().all(|step| step.state != CheckState::Failed);
    Check { domain: domain.into(), from: from.into(), ok, steps }
}

impl Walk {
    fn begin(&self, step: &'static str) {
        self.report.lock().begin(step);
    }

    fn ok(&self, detail: impl Into<String>) {
        self.report.lock().end(CheckState::Ok, detail, "");
    }

    fn note(&self, detail: impl Into<String>, remedy: &str) {
        self.report.lock().end(CheckState::Note, detail, remedy);
    }

    fn skipped(&self, step: &'static str, why: &str) {
        self.begin(step);
        self.report.lock().end(CheckState::Skipped, why, "");
    }

    fn failed(&self, detail: impl Into<String>, remedy: &str) -> Ended {
        self.report.lock().end(CheckState::Failed, detail, remedy);
        Ended
    }

    async fn all(&self) {
        if self.may_speak().is_err() {
            return;
        }
        // An answer may come even where the way there is broken: over a stream that they opened.
        let _ = self.there().await;
        if !self.ourselves {
            self.and_back().await;
        }
    }

    fn may_speak(&self) -> Result<(), Ended> {
        if !self.ourselves && !self.policy.allows(&self.pair.to) {
            return Err(
                self.failed("the configuration does not allow this domain", "look at blocked and allowed in [s2s]")
            );
        }
        let how = match self.policy.is_strict(&self.pair.to) {
            true => "a certificate must prove it",
            false => "a certificate or dialback must prove it",
        };
        self.ok(if self.ourselves { "it is served here" } else { how });
        Ok(())
    }

    async fn there(&self) -> Result<(), Ended> {
        let targets = self.find().await?;
        let (socket, target) = self.connect(targets).await?;
        let mut talk = Talk {
            stream: OutgoingStream::new(
                self.policy.stream.clone(),
                self.federation.crypto.clone(),
                self.pair.clone(),
                false,
            ),
            line: Line::new(socket),
        };
        let done = self.negotiate(&mut talk, target).await;
        talk.stream.close(&mut talk.line.out);
        talk.line.last_words().await;
        done
    }

    /// SRV records and addresses. RFC 6120 §3.2, XEP-0368.
    async fn find(&self) -> Result<Vec<Target>, Ended> {
        let domain = &self.pair.to;
        self.begin("srv");
        if let Some(address) = self.policy.pinned(domain) {
            self.ok("not asked: the configuration says where its server is");
            self.begin("addresses");
            self.ok(address.to_string());
            return Ok(vec![Target { address, direct_tls: false, delegation: None }]);
        }
        let Some(name) = trust::ascii(domain) else {
            return Err(self.failed("the domain has no name in DNS", "is it written correctly?"));
        };
        self.srv(&name).await?;
        self.begin("addresses");
        let mut random = |below| self.federation.random(below);
        // Whether a private address would do for ourselves says nothing: others must reach us.
        let allow_private = self.policy.allow_private;
        match dns::targets(&*self.federation.resolver, &name, allow_private, &mut random).await {
            Ok(targets) => {
                let all: Vec<String> = targets.iter().map(shown).collect();
                self.ok(all.join(", "));
                self.dane(&targets);
                Ok(targets)
            }
            Err(Nowhere::Absent) => Err(self.failed(
                "there is no address",
                "its owner must publish SRV records, or A and AAAA records of the domain itself; if it is new, wait until caches forget that it was not there",
            )),
            Err(Nowhere::Private) => Err(self.failed(
                "all its addresses are private ones, and those are not dialled",
                "set allow_private = true in [s2s] where servers are on the local network, or name its address in [s2s.domain]",
            )),
            Err(Nowhere::Failed(why)) => Err(self.failed(why, "the name servers of this machine do not answer: look at /etc/resolv.conf")),
        }
    }

    async fn srv(&self, name: &str) -> Result<(), Ended> {
        let direct = format!("_xmpps-server._tcp.{name}.");
        let plain = format!("_xmpp-server._tcp.{name}.");
        let resolver = &self.federation.resolver;
        let (direct, plain) = tokio::join!(resolver.srv(&direct), resolver.srv(&plain));
        if let (Err(DnsFault::Failed(why)), Err(_)) = (&plain, &direct) {
            return Err(
                self.failed(why.clone(), "the name servers of this machine do not answer: look at /etc/resolv.conf")
            );
        }
        let mut found: Vec<String> = Vec::new();
        for (records, how) in [(direct, "direct TLS"), (plain, "STARTTLS")] {
            let Ok(records) = records else { continue };
            let signed = if records.secure { ", signed" } else { "" };
            for srv in records.iter() {
                let target = if srv.target.is_empty() { "." } else { &srv.target };
                found.push(format!("{target}:{} ({how}, priority {}{signed})", srv.port, srv.priority));
            }
        }
        match found.is_empty() {
            true => self.ok("none: the domain's own address and port 5269 are used"),
            false => self.ok(found.join(", ")),
        }
        Ok(())
    }

    /// What signed records say of its servers' certificates; only where signatures are looked at. RFC 7673.
    fn dane(&self, targets: &[Target]) {
        if !self.federation.resolver.validates() {
            return;
        }
        self.begin("dane");
        let mut all: Vec<String> = Vec::new();
        for delegation in targets.iter().filter_map(|target| target.delegation.as_deref()) {
            let said = match delegation.tlsa.len() {
                0 => format!("{}: no TLSA records; its own name in a certificate will do", delegation.name),
                count => format!("{}: {count} TLSA records, one of which must match", delegation.name),
            };
            if !all.contains(&said) {
                all.push(said);
            }
        }
        match all.is_empty() {
            true => self.ok("does not apply: the SRV records are not signed, or there are none"),
            false => self.ok(all.join("; ")),
        }
    }

    /// Each address is tried; the first that answers is used.
    async fn connect(&self, targets: Vec<Target>) -> Result<(Socket, Target), Ended> {
        self.begin("tcp");
        let mut tried = Vec::new();
        for target in targets {
            let since = Instant::now();
            match timeout(self.policy.connect, self.federation.house.network.connect(target.address)).await {
                Ok(Ok(socket)) => {
                    tried.push(format!("{} answers in {} ms", shown(&target), since.elapsed().as_millis()));
                    self.ok(tried.join("; "));
                    return Ok((socket, target));
                }
                Ok(Err(error)) => tried.push(format!("{}: {error}", shown(&target))),
                Err(_) => tried.push(format!("{}: no answer", shown(&target))),
            }
        }
        let remedy = match self.ourselves {
            true => "listen there ([[listen]] with kind = \"s2s\"), and let firewalls pass the port",
            false => "its server is down or a firewall is between: does it answer from elsewhere?",
        };
        Err(self.failed(tried.join("; "), remedy))
    }

    /// TLS, certificate, what is offered, and who we are.
    async fn negotiate(&self, talk: &mut Talk, target: Target) -> Result<(), Ended> {
        self.begin("tls");
        if target.direct_tls {
            self.handshake(talk, &target).await?;
        }
        talk.stream.start(&mut talk.line.out);
        loop {
            match self.next(talk).await? {
                OutEvent::StartTls => {
                    self.handshake(talk, &target).await?;
                    if self.ourselves {
                        return Ok(());
                    }
                }
                OutEvent::Ready if self.ourselves => return Ok(()),
                OutEvent::Ready => break,
                _ => {}
            }
        }
        self.begin("features");
        let offer = talk.stream.offer();
        let has = |what: &'static str, it: bool| if it { what.to_owned() } else { format!("no {what}") };
        self.ok([has("EXTERNAL", offer.external), has("dialback", offer.dialback), has("bidi", offer.bidi)].join(", "));
        self.prove(talk).await?;
        self.begin("bidi");
        self.ok(match talk.stream.is_bidirectional() {
            true => "one stream carries both directions",
            false => "not spoken: each side opens a stream of its own",
        });
        self.begin("sm");
        self.ok(match talk.stream.offer().management {
            true => "offered: what is cut is sent again",
            false => "not offered: what is on the way when a stream breaks may be lost",
        });
        Ok(())
    }

    async fn handshake(&self, talk: &mut Talk, target: &Target) -> Result<(), Ended> {
        let direct = target.direct_tls;
        const REMEDY: &str =
            "its TLS is broken or too old (TLS 1.2 with extended master secret is needed): ask its administrator";
        let trust = self.federation.trust.read().clone();
        let config = match trust.dialling(&self.pair.from, direct) {
            Ok(config) => config,
            Err(error) => return Err(self.failed(error.to_string(), REMEDY)),
        };
        let Some(name) = trust::server_name(&self.pair.to) else {
            return Err(self.failed("the domain has no name for TLS", "is it written correctly?"));
        };
        let patience = self.policy.handshake;
        let failed = |why: &dyn std::fmt::Display| self.failed(why.to_string(), REMEDY);
        talk.line.flush(patience).await.map_err(|why| failed(&why))?;
        talk.line.wire.start_tls_to(config, name).map_err(|why| failed(&why))?;
        talk.line.handshake(patience).await.map_err(|why| failed(&why))?;
        let how = if direct { "direct" } else { "by STARTTLS" };
        self.ok(format!("{} {how}", talk.line.wire.tls_kind().unwrap_or_default()));
        self.begin("certificate");
        let chain = talk.line.wire.peer_certificates().unwrap_or_default().to_vec();
        let known = self.federation.judge_dialled(&self.pair.to, Some(&chain), target.delegation.as_deref());
        let known = known.map_err(|why| {
            self.failed(
                why,
                "ask its administrator: if the certificate is new, TLSA records must name it as well, and a key of the first contact is forgotten by waft s2s forget DOMAIN",
            )
        })?;
        let certificate = known.certificate;
        let judged = match known.by_dane {
            true => {
                self.ok("a signed TLSA record vouches for it (DANE)");
                Ok(())
            }
            false => self.judge(certificate.as_ref(), trust.verify(&chain).err()),
        };
        if !self.ourselves || !direct {
            talk.stream.tls_up(certificate, &mut talk.line.out);
        }
        judged
    }

    fn judge(&self, certificate: Option<&PeerCertificate>, error: Option<String>) -> Result<(), Ended> {
        const OTHERS: &str = "its administrator must give it a certificate of an authority that names the domain; or accept dialback for it: trust = \"dialback\" in [s2s.domain]";
        const OURS: &str = "get a certificate of an authority and name its files in [host] (certificate, key); other servers may refuse this one";
        let domain = &self.pair.to;
        let names = certificate.map(|it| it.dns_names.join(", ")).unwrap_or_default();
        let wrong = match (certificate, error) {
            (None, _) => "it shows none".to_owned(),
            (Some(it), Some(_)) if it.speaks_for(domain) => {
                self.ok(format!("known since the first contact, for {names}"));
                return Ok(());
            }
            (Some(_), Some(error)) => format!("{error} (it is for {names})"),
            (Some(it), None) if !it.speaks_for(domain) => format!("it is for {names}, not for {domain}"),
            (Some(_), None) => {
                self.ok(format!("valid, for {names}"));
                return Ok(());
            }
        };
        if self.policy.is_strict(domain) && !self.ourselves {
            return Err(self.failed(wrong, OTHERS));
        }
        match self.ourselves {
            true => self.note(wrong, OURS),
            false => self.note(wrong + ": dialback must prove the domain", ""),
        }
        Ok(())
    }

    /// EXTERNAL, else dialback: both prove *us* to them.
    async fn prove(&self, talk: &mut Talk) -> Result<(), Ended> {
        let offer = talk.stream.offer();
        if !offer.external {
            self.skipped("external", "not offered: our certificate does not convince it, or it speaks dialback only");
        }
        self.begin(if offer.external { "external" } else { "dialback" });
        talk.stream.authenticate(&mut talk.line.out);
        loop {
            let event = self.next(talk).await?;
            // Refused, and dialback has begun by itself.
            if offer.external && talk.stream.external_failed() && self.report.lock().step == "external" {
                self.note(
                    "it does not take our certificate",
                    "look at the host's certificate: waft check of the own domain",
                );
                self.begin("dialback");
            }
            match event {
                OutEvent::Authenticated(pair) if pair == self.pair => {
                    let step = self.report.lock().step;
                    self.ok("it takes us for who we are");
                    if step == "external" {
                        self.skipped("dialback", "not needed");
                    }
                    return Ok(());
                }
                OutEvent::Refused(pair, condition) if pair == self.pair => {
                    return Err(self.failed(
                        format!("it refuses us: {}", condition.name()),
                        "it asked our domain's server whether the key is ours: can it find and reach us? Look at SRV records and firewalls of the own domain (waft check of it)",
                    ));
                }
                _ => {}
            }
        }
    }

    async fn next(&self, talk: &mut Talk) -> Result<OutEvent, Ended> {
        match timeout(self.policy.negotiation, talk.next(self.policy.handshake)).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(why)) => Err(self.failed(why, "ask its administrator; its log says more")),
            Err(_) => Err(self.failed("no answer", "ask its administrator; its log says more")),
        }
    }

    /// A ping (XEP-0199) over the links that messages take: the answer needs the way back.
    async fn and_back(&self) {
        const REMEDY: &str = "the other server cannot reach us: are our SRV records right, is port 5269 open from outside, does it take our certificate or dialback? Check the own domain, and look into the log of the other server";
        self.begin("there and back");
        let (Ok(here), Ok(there)) = (BareJid::of_domain(&self.pair.from), BareJid::of_domain(&self.pair.to)) else {
            return;
        };
        let id = format!("check-{:08x}{:08x}", self.federation.random(u32::MAX), self.federation.random(u32::MAX));
        let (answer, mut answered) = oneshot::channel();
        {
            let mut pings = self.federation.checks.0.lock();
            if pings.len() >= PINGS_MAX {
                drop(pings);
                self.failed("too many checks are under way", "try again later");
                return;
            }
            pings.insert(id.as_str().into(), answer);
        }
        self.federation.streams.forget_failure(&self.pair);
        let ping = Stanza::iq(IqType::Get, &id).with_from(here).with_to(there.clone());
        let ping = ping.with_children([Element::new("ping", "urn:xmpp:ping")]);
        if let Err((error, _)) = self.federation.send(there.into(), &Arc::new(ping), Ticket::default()) {
            self.failed(format!("it cannot be sent: {}", error.condition.name()), "");
        } else {
            let until = Instant::now() + ANSWER_PATIENCE;
            loop {
                if timeout(LOOK_EVERY, &mut answered).await.is_ok_and(|answer| answer.is_ok()) {
                    self.ok(format!("it answers a ping; {}", self.links()));
                    break;
                }
                if let Some(why) = self.federation.streams.failure(&self.pair) {
                    self.failed(format!("our stream to it: {why}"), "see the steps above");
                    break;
                }
                if Instant::now() >= until {
                    self.failed(format!("no answer to a ping; {}", self.links()), REMEDY);
                    break;
                }
            }
        }
        self.federation.checks.0.lock().remove(id.as_str());
    }

    /// The streams that there are now.
    fn links(&self) -> String {
        let links = self.federation.shown();
        let of_pair = links.iter().filter(|it| *it.local == *self.pair.from && *it.remote == *self.pair.to);
        let links: Vec<String> = of_pair.map(|it| format!("{} by {}", it.direction, it.trust)).collect();
        if links.is_empty() { "there is no stream".into() } else { format!("streams: {}", links.join(", ")) }
    }
}

fn shown(target: &Target) -> String {
    format!("{}{}", target.address, if target.direct_tls { " (direct TLS)" } else { "" })
}

/// The stream that is tried.
struct Talk {
    stream: OutgoingStream,
    line: Line,
}

impl Talk {
    /// The next event; errors are for people.
    async fn next(&mut self, patience: Duration) -> Result<OutEvent, String> {
        for _ in 0..ELEMENTS_MAX {
            let input = std::mem::take(&mut self.line.input);
            let mut rest = input.as_slice();
            let next = self.stream.next(&mut rest, &mut self.line.out);
            self.line.input = rest.to_vec();
            match next {
                Ok(Some(OutEvent::PeerError(condition))) => return Err(format!("it ends the stream: {condition}")),
                Ok(Some(OutEvent::Closed)) => return Err("it closes the stream".into()),
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(fault) => {
                    self.stream.fail(&fault, &mut self.line.out);
                    return Err(format!("what it says is wrong: {}", fault.condition().name()));
                }
            }
            self.line.flush(patience).await.map_err(|error| error.to_string())?;
            loop {
                match self.line.progress(true).await {
                    Ok(Io::Read(true)) => break,
                    Ok(Io::Flushed) => {}
                    Ok(Io::Read(false)) => return Err("it closed the connection".into()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        Err("it says too much before it answers".into())
    }
}
