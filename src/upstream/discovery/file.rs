//! A file that lists endpoints. It is read again when it changes.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use pingora::lb::{Backend, discovery::ServiceDiscovery};
use tokio::task::spawn_blocking;

use super::{Discovery, Facts, FoundEndpoint, LastRemark, Remark, answer, failed};
use crate::value::Address;

/// Reads a file's endpoints with their weights, or says what is wrong with it.
#[derive(Clone)]
pub struct ReadEndpoints(pub Arc<dyn Fn() -> Listed + Send + Sync>);

/// Endpoints with their weights, or what is wrong.
pub type Listed = Result<Vec<(Address, u16)>, String>;

/// Finds the endpoints that a file lists.
pub struct File {
    read: ReadEndpoints,
    remark: LastRemark,
}

impl fmt::Debug for ReadEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadEndpoints")
    }
}

impl File {
    pub fn new(read: ReadEndpoints) -> Self {
        Self { read, remark: LastRemark::default() }
    }
}

#[async_trait]
impl ServiceDiscovery for File {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let read = self.read.clone();
        let listed = spawn_blocking(move || (read.0)()).await.map_err(failed)?.map_err(failed)?;
        if listed.is_empty() {
            return Err(failed("the file lists no endpoint"));
        }
        let facts = Facts { host: None, priority: 0 };
        let found = listed.into_iter().map(|(address, weight)| FoundEndpoint {
            address,
            weight,
            facts: facts.clone(),
        });
        let (answer, cut) = answer(found.collect());
        self.remark.set(Remark { cut, ..Remark::default() });
        Ok(answer)
    }
}

impl Discovery for File {
    fn remark(&self) -> Remark {
        self.remark.get()
    }
}
