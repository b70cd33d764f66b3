//! Signed zones over a real socket, and chains against records.

use super::*;
use crate::certificates::Certificates;
use crate::config::{self, Sources};
use crate::s2s::dns::{Nowhere, System, targets};
use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{Algorithm, DnssecSigner, SigningKey, TrustAnchors};
use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SOA, SRV, TLSA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::net::UdpSocket;

/// One zone, the root, that holds all names of a test, and signs all that it says.
struct Zone {
    signer: DnssecSigner,
    records: Vec<(Name, RData)>,
    /// Names whose signatures do not hold.
    spoiled: Vec<Name>,
    /// Nothing is there yet.
    empty: Arc<AtomicBool>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("the test's name is right")
}

impl Zone {
    fn new() -> (Zone, TrustAnchors) {
        let pkcs8 = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256).expect("a key");
        let key = EcdsaSigningKey::from_pkcs8(&pkcs8, Algorithm::ECDSAP256SHA256).expect("a key");
        let public = key.to_public_key().expect("its public half");
        let mut anchors = TrustAnchors::empty();
        anchors.insert(&public);
        let dnskey = DNSKEY::from_key(&public);
        let own = RData::DNSSEC(DNSSECRData::DNSKEY(dnskey.clone()));
        let signer = DnssecSigner::new(dnskey, Box::new(key), Name::root(), Duration::from_secs(86_400));
        (Zone { signer, records: vec![(Name::root(), own)], spoiled: Vec::new(), empty: Arc::default() }, anchors)
    }

    fn add(&mut self, owner: &str, data: RData) {
        self.records.push((name(owner), data));
    }

    /// A server of `domain` at `host`, port 5269.
    fn serves(&mut self, domain: &str, host: &str, tlsa: &[Tlsa]) {
        self.add(&format!("_xmpp-server._tcp.{domain}."), RData::SRV(SRV::new(1, 1, 5269, name(&format!("{host}.")))));
        self.add(&format!("{host}."), RData::A(A(Ipv4Addr::new(9, 9, 9, 9))));
        self.add(&format!("{host}."), RData::AAAA(AAAA(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 9))));
        for it in tlsa {
            let data = TLSA::new(it.usage.into(), it.selector.into(), it.matching.into(), it.data.clone());
            self.add(&format!("_5269._tcp.{host}."), RData::TLSA(data));
        }
    }

    /// Records of one name and type with their signature.
    fn signed(&self, owner: &Name, kind: RecordType, data: Vec<RData>) -> Vec<Record> {
        let mut set = RecordSet::with_ttl(owner.clone(), kind, 60);
        for data in data {
            set.add_rdata(data);
        }
        let yesterday = SystemTime::now() - Duration::from_secs(3_600);
        let signature =
            RRSIG::from_rrset(&set, DNSClass::IN, yesterday.into(), &self.signer).expect("it can be signed");
        let mut signature = signature;
        if self.spoiled.contains(owner) {
            // Of other data.
            let mut other = RecordSet::with_ttl(owner.clone(), kind, 60);
            other.add_rdata(RData::A(A(Ipv4Addr::new(1, 1, 1, 1))));
            signature =
                RRSIG::from_rrset(&other, DNSClass::IN, yesterday.into(), &self.signer).expect("it can be signed");
        }
        let mut records: Vec<Record> = set.records_without_rrsigs().cloned().collect();
        records.push(Record::from_rdata(owner.clone(), 60, RData::DNSSEC(DNSSECRData::RRSIG(signature))));
        records
    }

    fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.edns = question.edns.clone();
        let Some(query) = question.queries.first() else { return answer };
        answer.add_query(query.clone());
        let (owner, kind) = (query.name().clone(), query.query_type());
        let empty = self.empty.load(Ordering::Relaxed);
        let here = || self.records.iter().filter(|(it, _)| *it == owner && !empty);
        let wanted: Vec<RData> = here().filter(|(_, it)| it.record_type() == kind).map(|(_, it)| it.clone()).collect();
        if !wanted.is_empty() {
            answer.add_answers(self.signed(&owner, kind, wanted));
            return answer;
        }
        // RFC 4470: nothing between this name and the one right behind it; here only these types.
        let soa = SOA::new(name("ns."), name("root."), 1, 3_600, 600, 86_400, 1);
        let first = Name::from_labels([&[0_u8][..]]).expect("a label may be any byte");
        let next = first.append_name(&owner).expect("it is not too long");
        let nsec = NSEC::new_cover_self(next, here().map(|(_, it)| it.record_type()));
        for record in self.signed(&Name::root(), RecordType::SOA, vec![RData::SOA(soa)]).into_iter().chain(self.signed(
            &owner,
            RecordType::NSEC,
            vec![RData::DNSSEC(DNSSECRData::NSEC(nsec))],
        )) {
            answer.add_authority(record);
        }
        answer
    }

    /// Serves on loopback while the test runs.
    async fn at_loopback(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("it has one");
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..count]) else { continue };
                let answer = self.answer(&question).to_vec().expect("an answer can be written");
                socket.send_to(&answer, from).await.expect("loopback takes it");
            }
        });
        address
    }
}

