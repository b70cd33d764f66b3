//! Where another domain's server is: SRV records, addresses, and which of them may be dialled. RFC 6120 §3.2,
//! XEP-0368, RFC 2782. And, where answers are signed, what they say of its certificate: RFC 7673.

use super::dane::{Delegation, Tlsa};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The port of servers without SRV records. RFC 6120 §3.2.2.
const PORT: u16 = 5269;
/// Records of one answer that are looked at, and addresses that are tried.
const TARGETS_MAX: usize = 16;
/// That something is not there is asked again after so long at most, however long the answer may be kept.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(60);
/// For one question, retries included.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Without a final dot; empty: the service is not there (RFC 2782).
    pub target: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsFault {
    /// The name or the record does not exist.
    Absent,
    /// Nobody answered, or with an error, or the answer's signatures do not hold: perhaps later.
    Failed(String),
}

/// An answer that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub records: Vec<T>,
    /// "Secure" by RFC 4035 §4.3: signed, up to an anchor that we trust.
    pub secure: bool,
}

impl<T> From<Vec<T>> for Found<T> {
    /// As from DNS without signatures.
    fn from(records: Vec<T>) -> Found<T> {
        Found { records, secure: false }
    }
}

impl<T> Deref for Found<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.records
    }
}

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Found<T>, DnsFault>> + Send + 'a>>;

/// Questions to DNS; tests answer them from a table.
pub trait Resolve: Send + Sync {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv>;
    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr>;
    /// Tag and value of CAA records (RFC 8659), of this name alone.
    fn caa<'a>(&'a self, _name: &'a str) -> Answer<'a, (String, String)> {
        Box::pin(async { Err(DnsFault::Absent) })
    }
    /// RFC 6698; only asked for by names whose addresses were secure.
    fn tlsa<'a>(&'a self, name: &'a str) -> Answer<'a, Tlsa> {
        let _ = name;
        Box::pin(async { Err(DnsFault::Absent) })
    }
    /// Are signatures looked at? Else nothing is ever secure.
    fn validates(&self) -> bool {
        false
    }
}

/// Where the system names its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// One name server, by UDP and TCP.
fn only(server: SocketAddr) -> ResolverConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|connection| connection.port = server.port());
    ResolverConfig::from_parts(None, Vec::new(), vec![NameServerConfig::new(server.ip(), true, connections.to_vec())])
}

/// The name servers of the system.
pub struct System {
    resolver: TokioResolver,
    validates: bool,
}

impl System {
    /// Signatures are not looked at.
    ///
    /// # Errors
    /// The system names none that can be used.
    pub fn new() -> Result<System, String> {
        System::with(false, None)
    }

