//! A tenant's document becomes part of the whole: each name that it defines or refers to is the tenant's own,
//! `acme/api`. Listeners are the operator's, and routes have their host's name beside them.

use super::{
    Document,
    document::Chain,
    host::{Host, Route},
    test::Test,
};
use crate::{
    action::proxy,
    middleware,
    value::{Entry, Name, Named, Spanned, TextOr},
};

/// Adds what a tenant defines.
pub fn absorb(document: &mut Document, tenant: &Spanned<Name>, part: Document) {
    let own = Own(tenant);
    // Whoever adds a section to what may be delegated is to be asked here what its names mean.
    let Document { middleware, upstreams, route_sets, hosts, tests, left_out, .. } = part;
    document.middleware.0.extend(own.section(middleware, Own::chain));
    document.upstreams.0.extend(own.section(upstreams, |_, _| {}));
    document.route_sets.0.extend(own.section(route_sets, Own::routes));
    document.hosts.0.extend(own.section(hosts, Own::host));
    document.tests.extend(tests.into_iter().map(|mut test| {
        own.test(&mut test.value);
        test
    }));
    document.left_out.of_tenant(&tenant.value, left_out);
}

struct Own<'a>(&'a Spanned<Name>);

// === impl Own ===

impl Own<'_> {
    fn section<T>(&self, section: Named<T>, inside: impl Fn(&Self, &mut T)) -> Vec<Entry<Name, T>> {
        let mut entries = section.0;
        for entry in &mut entries {
            self.name(&mut entry.name.value);
            inside(self, &mut entry.value);
        }
        entries
    }

    fn name(&self, name: &mut Name) {
        *name = Name::of_tenant(self.0, name);
    }

    fn host(&self, host: &mut Host) {
        host.tenant = Some(self.0.clone());
        host.route_sets.iter_mut().for_each(|set| self.name(&mut set.value));
        self.chain(&mut host.middleware);
        self.routes(&mut host.routes);
    }

    fn routes(&self, routes: &mut Named<Route>) {
        for Entry { value: route, .. } in &mut routes.0 {
            self.chain(&mut route.middleware);
            if let Some(proxy) = &mut route.proxy {
                self.proxy(&mut proxy.value);
            }
        }
    }

    /// Every setting is listed, so that a new one is looked at: one that names an upstream must not name the operator's.
    fn proxy(&self, proxy: &mut proxy::Config) {
        let proxy::Config { upstream, split, mirror, split_by: _, rewrite: _, host_header: _, priority: _ } =
            proxy;
        upstream.iter_mut().for_each(|upstream| self.name(&mut upstream.value));
        for side in split.iter_mut().flat_map(|split| &mut split.value) {
            // It is called by the upstream's own name.
            side.value.name.get_or_insert_with(|| side.value.upstream.clone());
            self.name(&mut side.value.upstream.value);
        }
        for mirror in mirror.iter_mut().flat_map(|mirrors| &mut mirrors.value.0) {
            self.name(&mut mirror.value.upstream.value);
        }
    }

    fn chain(&self, chain: &mut Chain) {
        for item in chain {
            match &mut item.value {
                TextOr::Text(name) => self.name(name),
                TextOr::Map(middleware::Config::RateLimit(limit)) => {
                    limit.bucket.iter_mut().for_each(|bucket| self.name(bucket));
                }
                TextOr::Map(middleware::Config::ForwardAuth(auth)) => {
                    auth.upstream.iter_mut().for_each(|upstream| self.name(&mut upstream.value));
                }
                TextOr::Map(_) => {}
            }
        }
    }

    fn test(&self, test: &mut Test) {
        let expect = &mut test.expect.value;
        let names = expect.host.iter_mut().chain(&mut expect.upstream);
        names.for_each(|name| self.name(&mut name.value));
    }
}
