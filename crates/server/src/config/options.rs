//! Every option there is: name, type, default, range, meaning. The reference is printed from these lists.

use super::ListenAddress;
use super::read::{Documented, section};
use super::value::ServiceUri;
use super::value::choice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

section! {
    /// At the top of the file, before the first table.
    pub struct Top = "" {
        /// The data folder: store, certificates, admin socket. Made when it is not there, for its owner alone
        /// (mode 0700). Unset: `$WAFT_DATA`; else systemd's `$STATE_DIRECTORY`; else `/var/lib/waft` for root and
        /// `~/.local/share/waft` for everybody else.
        data: Option<PathBuf> = None;
    }
}

section! {
    /// One table for each hosted domain: `[host."example.org"]`. Without any, `localhost` is hosted. The first
    /// answers clients that name no domain.
    pub struct HostOptions = "host.\"example.org\"" {
        /// The certificate chain, PEM, the host's own first. Unset: `certificates/DOMAIN.pem` in the data folder, and
        /// when that is not there either, a self-signed one is made.
        certificate: Option<PathBuf> = None;
        /// The certificate's private key, PEM, readable by its owner alone. Set both or none. Unset:
        /// `certificates/DOMAIN.key` in the data folder.
        key: Option<PathBuf> = None;
        /// Get the certificate from the authority of `[acme]` and renew it? It is shown instead of the self-signed one
        /// from then on. Not together with `certificate` and `key`.
        acme: bool = false;
        /// More names for that certificate, such as those of components: each is proved as the domain itself is.
        acme_names: Vec<String> = Vec::new();
        /// Certificates, PEM, of the authorities whose client certificates count for SASL EXTERNAL. Unset: clients
        /// are not asked for a certificate.
        client_ca: Option<PathBuf> = None;
        /// How clients may authenticate with a password, best first. EXTERNAL and ANONYMOUS have their own options. While
        /// most accounts have keys of SCRAM-SHA-1 alone, as they came from another server, SCRAM-SHA-256 is held back
        /// where SCRAM-SHA-1 is named too.
        mechanisms: Vec<Mechanism> = Mechanism::ALL.to_vec();
        /// May anybody log in without an account, as a passing guest (SASL ANONYMOUS)?
        anonymous: bool = false;
        /// May strangers make accounts over XMPP (XEP-0077)? `closed`: only `waft user add` makes them. `invite`: whoever has
        /// an invitation (XEP-0445), of `waft invite create` or of a user. `open`: anybody.
        registration: Registration = Registration::Closed;
        /// May users invite others (XEP-0401)? Whoever is invited becomes their contact, and has an account here where
        /// `registration` is `invite` or `open`.
        user_invites: bool = false;
        /// Days for which an invitation is good, when nothing else is said.
        invite_days: u32 = 7, in 1 ..= 366;
        /// May users change their password over XMPP (XEP-0077)?
        password_change: bool = true;
        /// May users remove their account over XMPP (XEP-0077)?
        account_removal: bool = true;
        /// May strangers read vCards (XEP-0054)? If not, only those who may see the account's presence.
        vcards_public: bool = false;
        /// The presence service. Off: presence and subscriptions are answered with `service-unavailable`.
        presence: bool = true;
        /// The instant message service. Off: messages are answered with `service-unavailable`.
        messages: bool = true;
        /// Of the presence service, what passes between clients and this server. Off: clients are refused it.
        client_presence: bool = true;
        /// The same of messages.
        client_messages: bool = true;
        /// Of the presence service, what passes between this server and those of other domains. Off: neither side's is
        /// passed on; requests are answered with `service-unavailable`.
        server_presence: bool = true;
        /// The same of messages.
        server_messages: bool = true;
        /// Deliver presence only from whom a user is subscribed to or has addressed (RFC 2779 §5.3.2), unless the user says
        /// otherwise? If not, all that comes is delivered, as RFC 6121 §4.6.4 has it.
        solicited_presence: bool = false;
        /// Domains elsewhere whose users are authenticated as nobody in particular. To access rules they are anonymous, as
        /// are the users of hosts here that have `anonymous = true`.
        anonymous_domains: Vec<String> = Vec::new();
        /// Keep messages in the archive after they were delivered? Off: only what waits for delivery is kept.
        archive: bool = true;
        /// When a client binds a resource that is connected already: end the old session, give the new one another
        /// name, or refuse the new one. RFC 6120 §7.7.2.2.
        resource_conflict: ResourceConflict = ResourceConflict::Replace;
        /// Where clients are told to come to when they resume a broken stream (XEP-0198 §3), such as `"node1.example.org:5222"`
        /// or `"[2001:db8::1]:5222"`: this very server, where a name leads to several. Unset: they are told nothing, and
        /// come as they came before.
        resume_location: Option<String> = None;
        /// STUN and TURN servers that the host's users are told of (XEP-0215), as URIs of RFC 7064 and RFC 7065 such as
        /// `["stun:stun.example.org", "turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:5349"]`.
        external_services: Vec<ServiceUri> = Vec::new();
        /// A file with the secret that the TURN servers know, too (coturn: `static-auth-secret`), readable by its owner
        /// alone: users are given credentials that pass. Unset: they are given none.
        turn_secret: Option<PathBuf> = None;
        /// Seconds for which such credentials are good.
        turn_seconds: u32 = 86_400, in 60 ..= 2_592_000;
        /// Addresses for people, by purpose (XEP-0157); see the table below.
        contact: Contact = Contact::default();
    }
}

