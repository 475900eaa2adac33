use std::net::{Ipv4Addr, SocketAddr};

use quinn::{
    ClientConfig, Endpoint, ServerConfig, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::sync::watch;

use super::*;
use crate::{
    http::{
        connection::{ClientRules, Peer, Protocol},
        forwarded::Hop,
    },
    listen::testing::{self, Scripted, next_turn},
    snapshot::settings::Quic,
    value::Bind,
};

const STREAMS: usize = 100;

/// A client's connection, served; both ends on this runtime.
struct Client {
    quic: quinn::Connection,
    handler: Arc<Scripted>,
    /// What goes with them ends the connection.
    _kept: (Endpoint, Endpoint, watch::Sender<bool>),
}

async fn connect() -> Client {
    let (trusting, server) = testing::tls(&["h3"]);
    let trusting = QuicClientConfig::try_from(trusting).unwrap();
    let crypto = Arc::new(QuicServerConfig::try_from(server.quic().config).unwrap());
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Endpoint::server(ServerConfig::with_crypto(crypto.clone()), anywhere).unwrap();
    let mut client = Endpoint::client(anywhere).unwrap();
    client.set_default_client_config(ClientConfig::new(Arc::new(trusting)));

    let mut settings = Listener::for_tests("web");
    settings.quic = Some(Quic {
        crypto,
        rules: ClientRules::default(),
        takes_early_data: false,
        transport: Arc::new(TransportConfig::default()),
        max_streams: STREAMS,
    });
    let (drain, draining) = watch::channel(false);
    let connecting = client.connect(server.local_addr().unwrap(), "a.test").unwrap();
    let accepted = async { server.accept().await.unwrap().await.unwrap() };
    let (quic, accepted) = tokio::join!(connecting, accepted);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer: Peer::Tcp(accepted.remote_address()),
        hop: Hop::new(accepted.remote_address().ip()),
        local: Bind::Any(443),
        protocol: Protocol::Http3,
        tls: None,
        alt_svc: None,
        draining,
        leaving: watch::channel(None).1,
        kept: Default::default(),
        reservations: Default::default(),
    });
    let handler = Arc::new(Scripted::default());
    tokio::spawn(serve(accepted, connection, Arc::new(settings), handler.clone()));
    Client { quic: quic.unwrap(), handler, _kept: (server, client, drain) }
}

impl Client {
    /// Asks for `/` and goes on without the answer.
    async fn ask(&self) -> RecvStream {
        let (mut request, response) = self.quic.open_bi().await.unwrap();
        // :method GET, :scheme https, :path /, :authority a.test (RFC 9204 appendix A).
        let section = [&[0, 0, 0xd1, 0xd7, 0xc1, 0x50, 6][..], b"a.test"].concat();
        let head = [&[1, u8::try_from(section.len()).unwrap()][..], &section].concat();
        request.write_all(&head).await.unwrap();
        request.finish().unwrap();
        response
    }

    fn served(&self) -> usize {
        self.handler.heads.lock().unwrap().len()
    }
}

#[tokio::test]
async fn whoever_asks_for_much_at_once_lets_others_have_their_turn() {
    let client = Arc::new(connect().await);
    client.ask().await.read_to_end(1024).await.unwrap();
    let mut all = Vec::new();
    tokio::task::unconstrained(async {
        // The place of the first is free when its end has been heard of.
        for _ in 1..STREAMS {
            all.push(client.ask().await);
        }
    })
    .await;
    assert_eq!(client.served(), 1, "they are asked for all at once");
    let counter = client.clone();
    // As a task: the test's own future has its turn more seldom.
    let counting = tokio::spawn(async move {
        let mut most = 0;
        while counter.served() < STREAMS {
            let before = counter.served();
            next_turn().await;
            most = most.max(counter.served() - before);
        }
        most
    });
    let most = counting.await.unwrap();
    assert!((1..=2 * AT_ONCE).contains(&most), "{most} were served before anybody else's turn");
    for mut one in all {
        assert!(one.read_to_end(1024).await.unwrap().ends_with(b"hello"));
    }
}
