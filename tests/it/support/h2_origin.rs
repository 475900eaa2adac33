//! An HTTP/2 origin in the clear, by the `h2` crate: what nginx cannot be made to say.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

/// Answers every request with `abc`, its target in `x-path` and the trailer `x-sum: 42`.
pub struct TrailerOrigin {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl TrailerOrigin {
    pub fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), _stop: stop }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

async fn serve(listener: TcpListener) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await?;
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request?;
                let path = request.uri().path_and_query().map_or("", |path| path.as_str());
                let response = Response::builder().header("x-path", path).body(()).expect("a response");
                let mut body = respond.send_response(response, false)?;
                body.send_data(Bytes::from_static(b"abc"), false)?;
                body.send_trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    http::HeaderValue::from_static("42"),
                )]))?;
            }
            Ok::<(), h2::Error>(())
        });
    }
}
