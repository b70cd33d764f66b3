//! SASL through the listener, RFC 6120 §6: each mechanism, where it is offered and where it is not.

use crate::client::{Client, Identity, between, plain};
use crate::server::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, OtherNameValue, SanType};
use rustls::pki_types::PrivateKeyDer;
use std::path::Path;
use std::sync::{LazyLock, OnceLock};

static AUTHORITY: OnceLock<Authority> = OnceLock::new();

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let config = "
[host.\"localhost\"]
client_ca = \"{folder}/ca.pem\"
[host.\"guests.localhost\"]
anonymous = true
[host.\"strict.localhost\"]
mechanisms = [\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\"]
[limits]
rates = false
";
    let server = Server::prepare(config, |folder| {
        AUTHORITY.get_or_init(|| Authority::new(folder));
    });
    for name in ["alice", "bob", "admin", "o=brien"] {
        server.ensure(&format!("{name}@localhost"));
    }
    server
});

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Authority { issuer: Issuer::new(params, key) }
    }

    /// A certificate whose alternative names are `addresses`, as XmppAddr.
    fn identity(&self, common_name: &str, unit: &str, addresses: &[&str]) -> Identity {
        let mut params = client_params(common_name, unit);
        for address in addresses {
            // id-on-xmppAddr, RFC 6120 §13.7.1.4.
            let oid = vec![1, 3, 6, 1, 5, 5, 7, 8, 5];
            params.subject_alt_names.push(SanType::OtherName((oid, OtherNameValue::Utf8String((*address).into()))));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn client_params(common_name: &str, unit: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if !unit.is_empty() {
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    }
    params
}

fn identity(common_name: &str, unit: &str, addresses: &[&str]) -> Identity {
    LazyLock::force(&SERVER);
    AUTHORITY.get().unwrap().identity(common_name, unit, addresses)
}

/// The mechanisms of RFC 6120 that features offer, in order.
pub fn mechanisms(features: &str) -> Vec<String> {
    let Some(at) = features.find("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>") else { return Vec::new() };
    let list = between(&features[at..], ">", "</mechanisms>");
    list.split("<mechanism>").filter_map(|it| it.strip_suffix("</mechanism>")).map(str::to_owned).collect()
}

fn auth(mechanism: &str, initial: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{initial}</auth>")
}

/// After success, a new stream that can bind.
#[track_caller]
fn binds(mut client: Client, host: &str) -> String {
    let features = client.open(host);
    assert!(features.contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"), "{features}");
    client.bind("here");
    client.jid
}

#[test]
fn scram_with_and_without_channel_binding_authenticates_under_tls() {
    let server = &*SERVER;
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1"] {
        let mut client = Client::direct(server);
        client.open("localhost");
        client.scram(mechanism, "alice", "alice", ("n,,", b"")).unwrap();
        assert_eq!(binds(client, "localhost"), "alice@localhost/here");
    }
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        let (mut client, features) = Client::starttls(server, "localhost");
        assert!(features.contains("<channel-binding type='tls-exporter'/>"), "XEP-0440: {features}");
        let exporter = client.exporter();
        client.scram(mechanism, "bob", "bob", ("p=tls-exporter,,", &exporter)).unwrap();
        assert_eq!(binds(client, "localhost"), "bob@localhost/here");
    }
}

#[test]
fn row_40_scram_bound_to_another_channel_is_not_authorized() {
    let (mut client, _) = Client::starttls(&SERVER, "localhost");
    let refused = client.scram("SCRAM-SHA-256-PLUS", "alice", "alice", ("p=tls-exporter,,", &[7; 32]));
    assert_eq!(refused.err().as_deref(), Some("not-authorized"));
}

#[test]
fn a_client_that_was_told_of_no_channel_binding_is_not_authorized_where_there_is_one() {
    let (mut client, _) = Client::starttls(&SERVER, "localhost");
    let refused = client.scram("SCRAM-SHA-256", "alice", "alice", ("y,,", b""));
    assert_eq!(refused.err().as_deref(), Some("not-authorized"));
}

#[test]
fn the_offer_is_repeated_in_scram_under_the_proof() {
    let (mut client, features) = Client::starttls(&SERVER, "localhost");
    let challenge = client.scram("SCRAM-SHA-256", "alice", "alice", ("n,,", b"")).unwrap();
    // XEP-0474 §6: mechanisms, sorted, then channel bindings.
    let mut names = mechanisms(&features);
    names.sort();
    let text = format!("{}\x1ftls-exporter\x1etls-server-end-point", names.join("\x1e"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let said = challenge.split(',').find_map(|field| field.strip_prefix("h="));
    assert_eq!(said, Some(crate::client::b64(digest.as_ref()).as_str()), "{challenge}");
}

#[test]
fn plain_authenticates_under_tls() {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send(auth("PLAIN", &plain("", "alice", "alice")));
    assert_eq!(client.expect_sasl().unwrap(), "");
    assert_eq!(binds(client, "localhost"), "alice@localhost/here");
}

#[test]
fn plain_is_refused_in_clear() {
    let mut client = Client::connect(SERVER.plain);
    let features = client.open("localhost");
    assert_eq!(mechanisms(&features), ["SCRAM-SHA-256", "SCRAM-SHA-1"]);
    client.send(auth("PLAIN", &plain("", "alice", "alice")));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("encryption-required"));
}

#[test]
fn nothing_is_offered_or_taken_in_clear_where_tls_is_required() {
    let mut client = Client::connect(SERVER.starttls);
    let features = client.open("localhost");
    assert!(features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"));
    assert!(mechanisms(&features).is_empty(), "{features}");
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        client.send(auth(mechanism, &plain("", "alice", "alice")));
        assert_eq!(client.expect_sasl().err().as_deref(), Some("encryption-required"), "{mechanism}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_fail_alike() {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    assert_eq!(client.scram("SCRAM-SHA-256", "alice", "wrong", ("n,,", b"")).err().as_deref(), Some("not-authorized"));
    assert_eq!(client.scram("SCRAM-SHA-256", "nobody", "wrong", ("n,,", b"")).err().as_deref(), Some("not-authorized"));
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    for user in ["alice", "nobody"] {
        client.send(auth("PLAIN", &plain("", user, "wrong")));
        assert_eq!(client.expect_sasl().err().as_deref(), Some("not-authorized"), "{user}");
    }
}

#[test]
fn a_name_with_an_equals_sign_and_an_initial_response_that_comes_later_are_understood() {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send(auth("PLAIN", ""));
    assert_eq!(client.expect_sasl().unwrap(), "", "an empty challenge");
    client.send(format!(
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
        plain("", "o=brien", "o=brien")
    ));
    assert_eq!(client.expect_sasl().unwrap(), "");
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.scram("SCRAM-SHA-256", "o=brien", "o=brien", ("n,,", b"")).unwrap();
}

#[test]
fn an_exchange_that_is_aborted_or_malformed_fails_with_its_condition() {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send(auth("PLAIN", ""));
    client.expect_sasl().unwrap();
    client.send("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(client.expect_sasl().err().as_deref(), Some("aborted"));
    client.send(auth("PLAIN", "=no base64="));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("incorrect-encoding"));
    client.send(auth("PLAIN", &crate::client::b64("only one part")));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("malformed-request"));
    // RFC 6120 §6.4.5: that was the third.
    client.expect_error("policy-violation");
}

#[test]
fn anonymous_is_a_passing_account_where_the_host_allows_it() {
    let mut client = Client::direct(&SERVER);
    let features = client.open("guests.localhost");
    assert!(mechanisms(&features).contains(&"ANONYMOUS".to_owned()), "{features}");
    client.send(auth("ANONYMOUS", "="));
    client.expect_sasl().unwrap();
    let jid = binds(client, "guests.localhost");
    let name = jid.strip_suffix("@guests.localhost/here").unwrap_or_else(|| panic!("{jid}"));
    assert!(name.len() >= 16, "unguessable: {name}");
}

#[test]
fn a_host_takes_only_its_own_mechanisms() {
    let mut client = Client::direct(&SERVER);
    let features = client.open("strict.localhost");
    assert_eq!(mechanisms(&features), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    client.send(auth("PLAIN", &plain("", "alice", "alice")));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("mechanism-too-weak"));
}

#[test]
fn external_authenticates_by_a_certificate_of_the_clients_authority() {
    let mut client = Client::connect(SERVER.direct);
    client.handshake("localhost", Some(identity("Alice", "", &["alice@localhost"])));
    let features = client.open("localhost");
    assert!(mechanisms(&features).contains(&"EXTERNAL".to_owned()), "{features}");
    client.send(auth("EXTERNAL", "="));
    client.expect_sasl().unwrap();
    assert_eq!(binds(client, "localhost"), "alice@localhost/here");
}

#[test]
fn external_with_several_names_says_which() {
    let both = ["alice@localhost", "bob@localhost"];
    let mut client = Client::connect(SERVER.direct);
    client.handshake("localhost", Some(identity("Both", "", &both)));
    client.open("localhost");
    client.send(auth("EXTERNAL", "="));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-authzid"));
    client.send(auth("EXTERNAL", &crate::client::b64("admin@localhost")));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-authzid"));
    client.send(auth("EXTERNAL", &crate::client::b64("bob@localhost")));
    client.expect_sasl().unwrap();
    assert_eq!(binds(client, "localhost"), "bob@localhost/here");
}

#[test]
fn external_is_not_offered_without_a_certificate_or_with_one_of_another_authority() {
    let mut client = Client::direct(&SERVER);
    assert!(!mechanisms(&client.open("localhost")).contains(&"EXTERNAL".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::new(folder.path()).identity("Alice", "", &["alice@localhost"]);
    let mut client = Client::connect(SERVER.direct);
    client.handshake("localhost", Some(stranger));
    assert!(!mechanisms(&client.open("localhost")).contains(&"EXTERNAL".to_owned()));
    client.send(auth("EXTERNAL", "="));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-mechanism"));
}

#[test]
fn row_25_a_common_name_is_nobody_even_from_within_a_unit() {
    for (name, unit) in [("admin@localhost", ""), ("mallory", "CN=admin,"), ("admin", "x,CN=admin@localhost")] {
        let mut client = Client::connect(SERVER.direct);
        client.handshake("localhost", Some(identity(name, unit, &[])));
        assert!(!mechanisms(&client.open("localhost")).contains(&"EXTERNAL".to_owned()), "{name} {unit}");
        client.send(auth("EXTERNAL", &crate::client::b64("admin@localhost")));
        assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-mechanism"), "{name} {unit}");
    }
    // With a name of its own it is that one, whatever else it says.
    let mut client = Client::connect(SERVER.direct);
    client.handshake("localhost", Some(identity("admin@localhost", "CN=admin,", &["bob@localhost"])));
    client.open("localhost");
    client.send(auth("EXTERNAL", &crate::client::b64("admin@localhost")));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-authzid"));
}

#[test]
fn row_1_another_ones_authorization_identity_is_refused_in_plain_and_in_scram() {
    let foreign = [
        "bob@localhost",
        "admin@localhost",
        "alice@guests.localhost",
        "alice@elsewhere.example",
        "bob",
        "alice@localhost/x",
    ];
    for authzid in foreign {
        let mut client = Client::direct(&SERVER);
        client.open("localhost");
        client.send(auth("PLAIN", &plain(authzid, "alice", "alice")));
        assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-authzid"), "PLAIN as {authzid}");
        let gs2 = format!("n,a={authzid},");
        let refused = client.scram("SCRAM-SHA-256", "alice", "alice", (&gs2, b""));
        assert_eq!(refused.err().as_deref(), Some("invalid-authzid"), "SCRAM as {authzid}");
    }
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send(auth("PLAIN", &plain("alice@localhost", "alice", "alice")));
    client.expect_sasl().expect("the own one is right");
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.scram("SCRAM-SHA-256", "alice", "alice", ("n,a=alice@localhost,", b"")).expect("the own one is right");
}

#[test]
fn row_22_a_mechanism_that_was_not_offered_is_refused() {
    let all = [
        "ANONYMOUS",
        "EXTERNAL",
        "DIGEST-MD5",
        "CRAM-MD5",
        "LOGIN",
        "GSSAPI",
        "X-OAUTH2",
        "HT-SHA-256-NONE",
        "",
        "plain",
    ];
    for chunk in all.chunks(2) {
        let mut client = Client::direct(&SERVER);
        let features = client.open("localhost");
        for mechanism in chunk {
            assert!(!mechanisms(&features).contains(&(*mechanism).to_owned()));
            client.send(auth(mechanism, "="));
            let refused = client.expect_sasl().expect_err("was not offered");
            assert!(["invalid-mechanism", "mechanism-too-weak"].contains(&&*refused), "{mechanism}: {refused}");
        }
    }
    // Not with SASL2 either.
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='ANONYMOUS'><initial-response/></authenticate>");
    let refused = client.expect_sasl().expect_err("was not offered");
    assert!(["invalid-mechanism", "mechanism-too-weak"].contains(&&*refused), "{refused}");
}
