//! Certificates: read, checked against their keys, chosen by SNI; and the handshake's settings and facts.

mod certificate;
mod config;
mod facts;
pub mod pem;
mod provider;
mod resolver;
mod self_signed;
mod server;

pub use certificate::{Certificate, CertificateError};
pub use config::Config;
pub use facts::{ClientCertificateError, facts, quic_facts};
pub use provider::{install, provider};
pub use resolver::Resolver;
pub use self_signed::SelfSigned;
pub use server::{
    ClientAuth, Handshake, Remembered, Ruled, SINCE_TLS12, SINCE_TLS13, Server, ServerError, Tickets,
};
