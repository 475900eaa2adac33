use clap::{Args, Subcommand};

use super::{
    output::{Exit, print},
    socket::Process,
};
use crate::{
    admin::{
        client::Question,
        upstream::{self, Change, Order},
    },
    value::{Address, Name},
};

/// Changes how the running process uses an endpoint: until it is restarted, reloads included
#[derive(Debug, Args)]
pub struct Upstream {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sends no new requests to an endpoint; those in flight end. Clients of sticky sessions keep it until their cookie expires
    Drain(Drain),
    /// Sends requests to a drained endpoint again
    Undrain(Endpoint),
    /// Gives an endpoint another weight
    Weight(Weight),
}

/// An endpoint of the running process.
#[derive(Debug, Args)]
struct Endpoint {
    /// The upstream's name
    upstream: Name,
    /// The endpoint's address, as `portolan status` shows it
    endpoint: Address,
    #[command(flatten)]
    process: Process,
}

#[derive(Debug, Args)]
struct Weight {
    /// The upstream's name
    upstream: Name,
    /// The endpoint's address, as `portolan status` shows it
    endpoint: Address,
    /// 1 to 1000, or `configured` for the configuration's
    #[arg(value_parser = weight)]
    weight: Written,
    #[command(flatten)]
    process: Process,
}

/// An endpoint that is drained.
#[derive(Debug, Args)]
struct Drain {
    /// Moves clients of sticky sessions to other endpoints at once
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// A weight, or none for the configuration's.
#[derive(Clone, Copy, Debug)]
struct Written(Option<u16>);

impl Upstream {
    pub fn run(self) -> Exit {
        let (order, process, said) = match self.what {
            What::Drain(Drain { all, endpoint: Endpoint { upstream, endpoint, process } }) => {
                let change = if all { Change::DrainAll } else { Change::Drain };
                (Order { upstream, endpoint, change }, process, "is drained".to_owned())
            }
            What::Undrain(Endpoint { upstream, endpoint, process }) => {
                (Order { upstream, endpoint, change: Change::Undrain }, process, "is used again".to_owned())
            }
            What::Weight(Weight { upstream, endpoint, weight: Written(weight), process }) => {
                let said = weight
                    .map_or("has its configured weight".to_owned(), |weight| format!("has weight {weight}"));
                (Order { upstream, endpoint, change: Change::Weight(weight) }, process, said)
            }
        };
        let done = format!("upstream {}: {} {said}", order.upstream, order.endpoint);
        match process.ask(Question::Change(order)) {
            Ok(_) => {
                print(done);
                Exit::Success
            }
            Err(exit) => exit,
        }
    }
}

fn weight(text: &str) -> Result<Written, String> {
    if text == "configured" {
        Ok(Written(None))
    } else {
        upstream::weight(text).map(|weight| Written(Some(weight)))
    }
}
