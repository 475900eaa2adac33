//! The resolver: DNS over UDP and TCP, by the servers of the configuration or of /etc/resolv.conf.
//!
//! It tells apart what a caller has to tell apart: addresses, a name that has none, and a question without an answer.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, RecordType, rdata::SRV},
    },
    system_conf::read_system_conf,
};

use crate::value::DnsName;

/// Answers questions. Whoever asks the same servers shares one.
pub struct Resolver {
    /// Those that are asked; none: those of resolv.conf.
    servers: Box<[SocketAddr]>,
    client: Mutex<Option<Current>>,
}

/// A client, and what the system's files looked like when it was made.
struct Current {
    client: Arc<Client>,
    stamp: [Option<SystemTime>; 2],
    checked: Instant,
}

struct Client {
    dns: TokioResolver,
    /// Names in them are asked of nobody, as the C library has it.
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
}

/// What became of the two questions for a name's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Result<Found<IpAddr>, NotFound>,
    pub v6: Result<Found<IpAddr>, NotFound>,
}

/// Records, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    pub records: Vec<T>,
    pub ttl: Duration,
}

/// A service's target (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Absolute, in small letters.
    pub target: String,
}

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("the name does not exist (NXDOMAIN)")]
    NoName,
    #[error("the name has no such records")]
    NoRecords,
    #[error("{0}")]
    Unanswered(String),
}

const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often the system's files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// As the C library has it, a machine without resolv.conf has a server of its own.
const USUAL: [SocketAddr; 1] = [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53)];
/// How long a configured server is waited for before the question is sent again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How soon the hosts file is looked at again.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// For one name, whatever servers are tried.
const LONGEST: Duration = Duration::from_secs(10);
/// What responses over UDP may measure: more than that would be fragmented (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;

// === impl Resolver ===

impl Resolver {
    /// Asks these servers; without any, those of the system with its search domains.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.into(), client: Mutex::default() }
    }

    /// The addresses of a name, of both families.
    pub async fn addresses(&self, name: &DnsName) -> Addresses {
        let nothing = |reason: NotFound| Addresses { v4: Err(reason.clone()), v6: Err(reason) };
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return nothing(NotFound::Unanswered(error)),
        };
        if let Some(answer) = client.known(name) {
            return answer;
        }
        let mut answer = nothing(NotFound::NoName);
        for name in client.names(name) {
            let (v4, v6) = tokio::join!(
                client.ask(&name, RecordType::A, |data| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    _ => None,
                }),
                client.ask(&name, RecordType::AAAA, |data| match data {
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                })
            );
            answer = Addresses { v4, v6 };
            // A name below the next search domain is another name: it is no substitute for an answer.
            if !answer.is_negative() {
                break;
            }
        }
        answer
    }

    /// Where a service is offered.
    pub async fn services(&self, name: &DnsName) -> Result<Found<Service>, NotFound> {
        let client = self.client().map_err(NotFound::Unanswered)?;
        let mut answer = Err(NotFound::NoName);
        for name in client.names(name) {
            answer = client.ask(&name, RecordType::SRV, service).await;
            if !matches!(answer, Err(NotFound::NoName | NotFound::NoRecords)) {
                break;
            }
        }
        answer
    }

    /// The addresses of a host for one connection: those that were found, of whatever family.
    pub async fn host(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, NotFound> {
        let name: DnsName = host.parse().map_err(NotFound::Unanswered)?;
        let Addresses { v4, v6 } = self.addresses(&name).await;
        let ips: Vec<IpAddr> = match (v4, v6) {
            (Ok(v4), Ok(v6)) => v4.records.into_iter().chain(v6.records).collect(),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => found.records,
            (Err(NotFound::Unanswered(error)), _) | (_, Err(NotFound::Unanswered(error))) => {
                return Err(NotFound::Unanswered(error));
            }
            (Err(reason), Err(_)) => return Err(reason),
        };
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The client; another one when the system's files have changed.
    fn client(&self) -> Result<Arc<Client>, String> {
        let now = Instant::now();
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &mut *current {
            if now.duration_since(current.checked) < LOOK {
                return Ok(current.client.clone());
            }
            current.checked = now;
            if current.stamp == stamp() {
                return Ok(current.client.clone());
            }
        }
        let stamp = stamp();
        let client = Arc::new(Client::new(&self.servers)?);
        *current = Some(Current { client: client.clone(), stamp, checked: now });
        Ok(client)
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver({:?})", self.servers)
    }
}

/// When the system's files were last written.
fn stamp() -> [Option<SystemTime>; 2] {
    SYSTEM_FILES.map(|file| fs::metadata(file).and_then(|file| file.modified()).ok())
}

// === impl Client ===

impl Client {
    fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let (config, mut options) = match servers {
            [] => read_system_conf().unwrap_or_else(|_| (listed(&USUAL), ResolverOpts::default())),
            servers => {
                let mut options = ResolverOpts::default();
                options.timeout = TIMEOUT;
                (listed(servers), options)
            }
        };
        // Whoever follows a name asks when he wants to know.
        options.cache_size = 0;
        options.edns0 = true;
        options.use_hosts_file = ResolveHosts::Never;
        options.edns_payload_len = UDP_PAYLOAD;
        options.preserve_intermediates = true;
        // Names are absolute for servers that are configured.
        let (search, ndots) = match servers {
            [] => (config.search().to_vec(), options.ndots),
            _ => (Vec::new(), 0),
        };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let dns = builder.build().map_err(|error| error.to_string())?;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { dns, hosts, search, ndots })
    }

    /// The addresses of a name that stands in the hosts file: of both families, or of one alone.
    fn known(&self, name: &DnsName) -> Option<Addresses> {
        let mut name = Name::from_ascii(name.as_str()).ok()?;
        name.set_fqdn(true);
        let known = |kind| {
            let lookup = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            let records: Vec<IpAddr> = lookup
                .iter()
                .flat_map(|lookup| lookup.answers())
                .filter_map(|record| record.data.ip_addr())
                .collect();
            match records.is_empty() {
                true => Err(NotFound::NoRecords),
                false => Ok(Found { records, ttl: HOSTS_TTL }),
            }
        };
        let answer = Addresses { v4: known(RecordType::A), v6: known(RecordType::AAAA) };
        (!answer.is_negative()).then_some(answer)
    }

    /// The absolute names that are meant, the likeliest first.
    fn names(&self, name: &DnsName) -> Vec<Name> {
        let Ok(mut own) = Name::from_ascii(name.as_str()) else { return Vec::new() };
        let is_absolute = own.is_fqdn();
        own.set_fqdn(true);
        if is_absolute {
            return vec![own];
        }
        let has_dots = name.as_str().matches('.').count() >= self.ndots;
        let below = |domain: &Name| {
            let mut name = own.clone();
            name.set_fqdn(false);
            let mut name = name.append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        };
        let searched = self.search.iter().filter_map(below);
        match has_dots {
            true => std::iter::once(own.clone()).chain(searched).collect(),
            false => searched.chain(std::iter::once(own.clone())).collect(),
        }
    }

    /// The records of a name and a type, whatever else an answer holds.
    async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, NotFound> {
        let asked = tokio::time::timeout(LONGEST, self.dns.lookup(name.clone(), kind)).await;
        let lookup = match asked {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => return Err(reason(error)),
            Err(_) => return Err(NotFound::Unanswered(format!("no answer within {LONGEST:?}"))),
        };
        // The name, and those that it is an alias of.
        let mut names = HashSet::from([name]);
        let answers = lookup.answers();
        for _ in 0..answers.len() {
            let targets = answers.iter().filter(|record| names.contains(&record.name));
            let targets: Vec<&Name> = targets
                .filter_map(|record| match &record.data {
                    RData::CNAME(target) => Some(&target.0),
                    _ => None,
                })
                .collect();
            let known = names.len();
            names.extend(targets);
            if names.len() == known {
                break;
            }
        }
        let own = answers.iter().filter(|record| names.contains(&record.name));
        let ttl = own.clone().map(|record| record.ttl).min().unwrap_or_default();
        let records: Vec<T> = own.filter_map(|record| read(&record.data)).collect();
        match records.is_empty() {
            true => Err(NotFound::NoRecords),
            false => Ok(Found { records, ttl: Duration::from_secs(ttl.into()) }),
        }
    }
}