    /// With `validates` signatures are looked at (RFC 4035 §5), up to the keys of the root, or to those in the file of
    /// `anchors`: an answer whose signatures do not hold, or that should have some, is none.
    ///
    /// # Errors
    /// The system names none that can be used; the file has no keys.
    pub fn with(validates: bool, anchors: Option<&Path>) -> Result<System, String> {
        let anchors = anchors.filter(|_| validates).map(anchors_in).transpose()?;
        // Without the file the name server of this machine is meant. resolv.conf(5)
        let builder = if Path::new(RESOLV_CONF).exists() {
            TokioResolver::builder_tokio()
        } else {
            tracing::warn!("there is no {RESOLV_CONF}: the name server of this machine is asked");
            let here = only(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
            Ok(TokioResolver::builder_with_config(here, TokioRuntimeProvider::default()))
        };
        let resolver = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.validate = validates;
            options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
            match anchors {
                Some(anchors) => builder.with_trust_anchor(Arc::new(anchors)).build(),
                None => builder.build(),
            }
        });
        let resolver = resolver.map_err(|error| {
            format!(
                "the name servers of the system cannot be used: {error}\nname one in {RESOLV_CONF}: nameserver ADDRESS"
            )
        })?;
        Ok(System { resolver, validates })
    }

    /// One name server, and no other; whose signatures are taken if they lead to the anchors, if there are any.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn at(server: SocketAddr, anchors: Option<TrustAnchors>) -> Result<System, String> {
        let mut builder = TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default());
        builder.options_mut().negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        let validates = anchors.is_some();
        if let Some(anchors) = anchors {
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        let resolver = builder.build().map_err(|error| format!("the name server cannot be used: {error}"))?;
        Ok(System { resolver, validates })
    }

    async fn ask<T>(
        name: &str,
        question: impl Future<Output = Result<Found<T>, NetError>>,
    ) -> Result<Found<T>, DnsFault> {
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(found)) if found.is_empty() => Err(DnsFault::Absent),
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => Err(DnsFault::Absent),
            // It is not there, and nobody signs that it is not.
            Ok(Err(NetError::Dns(DnsError::Nsec { proof: Proof::Insecure, .. }))) => Err(DnsFault::Absent),
            Ok(Err(NetError::Dns(DnsError::Nsec { .. } | DnsError::DnssecBogus))) => {
                Err(DnsFault::Failed(format!("{name}: {UNSIGNED}")))
            }
            Ok(Err(error)) => Err(DnsFault::Failed(format!("{name}: {error}"))),
            Err(_) => Err(DnsFault::Failed(format!("{name}: no answer"))),
        }
    }

    /// What `read` takes of the answers, and whether all of them are secure, aliases included (RFC 7673 §3.1). Answers
    /// whose state is not known are none.
    fn found<T>(&self, lookup: &Lookup, read: impl Fn(&RData) -> Option<T>) -> Result<Found<T>, NetError> {
        let answers = || lookup.answers().iter().filter(|record| record.record_type() != RecordType::RRSIG);
        let is_known = |record: &Record| matches!(record.proof, Proof::Secure | Proof::Insecure);
        if self.validates && !answers().all(is_known) {
            return Err(NetError::Dns(DnsError::DnssecBogus));
        }
        let secure = self.validates && answers().all(|record| record.proof.is_secure());
        Ok(Found { records: answers().filter_map(|record| read(&record.data)).collect(), secure })
    }
}

fn anchors_in(file: &Path) -> Result<TrustAnchors, String> {
    let anchors = TrustAnchors::from_file(file).map_err(|error| error.to_string());
    match anchors {
        Ok(anchors) if !anchors.is_empty() => Ok(anchors),
        Ok(_) => Err(format!("{} has no DNSKEY records (s2s.dane_anchors)", file.display())),
        Err(error) => Err(format!("{} cannot be read: {error} (s2s.dane_anchors)", file.display())),
    }
}

const UNSIGNED: &str = "its signatures do not hold, or the name server does not pass them on (s2s.dane)";

impl Resolve for System {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
        Box::pin(System::ask(name, async move {
            self.found(&self.resolver.srv_lookup(name).await?, |data| match data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            })
        }))
    }

    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
        Box::pin(System::ask(name, async move {
            self.found(self.resolver.lookup_ip(name).await?.as_lookup(), |data| match data {
                RData::A(four) => Some(IpAddr::V4(four.0)),
                RData::AAAA(six) => Some(IpAddr::V6(six.0)),
                _ => None,
            })
        }))
    }

    fn tlsa<'a>(&'a self, name: &'a str) -> Answer<'a, Tlsa> {
        Box::pin(System::ask(name, async move {
            self.found(&self.resolver.tlsa_lookup(name).await?, |data| match data {
                RData::TLSA(tlsa) => Some(Tlsa {
                    usage: tlsa.cert_usage.into(),
                    selector: tlsa.selector.into(),
                    matching: tlsa.matching.into(),
                    data: tlsa.cert_data.clone(),
                }),
                _ => None,
            })
        }))
    }

    fn validates(&self) -> bool {
        self.validates
    }

    fn caa<'a>(&'a self, name: &'a str) -> Answer<'a, (String, String)> {
        Box::pin(System::ask(name, async move {
            self.found(&self.resolver.lookup(name, RecordType::CAA).await?, |data| match data {
                RData::CAA(caa) => Some((caa.tag.clone(), String::from_utf8_lossy(&caa.value).into_owned())),
                _ => None,
            })
        }))
    }
}