section! {
    /// `[host."example.org".contact]`: addresses for people, by purpose, as URIs (XEP-0157); told to everybody who
    /// asks.
    pub struct Contact = "host.\"example.org\".contact" {
        /// For reports of abuse, such as `["mailto:abuse@example.org"]`.
        abuse: Vec<String> = Vec::new();
        /// For the administrators.
        admin: Vec<String> = Vec::new();
        /// For praise and complaints.
        feedback: Vec<String> = Vec::new();
        /// For those who want to buy something.
        sales: Vec<String> = Vec::new();
        /// For security reports.
        security: Vec<String> = Vec::new();
        /// Where outages are announced.
        status: Vec<String> = Vec::new();
        /// For those who need help.
        support: Vec<String> = Vec::new();
    }
}

section! {
    /// One table for each listener: `[[listen]]`. Without any, `*:5222` (STARTTLS) and `*:5223` (direct TLS) are
    /// listened on, and for servers `*:5269` (STARTTLS) and `*:5270` (direct TLS).
    pub struct Listener = "listen" {
        /// Who connects: `c2s` is clients, `s2s` is servers of other domains. Without a listener of kind `s2s` the
        /// server does not federate.
        kind: ListenKind = ListenKind::C2s;
        /// Address and port: `*:5222` is every address, IPv4 and IPv6; `127.0.0.1:5222`, `[::1]:5222` are one.
        address: ListenAddress = ListenAddress::Any(5222);
        /// `required`: STARTTLS before all else. `direct`: TLS from the first byte (XEP-0368). `optional`: also without
        /// TLS, for proxies that end it; on loopback addresses only, unless `force`.
        tls: ListenTls = ListenTls::Required;
        /// Every connection starts with a PROXY protocol header (version 1 or 2), which names the client's address.
        /// Whoever can connect can then claim any address: let only the proxy connect.
        proxy_protocol: bool = false;
        /// What clients do here: `all`, presence alone, or messages alone; the rest is refused. Of kind `c2s` only.
        operations: ListenOperations = ListenOperations::All;
        /// Allow `tls = "optional"` on an address that is not loopback: passwords may then cross the network in clear.
        force: bool = false;
    }
}

