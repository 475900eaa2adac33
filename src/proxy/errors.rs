//! Our reasons as errors of Pingora, and back.

use pingora::{Error, ErrorType};

use super::session::ClientError;
use crate::error::Reason;

/// The name of errors that carry one of our reasons: its code is [`Reason`]'s place in [`Reason::ALL`].
const OURS: &str = "portolan";

/// The name of the error that ends a complete exchange whose upstream connection is to be closed.
const END: &str = "end";

/// The end of an exchange that is complete, and whose upstream connection is to be closed.
pub(super) fn end() -> Box<Error> {
    let mut end = Error::new(ErrorType::Custom(END));
    end.set_retry(false);
    end
}

/// Whether an error is the end of an exchange that is complete.
pub(super) fn is_end(error: &Error) -> bool {
    *error.root_etype() == ErrorType::Custom(END)
}

/// An error that carries the reason through Pingora.
pub(super) fn ours(reason: Reason) -> Box<Error> {
    let place = Reason::ALL.iter().position(|listed| *listed == reason).unwrap_or_default();
    let mut error = Error::new(ErrorType::CustomCode(OURS, u16::try_from(place).unwrap_or_default()));
    error.set_retry(false);
    error
}

/// The reason that an error carries, where it is one of ours.
pub(super) fn reason_of(error: &Error) -> Option<Reason> {
    match error.root_etype() {
        ErrorType::CustomCode(OURS, place) => Reason::ALL.get(usize::from(*place)).copied(),
        _ => None,
    }
}

pub(super) fn gone(error: ClientError) -> Box<Error> {
    ours(error.reason()).into_down()
}
