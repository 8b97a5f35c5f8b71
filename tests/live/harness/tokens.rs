//! An identity provider in small: signs JWTs with RS256 for the client-credentials grant, over TLS, and publishes the key that checks them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::certificates::{Certificates, openssl};

/// Who the tokens say signed them.
pub const ISSUER: &str = "https://identity.millrace.test";
/// Whom the tokens are for.
pub const AUDIENCE: &str = "kafka-brokers";
/// The client that gets tokens.
pub const CLIENT_ID: &str = "warehouse-client";
/// Its secret.
pub const CLIENT_SECRET: &str = "client secret & more";

/// The signing key, and the file with its public half that brokers read.
pub struct TokenIssuer {
    key: Arc<RsaKeyPair>,
    keys: PathBuf,
}

impl TokenIssuer {
    /// Makes a key in `folder`.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        openssl(folder, "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem")?;
        // Versions of OpenSSL differ in the form that genpkey writes.
        openssl(folder, "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der")?;
        openssl(folder, "rsa -in key.pem -noout -modulus -out modulus")?;
        let modulus = std::fs::read_to_string(folder.join("modulus"))?;
        let modulus = hex::decode(modulus.trim().trim_start_matches("Modulus="))?;
        // openssl's exponent is 65537.
        let public = json!({ "kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" });
        let keys = folder.join("jwks.json");
        std::fs::write(&keys, json!({ "keys": [public] }).to_string())?;
        let key = RsaKeyPair::from_pkcs8(&std::fs::read(folder.join("key.der"))?).map_err(|e| anyhow::anyhow!("the signing key: {e}"))?;
        Ok(Self { key: Arc::new(key), keys })
    }

    /// The public key as a JSON Web Key Set.
    pub fn keys(&self) -> &Path {
        &self.keys
    }

    /// Serves `POST /token` with tokens that live for `life`, behind the authority's certificate.
    pub fn serve(&self, certificates: &Certificates, life: Duration) -> anyhow::Result<TokenServer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://{}/token", listener.local_addr()?);
        let chain = rustls_pemfile::certs(&mut std::fs::read(&certificates.server_cert)?.as_slice()).collect::<Result<Vec<_>, _>>()?;
        let key = rustls_pemfile::private_key(&mut std::fs::read(&certificates.server_key)?.as_slice())?.context("no key")?;
        let tls = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?);
        let (given, refused, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let served = Served { key: Arc::clone(&self.key), life, given: Arc::clone(&given), refused: Arc::clone(&refused) };
        let stopped = Arc::clone(&stop);
        let address = listener.local_addr()?;
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that trusts nobody here leaves in the middle: its affair.
                if let Err(error) = answer(&served, stream, Arc::clone(&tls)) {
                    eprintln!("    token server: {error:#}");
                }
            }
        });
        Ok(TokenServer { url, address, given, refused, stop, thread: Some(thread) })
    }
}

/// The running server; dropping it ends it.
pub struct TokenServer {
    url: String,
    address: std::net::SocketAddr,
    given: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TokenServer {
    /// `sasl.oauthbearer.token.endpoint.url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many tokens it has given.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    /// How many requests had a wrong id or secret.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it; when that fails it is gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Served {
    key: Arc<RsaKeyPair>,
    life: Duration,
    given: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

fn answer(served: &Served, stream: TcpStream, tls: Arc<ServerConfig>) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(tls)?, stream));
    let (mut line, mut authorization, mut length) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue; // the request line
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => value.clone_into(&mut authorization),
            "content-length" => length = value.parse()?,
            _ => {}
        }
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form)?;
    let expected = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    let asks = String::from_utf8_lossy(&form);
    let (status, body) = if authorization == expected && asks.contains("grant_type=client_credentials") && asks.contains("scope=kafka") {
        served.given.fetch_add(1, Ordering::Relaxed);
        let token = signed(&served.key, served.life)?;
        ("200 OK", json!({ "access_token": token, "token_type": "Bearer", "expires_in": served.life.as_secs() }))
    } else {
        served.refused.fetch_add(1, Ordering::Relaxed);
        ("401 Unauthorized", json!({ "error": "invalid_client" }))
    };
    let body = body.to_string();
    let mut out = reader.into_inner();
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    out.conn.send_close_notify();
    Ok(out.flush()?)
}

fn signed(key: &RsaKeyPair, life: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({ "alg": "RS256", "typ": "JWT", "kid": "1" }));
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "warehouse", "scope": "kafka", "iat": now, "exp": now + life.as_secs() });
    let text = format!("{header}.{}", part(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    if key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).is_err() {
        bail!("cannot sign a token");
    }
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
