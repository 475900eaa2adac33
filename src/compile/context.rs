//! What every pass sees: the document, the files, and where problems go.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use super::{Registries, access_log::Rotations, alike::Alike, names::Names, redis};
use crate::{
    action::proxy::Proxy,
    config::{Delegated, Document, Inputs, document::File, endpoints_file},
    diagnostic::{Code, Diagnostic, Diagnostics, Sources},
    matcher::Conditions,
    middleware::Files,
    upstream::{AdminAddresses, Denied, EndpointsFile, discovery::ReadEndpoints},
    value::{FileId, FilePath, Name, Span, Spanned, encoding},
};

pub(super) struct Context<'a> {
    pub document: &'a Document,
    pub sources: &'a Sources,
    pub inputs: &'a Inputs,
    pub registries: &'a Registries,
    pub names: Names<'a>,
    pub report: Report,
    pub rotations: Rotations,
    pub redis: redis::Shared,
    pub alike: RoutesParts,
    /// Whether something asks the configured DNS servers.
    asks_resolvers: Cell<bool>,
    /// The files that others than the operator write.
    delegated: HashMap<FileId, &'a Delegated>,
}

/// Parts that routes share.
#[derive(Default)]
pub(super) struct RoutesParts {
    pub proxies: Alike<Proxy>,
    pub conditions: Alike<Conditions>,
    pub captures: Alike<[Box<str>]>,
}

/// The problems found so far. One found again, as a shared chain's on each route, is told once.
#[derive(Default)]
pub(super) struct Report {
    found: RefCell<Diagnostics>,
    told: RefCell<HashSet<(Code, Option<Span>, String)>>,
    /// What is not told at the moment.
    muted: Cell<&'static [Code]>,
}

impl<'a> Context<'a> {
    pub fn new(
        document: &'a Document,
        sources: &'a Sources,
        inputs: &'a Inputs,
        registries: &'a Registries,
    ) -> Self {
        let names = Names::of(document, sources);
        let of_file = |delegated: &'a Arc<Delegated>| delegated.files().map(|file| (file, &**delegated));
        let delegated = document.delegated.iter().flat_map(of_file).collect();
        let report = Report::default();
        let mut cx = Self {
            document,
            sources,
            inputs,
            registries,
            names,
            report,
            redis: redis::Shared::default(),
            alike: RoutesParts::default(),
            rotations: Rotations::default(),
            asks_resolvers: Cell::new(false),
            delegated,
        };
        cx.redis = redis::Shared::compile(&cx);
        cx
    }

    /// Reports that something is nowhere, unless it may be among what was left out of a section.
    pub fn lacks(&self, section: &str, problem: Diagnostic) {
        if !self.document.left_out.may_have_some(section) {
            self.report.push(problem);
        }
    }

    /// Reports that nothing has to do with something, unless what was left out may.
    pub fn idle(&self, problem: Diagnostic) {
        if self.document.left_out.is_empty() {
            self.report.push(problem);
        }
    }

    /// A file's bytes; what cannot be read is reported.
    pub fn read(&self, file: &File) -> Option<Arc<[u8]>> {
        let path = self.path(file);
        let content = match self.delegated.get(&file.span.file) {
            None => self.inputs.read(&path),
            Some(Delegated { source, roots, .. }) => match source {
                Some(source) => source.inputs.read_within(&path, roots),
                None => Err(Inputs::OUTSIDE.into()),
            },
        };
        match content {
            Ok(content) => Some(content),
            Err(reason) => {
                let message = format!("{} cannot be read", path.display());
                let is_outside = reason == Inputs::OUTSIDE;
                let code = if is_outside { Code::OutsideRoots } else { Code::UnreadableFile };
                self.report.error(code, file.span, message, reason);
                None
            }
        }
    }

    /// A file's text; what cannot be read or is not text is reported.
    pub fn read_text(&self, file: &File) -> Option<String> {
        let content = self.read(file)?;
        let text = encoding::text(&content).map(Cow::into_owned);
        text.inspect_err(|reason| {
            let message = format!("{} cannot be read", self.path(file).display());
            self.report.error(Code::NotUtf8, file.span, message, reason.to_string());
        })
        .ok()
    }

    /// The DNS servers that names are asked of; none: the system's.
    pub fn resolvers(&self) -> Arc<[SocketAddr]> {
        self.document.resolvers.iter().map(|server| server.value.0).collect()
    }

    /// Something asks the DNS servers for names.
    pub fn asks_resolvers(&self) {
        self.asks_resolvers.set(true);
    }

    pub fn warn_of_unused_resolvers(&self) {
        if let Some(first) = self.document.resolvers.first().filter(|_| !self.asks_resolvers.get()) {
            let message = "nothing asks these DNS servers";
            let help = "endpoints with names and routes that forward do: endpoints: [\"app:3000\"]";
            self.idle(Diagnostic::warning(Code::Unused, first.span, message).help(help));
        }
    }

