//! What would become of a request, and why not something else.

use std::{fmt, time::SystemTime};

use http::HeaderMap;
use serde::Serialize;

use super::{
    explain_split::Sides,
    query::{Answered, Query, QueryError, Refusal},
    routes,
};
use crate::{
    action::split::Decision,
    http::cookie,
    routing::NearMiss,
    snapshot::{Action, Snapshot},
    upstream::{self, Upstream},
};

/// What would become of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub request: String,
    pub listener: String,
    pub host: Option<String>,
    pub tenant: Option<String>,
    /// The route that takes it, where one does.
    pub route: Option<String>,
    /// Why none does.
    pub refused: Option<String>,
    pub parameters: Vec<Parameter>,
    /// Outermost first.
    pub chain: Vec<Part>,
    pub action: String,
    /// The status and fields of a local answer.
    pub answer: Option<Answer>,
    /// The sides of a split, and the one that it goes to.
    pub split: Option<Sides>,
    /// Nothing where chance decides between several.
    pub upstream: Option<Pool>,
    /// Where copies of it go.
    pub mirrors: Vec<String>,
    /// The path and query sent upstream.
    pub sent: Option<String>,
    /// Routes that nearly matched.
    pub near_misses: Vec<Miss>,
}

/// What the path captured.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    pub name: String,
    pub value: String,
}

/// A middleware and where it comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub kind: &'static str,
    pub scope: String,
    /// The named chain that it came by.
    pub chain: Option<String>,
}

/// An answer that Portolan gives by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

/// An upstream with its endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    pub name: String,
    /// How endpoints that fail are dealt with, a line for each setting.
    pub resilience: Vec<String>,
    /// How clients stay at an endpoint, where they do.
    pub sticky: Option<Sticky>,
    pub endpoints: Vec<Endpoint>,
    /// Where others are found while it serves.
    pub sources: Vec<String>,
}

/// How clients stay at an endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Sticky {
    pub cookie: String,
    pub ttl_seconds: u64,
    /// Whether the key is configured. A generated one is not that of another process.
    pub has_configured_key: bool,
    /// The endpoint that the request's cookie names, or why it names none; nothing where it has no cookie.
    pub named: Option<String>,
}

/// An endpoint that could be chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    pub address: String,
    pub weight: u16,
    pub healthy: bool,
    /// Endpoints of a lower one are used first.
    pub priority: u32,
    pub zone: Option<String>,
}

/// A route that nearly matched.
#[derive(Clone, Debug, Serialize)]
pub struct Miss {
    pub route: String,
    pub pattern: String,
    /// Why the path does not match, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The conditions that are not met.
    pub failed: Vec<String>,
}

