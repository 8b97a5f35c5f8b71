//! A private certificate authority, made anew for each run with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

/// The files of a private authority and of the two certificates that it signed.
pub struct Certificates {
    /// The authority's certificate: what clients must be told to trust.
    pub ca: PathBuf,
    /// The servers' key.
    pub server_key: PathBuf,
    /// The servers' certificate.
    pub server_cert: PathBuf,
    /// Key and certificate in one file, as a broker wants them.
    pub server_pem: PathBuf,
    /// A client's key.
    pub client_key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`; the servers are 127.0.0.1 and localhost.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        Self::make_for(folder, "IP:127.0.0.1,DNS:localhost")
    }

    /// Makes them for servers of these names, in the form of OpenSSL's `subjectAltName`.
    pub fn make_for(folder: &Path, names: &str) -> anyhow::Result<Self> {
        let file = |name: &str| folder.join(name);
        openssl(
            folder,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=live-tests-authority -keyout ca.key -out ca.pem",
        )?;
        for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
            std::fs::write(
                file(&format!("{name}.ext")),
                format!("subjectAltName={names}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"),
            )?;
            openssl(
                folder,
                &format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"),
            )?;
            openssl(
                folder,
                &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"),
            )?;
        }
        let both = [std::fs::read(file("server.key"))?, std::fs::read(file("server.crt"))?].concat();
        std::fs::write(file("server.pem"), both)?;
        Ok(Self {
            ca: file("ca.pem"),
            server_key: file("server.key"),
            server_cert: file("server.crt"),
            server_pem: file("server.pem"),
            client_key: file("client.key"),
            client_cert: file("client.crt"),
        })
    }
}

/// Runs `openssl` in this folder.
pub fn openssl(folder: &Path, arguments: &str) -> anyhow::Result<()> {
    let out = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output()?;
    if !out.status.success() {
        bail!("openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
