//! What only makes sense together.

use super::read::Reader;
use super::{Config, ListenKind, ListenTls};
use std::ops::Range;

/// Notes what contradicts itself in an otherwise well-typed configuration.
pub fn check(config: &Config, reader: &mut Reader) {
    listeners(config, reader);
    hosts(config, reader);
    federation(config, reader);
    components(config, reader);
    acme(config, reader);
    log_level(config, reader);
    limits(config, reader);
}

fn listeners(config: &Config, reader: &mut Reader) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let at = format!("listen[{index}]");
        let place = |reader: &Reader, key: &str| reader.span(&format!("{at}.{key}")).or_else(|| reader.span(&at));
        if listener.tls == ListenTls::Optional && !listener.force && !listener.address.is_loopback() {
            let span = place(reader, "tls");
            reader.problem(
                span,
                format!("{} would let clients log in without TLS from the network", listener.address),
                "use tls = \"required\"; or listen on 127.0.0.1 or [::1], behind a proxy; or, if you know why, set force = true",
            );
        }
        if listener.kind == ListenKind::S2s && listener.tls == ListenTls::Optional {
            let span = place(reader, "tls");
            reader.problem(span, "servers of other domains must use TLS", "use tls = \"required\" or tls = \"direct\"");
        }
        if let Some(other) = config.listeners[..index]
            .iter()
            .find(|other| other.address == listener.address && listener.address.port() != 0)
        {
            let span = place(reader, "address");
            reader.problem(
                span,
                format!("two listeners have the address {}", other.address),
                "give one of them another port",
            );
        }
    }
    if !config.listeners.iter().any(|listener| listener.kind == ListenKind::C2s) && reader.problems.is_empty() {
        reader.problem(
            None,
            "there is no listener: nobody could connect",
            "add [[listen]] with address = \"*:5222\", or remove what switches the listeners off",
        );
    }
}

fn federation(config: &Config, reader: &mut Reader) {
    for (key, domains) in [("blocked", &config.federation.blocked), ("allowed", &config.federation.allowed)] {
        let is_wrong = |name: &str| xmpp::jid::prepare_domain(name.strip_prefix("*.").unwrap_or(name)).is_err();
        if let Some(wrong) = domains.iter().find(|domain| is_wrong(domain)) {
            let span = reader.span(&format!("s2s.{key}"));
            let remedy = "write a name such as \"example.net\", or \"*.example.net\" for all below it";
            reader.problem(span, format!("\"{wrong}\" is no domain"), remedy);
        }
    }
    for (key, file) in
        [("blocked_file", &config.federation.blocked_file), ("allowed_file", &config.federation.allowed_file)]
    {
        if let Some(file) = file
            && let Err(error) = std::fs::read_to_string(file)
        {
            let span = reader.span(&format!("s2s.{key}"));
            let told = format!("{} cannot be read: {error}", file.display());
            reader.problem(span, told, "name a file with one domain a line that waft may read");
        }
    }
    for remote in &config.remotes {
        let is_wrong = |server: &str| {
            server
                .rsplit_once(':')
                .is_none_or(|(name, port)| port.parse::<u16>().is_err() || xmpp::jid::prepare_domain(name).is_err())
        };
        if let Some(server) = remote.options.server.as_deref().filter(|server| is_wrong(server)) {
            let span = reader.span(&format!("s2s.domain.\"{}\".server", remote.domain));
            reader.problem(span, format!("\"{server}\" is no name and port"), "write \"xmpp.example.net:5269\"");
        }
    }
}

fn hosts(config: &Config, reader: &mut Reader) {
    for host in &config.hosts {
        let at = format!("host.\"{}\"", host.domain);
        let place = |reader: &Reader, key: &str| reader.span(&format!("{at}.{key}")).or_else(|| reader.span(&at));
        let options = &host.options;
        match (&options.certificate, &options.key) {
            (Some(_), None) => {
                let span = place(reader, "certificate");
                reader.problem(
                    span,
                    format!("{at} has a certificate and no key"),
                    "set key to the file of the certificate's private key",
                );
            }
            (None, Some(_)) => {
                let span = place(reader, "key");
                reader.problem(
                    span,
                    format!("{at} has a key and no certificate"),
                    "set certificate to the file of the certificate chain",
                );
            }
            _ => {}
        }
        for (key, file) in [
            ("certificate", &options.certificate),
            ("key", &options.key),
            ("client_ca", &options.client_ca),
            ("turn_secret", &options.turn_secret),
        ] {
            let Some(file) = file else { continue };
            if let Err(error) = std::fs::File::open(file) {
                let span = place(reader, key);
                reader.problem(span, format!("{} cannot be read: {error}", file.display()), format!("correct {key}, or make the file readable for the user that runs waft; paths are relative to the folder of this file"));
            }
        }
        if options.mechanisms.is_empty() && !options.anonymous && options.client_ca.is_none() {
            let span = place(reader, "mechanisms");
            reader.problem(
                span,
                format!("{at} lets nobody log in"),
                "name a mechanism such as \"SCRAM-SHA-256\", or remove the line",
            );
        }
        if let Some(location) = options.resume_location.as_deref().filter(|location| !is_location(location)) {
            let span = place(reader, "resume_location");
            reader.problem(
                span,
                format!("\"{location}\" is no place to connect to"),
                "write a name or an address and a port, such as \"node1.example.org:5222\" or \"[2001:db8::1]:5222\"",
            );
        }
        for (purpose, addresses) in contact_lists(options) {
            if let Some(address) = addresses.iter().find(|address| !is_uri(address)) {
                let span = reader.span(&format!("{at}.contact.{purpose}"));
                reader.problem(span, format!("\"{address}\" is no URI"), "write a URI such as \"mailto:admin@example.org\", \"xmpp:admin@example.org\" or \"https://example.org/\"");
            }
        }
    }
}