/// One address to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// TLS from the first byte (XEP-0368).
    pub direct_tls: bool,
    /// The domain names this server in signed records.
    pub delegation: Option<Arc<Delegation>>,
}

/// A server as a domain names it, before its addresses are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub port: u16,
    pub direct_tls: bool,
    /// Named by signed records.
    pub secure: bool,
}

/// Why there is nothing to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nowhere {
    /// There is no such domain, or it has no server.
    Absent,
    /// All its addresses are private, and those are not dialled.
    Private,
    Failed(String),
}

/// The addresses of `domain`'s servers, the best first. `random` gives numbers below its argument.
///
/// # Errors
/// [`Nowhere`] when there is none.
pub async fn targets(
    resolver: &dyn Resolve,
    domain: &str,
    allow_private: bool,
    random: &mut (dyn FnMut(u32) -> u32 + Send),
) -> Result<Vec<Target>, Nowhere> {
    let literal = domain.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let services = match literal {
        Some(_) => Vec::new(),
        None => services(resolver, domain, random).await?,
    };
    let fallback = services.is_empty();
    // Without SRV records names are as RFC 6120 has them, signed or not. RFC 7712 §5.1.
    let itself =
        || Place { name: domain.trim_matches(['[', ']']).to_owned(), port: PORT, direct_tls: false, secure: false };
    addresses_of(resolver, if fallback { vec![itself()] } else { services }, allow_private).await
}

/// The addresses of places, and what signed records say of the servers there.
///
/// # Errors
/// [`Nowhere`] when there is none.
pub async fn addresses_of(
    resolver: &dyn Resolve,
    places: Vec<Place>,
    allow_private: bool,
) -> Result<Vec<Target>, Nowhere> {
    let mut private = false;
    let mut failed = None;
    let mut out: Vec<Target> = Vec::new();
    for place in places.into_iter().take(TARGETS_MAX) {
        match found_at(resolver, &place).await {
            Ok((addresses, delegation)) => {
                let (port, direct_tls) = (place.port, place.direct_tls);
                for address in in_turns(addresses) {
                    if !allow_private && !is_public(address) {
                        private = true;
                        continue;
                    }
                    let address = SocketAddr::new(address, port);
                    let target = Target { address, direct_tls, delegation: delegation.clone() };
                    if out.len() < TARGETS_MAX && !out.contains(&target) {
                        out.push(target);
                    }
                }
            }
            Err(DnsFault::Absent) => {}
            Err(DnsFault::Failed(why)) => failed = Some(why),
        }
    }
    match (out.is_empty(), private, failed) {
        (false, _, _) => Ok(out),
        (true, true, _) => Err(Nowhere::Private),
        (true, false, Some(why)) => Err(Nowhere::Failed(why)),
        (true, false, None) => Err(Nowhere::Absent),
    }
}

/// A server's addresses; and where signed records lead to it, its TLSA records. RFC 7673 §3.2, §3.3.
///
/// # Errors
/// Also when those records cannot be had: then it is not to be dialled (§3.4).
async fn found_at(resolver: &dyn Resolve, place: &Place) -> Result<(Vec<IpAddr>, Option<Arc<Delegation>>), DnsFault> {
    let name = &place.name;
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok((vec![address], None));
    }
    // The final dot: no search list of the system is tried.
    let addresses = resolver.addresses(&format!("{name}.")).await?;
    if !place.secure {
        return Ok((addresses.records, None));
    }
    let mut delegation = Delegation { name: name.clone(), tlsa: Vec::new() };
    if addresses.secure {
        match resolver.tlsa(&format!("_{}._tcp.{name}.", place.port)).await {
            Ok(tlsa) if tlsa.secure => delegation.tlsa = tlsa.records,
            Ok(_) | Err(DnsFault::Absent) => {}
            Err(fault) => return Err(fault),
        }
        delegation.tlsa.retain(Tlsa::is_usable);
        delegation.tlsa.truncate(TARGETS_MAX);
    }
    Ok((addresses.records, Some(Arc::new(delegation))))
}

