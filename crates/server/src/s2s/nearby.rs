//! Servers on the local network, found without DNS: multicast DNS (RFC 6762) and service discovery over it (RFC 6763).
//!
//! We announce `_xmpp-server._tcp` and `_xmpp-client._tcp` under our host name, and listen for those of others. Names
//! below `.local` are never asked of name servers (RFC 6762 §22.1); all others still are, if there are any.
//! What XEP-0174 announces (`_presence._tcp`) is a promise to speak with clients directly, without a server; we do not
//! make it, and so do not use its names.

use super::dns::{Answer, DnsFault, Resolve, Srv, System};
use mdns_sd::{DaemonEvent, HostnameResolutionEvent, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const SERVERS: &str = "_xmpp-server._tcp.local.";
const CLIENTS: &str = "_xmpp-client._tcp.local.";
/// Servers nearby that are remembered; further ones are still found when they are asked for.
const NEARBY_MAX: usize = 1_000;
/// Addresses of one that are kept.
const ADDRESSES_MAX: usize = 16;
/// How long a name is asked for before it is not there.
const ASK_PATIENCE: Duration = Duration::from_secs(3);
/// For one goodbye to be sent.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// What multicast DNS answers for. RFC 6762 §3.
const SUFFIX: &str = ".local";

/// This machine's domain: its host name's first label under `.local`. RFC 6762 §3.
///
/// # Errors
/// For people: the machine has no name that can be one.
pub fn own_domain() -> Result<String, String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| format!("the host name cannot be read: {error}\nname the domain with --domain NAME.local"))?;
    domain_of(name.trim()).ok_or_else(|| {
        format!("the host name \"{}\" cannot be a domain\nname the domain with --domain NAME.local", name.trim())
    })
}

fn domain_of(host: &str) -> Option<String> {
    let label = host.split('.').next().filter(|label| *label != "localhost")?;
    // RFC 1123 §2.1: letters, digits and hyphens, and one of the former first and last.
    let sound = |byte: &u8| byte.is_ascii_alphanumeric();
    let ends = [label.as_bytes().first(), label.as_bytes().last()];
    if !ends.iter().all(|end| end.is_some_and(sound)) || !label.bytes().all(|byte| sound(&byte) || byte == b'-') {
        return None;
    }
    xmpp::jid::prepare_domain(&format!("{label}{SUFFIX}")).ok()
}

/// A server that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    host: String,
    port: u16,
    addresses: Vec<IpAddr>,
    /// As it announced itself, to know what goes when it says goodbye.
    fullname: String,
}

/// By domain.
type Servers = Arc<Mutex<BTreeMap<String, Seen>>>;

/// Multicast DNS on this machine's networks.
pub struct Nearby {
    daemon: ServiceDaemon,
    servers: Servers,
    /// The system's, where it names any.
    others: Option<System>,
    /// Our own domains and ports, and how they are withdrawn.
    announced: Vec<String>,
    /// The servers nearby are others than before.
    pub changed: Arc<Notify>,
}

impl Nearby {
    /// Listens, and announces `domains` on these ports; those that are no name of one label below `.local` are not.
    ///
    /// # Errors
    /// For people: the network cannot be used so.
    pub fn start(domains: &[String], servers_port: u16, clients_port: Option<u16>) -> Result<Nearby, String> {
        let wrong = |error: mdns_sd::Error| {
            format!(
                "the local network cannot be asked for names: {error}\nis there a network, and may UDP port 5353 be used?"
            )
        };
        let daemon = ServiceDaemon::new().map_err(wrong)?;
        let mut announced = Vec::new();
        for domain in domains {
            let Some(label) = domain.strip_suffix(SUFFIX).filter(|label| !label.contains('.')) else { continue };
            let services = [(SERVERS, Some(servers_port)), (CLIENTS, clients_port)];
            for (service, port) in services.into_iter().filter_map(|(service, port)| Some((service, port?))) {
                let text = [("txtvers", "1"), ("domain", domain.as_str())];
                let host = format!("{domain}.");
                let info = ServiceInfo::new(service, label, &host, "", port, &text[..]).map_err(wrong)?;
                let info = info.enable_addr_auto();
                announced.push(info.get_fullname().to_owned());
                daemon.register(info).map_err(wrong)?;
            }
        }
        let servers = Servers::default();
        let events = daemon.browse(SERVERS).map_err(wrong)?;
        let changed = Arc::new(Notify::new());
        tokio::spawn(listen(events, servers.clone(), domains.to_vec(), changed.clone()));
        tokio::spawn(watch(daemon.monitor().map_err(wrong)?));
        Ok(Nearby { daemon, servers, others: System::new().ok(), announced, changed })
    }

    /// Domains of servers that were seen and not heard to leave, ours not among them.
    pub fn domains(&self) -> Vec<String> {
        self.servers.lock().keys().cloned().collect()
    }

