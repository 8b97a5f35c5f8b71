//! TLS in front of a server that speaks plain text: loopback on both sides.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;

/// What a connection that got through looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol that ALPN agreed on, empty without.
    pub protocol: String,
    /// The client showed a certificate that the authority signed.
    pub client_certificate: bool,
}

/// Whom the front lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    Any,
    /// Those with a certificate of the authority (mutual TLS).
    Certified,
}

/// The running front; it ends with the test's runtime.
pub struct Front {
    pub address: SocketAddr,
    passed: Arc<Mutex<Vec<Handshake>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// TLS before `backend` (`http://host:port`).
    pub async fn start(backend: &str, certificates: &Certificates, clients: Clients) -> Self {
        let config = server_config(certificates, clients);
        let backend: SocketAddr = backend.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, refused) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let front = Self { address, passed: passed.clone(), refused: refused.clone() };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, passed, refused) = (acceptor.clone(), passed.clone(), refused.clone());
                tokio::spawn(async move {
                    match acceptor.accept(client).into_fallible().await {
                        Ok(mut tls) => {
                            let (_, session) = tls.get_ref();
                            passed.lock().push(Handshake {
                                protocol: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
                                client_certificate: session.peer_certificates().is_some(),
                            });
                            let mut plain = TcpStream::connect(backend).await.unwrap();
                            // Ends with whoever ends first.
                            let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                        }
                        Err((error, mut client)) => {
                            refused.lock().push(error.to_string());
                            // What the client sent meanwhile is read: a reset would take the alert away from it.
                            let _ = client.shutdown().await;
                            let _ = client.read_to_end(&mut Vec::new()).await;
                        }
                    }
                });
            }
        });
        front
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Connections that got through, in order.
    pub fn passed(&self) -> Vec<Handshake> {
        self.passed.lock().clone()
    }

    /// Why others did not.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().clone()
    }
}

fn server_config(certificates: &Certificates, clients: Clients) -> ServerConfig {
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = ServerConfig::builder();
    let builder = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::Certified => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(pem_certificates(&certificates.ca));
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(pem_certificates(&certificates.server_cert), pem_key(&certificates.server_key)).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn pem_certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    rustls_pemfile::certs(&mut std::fs::read(path).unwrap().as_slice()).collect::<Result<_, _>>().unwrap()
}

fn pem_key(path: &Path) -> PrivateKeyDer<'static> {
    rustls_pemfile::private_key(&mut std::fs::read(path).unwrap().as_slice()).unwrap().unwrap()
}