/// "domainpart:port", an IPv6 address in brackets. RFC 6120 §4.9.3.19.
fn is_location(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let address = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.contains(':') && xmpp::BareJid::of_domain(host).is_ok(),
    };
    address && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The contact addresses by purpose.
pub fn contact_lists(options: &super::HostOptions) -> [(&'static str, &Vec<String>); 7] {
    let contact = &options.contact;
    [
        ("abuse", &contact.abuse),
        ("admin", &contact.admin),
        ("feedback", &contact.feedback),
        ("sales", &contact.sales),
        ("security", &contact.security),
        ("status", &contact.status),
        ("support", &contact.support),
    ]
}

fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !text.chars().any(|c| c.is_whitespace() || c.is_control())
    })
}

fn components(config: &Config, reader: &mut Reader) {
    for (index, component) in config.components.iter().enumerate() {
        let at = format!("component[{index}]");
        let place = |reader: &Reader, key: &str| reader.span(&format!("{at}.{key}")).or_else(|| reader.span(&at));
        let domain = component.domain();
        let hosted = config.host(domain).is_some();
        if hosted || config.components[..index].iter().any(|other| other.domain() == domain) {
            let span = place(reader, "domain");
            let what = if hosted { "a host" } else { "another component" };
            reader.problem(span, format!("{domain} is {what} already"), "give the component a domain of its own");
        }
        match &component.secret {
            None => {
                let span = place(reader, "domain");
                reader.problem(
                    span,
                    format!("the component {domain} has no secret"),
                    "set secret to a file with a line that the component knows, too",
                );
            }
            Some(file) => {
                if let Err(why) = super::policy::read_secret(file) {
                    let span = place(reader, "secret");
                    reader.problem(span, why, "name a file with one line of text that the user that runs waft may read; paths are relative to the folder of this file");
                }
            }
        }
        if component.certificate.is_some() != component.key.is_some() {
            let span = place(reader, if component.key.is_some() { "key" } else { "certificate" });
            reader.problem(
                span,
                format!("{domain} has a certificate without a key, or a key without it"),
                "set both certificate and key, or none",
            );
        }
        if !component.force && !component.address.is_loopback() {
            let span = place(reader, "address");
            reader.problem(
                span,
                format!("{} would let components talk in clear over the network", component.address),
                "use an address on loopback, such as 127.0.0.1:5347; or, if only the component can reach it, set force = true",
            );
        }
        if config.listeners.iter().any(|listener| listener.address == component.address && listener.address.port() != 0)
        {
            let span = place(reader, "address");
            reader.problem(
                span,
                format!("a [[listen]] has the address {}", component.address),
                "give the component another port",
            );
        }
    }
}

