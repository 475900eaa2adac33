//! A request to one of several upstreams: the side that it goes to, and how it ended there.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};

use crate::{
    action::{
        proxy::Proxy,
        split::{By, Ended, Phase, Split, Why},
    },
    error::{Blame, Reason},
    http::cookie,
    matcher::Head,
    middleware::Exchange,
    upstream,
    value::Name,
};

/// The side of one request.
pub(super) struct SplitSide {
    split: Arc<Split>,
    side: usize,
    /// What keeps the user there, where that is a cookie that the user has not.
    cookie: Option<HeaderValue>,
    /// Whether the response that came was a failure, where one came.
    answered: Option<bool>,
}

// === impl SplitSide ===

impl SplitSide {
    /// Chooses a side, and takes the cookie that names one out of the request.
    pub fn choose(split: &Arc<Split>, exchange: &mut Exchange) -> Box<Self> {
        let headers = &exchange.head.headers;
        let head = Head {
            method: &exchange.method,
            headers,
            query: exchange.query.as_deref(),
            client_ip: exchange.client_ip,
            to_proxy: exchange.to_proxy,
        };
        let facts = upstream::Facts {
            client_ip: exchange.client_ip,
            host: &exchange.host,
            path: &exchange.path,
            query: exchange.query.as_deref(),
            headers,
        };
        let chosen = split.choose(&head, &facts, fastrand::u64(..));
        let mut cookie = None;
        if let By::Cookie(name, attributes) = &split.by {
            let side = &split.sides[chosen.side];
            // Conditions hold for a request, not for a user. A canary on trial gets its users when it is steady again.
            let keeps = chosen.why == Why::Chance && side.phase() == Phase::Steady;
            if keeps {
                let is_https = exchange.scheme == "https";
                cookie = attributes.set_cookie(name.as_str(), side.name.as_str(), is_https);
            }
            if cookie::values(headers, name.as_str()).next().is_some() {
                cookie::remove(&mut exchange.head.headers, name.as_str());
            }
        }
        let chosen = Self { split: split.clone(), side: chosen.side, cookie, answered: None };
        chosen.split.sides[chosen.side].metrics.chosen();
        Box::new(chosen)
    }

    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.split.sides[self.side].proxy
    }

    pub fn name(&self) -> &Name {
        &self.split.sides[self.side].name
    }

    /// The response that came after this time goes to the client. Gives the cookie that it is to get with it.
    pub fn answered(&mut self, status: StatusCode, after: Duration) -> Option<HeaderValue> {
        let failed = status.is_server_error();
        self.answered = Some(failed);
        if self.split.has_canary() {
            self.split.ended(self.side, Ended { failed, after });
        }
        self.cookie.take()
    }

    /// The request is over. `failure`: why it failed, where it did, after this time.
    pub fn ended(&self, failure: Option<Reason>, after: Duration) {
        if !self.split.has_canary() || failure.is_none_or(|reason| reason.blame() != Blame::Upstream) {
            return;
        }
        match self.answered {
            None => self.split.ended(self.side, Ended { failed: true, after }),
            Some(false) => self.split.broke(self.side),
            Some(true) => {}
        }
    }
}