section! {
    /// `[s2s]`: servers of other domains. Federation is on where a `[[listen]]` has `kind = "s2s"`.
    pub struct Federation = "s2s" {
        /// What proves another domain: `dialback`: a certificate that names it, else a call back to it (XEP-0220).
        /// `certificate`: only the certificate. `first-use`: as `dialback`, and the certificate that a server showed at
        /// first contact proves it from then on, and no other does. `refuse`: nothing, but what a domain's own table
        /// says.
        trust: Trust = Trust::Dialback;
        /// Domains that may neither be written to nor write. `example.net` is that name alone, `*.example.net` all below
        /// it.
        blocked: Vec<String> = Vec::new();
        /// More of them: a file with one a line; what follows a `#` is for people. Read at start and reload.
        blocked_file: Option<PathBuf> = None;
        /// If any are named, here or in the file, only these.
        allowed: Vec<String> = Vec::new();
        /// More of them, as `blocked_file`.
        allowed_file: Option<PathBuf> = None;
        /// May names lead to loopback, private or link-local addresses? An address that a domain's table names is
        /// always allowed.
        allow_private: bool = false;
        /// More authorities for the certificates of other servers, PEM, beside those of the system.
        ca: Option<PathBuf> = None;
        /// Do the authorities of the system count?
        system_ca: bool = true;
        /// Are the signatures of DNS (DNSSEC) looked at, so that signed TLSA records can vouch for certificates (DANE,
        /// RFC 7712)? The name servers of the system must pass signatures on; they need not look at them. Domains
        /// whose signatures do not hold are not spoken with.
        dane: bool = false;
        /// The keys up to which signatures must lead, instead of those of the root of the internet: a file of DNSKEY
        /// records, one a line. For networks with a DNS of their own.
        dane_anchors: Option<PathBuf> = None;
        /// May one stream carry both directions (XEP-0288)?
        bidi: bool = true;
        /// Seconds for which a stanza waits for a domain that does not exist; then its sender gets an error.
        absent_seconds: u32 = 10, in 0 ..= 86_400;
        /// Seconds for which a stanza waits for a server that cannot be reached; then its sender gets an error.
        patience_seconds: u32 = 300, in 1 ..= 86_400;
        /// The same for a message, where the server was reached within the last week.
        keep_seconds: u32 = 86_400, in 1 ..= 2_592_000;
        /// Seconds after which a stream that carries nothing is closed.
        idle_seconds: u32 = 600, in 10 ..= 86_400;
    }
}

section! {
    /// `[s2s.domain."example.net"]`: what differs for one other domain.
    pub struct FederationDomain = "s2s.domain.\"example.net\"" {
        /// Instead of `s2s.trust`.
        trust: Option<Trust> = None;
        /// Where its server is, instead of what DNS says.
        address: Option<ListenAddress> = None;
        /// The name and port of its server, such as `xmpp.example.net:5269`, instead of its SRV records.
        server: Option<String> = None;
    }
}

section! {
    /// One table for each external component (XEP-0114): `[[component]]`. A component is a service of its own domain,
    /// such as a gateway to IRC, that connects to the server and proves a secret. Its users talk with those of the
    /// hosts here and, where the server federates, with everybody.
    pub struct Component = "component" {
        /// The component's domain, such as `"irc.example.org"`. The hosts above it list it to clients that look for
        /// services, also while it is away, as clients look once and remember; when none is above it, all do.
        domain: Option<String> = None;
        /// A file with the secret that the component knows, too, readable by its owner alone.
        secret: Option<PathBuf> = None;
        /// Where the component connects to. Several may share one address. The stream is not encrypted: on addresses
        /// that are not loopback only with `force`.
        address: ListenAddress = ListenAddress::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5347));
        /// What it is called in lists of services, such as `"IRC"`.
        label: String = String::new();
        /// The certificate chain that other servers are shown for its domain, PEM. Unset: as for hosts.
        certificate: Option<PathBuf> = None;
        /// The certificate's private key, PEM. Set both or none.
        key: Option<PathBuf> = None;
        /// Get its certificate from the authority of `[acme]`, as hosts may?
        acme: bool = false;
        /// Allow an address that is not loopback: stanzas then cross the network in clear.
        force: bool = false;
    }
}

section! {
    /// `[accounts]`: how accounts are kept.
    pub struct Accounts = "accounts" {
        /// Rounds of PBKDF2 for newly set passwords (SCRAM). More rounds cost more time: a thief of the store for each
        /// guess, the server for each login with PLAIN.
        scram_iterations: u32 = 10_000, in 4_096 ..= 1_000_000;
    }
}