fn acme(config: &Config, reader: &mut Reader) {
    for host in config.hosts.iter().filter(|host| host.options.acme) {
        let at = format!("host.\"{}\"", host.domain);
        if host.options.certificate.is_some() {
            let span = reader.span(&format!("{at}.acme"));
            let remedy = "remove certificate and key, or acme = true";
            reader.problem(span, format!("{at} has a certificate and is to get one by ACME"), remedy);
        }
        if let Some(wrong) = host.options.acme_names.iter().find(|name| crate::acme::dns_name(name).is_none()) {
            let span = reader.span(&format!("{at}.acme_names"));
            reader.problem(span, format!("\"{wrong}\" is no name in DNS"), "write a name such as \"irc.example.org\"");
        }
    }
    for (index, component) in config.components.iter().enumerate() {
        if component.acme && component.certificate.is_some() {
            let span = reader.span(&format!("component[{index}].acme"));
            let title = format!("{} has a certificate and is to get one by ACME", component.domain());
            reader.problem(span, title, "remove certificate and key, or acme = true");
        }
    }
    let acme = &config.acme;
    if !config.uses_acme() {
        return;
    }
    if !acme.agree {
        let span = reader.span("acme.agree");
        reader.problem(
            span,
            "a host is to get a certificate by ACME, and nobody has agreed to the authority's terms",
            "read them at the authority, then set agree = true in [acme]",
        );
    }
    if !acme.directory.starts_with("https://") {
        let span = reader.span("acme.directory");
        let remedy = "write the address of its directory, such as https://acme-v02.api.letsencrypt.org/directory";
        reader.problem(span, format!("\"{}\" is no directory of an authority", acme.directory), remedy);
    }
    if let Some(wrong) = acme.contact.iter().find(|contact| !is_uri(contact)) {
        let span = reader.span("acme.contact");
        reader.problem(span, format!("\"{wrong}\" is no URI"), "write a URI such as \"mailto:admin@example.org\"");
    }
    if acme.eab_key_id.is_some() != acme.eab_key.is_some() {
        let span = reader.span("acme.eab_key_id").or_else(|| reader.span("acme.eab_key"));
        reader.problem(span, "a key without its name, or a name without its key", "set both eab_key_id and eab_key");
    }
    if let Some(address) = config.acme_address() {
        if config.listeners.iter().any(|listener| listener.address == address && address.port() != 0) {
            let span = reader.span("acme.address");
            let remedy =
                "choose another port; a [[listen]] with tls = \"direct\" answers tls-alpn-01 without an address here";
            reader.problem(span, format!("a [[listen]] has the address {address}"), remedy);
        }
    } else if config.acme.challenge == super::AcmeChallenge::TlsAlpn01
        && !config.listeners.iter().any(|it| it.kind == ListenKind::C2s && it.tls == ListenTls::Direct)
    {
        let span = reader.span("acme.challenge");
        reader.problem(
            span,
            "nothing would answer the authority",
            "set address in [acme], or add a [[listen]] with tls = \"direct\"; both must be reached by port 443",
        );
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn log_level(config: &Config, reader: &mut Reader) {
    for directive in config.log.level.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level) {
            let remedy = match super::read::nearest(level, LEVELS.into_iter()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write one of {}, or for a part alone waft::edge=debug", LEVELS.join(", ")),
            };
            let span = reader.span("log.level");
            reader.problem(span, format!("\"{level}\" is no log level"), remedy);
        }
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        && !reader.problems.iter().any(|problem| problem.title.ends_with("is no log level"))
    {
        let span = reader.span("log.level");
        reader.problem(
            span,
            format!("log.level cannot be used: {error}"),
            "write a level such as info, or for a part alone info,waft::edge=debug",
        );
    }
}

fn limits(config: &Config, reader: &mut Reader) {
    let it = &config.limits;
    let mut not_above = |low: u64, low_name: &str, high: u64, high_name: &str| {
        if low > high {
            let span: Option<Range<usize>> =
                reader.span(&format!("limits.{low_name}")).or_else(|| reader.span(&format!("limits.{high_name}")));
            reader.problem(
                span,
                format!("limits.{low_name} is greater than limits.{high_name}"),
                format!("lower {low_name} to {high} or less, or raise {high_name}"),
            );
        }
    };
    not_above(it.before_auth_bytes_max as u64, "before_auth_bytes_max", it.stanza_bytes_max as u64, "stanza_bytes_max");
    not_above(it.attribute_bytes_max as u64, "attribute_bytes_max", it.stanza_bytes_max as u64, "stanza_bytes_max");
    not_above(it.stanza_bytes_max as u64, "stanza_bytes_max", it.send_queue_bytes_max as u64, "send_queue_bytes_max");
    not_above(it.stanza_bytes_max as u64, "stanza_bytes_max", it.unacked_bytes_max as u64, "unacked_bytes_max");
    not_above(
        it.first_byte_seconds.into(),
        "first_byte_seconds",
        it.authentication_seconds.into(),
        "authentication_seconds",
    );
    not_above(
        it.tls_handshake_seconds.into(),
        "tls_handshake_seconds",
        it.authentication_seconds.into(),
        "authentication_seconds",
    );
    not_above(
        it.resume_seconds_default.into(),
        "resume_seconds_default",
        it.resume_seconds_max.into(),
        "resume_seconds_max",
    );
    not_above(
        it.auth_failures_delay_after.into(),
        "auth_failures_delay_after",
        it.auth_failures_refuse_after.into(),
        "auth_failures_refuse_after",
    );
    not_above(
        it.unauthenticated_per_address_max.into(),
        "unauthenticated_per_address_max",
        it.connections_per_address_max.into(),
        "connections_per_address_max",
    );
    not_above(it.archive_page_default as u64, "archive_page_default", it.archive_page_max as u64, "archive_page_max");
}