/// Says what would become of a request.
pub fn explain(snapshot: &Snapshot, query: &Query) -> Result<Explanation, QueryError> {
    let answered = query.answer(&snapshot.listeners)?;
    let route = answered.route;
    let host = route.names.host.as_ref();
    let split = answered.split();
    let upstream = match (answered.upstreams().as_slice(), &split) {
        ([upstream], _) | ([upstream, ..], Some((_, Decision::Side(_)))) => {
            Some(pool(upstream, &query.headers))
        }
        _ => None,
    };
    let proxy = match &route.action {
        Action::Proxy(proxy) => Some(proxy),
        Action::Split(split) => Some(split.any_proxy()),
        _ => None,
    };
    Ok(Explanation {
        request: format!("{} {}://{}{}", query.method, query.scheme.as_str(), query.host, query.path),
        listener: answered.listener.name.to_string(),
        host: host.map(ToString::to_string),
        tenant: route.names.tenant.as_ref().map(ToString::to_string),
        route: answered.refusal.is_none().then(|| route.names.route.to_string()),
        refused: answered.refusal.as_ref().map(Refusal::said),
        parameters: parameters(&answered),
        chain: chain(&answered),
        action: routes::action(&route.action),
        answer: answered.local().map(|answer| Answer {
            status: answer.status().as_u16(),
            fields: answer.headers().iter().map(|(name, value)| field(name, value)).collect(),
        }),
        split: split.map(|(split, decision)| Sides::of(split, &decision)),
        upstream,
        mirrors: proxy
            .map(|proxy| proxy.mirrors.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        sent: answered.sent(),
        near_misses: near_misses(&answered),
    })
}

fn parameters(answered: &Answered<'_, '_>) -> Vec<Parameter> {
    let value = |index| answered.params.get(index, &answered.path).to_owned();
    let names = answered.route.captures.iter().enumerate();
    names.map(|(index, name)| Parameter { name: name.to_string(), value: value(index) }).collect()
}

fn chain(answered: &Answered<'_, '_>) -> Vec<Part> {
    let parts = answered.route.chain.parts().iter();
    parts
        .map(|part| Part {
            kind: part.kind,
            scope: part.site.scope.to_string(),
            chain: part.site.chain.as_ref().map(ToString::to_string),
        })
        .collect()
}

fn field(name: &http::HeaderName, value: &http::HeaderValue) -> (String, String) {
    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn pool(upstream: &Upstream, headers: &HeaderMap) -> Pool {
    let set = upstream.endpoints();
    let endpoints = set.iter().map(|endpoint| Endpoint {
        address: endpoint.address.to_string(),
        weight: endpoint.shown_weight(),
        healthy: endpoint.is_healthy(),
        priority: endpoint.priority,
        zone: endpoint.zone.as_ref().map(ToString::to_string),
    });
    let resilience = upstream.resilience.lines();
    let sources = upstream.sources();
    let sources = sources.iter().map(|source| source.definition().to_string());
    Pool {
        name: upstream.name.to_string(),
        resilience,
        sticky: upstream.sticky.as_ref().map(|sticky| self::sticky(sticky, upstream, headers)),
        endpoints: endpoints.collect(),
        sources: sources.collect(),
    }
}

fn sticky(sticky: &upstream::Sticky, upstream: &Upstream, headers: &HeaderMap) -> Sticky {
    let now = SystemTime::now();
    let named = |value: &[u8]| match sticky.read(value, now) {
        Ok(ticket) => match upstream.endpoints().of_code(ticket.endpoint) {
            Some(endpoint) => endpoint.shown.to_string(),
            None => "an endpoint that is not there".to_owned(),
        },
        Err(rejected) => format!("no endpoint ({})", rejected.cause()),
    };
    Sticky {
        cookie: sticky.cookie().to_owned(),
        ttl_seconds: sticky.ttl().as_secs(),
        has_configured_key: sticky.has_configured_key(),
        named: cookie::values(headers, sticky.cookie()).next().map(named),
    }
}

fn near_misses(answered: &Answered<'_, '_>) -> Vec<Miss> {
    let (query, route) = (answered.query, answered.route);
    if answered.listener.redirect_from(query.scheme.as_str()).is_some() {
        return Vec::new();
    }
    let misses = answered.listener.table.nearest(&query.host, &answered.path, &query.facts()).into_iter();
    // That "/" is exact is of interest to a request that no route takes.
    let is_near = |miss: &NearMiss| miss.route != route.names.route && miss.pattern != "/";
    let other = |miss: &NearMiss| answered.refusal.is_some() || is_near(miss);
    let miss =
        |NearMiss { route, pattern, path, failed }| Miss { route: route.to_string(), pattern, path, failed };
    misses.filter(other).map(miss).collect()
}

/// For people: a line for each thing that there is to say.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |key: &str, value: &str| writeln!(f, "{key:<11} {value}");
        line("request", &self.request)?;
        line("listener", &self.listener)?;
        line("host", self.host.as_deref().unwrap_or("none"))?;
        if let Some(tenant) = &self.tenant {
            line("tenant", tenant)?;
        }
        match (&self.route, &self.refused) {
            (Some(route), _) => line("route", route)?,
            (None, refused) => line("route", &format!("none: {}", refused.as_deref().unwrap_or_default()))?,
        }
        for (place, parameter) in self.parameters.iter().enumerate() {
            let key = if place == 0 { "parameters" } else { "" };
            line(key, &format!("{} = {}", parameter.name, parameter.value))?;
        }
        for (place, part) in self.chain.iter().enumerate() {
            let by = part.chain.as_ref().map(|chain| format!(", by chain {chain}")).unwrap_or_default();
            line(if place == 0 { "chain" } else { "" }, &format!("{} ({}{by})", part.kind, part.scope))?;
        }
        line("action", &self.action)?;
        if let Some(answer) = &self.answer {
            line("answer", &answer.status.to_string())?;
            for (name, value) in &answer.fields {
                line("", &format!("{name}: {value}"))?;
            }
        }
        if let Some(sent) = &self.sent {
            line("sends", sent)?;
        }
        for (place, text) in self.split.iter().flat_map(Sides::lines).enumerate() {
            line(if place == 0 { "split" } else { "" }, &text)?;
        }
        for (place, endpoint) in self.upstream.iter().flat_map(|pool| &pool.endpoints).enumerate() {
            let health = if endpoint.healthy { "healthy" } else { "unhealthy" };
            let mut text = format!("{}, weight {}, {health}", endpoint.address, endpoint.weight);
            match endpoint.priority {
                0 => {}
                u32::MAX => text += ", backup",
                priority => text += &format!(", priority {priority}"),
            }
            if let Some(zone) = &endpoint.zone {
                text += &format!(", zone {zone}");
            }
            line(if place == 0 { "endpoints" } else { "" }, &text)?;
        }
        for (place, said) in self.upstream.iter().flat_map(|pool| &pool.resilience).enumerate() {
            line(if place == 0 { "failures" } else { "" }, said)?;
        }
        if let Some(sticky) = self.upstream.as_ref().and_then(|pool| pool.sticky.as_ref()) {
            line("sticky", &sticky.to_string())?;
        }
        for (place, source) in self.upstream.iter().flat_map(|pool| &pool.sources).enumerate() {
            line(if place == 0 { "discovery" } else { "" }, source)?;
        }
        for (place, mirror) in self.mirrors.iter().enumerate() {
            line(if place == 0 { "mirror" } else { "" }, mirror)?;
        }
        for (place, miss) in self.near_misses.iter().enumerate() {
            line(if place == 0 { "near misses" } else { "" }, &miss.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie {} for {}s", self.cookie, self.ttl_seconds)?;
        if let Some(named) = &self.named {
            write!(f, ", names {named}")?;
        }
        match self.has_configured_key {
            true => Ok(()),
            false => {
                f.write_str("; the key is generated at start: several instances, and a restart, need `key`")
            }
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = (!self.failed.is_empty()).then(|| format!("not met: {}", self.failed.join(", ")));
        let reasons: Vec<String> = self.path.clone().into_iter().chain(conditions).collect();
        write!(f, "{} {}: {}", self.route, self.pattern, reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::compile::{cases::sound, routes::rows};

    const TREE: &str = r#"
listeners:
  web: { bind: ":80", redirect: { scheme: https } }
  secure: { bind: ":443", tls: { certificates: [local] } }
certificates: { local: { self_signed: [localhost] } }
middleware: { edge: [recover: {}] }
upstreams: { api: { endpoints: ["127.0.0.1:1", { address: "127.0.0.1:2", weight: 3 }] } }
hosts:
  www:
    names: [www.example.com, "*.example.org"]
    middleware: [edge]
    routes:
      stream: { path: "/api/{id}", methods: [GET], headers: { X-Beta: 1 }, proxy: { upstream: api, rewrite: "/v2/{id}" } }
      old: { path: "/api/**", redirect: { to: "/new" } }
"#;

    fn explained(method: Method, url: &str, beta: bool) -> Explanation {
        let mut headers = HeaderMap::new();
        if beta {
            headers.insert("x-beta", "1".parse().unwrap());
        }
        explain(&sound(TREE), &Query::new(method, url, headers).unwrap()).unwrap()
    }

    #[test]
    fn a_proxied_request_is_explained() {
        let said = explained(Method::GET, "https://www.example.com/api/7?x=1", true);
        let expected = "\
request     GET https://www.example.com/api/7
listener    secure
host        www
route       stream
parameters  id = 7
chain       recover (host www, by chain edge)
action      proxy api
sends       /v2/7?x=1
endpoints   127.0.0.1:1, weight 1, healthy
            127.0.0.1:2, weight 3, healthy
failures    5 failures in a row eject an endpoint for 5s, 50% at most
";
        assert_eq!(said.to_string(), expected);
        let json = serde_json::to_value(&said).unwrap();
        assert_eq!(json["upstream"]["endpoints"][1]["weight"], 3);
        let ejects = "5 failures in a row eject an endpoint for 5s, 50% at most";
        assert_eq!(json["upstream"]["resilience"], serde_json::json!([ejects]));
    }

    #[test]
    fn near_misses_say_what_failed() {
        let said = explained(Method::GET, "https://a.example.org/api/7", false);
        assert_eq!((said.route.as_deref(), said.answer.as_ref().unwrap().status), (Some("old"), 308));
        assert_eq!(said.near_misses.len(), 1, "{said}");
        assert_eq!(said.near_misses[0].route, "stream");
        assert_eq!(said.near_misses[0].to_string().matches("not met: header").count(), 1, "{said}");
        let case = explained(Method::GET, "https://www.example.com/API/7", true);
        assert!(case.to_string().contains("upper and lower case differ"), "{case}");
        let none = explained(Method::GET, "https://www.example.com/ap", false);
        assert_eq!((none.route, none.answer.unwrap().status), (None, 404));
    }

    #[test]
    fn a_listener_that_redirects_all_is_explained() {
        let said = explained(Method::GET, "http://anything.test/a", false);
        let location = ("location".to_owned(), "https://anything.test/a".to_owned());
        assert_eq!(said.answer.unwrap().fields, [location]);
        let nowhere = Query::new(Method::GET, "http://a:81/", HeaderMap::new()).unwrap();
        assert!(matches!(explain(&sound(TREE), &nowhere), Err(QueryError::NoListener { port: 81, .. })));
    }

    #[test]
    fn rows_stand_in_the_order_of_lookup() {
        let rows = rows(&sound(TREE));
        let brief: Vec<_> =
            rows.iter().map(|row| format!("{} {} {}", row.listener, row.pattern, row.action)).collect();
        assert_eq!(
            brief,
            ["secure /api/{id} proxy api", "secure /api/** redirect 308", "web /** redirect 308"]
        );
        assert_eq!(
            (rows[0].methods.join(","), rows[0].chain.as_slice()),
            ("GET,HEAD".into(), &["recover"][..])
        );
        assert_eq!(rows[0].names, ["www.example.com", "*.example.org"]);
    }

    #[test]
    fn what_is_made_to_a_proxy_is_explained_where_that_is_said() {
        let tree = r#"
listeners: { egress: { bind: ":3128" } }
hosts: { any: { names: ["*"], routes: { out: { path: "/**", forward: { targets: ["10.0.0.0/8:80"] } } } } }
"#;
        let explained = |method, url, to_proxy| {
            let query = Query::new(method, url, HeaderMap::new()).unwrap();
            explain(&sound(tree), &Query { to_proxy, listener: "egress".parse().ok(), ..query }).unwrap()
        };
        let said = explained(Method::GET, "http://10.0.0.1/a", true);
        assert_eq!((said.route.as_deref(), said.action.as_str()), (Some("out"), "forward"));
        assert!(said.answer.is_none() && said.near_misses.is_empty(), "{said}");
        let tunnel = explained(Method::CONNECT, "http://10.0.0.1:80", false);
        assert_eq!(tunnel.route.as_deref(), Some("out"));
        let secure = explained(Method::GET, "https://10.0.0.1/a", true);
        assert_eq!((secure.route, secure.answer.unwrap().status), (None, 501));
        let own = explained(Method::GET, "http://10.0.0.1/a", false);
        assert_eq!(own.answer.unwrap().status, 405);
        assert_eq!(own.near_misses[0].failed, ["made to a proxy"]);
    }
}
