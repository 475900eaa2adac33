//! An exchange in memory: requests of our own, which have no client.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, response};

use super::{Event, Exchange, Failure, RequestHead};

/// The trailers of a response, among its extensions, where it has some.
#[derive(Clone, Debug)]
pub struct Trailers(pub HeaderMap);

/// Sends a whole request and receives the whole response, whose body has `most` bytes at most.
pub async fn whole(
    exchange: &mut Exchange,
    head: RequestHead<'_>,
    body: Bytes,
    most: usize,
) -> Result<Response<Bytes>, Failure> {
    send(exchange, head, body)?;
    let mut response = None;
    let mut received = BytesMut::new();
    let mut trailers = None;
    loop {
        match poll_fn(|cx| exchange.poll_event(cx)).await? {
            Event::Room | Event::Informational(_) => {}
            Event::Head(parts, _) => response = Some(parts),
            Event::Data(data) if received.len() + data.len() > most => {
                return Err(Failure::protocol(format!("the response body is longer than {most} bytes")));
            }
            Event::Data(data) => received.extend_from_slice(&data),
            Event::Trailers(fields) => {
                trailers = Some(Trailers(fields));
                break;
            }
            Event::End => break,
        }
    }
    let parts = response.ok_or_else(|| Failure::protocol("the response has no final head"))?;
    let mut response = Response::from_parts(parts, received.freeze());
    if let Some(trailers) = trailers {
        response.extensions_mut().insert(trailers);
    }
    Ok(response)
}

/// Sends a whole request and throws its response away, of which the head is kept.
pub async fn discarded(
    exchange: &mut Exchange,
    head: RequestHead<'_>,
    body: Bytes,
    answered: &mut Option<response::Parts>,
) -> Result<(), Failure> {
    send(exchange, head, body)?;
    loop {
        match poll_fn(|cx| exchange.poll_event(cx)).await? {
            Event::Room | Event::Informational(_) | Event::Data(_) => {}
            Event::Head(parts, _) => *answered = Some(parts),
            Event::Trailers(_) | Event::End => return Ok(()),
        }
    }
}

fn send(exchange: &mut Exchange, head: RequestHead<'_>, body: Bytes) -> Result<(), Failure> {
    exchange.send_head(head)?;
    if !body.is_empty() {
        exchange.send_data(body)?;
    }
    exchange.send_end(None)
}
