//! How many writes responses go out by.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::*;
use crate::listen::{testing, tls_stream};

/// A client's end of TLS, whose incoming records are counted.
struct Counted {
    io: UnixStream,
    records: Arc<AtomicUsize>,
    /// What came of the record at hand's head, and what is to come of its payload.
    head: Vec<u8>,
    payload: usize,
}

impl Counted {
    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let payload = self.payload.min(bytes.len());
            self.payload -= payload;
            bytes = &bytes[payload..];
            let head = (5 - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..head]);
            bytes = &bytes[head..];
            if let [_, _, _, high, low] = self.head[..] {
                self.payload = usize::from(u16::from_be_bytes([high, low]));
                self.head.clear();
                self.records.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.count(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A client by TLS, and how many records have come.
async fn connect_by_tls() -> (Client, Arc<AtomicUsize>) {
    let (client, server) = testing::tls(&["h2"]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let records = Arc::new(AtomicUsize::new(0));
    let ours = Counted { io: ours, records: records.clone(), head: Vec::new(), payload: 0 };
    let connecting = TlsConnector::from(client).connect("a.test".try_into().unwrap(), ours);
    let (ours, theirs) = tokio::join!(connecting, tls_stream::accept(Io::Unix(theirs), &server));
    let (server, handler, drain) = start_on(Stream::tls(theirs.unwrap().0), settings());
    let (send, connection) = client::handshake(ours.unwrap()).await.unwrap();
    let driver = tokio::spawn(connection);
    (Client { send, driver, server, handler, drain }, records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn responses_that_are_ready_together_are_sent_together() {
    const MANY: usize = 20;
    let (mut client, records) = connect_by_tls().await;
    let mut all = Vec::new();
    for _ in 0..MANY {
        all.push(client.send(request("/gate"), true).await.0);
        client.handler.next_begin().await;
    }
    let handler = client.handler.clone();
    let before = records.load(Ordering::Relaxed);
    // By a task, so that those who wait are woken on the thread that they run on.
    tokio::spawn(async move { handler.gate.notify_waiters() });
    for one in all {
        assert_eq!(body(one.await.unwrap()).await.unwrap(), b"open");
    }
    let records = records.load(Ordering::Relaxed) - before;
    assert!(records <= 3, "{MANY} responses came in {records} records");
}
