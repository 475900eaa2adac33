//! The A and AAAA records of a name.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use async_trait::async_trait;
use pingora::lb::{Backend, discovery::ServiceDiscovery};

use super::{
    Discovery, Facts, FoundEndpoint, LastRemark, Remark, answer, failed, name::Followed, resolver::Resolver,
};
use crate::value::{Address, HostPort};

/// Finds every address of a name.
pub struct Dns {
    name: HostPort,
    followed: Followed,
    resolver: Arc<Resolver>,
    remark: LastRemark,
}

impl Dns {
    pub fn new(name: HostPort, resolver: Arc<Resolver>) -> Self {
        Self { followed: Followed::new(name.host.clone()), name, resolver, remark: LastRemark::default() }
    }
}

#[async_trait]
impl ServiceDiscovery for Dns {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let resolved = self.followed.resolve(&self.resolver).await.map_err(failed)?;
        let facts = Facts { host: Some(self.name.clone()), priority: 0 };
        let found = resolved.addresses.into_iter().map(|ip| FoundEndpoint {
            address: Address::Tcp(SocketAddr::new(ip, self.name.port)),
            weight: 1,
            facts: facts.clone(),
        });
        let (answer, cut) = answer(found.collect());
        self.remark.set(Remark { ttl: Some(resolved.ttl), problem: resolved.unanswered, cut });
        Ok(answer)
    }
}

impl Discovery for Dns {
    fn remark(&self) -> Remark {
        self.remark.get()
    }
}
