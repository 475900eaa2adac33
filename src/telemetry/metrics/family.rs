//! The forms that metrics have.

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, core::Collector,
};

pub(super) type FloatCounter = CounterVec;
pub(super) type FloatGauge = GaugeVec;
pub(super) type Histograms = HistogramVec;

/// Upper bounds of durations, in seconds: from a local answer to what people have given up on.
pub(super) const DURATIONS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// All series of one name.
pub(super) trait Family: Collector + Clone + Sized + 'static {
    const KIND: &'static str;

    fn make(name: &str, help: &str, labels: &[&str]) -> Self;
}

macro_rules! family {
    ($family:ident, $kind:literal) => {
        impl Family for $family {
            const KIND: &'static str = $kind;

            fn make(name: &str, help: &str, labels: &[&str]) -> Self {
                Self::new(Opts::new(name, help), labels)
                    .expect("names and labels of the table are valid for Prometheus")
            }
        }
    };
}

family!(IntCounterVec, "counter");
family!(FloatCounter, "counter");
family!(IntGaugeVec, "gauge");
family!(FloatGauge, "gauge");

impl Family for Histograms {
    const KIND: &'static str = "histogram";

    fn make(name: &str, help: &str, labels: &[&str]) -> Self {
        let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
        Self::new(options, labels).expect("names and labels of the table are valid for Prometheus")
    }
}