section! {
    /// `[acme]`: certificates of an authority that gives them by ACME (RFC 8555), for the hosts with `acme = true`. They
    /// lie in the folder `acme` of the data folder, with the key of the one account at the authority.
    pub struct Acme = "acme" {
        /// The authority's directory.
        directory: String = "https://acme-v02.api.letsencrypt.org/directory".to_string();
        /// Do you agree to the authority's terms of service? Without, it gives no certificates.
        agree: bool = false;
        /// Where the authority may write to, such as `["mailto:admin@example.org"]`.
        contact: Vec<String> = Vec::new();
        /// How a name is proved. `http-01`: the authority asks port 80 of the name. `tls-alpn-01` (RFC 8737): it asks port
        /// 443; listeners of clients with direct TLS answer that, too.
        challenge: AcmeChallenge = AcmeChallenge::Http01;
        /// Where this is answered. Unset: `*:80` with `http-01`; only by the listeners of clients with direct TLS with
        /// `tls-alpn-01`. Another port needs something in front that leads here from port 80 or 443.
        address: Option<ListenAddress> = None;
        /// More authorities that the directory's own certificate may be from, PEM, beside those of the system.
        ca: Option<PathBuf> = None;
        /// The name of a key, of an authority that gives accounts beforehand (RFC 8555 §7.3.4).
        eab_key_id: Option<String> = None;
        /// A file with that key, in base64url, readable by its owner alone.
        eab_key: Option<PathBuf> = None;
        /// Keep a certificate's key when it is renewed? TLSA records that name the key then stay right.
        reuse_key: bool = true;
        /// Seconds after which what went wrong is tried again; after the next failure twice as long, and so on up to a day.
        retry_seconds: u32 = 300, in 1 ..= 86_400;
    }
}

section! {
    /// `[account_class."guest"]`: a class of accounts and what differs for them. An account is put into one by an
    /// invitation (`waft invite create --class guest`) or by `waft user class`; without one the limits of `[limits]`
    /// hold.
    pub struct ClassOptions = "account_class.\"guest\"" {
        /// Days after which an account of the class ends: nobody can log in to it any more, and nothing of it is removed.
        /// Counted from the day on which it was put into the class. Unset: never.
        expires_days: Option<u32> = None;
        /// May its users invite others, where the host lets users?
        invites: bool = true;
        /// Instead of `limits.sessions_per_account_max`.
        sessions_per_account_max: Option<usize> = None;
        /// Instead of `limits.roster_items_max`.
        roster_items_max: Option<usize> = None;
        /// Instead of `limits.offline_messages_max`.
        offline_messages_max: Option<usize> = None;
        /// Instead of `limits.offline_bytes_max`.
        offline_bytes_max: Option<u64> = None;
        /// Instead of `limits.archive_bytes_max`.
        archive_bytes_max: Option<u64> = None;
        /// Instead of `limits.archive_days_max`.
        archive_days_max: Option<u32> = None;
        /// Instead of `limits.pep_bytes_max`.
        pep_bytes_max: Option<u64> = None;
        /// Instead of `limits.strangers_per_minute`.
        strangers_per_minute: Option<u32> = None;
    }
}

section! {
    /// `[store]`: what survives a restart.
    pub struct StoreOptions = "store" {
        /// `full`: what was acknowledged survives a power cut. `os`: it survives a crash of the server, not of the
        /// machine; faster.
        durability: Durability = Durability::Full;
        /// Keep the words of archived messages, so that clients can search for them (XEP-0431)? The index takes some room,
        /// and is built and kept up when the server has nothing better to do.
        fulltext: bool = false;
    }
}

section! {
    /// `[log]`: to standard error; never a message's body, never a password.
    pub struct Log = "log" {
        /// `error`, `warn`, `info`, `debug` or `trace`; for a part of the server alone `info,waft::edge=debug`.
        level: String = "info".to_string();
        /// `human`: lines to read. `json`: one object a line.
        format: LogFormat = LogFormat::Human;
    }
}

section! {
    /// `[admin]`: the socket by which `waft user` and the other commands reach the running server.
    pub struct Admin = "admin" {
        /// The unix socket. Unset: `waft.sock` in the data folder.
        socket: Option<PathBuf> = None;
        /// User ids that may give commands, besides root and the one that runs the server. They need access to the
        /// socket's folder too.
        uids: Vec<u32> = Vec::new();
        /// Accounts of hosts here, such as `"alice@example.org"`, that may give the same commands by any client that shows
        /// forms (XEP-0050, XEP-0133).
        accounts: Vec<String> = Vec::new();
    }
}