fn tlsa(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Tlsa {
    Tlsa { usage, selector, matching, data: data.to_vec() }
}

async fn delegations(zone: Zone, anchors: TrustAnchors, domain: &str) -> Result<Vec<Option<Delegation>>, Nowhere> {
    let system = System::at(zone.at_loopback().await, Some(anchors)).expect("a resolver of one server");
    let found = targets(&system, domain, false, &mut |_| 0).await?;
    Ok(found.into_iter().map(|target| target.delegation.as_deref().cloned()).collect())
}

#[tokio::test]
async fn signed_records_lead_to_a_server_and_its_certificate() {
    let (mut zone, anchors) = Zone::new();
    let record = tlsa(3, 1, 1, &[7; 32]);
    zone.serves("y.example", "xmpp.host.example", &[record.clone(), tlsa(9, 1, 1, &[7; 32]), tlsa(3, 1, 1, &[7; 31])]);
    let expected = Delegation { name: "xmpp.host.example".into(), tlsa: vec![record] };
    // By both of its addresses.
    assert_eq!(delegations(zone, anchors, "y.example").await, Ok(vec![Some(expected.clone()), Some(expected)]));
}

#[tokio::test]
async fn signed_records_without_tlsa_records_name_a_server_all_the_same() {
    let (mut zone, anchors) = Zone::new();
    zone.serves("y.example", "xmpp.host.example", &[]);
    let found = delegations(zone, anchors, "y.example").await.expect("it is there");
    assert!(found.iter().flatten().all(|it| it.name == "xmpp.host.example" && it.tlsa.is_empty()), "{found:?}");
    assert_eq!(found.iter().flatten().count(), 2);
}

#[tokio::test]
async fn where_signatures_do_not_hold_nobody_is_dialled() {
    for spoiled in ["_xmpp-server._tcp.y.example.", "xmpp.host.example.", "_5269._tcp.xmpp.host.example."] {
        let (mut zone, anchors) = Zone::new();
        zone.serves("y.example", "xmpp.host.example", &[tlsa(3, 1, 1, &[7; 32])]);
        zone.spoiled.push(name(spoiled));
        let found = delegations(zone, anchors, "y.example").await;
        assert!(matches!(found, Err(Nowhere::Failed(_))), "{spoiled}: {found:?}");
    }
}

#[tokio::test]
async fn signed_by_somebody_else_is_not_signed() {
    let (mut zone, _) = Zone::new();
    let (_, other) = Zone::new();
    zone.serves("y.example", "xmpp.host.example", &[tlsa(3, 1, 1, &[7; 32])]);
    let found = delegations(zone, other, "y.example").await;
    assert!(matches!(found, Err(Nowhere::Failed(_))), "{found:?}");
}

#[tokio::test]
async fn without_a_look_at_signatures_nothing_is_secure() {
    let (mut zone, _) = Zone::new();
    zone.serves("y.example", "xmpp.host.example", &[tlsa(3, 1, 1, &[7; 32])]);
    let system = System::at(zone.at_loopback().await, None).expect("a resolver of one server");
    let found = targets(&system, "y.example", false, &mut |_| 0).await.expect("it is there");
    assert!(found.iter().all(|target| target.delegation.is_none()) && !found.is_empty());
}

#[tokio::test]
async fn what_was_not_there_is_asked_for_again_when_the_answer_is_too_old() {
    let (mut zone, _) = Zone::new();
    zone.serves("y.example", "xmpp.host.example", &[]);
    let empty = zone.empty.clone();
    empty.store(true, Ordering::Relaxed);
    let system = System::at(zone.at_loopback().await, None).expect("a resolver of one server");
    assert_eq!(targets(&system, "y.example", false, &mut |_| 0).await, Err(Nowhere::Absent));
    empty.store(false, Ordering::Relaxed);
    // The answer was good for a second.
    let found = async {
        while targets(&system, "y.example", false, &mut |_| 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("it is found");
}

// ---- chains ----

struct Chains {
    trust: Trust,
    /// For `names`, signed by an authority that nobody trusts; with it.
    chain: Vec<CertificateDer<'static>>,
}

fn chains(names: &[&str], year_of_end: i32) -> Chains {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = format!("data = \"{}\"\n[host.\"x.example\"]\n[s2s]\nsystem_ca = false\n", folder.path().display());
    let config = config::parse(&text, None, &Sources::default()).expect("the test's file is right");
    let certificates = Arc::new(Certificates::load(&config).expect("certificates can be made"));
    let trust = Trust::load(&config.federation, certificates).expect("nothing can be wrong with it");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(names).expect("they are names");
    parameters.not_after = rcgen::date_time_ymd(year_of_end, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let own = parameters.signed_by(&key, &authority).expect("a certificate");
    Chains { trust, chain: vec![own.der().clone(), authority.der().clone()] }
}

impl Chains {
    fn says(&self, records: &[Tlsa]) -> Said {
        let delegation = Delegation { name: "xmpp.host.example".into(), tlsa: records.to_vec() };
        delegation.says("y.example", &self.chain, &self.trust)
    }

    /// A record of that kind that names the n-th certificate of the chain.
    fn record(&self, usage: u8, selector: u8, matching: u8, n: usize) -> Tlsa {
        let (_, parsed) = X509Certificate::from_der(&self.chain[n]).expect("it was just made");
        let selected = if selector == 0 { self.chain[n].to_vec() } else { parsed.public_key().raw.to_vec() };
        let data = match matching {
            0 => selected,
            1 => digest::digest(&digest::SHA256, &selected).as_ref().to_vec(),
            _ => digest::digest(&digest::SHA512, &selected).as_ref().to_vec(),
        };
        Tlsa { usage, selector, matching, data }
    }
}

// RFC 6698 §2.1, RFC 7671 §5.1, §5.2.
#[test]
fn a_record_vouches_for_a_certificate_a_key_or_an_authority_in_all_forms() {
    let it = chains(&["y.example"], 2050);
    for selector in 0..=1 {
        for matching in 0..=2 {
            let record = |usage, n| it.record(usage, selector, matching, n);
            assert_eq!(it.says(&[record(3, 0)]), Said::Vouched, "DANE-EE {selector} {matching}");
            assert_eq!(it.says(&[record(2, 1)]), Said::Vouched, "DANE-TA {selector} {matching}");
            assert_eq!(it.says(&[record(3, 1)]), Said::Differs, "the authority's is not its own");
            // They demand an authority that we trust, too.
            assert_eq!(it.says(&[record(1, 0)]), Said::Differs, "PKIX-EE {selector} {matching}");
            assert_eq!(it.says(&[record(0, 1)]), Said::Differs, "PKIX-TA {selector} {matching}");
        }
    }
    assert_eq!(it.says(&[it.record(3, 1, 2, 1), it.record(3, 1, 1, 0)]), Said::Vouched, "one is enough");
}

// RFC 7671 §5.1: the record supersedes what else the certificate says. §5.2: not so for an authority.
#[test]
fn names_and_dates_count_for_an_authority_and_not_for_the_certificate_itself() {
    for (names, year) in [(&["elsewhere.example"][..], 2050), (&["y.example"][..], 2020)] {
        let it = chains(names, year);
        assert_eq!(it.says(&[it.record(3, 1, 1, 0)]), Said::Vouched, "{names:?} {year}");
        assert_eq!(it.says(&[it.record(2, 0, 1, 1)]), Said::Differs, "{names:?} {year}");
    }
    let named_as_the_host = chains(&["xmpp.host.example"], 2050);
    assert_eq!(named_as_the_host.says(&[named_as_the_host.record(2, 0, 1, 1)]), Said::Vouched);
}

// RFC 7673 §3.4, §4.1.
#[test]
fn another_certificate_is_refused_and_without_records_the_host_s_name_will_do() {
    let (it, other) = (chains(&["xmpp.host.example"], 2050), chains(&["y.example"], 2050));
    assert_eq!(it.says(&[other.record(3, 1, 1, 0)]), Said::Differs);
    assert_eq!(it.says(&[other.record(2, 1, 1, 1)]), Said::Differs);
    assert_eq!(it.says(&[]), Said::Nothing { named: true });
    assert_eq!(other.says(&[]), Said::Nothing { named: false });
    let nobody = Delegation { name: "xmpp.host.example".into(), tlsa: vec![it.record(3, 1, 1, 0)] };
    assert_eq!(nobody.says("y.example", &[], &it.trust), Said::Differs);
}
