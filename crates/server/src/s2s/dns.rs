//! Where another domain's server is: SRV records, addresses, and which of them may be dialled. RFC 6120 §3.2,
//! XEP-0368, RFC 2782.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

/// The port of servers without SRV records. RFC 6120 §3.2.2.
const PORT: u16 = 5269;
/// Records of one answer that are looked at, and addresses that are tried.
const TARGETS_MAX: usize = 16;
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
    /// Nobody answered, or with an error: perhaps later.
    Failed(String),
}

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<T>, DnsFault>> + Send + 'a>>;

/// Questions to DNS; tests answer them from a table.
pub trait Resolve: Send + Sync {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv>;
    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr>;
    /// Tag and value of CAA records (RFC 8659), of this name alone.
    fn caa<'a>(&'a self, _name: &'a str) -> Answer<'a, (String, String)> {
        Box::pin(async { Err(DnsFault::Absent) })
    }
    /// TLSA records (RFC 6698) as they are written: three numbers and hexadecimal digits.
    fn tlsa<'a>(&'a self, _name: &'a str) -> Answer<'a, String> {
        Box::pin(async { Err(DnsFault::Absent) })
    }
}

/// The name servers of the system.
pub struct System(TokioResolver);

impl System {
    /// # Errors
    /// The system names none that can be used.
    pub fn new() -> Result<System, String> {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        resolver.map(System).map_err(|error| format!("the name servers of the system cannot be used: {error}"))
    }

    /// One name server, and no other.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn at(server: SocketAddr) -> Result<System, String> {
        let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = server.port());
        let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let built = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build();
        built.map(System).map_err(|error| format!("the name server cannot be used: {error}"))
    }

    async fn ask<T>(
        name: &str,
        question: impl Future<Output = Result<Vec<T>, hickory_resolver::net::NetError>>,
    ) -> Result<Vec<T>, DnsFault> {
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(records)) if records.is_empty() => Err(DnsFault::Absent),
            Ok(Ok(records)) => Ok(records),
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => Err(DnsFault::Absent),
            Ok(Err(error)) => Err(DnsFault::Failed(format!("{name}: {error}"))),
            Err(_) => Err(DnsFault::Failed(format!("{name}: no answer"))),
        }
    }
}

impl Resolve for System {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
        Box::pin(System::ask(name, async move {
            let lookup = self.0.srv_lookup(name).await?;
            let records = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            });
            Ok(records.collect())
        }))
    }

    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
        Box::pin(System::ask(name, async move { Ok(self.0.lookup_ip(name).await?.iter().collect()) }))
    }

    fn caa<'a>(&'a self, name: &'a str) -> Answer<'a, (String, String)> {
        Box::pin(System::ask(name, async move {
            let lookup = self.0.lookup(name, RecordType::CAA).await?;
            let records = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::CAA(caa) => Some((caa.tag.clone(), String::from_utf8_lossy(&caa.value).into_owned())),
                _ => None,
            });
            Ok(records.collect())
        }))
    }

    fn tlsa<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(System::ask(name, async move {
            let lookup = self.0.lookup(name, RecordType::TLSA).await?;
            let records = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::TLSA(tlsa) => Some(tlsa.to_string()),
                _ => None,
            });
            Ok(records.collect())
        }))
    }
}

/// One address to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// TLS from the first byte (XEP-0368).
    pub direct_tls: bool,
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
    let places = if fallback { vec![(domain.trim_matches(['[', ']']).to_owned(), PORT, false)] } else { services };
    addresses_of(resolver, places, allow_private).await
}

/// The addresses of names with ports, and whether TLS comes first there.
///
/// # Errors
/// [`Nowhere`] when there is none.
pub async fn addresses_of(
    resolver: &dyn Resolve,
    places: Vec<(String, u16, bool)>,
    allow_private: bool,
) -> Result<Vec<Target>, Nowhere> {
    let mut private = false;
    let mut failed = None;
    let mut out: Vec<Target> = Vec::new();
    for (name, port, direct_tls) in places.into_iter().take(TARGETS_MAX) {
        let addresses = match name.parse::<IpAddr>() {
            Ok(address) => Ok(vec![address]),
            // The final dot: no search list of the system is tried.
            Err(_) => resolver.addresses(&format!("{name}.")).await,
        };
        match addresses {
            Ok(addresses) => {
                for address in in_turns(addresses) {
                    if !allow_private && !is_public(address) {
                        private = true;
                        continue;
                    }
                    let target = Target { address: SocketAddr::new(address, port), direct_tls };
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

/// Names, ports and kinds out of both services' records, in the order of RFC 2782. Empty: there are no records.
async fn services(
    resolver: &dyn Resolve,
    domain: &str,
    random: &mut (dyn FnMut(u32) -> u32 + Send),
) -> Result<Vec<(String, u16, bool)>, Nowhere> {
    let direct = format!("_xmpps-server._tcp.{domain}.");
    let plain = format!("_xmpp-server._tcp.{domain}.");
    let (direct, plain) = tokio::join!(resolver.srv(&direct), resolver.srv(&plain));
    // A failure of the newer service's question alone is no reason to give up.
    let plain = match plain {
        Ok(records) => records,
        Err(DnsFault::Absent) => Vec::new(),
        Err(DnsFault::Failed(why)) if direct.is_err() => return Err(Nowhere::Failed(why)),
        Err(DnsFault::Failed(_)) => Vec::new(),
    };
    let mut records: Vec<(Srv, bool)> = direct.unwrap_or_default().into_iter().map(|srv| (srv, true)).collect();
    records.extend(plain.into_iter().map(|srv| (srv, false)));
    if !records.is_empty() && records.iter().all(|(srv, _)| srv.target.is_empty()) {
        // "The service is decidedly not available at this domain."
        return Err(Nowhere::Absent);
    }
    records.retain(|(srv, _)| !srv.target.is_empty());
    records.truncate(TARGETS_MAX);
    Ok(in_order(records, random).into_iter().map(|(srv, direct)| (srv.target, srv.port, direct)).collect())
}

/// By priority; within one, drawn by weight. RFC 2782.
fn in_order(mut records: Vec<(Srv, bool)>, random: &mut (dyn FnMut(u32) -> u32 + Send)) -> Vec<(Srv, bool)> {
    records.sort_by_key(|(srv, _)| (srv.priority, srv.weight));
    let mut out = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|(srv, _)| srv.priority) {
        let same = records.iter().take_while(|(srv, _)| srv.priority == priority).count();
        let sum: u32 = records[..same].iter().map(|(srv, _)| u32::from(srv.weight)).sum();
        let drawn = random(sum + 1);
        let mut run = 0;
        let at = records[..same].iter().position(|(srv, _)| {
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
            Box::pin(async move { self.srv.get(name).cloned().ok_or(DnsFault::Absent) })
        }
        fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
            Box::pin(async move { self.addresses.get(name).cloned().ok_or(DnsFault::Absent) })
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
        let records = || vec![(srv(1, 10, 1, "a"), false), (srv(1, 90, 2, "b"), false), (srv(0, 0, 3, "c"), false)];
        let first_two = |draw: u32| {
            let ordered = in_order(records(), &mut |below| draw.min(below - 1));
            ordered.into_iter().map(|(srv, _)| srv.target).collect::<Vec<_>>()
        };
        assert_eq!(first_two(5), ["c", "a", "b"]);
        assert_eq!(first_two(50), ["c", "b", "a"]);
    }
}