section! {
    /// `[metrics]`: what watches the server from outside, over HTTP: `/metrics` (OpenMetrics), `/healthz` (200 while the
    /// server works) and `/readyz` (200 while it takes clients).
    pub struct Metrics = "metrics" {
        /// Where it is asked, such as `127.0.0.1:9280`. Nobody has to say who they are: let only the watcher connect.
        /// Unset: nowhere.
        address: Option<ListenAddress> = None;
    }
}

section! {
    /// `[limits]`: what one peer may cost. A peer that passes one gets a clear error, nobody else notices.
    pub struct Limits = "limits" {
        /// Are the limits *per time* (connections, bytes and stanzas per second, failed logins) in force? Off only for
        /// benchmarks; all other limits stay.
        rates: bool = true;

        /// Bytes of one stanza or negotiation element before authentication. RFC 6120 §13.12 wants at least 10,000.
        before_auth_bytes_max: usize = 10_000, in 10_000 ..= 1_048_576;
        /// Elements within one top-level element before authentication.
        before_auth_elements_max: u32 = 32, in 8 ..= 10_000;
        /// How deep they nest.
        before_auth_depth_max: u16 = 8, in 4 ..= 64;
        /// Attributes of one tag before authentication.
        before_auth_attributes_max: u16 = 32, in 8 ..= 64;
        /// Namespace declarations of one tag before authentication.
        before_auth_declarations_max: u16 = 8, in 4 ..= 64;

        /// Bytes of one stanza of an authenticated client; told to clients (XEP-0478).
        stanza_bytes_max: usize = 262_144, in 10_000 ..= 16_777_216;
        /// Elements within one stanza.
        stanza_elements_max: u32 = 10_000, in 100 ..= 1_000_000;
        /// How deep they nest.
        stanza_depth_max: u16 = 64, in 16 ..= 256;
        /// Attributes of one tag.
        stanza_attributes_max: u16 = 64, in 16 ..= 1_024;
        /// Namespace declarations of one tag.
        stanza_declarations_max: u16 = 16, in 4 ..= 256;
        /// Bytes of one name.
        name_bytes_max: usize = 1_024, in 64 ..= 65_536;
        /// Bytes of one attribute's value.
        attribute_bytes_max: usize = 32_768, in 4_096 ..= 1_048_576;

        /// Seconds until the first byte of a connection.
        first_byte_seconds: u32 = 5, in 1 ..= 3_600;
        /// Seconds for the TLS handshake.
        tls_handshake_seconds: u32 = 10, in 1 ..= 3_600;
        /// Seconds from connection to authentication, in all.
        authentication_seconds: u32 = 30, in 1 ..= 3_600;
        /// Seconds of silence after which a client is pinged; told to clients with the next (XEP-0478).
        idle_ping_seconds: u32 = 300, in 1 ..= 86_400;
        /// Seconds after the ping until a silent client's stream is closed.
        idle_close_seconds: u32 = 60, in 1 ..= 86_400;
        /// Seconds that a client has to answer a request for acknowledgement (XEP-0198).
        ack_seconds: u32 = 60, in 1 ..= 3_600;
        /// Seconds after which a client that takes nothing of what it is sent is given up.
        write_seconds: u32 = 60, in 1 ..= 3_600;
        /// Seconds that a stopping server gives streams to end and writes to reach the disk.
        shutdown_seconds: u32 = 10, in 1 ..= 600;

        /// New connections a second from one address; an address is an IPv4 address or an IPv6 /64.
        connections_per_second: u32 = 20, in 1 ..= 1_000_000;
        /// How many of them may come at once.
        connections_burst: u32 = 50, in 1 ..= 1_000_000;
        /// Connections of one address that are not authenticated yet.
        unauthenticated_per_address_max: u32 = 200, in 1 ..= 1_000_000;
        /// Connections of one address in all.
        connections_per_address_max: u32 = 1_000, in 1 ..= 10_000_000;
        /// Connections in all that are not authenticated yet, as a share (percent) of the files that the process may
        /// open; beyond it the oldest of them is closed.
        unauthenticated_percent: u32 = 10, in 1 ..= 90;

        /// Failed authentications on one connection; then it is closed.
        auth_failures_per_connection_max: u32 = 3, in 1 ..= 100;
        /// Failed authentications from one address, or to one account, within `auth_failures_window_seconds` after which
        /// answers are delayed.
        auth_failures_delay_after: u32 = 10, in 1 ..= 1_000_000;
        /// The same, after which the address is refused for `auth_refused_seconds`.
        auth_failures_refuse_after: u32 = 20, in 1 ..= 1_000_000;
        /// Seconds over which failures are counted.
        auth_failures_window_seconds: u32 = 300, in 1 ..= 86_400;
        /// Seconds for which an address is refused.
        auth_refused_seconds: u32 = 900, in 1 ..= 86_400;
        /// Accounts that one address may register in an hour, where registration is open.
        registrations_per_hour: u32 = 1, in 1 ..= 1_000_000;
        /// The same with invitations: a class of a school shares an address.
        invited_registrations_per_hour: u32 = 30, in 1 ..= 1_000_000;
        /// Invitations that one user has out at once.
        invites_per_account_max: usize = 20, in 0 ..= 10_000;

        /// Bytes a second that are read from one client.
        inbound_bytes_per_second: u64 = 65_536, in 1_024 ..= 10_000_000_000;
        /// Bytes that may come at once.
        inbound_bytes_burst: u64 = 262_144, in 10_000 ..= 10_000_000_000;
        /// Stanzas a second from one session.
        stanzas_per_second: u32 = 100, in 1 ..= 10_000_000;
        /// Stanzas that may come at once.
        stanzas_burst: u32 = 500, in 1 ..= 10_000_000;
        /// Distinct addresses that are no contacts and that a session may write to for the first time, a minute.
        strangers_per_minute: u32 = 20, in 1 ..= 1_000_000;
        /// Messages that one sender who is no contact may send an account, a minute.
        stranger_messages_per_minute: u32 = 6_000, in 1 ..= 1_000_000;

        /// Sessions of one account at once.
        sessions_per_account_max: usize = 16, in 1 ..= 1_000;
        /// Bytes that wait to be written to one client; then its session is suspended or closed.
        send_queue_bytes_max: usize = 1_048_576, in 65_536 ..= 1_073_741_824;
        /// The same in stanzas.
        send_queue_stanzas_max: usize = 1_000, in 16 ..= 1_000_000;
        /// Stanzas written to a client and not acknowledged (XEP-0198).
        unacked_stanzas_max: usize = 1_000, in 16 ..= 1_000_000;
        /// The same in bytes.
        unacked_bytes_max: usize = 4_194_304, in 65_536 ..= 1_073_741_824;
        /// Seconds for which a broken stream can be resumed, when the client names no time.
        resume_seconds_default: u32 = 300, in 1 ..= 86_400;
        /// The longest time a client may name.
        resume_seconds_max: u32 = 900, in 1 ..= 86_400;
        /// Seconds after an unplanned restart in which clients may come back as if nothing had been: those that did not are
        /// told of as unavailable then. They bind anew: no session is resumed over a restart.
        resume_after_restart_seconds: u32 = 30, in 1 ..= 3_600;
        /// Sessions of one account that wait to be resumed.
        hibernated_per_account_max: usize = 8, in 0 ..= 1_000;

        /// Items of one roster.
        roster_items_max: usize = 2_000, in 1 ..= 1_000_000;
        /// Bytes of one roster: addresses, names and groups.
        roster_bytes_max: usize = 1_048_576, in 65_536 ..= 1_073_741_824;
        /// Groups of one roster item.
        groups_per_item_max: usize = 32, in 1 ..= 10_000;
        /// Items of one block list.
        block_items_max: usize = 2_000, in 1 ..= 1_000_000;
        /// Addresses that one session's directed presence is remembered for.
        directed_presence_max: usize = 1_000, in 1 ..= 1_000_000;
        /// Subscription requests of strangers that wait for one account.
        requests_max: usize = 1_000, in 1 ..= 1_000_000;
        /// Bytes of one account's vCard.
        vcard_bytes_max: usize = 262_144, in 1_024 ..= 16_777_216;
        /// Bytes of one account's private XML, in all.
        private_bytes_max: usize = 262_144, in 1_024 ..= 16_777_216;
        /// Nodes that one account has (XEP-0163).
        pep_nodes_max: usize = 200, in 1 ..= 10_000;
        /// Items of one node; the oldest go first.
        pep_items_max: usize = 256, in 1 ..= 10_000;
        /// Bytes of one item.
        pep_item_bytes_max: usize = 65_536, in 1_024 ..= 1_048_576;
        /// Bytes of one account's items, in all.
        pep_bytes_max: u64 = 67_108_864, in 65_536 ..= 1_099_511_627_776;

        /// Messages that wait for an account that is offline; then senders get `service-unavailable`.
        offline_messages_max: usize = 1_000, in 0 ..= 1_000_000;
        /// The same in bytes.
        offline_bytes_max: u64 = 10_485_760, in 0 ..= 1_099_511_627_776;
        /// Days for which they wait.
        offline_days_max: u32 = 30, in 1 ..= 36_500;
        /// Bytes of one account's archive; the oldest go first.
        archive_bytes_max: u64 = 1_073_741_824, in 65_536 ..= 1_099_511_627_776;
        /// Days for which messages stay in the archive.
        archive_days_max: u32 = 365, in 1 ..= 36_500;
        /// Messages in one account's archive; the oldest go first. 0: any number.
        archive_messages_max: u64 = 0, in 0 ..= 1_000_000_000;
        /// Bytes of one stanza of an authenticated server.
        s2s_stanza_bytes_max: usize = 524_288, in 10_000 ..= 16_777_216;
        /// Stanzas that wait for one other domain.
        s2s_queue_stanzas_max: usize = 10_000, in 16 ..= 10_000_000;
        /// The same in bytes.
        s2s_queue_bytes_max: usize = 67_108_864, in 65_536 ..= 17_179_869_184;
        /// Seconds for one attempt to connect.
        s2s_connect_seconds: u32 = 10, in 1 ..= 300;
        /// The longest pause between attempts, seconds; the first is two, each is twice the one before.
        s2s_retry_seconds_max: u32 = 300, in 2 ..= 86_400;
        /// Attempts to connect under way at once.
        s2s_dials_max: usize = 32, in 1 ..= 10_000;
        /// Bytes a second that are read from one stream of another server.
        s2s_bytes_per_second: u64 = 524_288, in 1_024 ..= 10_000_000_000;
        /// Bytes that may come at once.
        s2s_bytes_burst: u64 = 2_097_152, in 10_000 ..= 10_000_000_000;

        /// Bytes of one stanza of a component.
        component_stanza_bytes_max: usize = 524_288, in 10_000 ..= 16_777_216;
        /// Stanzas that wait for one component that is connected.
        component_queue_stanzas_max: usize = 10_000, in 16 ..= 10_000_000;
        /// The same in bytes.
        component_queue_bytes_max: usize = 67_108_864, in 65_536 ..= 17_179_869_184;

        /// Messages of one page of the archive, when the client names no number.
        archive_page_default: usize = 50, in 1 ..= 1_000;
        /// The most that a client may ask for at once.
        archive_page_max: usize = 100, in 1 ..= 1_000;

        /// Watchers of an account that are remembered besides its roster; those who were only refused have a quarter.
        watchers_max: usize = 500, in 4 ..= 2_000;
        /// Days that a watcher is remembered after it was last heard of.
        watchers_days_max: u32 = 30, in 1 ..= 366;
        /// Fetches of one watcher that an account answers in a minute.
        fetches_per_minute: u32 = 30, in 1 ..= 100_000;
        /// The same for all watchers of one domain together.
        fetches_per_domain_per_minute: u32 = 600, in 1 ..= 1_000_000;
    }
}