/// Places out of both services' records, in the order of RFC 2782. Empty: there are no records.
async fn services(
    resolver: &dyn Resolve,
    domain: &str,
    random: &mut (dyn FnMut(u32) -> u32 + Send),
) -> Result<Vec<Place>, Nowhere> {
    let direct = format!("_xmpps-server._tcp.{domain}.");
    let plain = format!("_xmpp-server._tcp.{domain}.");
    let (direct, plain) = tokio::join!(resolver.srv(&direct), resolver.srv(&plain));
    // A failure of the newer service's question alone is no reason to give up; unless it may hide signed records, whose
    // absence would let in what they keep out (RFC 7673 §3.1).
    let mut places = Vec::new();
    let mut failed = None;
    for (answer, direct_tls) in [(direct, true), (plain, false)] {
        match answer {
            Ok(found) => places.extend(found.records.into_iter().map(|srv| (srv, direct_tls, found.secure))),
            Err(DnsFault::Absent) => {}
            Err(DnsFault::Failed(why)) if !direct_tls || resolver.validates() => failed = Some(why),
            Err(DnsFault::Failed(_)) => {}
        }
    }
    if let (true, Some(why)) = (places.is_empty(), failed) {
        return Err(Nowhere::Failed(why));
    }
    if !places.is_empty() && places.iter().all(|(srv, ..)| srv.target.is_empty()) {
        // "The service is decidedly not available at this domain."
        return Err(Nowhere::Absent);
    }
    places.retain(|(srv, ..)| !srv.target.is_empty());
    places.truncate(TARGETS_MAX);
    let place = |(srv, direct_tls, secure): Service| Place { name: srv.target, port: srv.port, direct_tls, secure };
    Ok(in_order(places, random).into_iter().map(place).collect())
}

/// A record, whether TLS comes first there, and whether it is secure.
type Service = (Srv, bool, bool);

/// By priority; within one, drawn by weight. RFC 2782.
fn in_order(mut records: Vec<Service>, random: &mut (dyn FnMut(u32) -> u32 + Send)) -> Vec<Service> {
    records.sort_by_key(|(srv, ..)| (srv.priority, srv.weight));
    let mut out = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|(srv, ..)| srv.priority) {
        let same = records.iter().take_while(|(srv, ..)| srv.priority == priority).count();
        let sum: u32 = records[..same].iter().map(|(srv, ..)| u32::from(srv.weight)).sum();
        let drawn = random(sum + 1);
        let mut run = 0;
        let at = records[..same].iter().position(|(srv, ..)| {
            run += u32::from(srv.weight);
            run >= drawn
        });
        out.push(records.remove(at.unwrap_or(0)));
    }
    out
}

/// IPv6 and IPv4 by turns, RFC 8305 §4.
fn in_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut out = Vec::new();
    loop {
        let pair = (six.next(), four.next());
        if pair == (None, None) {
            return out;
        }
        out.extend(pair.0);
        out.extend(pair.1);
    }
}

/// May a name that anybody can publish lead there? LIMITS.md §2 row 26.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => is_public_four(four),
        IpAddr::V6(six) => is_public_six(six),
    }
}

fn is_public_four(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && b & 0xC0 == 64;
    let benchmark = a == 198 && b & 0xFE == 18;
    let protocols = a == 192 && b == 0 && c == 0;
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a >= 240
        || shared
        || benchmark
        || protocols)
}

