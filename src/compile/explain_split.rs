//! The sides of a split as `portolan explain` shows them, and the side that a request goes to.

use serde::Serialize;

use crate::action::split::{By, Canary, Decision, Side, Split};

/// The sides of a split, and the one that a request goes to.
#[derive(Clone, Debug, Serialize)]
pub struct Sides {
    /// Nothing where chance decides.
    pub side: Option<String>,
    /// Why it goes there, or how a side is drawn.
    pub why: String,
    pub sides: Vec<OneSide>,
}

/// A side of a split.
#[derive(Clone, Debug, Serialize)]
pub struct OneSide {
    pub name: String,
    pub upstream: String,
    pub weight: u16,
    /// In words; empty: none.
    pub conditions: String,
    /// When it steps back, where it does.
    pub canary: Option<String>,
}

impl Sides {
    pub(super) fn of(split: &Split, decision: &Decision) -> Self {
        let (side, why) = match decision {
            Decision::Side(chosen) => {
                (Some(split.sides[chosen.side].name.to_string()), chosen.why.to_string())
            }
            Decision::Chance => (None, drawn(&split.by)),
        };
        Self { side, why, sides: split.sides.iter().map(OneSide::of).collect() }
    }

    /// For people: the side that it goes to, then all of them.
    pub fn lines(&self) -> Vec<String> {
        let chosen = match &self.side {
            Some(side) => format!("{side}: {}", self.why),
            None => self.why.clone(),
        };
        std::iter::once(chosen).chain(self.sides.iter().map(OneSide::line)).collect()
    }
}

impl OneSide {
    fn of(side: &Side) -> Self {
        Self {
            name: side.name.to_string(),
            upstream: side.proxy.upstream.name.to_string(),
            weight: side.weight,
            conditions: side.conditions.as_ref().map(ToString::to_string).unwrap_or_default(),
            canary: side.canary.as_ref().map(|(canary, _)| said(canary)),
        }
    }

    fn line(&self) -> String {
        let mut line = format!("{}: upstream {}, weight {}", self.name, self.upstream, self.weight);
        if !self.conditions.is_empty() {
            line += &format!(", all requests with {}", self.conditions);
        }
        if let Some(canary) = &self.canary {
            line += &format!(", canary: {canary}");
        }
        line
    }
}

/// How a side is drawn where nothing keeps the request on one.
fn drawn(by: &By) -> String {
    match by {
        By::Chance => "drawn at random by weight".into(),
        By::Key(_) => "drawn at random by weight: the request has no key".into(),
        By::Cookie(name, _) => format!("drawn at random by weight, then kept by cookie {name}"),
    }
}

fn said(canary: &Canary) -> String {
    let failures =
        canary.max_failure_ratio.map(|percent| format!("more than {percent}% of its requests fail"));
    let latency = canary.max_latency.map(|most| format!("more than 5% take longer than {most:?}"));
    let causes: Vec<_> = failures.into_iter().chain(latency).collect();
    format!(
        "steps back for {:?} if of at least {} requests in {:?} {}",
        canary.step_back_for,
        canary.min_requests,
        canary.window,
        causes.join(" or ")
    )
}