    async fn addresses_of(&self, name: &str) -> Result<Vec<IpAddr>, DnsFault> {
        let domain = name.trim_end_matches('.');
        if let Some(seen) = self.servers.lock().values().find(|seen| seen.host == domain && !seen.addresses.is_empty())
        {
            return Ok(seen.addresses.clone());
        }
        let milliseconds = u64::try_from(ASK_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let failed = |error: mdns_sd::Error| DnsFault::Failed(format!("{domain}: {error}"));
        let events = self.daemon.resolve_hostname(&format!("{domain}."), Some(milliseconds)).map_err(failed)?;
        let asked = async {
            while let Ok(event) = events.recv_async().await {
                match event {
                    HostnameResolutionEvent::AddressesFound(_, found) => {
                        return Ok(usable(found.iter().map(|it| it.to_ip_addr())));
                    }
                    HostnameResolutionEvent::SearchTimeout(_) | HostnameResolutionEvent::SearchStopped(_) => break,
                    _ => {}
                }
            }
            Err(DnsFault::Absent)
        };
        tokio::time::timeout(ASK_PATIENCE, asked).await.unwrap_or(Err(DnsFault::Absent))
    }
}

impl Nearby {
    /// Says goodbye (RFC 6762 §10.1), so that others need not wait until what we announced is too old.
    pub async fn leave(&self) {
        for name in &self.announced {
            if let Ok(said) = self.daemon.unregister(name) {
                // A network that is gone hears no goodbye.
                let _ = tokio::time::timeout(GOODBYE_PATIENCE, said.recv_async()).await;
            }
        }
        let _ = self.daemon.shutdown();
    }
}

/// Shared with the house, which lists the servers nearby.
pub struct Shared(pub Arc<Nearby>);

impl Resolve for Shared {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
        Box::pin(async move {
            let Some(rest) = name.trim_end_matches('.').strip_suffix(SUFFIX) else {
                return match &self.0.others {
                    Some(system) => system.srv(name).await,
                    None => Err(DnsFault::Absent),
                };
            };
            let Some(label) = rest.strip_prefix("_xmpp-server._tcp.") else { return Err(DnsFault::Absent) };
            let domain = format!("{label}{SUFFIX}");
            match self.0.servers.lock().get(&domain) {
                Some(seen) => {
                    Ok(vec![Srv { priority: 0, weight: 0, port: seen.port, target: seen.host.clone() }].into())
                }
                // Not announced, or not yet: its host name and the usual port may do.
                None => Err(DnsFault::Absent),
            }
        })
    }

    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
        Box::pin(async move {
            match (name.trim_end_matches('.').ends_with(SUFFIX), &self.0.others) {
                (true, _) => self.0.addresses_of(name).await.map(Into::into),
                (false, Some(system)) => system.addresses(name).await,
                (false, None) => Err(DnsFault::Absent),
            }
        })
    }
}

async fn listen(events: mdns_sd::Receiver<ServiceEvent>, servers: Servers, own: Vec<String>, changed: Arc<Notify>) {
    while let Ok(event) = events.recv_async().await {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some((domain, seen)) = read(&service) else { continue };
                if own.contains(&domain) {
                    continue;
                }
                let mut servers = servers.lock();
                if !servers.contains_key(&domain) && servers.len() >= NEARBY_MAX {
                    continue;
                }
                if servers.insert(domain.clone(), seen).is_none() {
                    tracing::info!(domain, "a server is nearby");
                    changed.notify_one();
                }
            }
            ServiceEvent::ServiceRemoved(_, fullname) => {
                servers.lock().retain(|domain, seen| {
                    let stays = seen.fullname != fullname;
                    if !stays {
                        tracing::info!(domain, "a server nearby has left");
                    }
                    stays
                });
                changed.notify_one();
            }
            _ => {}
        }
    }
}

/// Whose domain a service is: the host it runs on. What its text says else is not believed: anybody can say it.
fn read(service: &ResolvedService) -> Option<(String, Seen)> {
    let host = service.get_hostname().trim_end_matches('.');
    let domain = xmpp::jid::prepare_domain(host).ok()?;
    let addresses = usable(service.get_addresses().iter().map(|it| it.to_ip_addr()));
    let seen =
        Seen { host: domain.clone(), port: service.get_port(), addresses, fullname: service.get_fullname().into() };
    domain.ends_with(SUFFIX).then_some((domain, seen))
}

/// Those that can be dialled: an IPv6 address of a link alone does not say of which.
fn usable(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let is_of_link = |address: &IpAddr| matches!(address, IpAddr::V6(six) if six.segments()[0] & 0xFFC0 == 0xFE80);
    let mut all: Vec<IpAddr> =
        addresses.filter(|it| !is_of_link(it) && !it.is_loopback()).take(ADDRESSES_MAX).collect();
    all.sort_unstable();
    all
}

async fn watch(events: mdns_sd::Receiver<DaemonEvent>) {
    while let Ok(event) = events.recv_async().await {
        match event {
            DaemonEvent::NameChange(change) => tracing::error!(
                name = change.original,
                "another machine on this network has the same name: others may reach it instead of this one; rename this machine and start again"
            ),
            DaemonEvent::Error(error) => tracing::warn!(%error, "multicast DNS"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_the_first_label_of_the_host_name_under_local() {
        assert_eq!(domain_of("Laptop").as_deref(), Some("laptop.local"));
        assert_eq!(domain_of("laptop.office.example").as_deref(), Some("laptop.local"));
        for none in ["", "localhost", "no spaces", "_"] {
            assert_eq!(domain_of(none), None, "{none}");
        }
    }

    #[test]
    fn addresses_that_do_not_say_on_which_network_are_left_out() {
        let address = |text: &str| text.parse::<IpAddr>().expect("a literal address");
        let all = ["fe80::1", "10.0.0.2", "127.0.0.1", "fd00::1"].map(address);
        assert_eq!(usable(all.into_iter()), [address("10.0.0.2"), address("fd00::1")]);
    }
}