fn listed(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

fn reason(error: NetError) -> NotFound {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => NotFound::NoName,
            ResponseCode::NoError => NotFound::NoRecords,
            code => NotFound::Unanswered(format!("the DNS server answered: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            NotFound::Unanswered(format!("the DNS server answered: {code}"))
        }
        NetError::Timeout => NotFound::Unanswered("no DNS server answered in time".into()),
        error => NotFound::Unanswered(error.to_string()),
    }
}

fn service(data: &RData) -> Option<Service> {
    let RData::SRV(SRV { priority, weight, port, target, .. }) = data else { return None };
    let target = target.to_ascii().to_ascii_lowercase();
    Some(Service { priority: *priority, weight: *weight, port: *port, target })
}

// === impl Addresses ===

impl Addresses {
    /// Whether it is certain that there are none.
    fn is_negative(&self) -> bool {
        let is_negative =
            |family: &Result<_, NotFound>| matches!(family, Err(NotFound::NoName | NotFound::NoRecords));
        is_negative(&self.v4) && is_negative(&self.v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(search: &[&str], ndots: usize, name: &str) -> Vec<String> {
        let mut client = Client::new(&[SocketAddr::from(([127, 0, 0, 1], 1))]).unwrap();
        client.search = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        client.ndots = ndots;
        client.names(&name.parse().unwrap()).iter().map(Name::to_ascii).collect()
    }

    #[tokio::test]
    async fn search_domains_are_added_as_resolv_conf_says() {
        let search = ["ns.svc.cluster.local", "cluster.local."];
        assert_eq!(names(&search, 5, "app"), ["app.ns.svc.cluster.local.", "app.cluster.local.", "app."]);
        assert_eq!(names(&search, 1, "a.b"), ["a.b.", "a.b.ns.svc.cluster.local.", "a.b.cluster.local."]);
        assert_eq!(names(&search, 5, "app."), ["app."]);
        assert_eq!(names(&[], 0, "_http._tcp.app"), ["_http._tcp.app."]);
    }

    #[tokio::test]
    async fn this_machine_is_known_without_a_server() {
        let resolver = Resolver::new(&[SocketAddr::from(([127, 0, 0, 1], 1))]);
        let found = resolver.host("localhost", 80).await.unwrap();
        assert!(found.contains(&SocketAddr::from(([127, 0, 0, 1], 80))), "{found:?}");
        assert!(matches!(resolver.host("no name", 80).await, Err(NotFound::Unanswered(_))));
    }
}
