//! The stable codes of problems. A code once released keeps its meaning.

macro_rules! codes {
    ($($variant:ident = $text:literal,)*) => {
        /// What kind of problem it is, for machines and for searching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }
    };
}

codes! {
    // files and syntax
    UnreadableFile = "unreadable-file",
    NotUtf8 = "not-utf8",
    TooLarge = "too-large",
    TooDeep = "too-deep",
    TooManyNodes = "too-many-nodes",
    Syntax = "syntax",
    Tab = "tab",
    UnquotedBraces = "unquoted-braces",
    DuplicateKey = "duplicate-key",
    UnknownAnchor = "unknown-anchor",
    EmptyFile = "empty-file",
    // inclusion, uniting, substitution
    IncludeLoop = "include-loop",
    IncludeMissing = "include-missing",
    BadGlob = "bad-glob",
    DuplicateName = "duplicate-name",
    DuplicateSection = "duplicate-section",
    OverrideTarget = "override-target",
    UnsetVariable = "unset-variable",
    BadSubstitution = "bad-substitution",
    // shape
    NotDelegated = "not-delegated",
    OutsideRoots = "outside-roots",
    UnknownKey = "unknown-key",
    NotSupportedYet = "not-supported-yet",
    WrongType = "wrong-type",
    MissingKey = "missing-key",
    MissingUnit = "missing-unit",
    BadValue = "bad-value",
    // meaning
    UnknownName = "unknown-name",
    ChainLoop = "chain-loop",
    BadRegex = "bad-regex",
    BadTemplate = "bad-template",
    BadPattern = "bad-pattern",
    BadCertificate = "bad-certificate",
    CertificateMismatch = "certificate-mismatch",
    ListenerConflict = "listener-conflict",
    ListenerUnreachable = "listener-unreachable",
    BindFailed = "bind-failed",
    HostNowhere = "host-nowhere",
    HostConflict = "host-conflict",
    ForbiddenHost = "forbidden-host",
    AmbiguousRoutes = "ambiguous-routes",
    ShadowedRoute = "shadowed-route",
    ExactRoot = "exact-root",
    NoAction = "no-action",
    SeveralActions = "several-actions",
    NoEffect = "no-effect",
    Unused = "unused",
    NoEndpoints = "no-endpoints",
    BadEndpointsFile = "bad-endpoints-file",
    DeniedAddress = "denied-address",
    InsecureUpstream = "insecure-upstream",
    UnprotectedIdentity = "unprotected-identity",
    RestartNeeded = "restart-needed",
    FailedTest = "failed-test",
}
