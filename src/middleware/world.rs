//! What compiling middleware asks of the outside, and what the chains of one configuration share.

use std::{any::Any, cell::RefCell, collections::HashMap, ptr, sync::Arc};

use super::{Context, HeavyWork, Windows, basic_auth, jwt, limit};
use crate::{
    store::Redis,
    telemetry::metrics::Metrics,
    upstream::{Authorities, Caller, Upstream},
    value::{FilePath, Name, Span, Spanned, Url},
};

/// Files as the configuration sees them: read once, and watched.
pub trait Files {
    /// A file's bytes; that there are none is reported by who looks.
    fn read(&self, file: &Spanned<FilePath>) -> Option<Arc<[u8]>>;
    /// A file's text, as [`encoding::text`](crate::value::encoding::text) reads it; that there is none is reported by who looks.
    fn text(&self, file: &Spanned<FilePath>) -> Option<String>;
}

/// Whom parts may ask, and by what.
pub struct Calls<'a> {
    pub caller: Arc<Caller>,
    /// An upstream by its name; that there is none is reported by who looks.
    pub upstreams: Box<FindUpstream<'a>>,
    /// JWK sets that are fetched.
    pub jwks: &'a jwt::Registry,
    /// The Redis that is shared, for what asks for it at a place; that there is none is reported by who looks.
    pub redis: Box<dyn Fn(Span) -> Option<Arc<Redis>> + 'a>,
}

pub type FindUpstream<'a> = dyn Fn(&Spanned<Name>) -> Option<Arc<Upstream>> + 'a;

pub type IsTorn<'a> = dyn Fn(Span) -> bool + 'a;

/// What is the same for every chain of a configuration.
pub struct World<'a> {
    pub files: &'a dyn Files,
    pub heavy_work: HeavyWork,
    pub windows: Windows,
    pub metrics: &'a Metrics,
    pub calls: Calls<'a>,
    /// What limits counted before.
    pub limits: &'a limit::Registry,
    /// What passwords were found right before.
    pub passwords: &'a basic_auth::Registry,
    /// The quotas of this configuration, which must not say two things of one bucket.
    pub quotas: RefCell<limit::Quotas>,
    /// Whether what was written before a place of a chain may be missing from it.
    pub is_torn: Box<IsTorn<'a>>,
    /// Parts by the place in memory of their settings, which stay where they are while chains are compiled.
    made: RefCell<HashMap<usize, Made>>,
}

/// A part, unless its settings are wrong.
type Made = Option<Arc<dyn Any + Send + Sync>>;

impl<'a> World<'a> {
    pub fn new(
        files: &'a dyn Files,
        heavy_work: HeavyWork,
        windows: Windows,
        metrics: &'a Metrics,
        calls: Calls<'a>,
        limits: &'a limit::Registry,
        passwords: &'a basic_auth::Registry,
    ) -> Self {
        Self {
            files,
            heavy_work,
            windows,
            metrics,
            calls,
            limits,
            passwords,
            quotas: RefCell::default(),
            is_torn: Box::new(|_| false),
            made: RefCell::default(),
        }
    }
}

#[cfg(test)]
impl World<'static> {
    /// One without files.
    pub(super) fn for_tests() -> Self {
        struct NoFiles;

        impl Files for NoFiles {
            fn read(&self, _: &Spanned<FilePath>) -> Option<Arc<[u8]>> {
                None
            }

            fn text(&self, _: &Spanned<FilePath>) -> Option<String> {
                None
            }
        }

        let limits = limit::Registry::new(crate::value::Clock::machine());
        let clock = crate::value::Clock::machine();
        let calls = Calls {
            caller: Arc::new(Caller::for_tests()),
            upstreams: Box::new(|_| None),
            jwks: Box::leak(Box::new(jwt::Registry::new(clock))),
            redis: Box::new(|_| None),
        };
        Self::new(
            &NoFiles,
            HeavyWork::default(),
            Windows::default(),
            Box::leak(Box::default()),
            calls,
            Box::leak(Box::new(limits)),
            Box::leak(Box::default()),
        )
    }
}

impl Context<'_> {
    /// Whom to trust at a URL, where that is written as its `ca`.
    pub fn authorities(&mut self, ca: Option<&Spanned<FilePath>>, url: &Url) -> Option<Authorities> {
        Authorities::for_url(ca, url, |file| self.world.files.read(file), self.diagnostics)
    }

    /// A part that is the same wherever its settings apply: made for the first chain, shared by the others, so
    /// that its files are read once and what it remembers counts everywhere.
    pub fn once<C, T>(&mut self, config: &C, make: impl FnOnce(&mut Self) -> Option<T>) -> Option<Arc<T>>
    where
        T: Send + Sync + 'static,
    {
        let place = ptr::from_ref(config).addr();
        let known = self.world.made.borrow().get(&place).cloned();
        let made = known.unwrap_or_else(|| {
            let made = make(self).map(|part| Arc::new(part) as Arc<dyn Any + Send + Sync>);
            self.world.made.borrow_mut().insert(place, made.clone());
            made
        });
        made?.downcast().ok()
    }
}
