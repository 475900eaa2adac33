//! Upstream connections that are reserved for one client connection, because a login signs in the connection.

use std::sync::Arc;

use super::{
    call::Call,
    downstream::{Downstream, Progress},
    patience::patiently,
    session::Session,
};
use crate::error::Reason;

/// Whether requests of this client to this destination have upstream connections of their own.
pub(super) fn is_reserved<S: Session>(downstream: &Downstream<S>, call: &Call) -> bool {
    let reservations = &downstream.exchange.connection.reservations;
    !reservations.is_empty() && reservations.has(&call.destination())
}

/// Has a request carried out on an upstream connection that is reserved for its client's connection.
pub(super) async fn reserve<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    signs_in: bool,
) -> Result<(), Reason> {
    let connection = downstream.exchange.connection.clone();
    let destination = call.destination().into_owned();
    let leasing = connection.reservations.lease(&destination, signs_in);
    let lease = Arc::new(patiently(leasing, &mut downstream.session, None).await?);
    downstream.lease = Some(lease.clone());
    call.reserve(lease, signs_in);
    Ok(())
}

/// The exchange is over: a reserved connection is kept for the client's next request, and one is reserved where the response
/// asked for credentials.
pub(super) fn settle<S: Session>(downstream: &Downstream<S>, call: &Call) {
    match &downstream.lease {
        Some(lease) if downstream.progress() == Progress::Ended => lease.set_intact(),
        Some(_) => {}
        None if call.is_challenged() => {
            let (destination, endpoint) = (call.destination(), call.address_tried());
            downstream.exchange.connection.reservations.reserve(&destination, endpoint);
        }
        None => {}
    }
}
