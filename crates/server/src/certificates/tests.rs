use super::*;
use crate::config::{Overrides, Sources, parse};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, OtherNameValue, SanType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use std::os::unix::fs::MetadataExt;

/// A configuration on a folder of its own; `text` is the file.
fn config(folder: &Path, text: &str) -> Config {
    let overrides = Overrides { data: Some(folder.to_path_buf()), ..Overrides::default() };
    parse(text, None, &Sources { file: None, overrides }).unwrap_or_else(|problems| panic!("{problems}"))
}

const TWO_HOSTS: &str = "[host.\"a.example\"]\n[host.\"b.example\"]\n";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// A client that trusts the files and may have a certificate of its own.
fn client(trusted: &[PathBuf], own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for file in trusted {
        for certificate in read_chain(file).expect("is a certificate") {
            roots.add(certificate).expect("can be trusted");
        }
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("versions are known")
        .with_root_certificates(roots);
    match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("key and certificate agree"),
        None => builder.with_no_client_auth(),
    }
}

/// A whole handshake in memory.
fn shake(
    offer: &Offer,
    client: ClientConfig,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_string()).expect("is a name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(offer.config.clone())?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("memory takes it");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory gives it");
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("memory takes it");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory gives it");
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok((server, client));
        }
    }
    panic!("the handshake does not end");
}

fn shown(client: &ClientConnection) -> Vec<u8> {
    client.peer_certificates().and_then(<[_]>::first).expect("one was shown").to_vec()
}

#[test]
fn without_a_certificate_a_self_signed_one_is_made_that_clients_can_trust() {
    let folder = folder();
    let config = config(folder.path(), "");
    let certificates = Certificates::load(&config).expect("can be made");
    let file = folder.path().join("certificates/localhost.pem");
    shake(&certificates.direct(), client(std::slice::from_ref(&file), None), "localhost").expect("is trusted");
    let key = folder.path().join("certificates/localhost.key");
    assert_eq!(std::fs::metadata(key).expect("is there").mode() & 0o777, 0o600);
    let before = std::fs::read(&file).expect("is there");
    Certificates::load(&config).expect("is there already");
    assert_eq!(std::fs::read(&file).expect("is there"), before, "it stays");
}

#[test]
fn a_self_signed_certificate_that_ends_soon_is_made_anew() {
    let folder = folder();
    let (certificate, key) =
        (folder.path().join("certificates/localhost.pem"), folder.path().join("certificates/localhost.key"));
    make_self_signed_until("localhost", &certificate, &key, now_seconds() + 5 * 86_400).expect("can be made");
    let before = std::fs::read(&certificate).expect("is there");
    Certificates::load(&config(folder.path(), "")).expect("can be made anew");
    assert_ne!(std::fs::read(&certificate).expect("is there"), before);
}

#[test]
fn an_operator_s_certificate_that_has_ended_is_left_alone() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("certificates")).expect("can be made");
    let mut parameters = CertificateParams::new(vec!["localhost".to_string()]).expect("is a name");
    parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let file = folder.path().join("certificates/localhost.pem");
    std::fs::write(&file, certificate.pem()).expect("can be written");
    std::fs::write(folder.path().join("certificates/localhost.key"), key.serialize_pem()).expect("can be written");
    Certificates::load(&config(folder.path(), "")).expect("can be read");
    assert_eq!(std::fs::read_to_string(&file).expect("is there"), certificate.pem());
}

#[test]
fn each_host_shows_its_own_certificate_by_sni() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), TWO_HOSTS)).expect("can be made");
    for domain in ["a.example", "b.example"] {
        let file = folder.path().join(format!("certificates/{domain}.pem"));
        let offer = certificates.direct();
        let (server, _) = shake(&offer, client(&[file], None), domain).expect("is trusted");
        assert_eq!(server.server_name(), Some(domain));
    }
}

#[test]
fn without_sni_the_host_that_the_stream_names_shows_its_certificate() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), TWO_HOSTS)).expect("can be made");
    let file = folder.path().join("certificates/b.example.pem");
    let mut without = client(std::slice::from_ref(&file), None);
    without.enable_sni = false;
    let (_, client) = shake(&certificates.starttls(Some("b.example")), without, "b.example").expect("is trusted");
    assert_eq!(shown(&client), read_chain(&file).expect("is there")[0].to_vec());
}

#[test]
fn a_reload_shows_the_new_certificate_to_new_connections() {
    let folder = folder();
    let config = config(folder.path(), "");
    let certificates = Certificates::load(&config).expect("can be made");
    let file = folder.path().join("certificates/localhost.pem");
    let (old, offer) = (read_chain(&file).expect("is there"), certificates.direct());
    make_self_signed("localhost", &file, &folder.path().join("certificates/localhost.key")).expect("can be made");
    certificates.reload(&config).expect("can be read");
    let (_, client) =
        shake(&certificates.direct(), client(std::slice::from_ref(&file), None), "localhost").expect("is trusted");
    assert_ne!(shown(&client), old[0].to_vec());
    assert_ne!(offer.end_point(None), certificates.direct().end_point(None), "a connection keeps those of its moment");
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let folder = folder();
    let config = config(folder.path(), "");
    let certificates = Certificates::load(&config).expect("can be made");
    let before = certificates.direct().end_point(None);
    std::fs::write(folder.path().join("certificates/localhost.pem"), "nonsense").expect("can be written");
    let error = certificates.reload(&config).expect_err("is no certificate").to_string();
    assert!(error.contains("localhost.pem") && error.contains("PEM"), "{error}");
    assert_eq!(certificates.direct().end_point(None), before);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let folder = folder();
    let config = config(folder.path(), TWO_HOSTS);
    Certificates::load(&config).expect("can be made");
    let at = |name: &str| folder.path().join("certificates").join(name);
    std::fs::copy(at("a.example.key"), at("b.example.key")).expect("can be copied");
    let error = Certificates::load(&config).err().expect("they do not belong together").to_string();
    assert!(error.contains("do not belong together"), "{error}");
    assert_eq!(check(&config).len(), 1, "config check finds it too");
}

