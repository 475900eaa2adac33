//! The condition on the method. A route that lists GET answers HEAD too (RFC 9110 section 9.3.2).

use std::fmt;

use http::Method;

/// The methods of a route; none listed means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods(Box<[Method]>);

impl Methods {
    /// HEAD is added where GET stands.
    pub fn new(listed: impl IntoIterator<Item = Method>) -> Self {
        let mut methods: Vec<Method> = Vec::new();
        for method in listed {
            let head = (method == Method::GET).then_some(Method::HEAD);
            for method in std::iter::once(method).chain(head) {
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        }
        Self(methods.into())
    }

    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, method: &Method) -> bool {
        self.is_any() || self.0.contains(method)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        self.0.iter()
    }

    /// Whether no method is in both.
    pub fn excludes(&self, other: &Self) -> bool {
        !self.is_any() && !other.is_any() && !self.iter().any(|method| other.contains(method))
    }

    /// Whether every method of the other is in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_any() || (!other.is_any() && other.iter().all(|method| self.contains(method)))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("method is ")?;
        for (place, method) in self.iter().enumerate() {
            let or = if place == 0 { "" } else { " or " };
            write!(f, "{or}{method}")?;
        }
        Ok(())
    }
}