/// A hosted domain and its options.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Prepared (RFC 7622 §3.2).
    pub domain: Box<str>,
    pub options: HostOptions,
}

/// A class of accounts.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    pub name: Box<str>,
    pub options: ClassOptions,
}

choice! {
    /// Who connects to a listener.
    pub enum ListenKind { C2s = "c2s", S2s = "s2s" }
}

choice! {
    /// What proves that a server speaks for a domain.
    pub enum Trust {
        Dialback = "dialback",
        Certificate = "certificate",
        FirstUse = "first-use",
        Refuse = "refuse",
    }
}

/// Another domain and what is particular about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// Prepared.
    pub domain: Box<str>,
    pub options: FederationDomain,
}

choice! {
    pub enum ListenOperations { All = "all", Presence = "presence", Messages = "messages" }
}

choice! {
    pub enum ListenTls { Required = "required", Optional = "optional", Direct = "direct" }
}

choice! {
    /// How a name is proved to an authority.
    pub enum AcmeChallenge { Http01 = "http-01", TlsAlpn01 = "tls-alpn-01" }
}

choice! {
    pub enum Durability { Full = "full", Os = "os" }
}

choice! {
    pub enum LogFormat { Human = "human", Json = "json" }
}

choice! {
    pub enum Registration { Closed = "closed", Invite = "invite", Open = "open" }
}