    /// A file of endpoints: it is none of what is compiled, but read again and again while that serves.
    pub fn endpoints_file(&self, file: &File) -> EndpointsFile {
        let path = self.path(file);
        let (inputs, roots) = match self.delegated.get(&file.span.file) {
            None => (Some(self.inputs.anew()), None),
            Some(Delegated { source, roots, .. }) => {
                (source.as_ref().map(|source| source.inputs.anew()), Some(roots.as_slice().into()))
            }
        };
        let (at, within): (_, Option<Arc<[PathBuf]>>) = (path.clone(), roots.clone());
        let read = move || {
            let inputs = inputs.as_ref().ok_or(Inputs::OUTSIDE)?.anew();
            let content = match &within {
                None => inputs.read(&at),
                Some(roots) => inputs.read_within(&at, roots),
            };
            endpoints_file(&at, content)
        };
        EndpointsFile { path, roots, read: ReadEndpoints(Arc::new(read)) }
    }

    /// The include of a tenant's own definition.
    pub fn delegated_by(&self, name: &Name) -> Option<&'a Delegated> {
        let (tenant, _) = name.owned()?;
        let mut all = self.document.delegated.iter().map(|delegated| &**delegated);
        all.find(|delegated| delegated.grant.tenant.as_str() == tenant)
    }

    /// Where no upstream of this owner may lead.
    pub fn denied_to(&self, name: &Name) -> Denied {
        let delegated = self.delegated_by(name);
        delegated.map(|delegated| delegated.denied.and_admin(&self.admin())).unwrap_or_default()
    }

    /// Where no forward target of this owner may lead: clients choose them, so the admin API is denied to the operator's
    /// routes as well.
    pub fn denied_to_clients_of(&self, name: &Name) -> Denied {
        let delegated = self.delegated_by(name);
        delegated.map(|delegated| delegated.denied.clone()).unwrap_or_default().and_admin(&self.admin())
    }

    fn admin(&self) -> AdminAddresses {
        let configured = self.document.admin.as_ref().map(|admin| &admin.bind.value);
        self.registries.admin.and(configured)
    }

    /// Reports a regular expression that is none, at the characters meant where these can be told.
    pub fn bad_regex(&self, span: Span, message: &str) {
        let said = message.lines().last().unwrap_or_default();
        let reason = said.strip_prefix("error: ").unwrap_or(said);
        let text = "this is no regular expression";
        self.report.error(Code::BadRegex, self.carets(span, message).unwrap_or(span), text, reason);
    }

    /// What the regex crate underlines, where the expression stands as written between quotes.
    fn carets(&self, span: Span, message: &str) -> Option<Span> {
        let mut lines = message.lines().skip(1);
        let (text, carets) = (lines.next()?.strip_prefix("    ")?, lines.next()?.strip_prefix("    ")?);
        let quote = self.sources.written(span).find(text)?;
        let (before, length) = (carets.find('^')?, carets.matches('^').count());
        let start = span.start
            + u32::try_from(quote + text.char_indices().nth(before).map_or(text.len(), |(at, _)| at)).ok()?;
        Some(Span { start, end: start + u32::try_from(length).ok()?, ..span })
    }

    pub fn path(&self, file: &Spanned<FilePath>) -> std::path::PathBuf {
        self.sources.resolve(file.span.file, &file.value)
    }
}

impl Files for Context<'_> {
    fn read(&self, file: &File) -> Option<Arc<[u8]>> {
        self.read(file)
    }

    fn text(&self, file: &File) -> Option<String> {
        self.read_text(file)
    }
}

impl Report {
    pub fn push(&self, diagnostic: Diagnostic) {
        let place = diagnostic.labels.first().map(|label| label.span);
        let key = (diagnostic.code, place, diagnostic.message.clone());
        if self.muted.get().contains(&diagnostic.code) {
            return;
        }
        if self.told.borrow_mut().insert(key) {
            self.found.borrow_mut().push(diagnostic);
        }
    }

    pub fn error(&self, code: Code, span: Span, message: impl Into<String>, reason: impl Into<String>) {
        self.push(Diagnostic::error(code, span, message).reason(reason));
    }

    /// Runs what pushes its problems to a list.
    pub fn collect<T>(&self, run: impl FnOnce(&mut Diagnostics) -> T) -> T {
        let mut diagnostics = Diagnostics::default();
        let made = run(&mut diagnostics);
        diagnostics.iter().for_each(|diagnostic| self.push(diagnostic.clone()));
        made
    }

    /// Runs what may find problems of these kinds only because something else is wrong.
    pub fn muted<T>(&self, codes: &'static [Code], run: impl FnOnce() -> T) -> T {
        let outside = self.muted.replace(codes);
        let made = run();
        self.muted.set(outside);
        made
    }

    pub fn has(&self, code: Code) -> bool {
        self.found.borrow().iter().any(|diagnostic| diagnostic.code == code)
    }

    pub fn into_diagnostics(self) -> Diagnostics {
        self.found.into_inner()
    }
}