fn is_public_six(address: Ipv6Addr) -> bool {
    let words = address.segments();
    // Those that carry an IPv4 address count as it: NAT64, 6to4.
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_four(Ipv4Addr::new(a, b, c, d))
    };
    match words {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        [0x2001, 0xdb8, ..] => false,
        // Only 2000::/3 is given out.
        _ => words[0] & 0xE000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Table {
        srv: HashMap<String, Vec<Srv>>,
        addresses: HashMap<String, Vec<IpAddr>>,
    }

    impl Resolve for Table {
        fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
            Box::pin(async move { self.srv.get(name).cloned().map(Found::from).ok_or(DnsFault::Absent) })
        }
        fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
            Box::pin(async move { self.addresses.get(name).cloned().map(Found::from).ok_or(DnsFault::Absent) })
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv { priority, weight, port, target: target.into() }
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.addresses.insert("one.example.net.".into(), vec![ip("9.9.9.1"), ip("2620:fe::1")]);
        table.addresses.insert("two.example.net.".into(), vec![ip("9.9.9.2")]);
        table.addresses.insert("example.net.".into(), vec![ip("9.9.9.9")]);
        table
    }

    async fn dialled(table: &Table, domain: &str) -> Result<Vec<String>, Nowhere> {
        let targets = targets(table, domain, false, &mut |_| 0).await?;
        Ok(targets.iter().map(|t| format!("{}{}", t.address, if t.direct_tls { " tls" } else { "" })).collect())
    }

    #[tokio::test]
    async fn without_srv_records_the_domain_itself_is_dialled() {
        assert_eq!(dialled(&table(), "example.net").await, Ok(vec!["9.9.9.9:5269".into()]));
    }

    #[tokio::test]
    async fn both_services_are_one_list_in_the_order_of_priority() {
        let mut table = table();
        table.srv.insert("_xmpp-server._tcp.example.net.".into(), vec![srv(20, 0, 5269, "two.example.net")]);
        table.srv.insert("_xmpps-server._tcp.example.net.".into(), vec![srv(10, 0, 5270, "one.example.net")]);
        let expected = ["[2620:fe::1]:5270 tls", "9.9.9.1:5270 tls", "9.9.9.2:5269"].map(String::from);
        assert_eq!(dialled(&table, "example.net").await, Ok(expected.to_vec()));
    }

    #[tokio::test]
    async fn a_domain_that_says_it_has_no_server_has_none() {
        let mut table = table();
        table.srv.insert("_xmpp-server._tcp.example.net.".into(), vec![srv(0, 0, 0, "")]);
        assert_eq!(dialled(&table, "example.net").await, Err(Nowhere::Absent));
    }

    #[tokio::test]
    async fn an_unknown_domain_is_nowhere() {
        assert_eq!(dialled(&table(), "nowhere.example").await, Err(Nowhere::Absent));
    }

    #[tokio::test]
    async fn private_addresses_are_not_dialled_in_whatever_form() {
        let mut table = table();
        table.addresses.insert("inner.example.".into(), vec![ip("10.0.0.1"), ip("::ffff:127.0.0.1"), ip("fd00::1")]);
        assert_eq!(dialled(&table, "inner.example").await, Err(Nowhere::Private));
        for literal in ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]"]
        {
            assert_eq!(dialled(&table, literal).await, Err(Nowhere::Private), "{literal}");
        }
        // What is no literal in the form of a domain is a name, and there is no such name.
        for odd in ["2130706433", "0x7f000001", "0177.0.0.1"] {
            assert_eq!(dialled(&table, odd).await, Err(Nowhere::Absent), "{odd}");
        }
    }

    #[test]
    fn weights_decide_within_a_priority() {
        let records =
            || [srv(1, 10, 1, "a"), srv(1, 90, 2, "b"), srv(0, 0, 3, "c")].map(|srv| (srv, false, false)).to_vec();
        let first_two = |draw: u32| {
            let ordered = in_order(records(), &mut |below| draw.min(below - 1));
            ordered.into_iter().map(|(srv, ..)| srv.target).collect::<Vec<_>>()
        };
        assert_eq!(first_two(5), ["c", "a", "b"]);
        assert_eq!(first_two(50), ["c", "b", "a"]);
    }
}