choice! {
    pub enum ResourceConflict { Replace = "replace", Rename = "rename", Refuse = "refuse" }
}

choice! {
    /// SASL mechanisms with a password.
    pub enum Mechanism {
        ScramSha256Plus = "SCRAM-SHA-256-PLUS",
        ScramSha1Plus = "SCRAM-SHA-1-PLUS",
        ScramSha256 = "SCRAM-SHA-256",
        ScramSha1 = "SCRAM-SHA-1",
        Plain = "PLAIN",
    }
}

impl Mechanism {
    pub const ALL: [Mechanism; 5] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
    ];
}

/// A section as the reference shows it: path, how it is headed, meaning, options.
pub struct Section {
    pub at: &'static str,
    pub heading: &'static str,
    pub about: String,
    pub options: Vec<Documented>,
}

/// All sections in the order of the reference.
pub fn all() -> Vec<Section> {
    let section = |at, heading, about, options| Section { at, heading, about, options };
    vec![
        section(Top::AT, "", Top::about(), Top::options()),
        section(HostOptions::AT, "[host.\"example.org\"]", HostOptions::about(), HostOptions::options()),
        section(Contact::AT, "[host.\"example.org\".contact]", Contact::about(), Contact::options()),
        section(Listener::AT, "[[listen]]", Listener::about(), Listener::options()),
        section(Federation::AT, "[s2s]", Federation::about(), Federation::options()),
        section(
            FederationDomain::AT,
            "[s2s.domain.\"example.net\"]",
            FederationDomain::about(),
            FederationDomain::options(),
        ),
        section(Component::AT, "[[component]]", Component::about(), Component::options()),
        section(Acme::AT, "[acme]", Acme::about(), Acme::options()),
        section(Accounts::AT, "[accounts]", Accounts::about(), Accounts::options()),
        section(ClassOptions::AT, "[account_class.\"guest\"]", ClassOptions::about(), ClassOptions::options()),
        section(StoreOptions::AT, "[store]", StoreOptions::about(), StoreOptions::options()),
        section(Log::AT, "[log]", Log::about(), Log::options()),
        section(Admin::AT, "[admin]", Admin::about(), Admin::options()),
        section(Metrics::AT, "[metrics]", Metrics::about(), Metrics::options()),
        section(Limits::AT, "[limits]", Limits::about(), Limits::options()),
    ]
}

/// Every option with its section, for remedies.
pub fn elsewhere() -> Vec<(String, &'static str)> {
    all()
        .into_iter()
        .flat_map(|section| section.options.into_iter().map(move |option| (section.at.to_string(), option.key)))
        .collect()
}

impl Component {
    /// Prepared; the configuration was refused if there was none.
    pub fn domain(&self) -> &str {
        self.domain.as_deref().unwrap_or_default()
    }
}

impl Listener {
    /// For people: `STARTTLS`, `direct TLS`, …
    pub fn how(&self) -> &'static str {
        match self.tls {
            ListenTls::Required => "STARTTLS",
            ListenTls::Optional => "STARTTLS, not required",
            ListenTls::Direct => "direct TLS",
        }
    }
}