#[test]
fn direct_tls_speaks_xmpp_client_by_alpn_and_nothing_else() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), "")).expect("can be made");
    let file = [folder.path().join("certificates/localhost.pem")];
    let mut right = client(&file, None);
    right.alpn_protocols = vec![b"xmpp-client".to_vec()];
    let (server, _) = shake(&certificates.direct(), right, "localhost").expect("is agreed");
    assert_eq!(server.alpn_protocol(), Some(ALPN_CLIENT));
    let mut wrong = client(&file, None);
    wrong.alpn_protocols = vec![b"h2".to_vec()];
    assert!(shake(&certificates.direct(), wrong, "localhost").is_err());
}

#[test]
fn the_end_point_binding_is_the_hash_of_the_certificate_that_was_shown() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), TWO_HOSTS)).expect("can be made");
    for domain in ["a.example", "b.example"] {
        let chain = read_chain(&folder.path().join(format!("certificates/{domain}.pem"))).expect("is there");
        // ECDSA with SHA-256.
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &chain[0]);
        assert_eq!(certificates.direct().end_point(Some(domain)).as_deref(), Some(hash.as_ref()));
    }
}

#[test]
fn both_sides_export_the_same_channel_binding_in_tls_1_2_and_1_3() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), "")).expect("can be made");
    let mut roots = RootCertStore::empty();
    roots
        .add(read_chain(&folder.path().join("certificates/localhost.pem")).expect("is there").remove(0))
        .expect("can be trusted");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("version is known")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        tls.require_ems = true;
        let (server, client) = shake(&certificates.direct(), tls, "localhost").expect("is agreed");
        let of_server = server.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).expect("is up");
        let of_client = client.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).expect("is up");
        assert_eq!(of_server, of_client);
    }
}

/// An authority and what it signs for clients.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority");
        Authority { issuer }
    }

    /// A client's certificate for XmppAddrs, with a common name that must not count.
    fn sign(&self, addresses: &[&str], common_name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let oid: Vec<u64> = XMPP_ADDR.split('.').filter_map(|part| part.parse().ok()).collect();
        for address in addresses {
            let value = OtherNameValue::Utf8String((*address).to_string());
            parameters.subject_alt_names.push(SanType::OtherName((oid.clone(), value)));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("is a key");
        (vec![certificate.der().clone()], key)
    }
}

/// A host that accepts the authority's clients; whom does the server take the client for?
fn jids_of(
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    authority: &Authority,
) -> Option<Vec<String>> {
    let folder = folder();
    let ca = folder.path().join("clients.pem");
    std::fs::write(&ca, authority.issuer.pem()).expect("can be written");
    let text = format!("[host.\"a.example\"]\nclient_ca = \"{}\"\n", ca.display());
    let certificates = Certificates::load(&config(folder.path(), &text)).expect("can be made");
    let offer = certificates.direct();
    let file = folder.path().join("certificates/a.example.pem");
    let (server, _) = shake(&offer, client(&[file], own), "a.example").expect("any certificate is taken at first");
    let jids = offer.client_jids("a.example", server.peer_certificates()?)?;
    Some(jids.iter().map(ToString::to_string).collect())
}

#[test]
fn a_client_certificate_speaks_for_its_xmpp_addresses_of_the_host() {
    let authority = Authority::new();
    let own = authority.sign(&["alice@a.example", "alice@b.example", "a.example", "not a jid@@"], "bob@a.example");
    assert_eq!(jids_of(Some(own), &authority), Some(vec!["alice@a.example".to_string()]));
}

#[test]
fn a_client_certificate_of_a_stranger_speaks_for_nobody() {
    let own = Authority::new().sign(&["alice@a.example"], "alice");
    assert_eq!(jids_of(Some(own), &Authority::new()), None);
}

#[test]
fn a_common_name_is_never_looked_at() {
    let authority = Authority::new();
    let own = authority.sign(&[], "alice@a.example");
    assert_eq!(jids_of(Some(own), &authority), Some(Vec::new()));
}

#[test]
fn a_client_without_a_certificate_is_welcome_where_one_is_asked_for() {
    assert_eq!(jids_of(None, &Authority::new()), None);
}

#[test]
fn a_host_that_names_no_authority_takes_no_client_certificate() {
    let folder = folder();
    let certificates = Certificates::load(&config(folder.path(), TWO_HOSTS)).expect("can be made");
    let (chain, _) = Authority::new().sign(&["alice@a.example"], "alice");
    assert_eq!(certificates.direct().client_jids("a.example", &chain), None);
}

#[test]
fn utf8_strings_are_read_bare_and_in_an_explicit_tag_and_nothing_else() {
    assert_eq!(utf8_string(b"\x0c\x03abc"), Some("abc"));
    assert_eq!(utf8_string(b"\xa0\x05\x0c\x03abc"), Some("abc"));
    assert_eq!(utf8_string(b"\x0c\x81\x03abc"), Some("abc"));
    assert_eq!(utf8_string(b"\x0c\x04abc"), None, "too short");
    assert_eq!(utf8_string(b"\x0c\x03abcd"), None, "something behind it");
    assert_eq!(utf8_string(b"\x16\x03abc"), None, "another type");
    assert_eq!(utf8_string(b"\x0c\x80abc"), None, "no length");
    assert_eq!(utf8_string(b"\x0c\x02\xff\xff"), None, "no UTF-8");
    assert_eq!(utf8_string(b""), None);
}
