//! One `ca_file` for the TLS stacks that take no setting of ours.
//!
//! `google-cloud-auth` asks Google's token endpoints with HTTP clients of its own making (in 1.18 none can be handed in). They trust the
//! system's authorities, or what the environment variable `SSL_CERT_FILE` names instead. A running process cannot safely change its
//! environment (threads read it; `std::env::set_var` is unsafe for that reason), so the process becomes itself anew, by `exec`, with the
//! variable set to a bundle of both. The bundle lies in memory that belongs to the process: nothing is left behind, and a read-only
//! container needs no writable folder.

use std::ffi::OsStr;
use std::path::Path;

use crate::config::FleetConfig;

/// Where rustls's loaders of the system's authorities look first (rustls-native-certs).
const BUNDLE: &str = "SSL_CERT_FILE";
/// Names the `ca_file` that `SSL_CERT_FILE` already holds, so that the process starts anew once only.
const DONE: &str = "MILLRACE_CA_FILE_IN_BUNDLE";

/// Makes every TLS client of this process trust `[worker] ca_file` beside the system's authorities, whoever makes the client. Returns when
/// there is nothing to do: no `ca_file`, no credentials that a token endpoint is asked for, or all done before. Else it does not return:
/// the program begins once more, with the same arguments and process id. To be called before anything has been started.
///
/// A `ca_file` that cannot be read is left to [`crate::bigquery::connect`], which names it together with what else is wrong.
///
/// # Errors
/// In words, when the bundle cannot be made or the program cannot be started anew.
pub(super) fn trust(fleet: &FleetConfig) -> Result<(), String> {
    let Some(ca_file) = &fleet.worker.ca_file else { return Ok(()) };
    if fleet.bigquery.credentials == "none" || done(ca_file) {
        return Ok(());
    }
    match std::fs::read(ca_file) {
        Ok(own) => begin_anew(ca_file, &bundle(&own)).map_err(|e| format!("[worker] ca_file for token endpoints: {e}")),
        Err(_) => Ok(()),
    }
}

/// Whether the environment was made for this file, and the bundle is still there: it is not in a process that was started with our
/// environment but without our open files.
fn done(ca_file: &Path) -> bool {
    std::env::var_os(DONE).as_deref() == Some(ca_file.as_os_str()) && std::env::var_os(BUNDLE).is_some_and(|path| Path::new(&path).exists())
}

/// The system's authorities (or those that the user's own `SSL_CERT_FILE` and `SSL_CERT_DIR` name), and these, in PEM.
fn bundle(own: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let system = rustls_native_certs::load_native_certs();
    if system.certs.is_empty() {
        for error in &system.errors {
            eprintln!("millrace: the system's certificate authorities cannot be read, only [worker] ca_file is trusted: {error}");
        }
    }
    let mut pem = own.to_vec();
    for certificate in &system.certs {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        pem.extend_from_slice(b"\n-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(target_os = "linux")]
fn begin_anew(ca_file: &Path, bundle: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;

    // Stays open across exec: no CLOEXEC.
    let mut memory = std::fs::File::from(rustix::fs::memfd_create("authorities.pem", rustix::fs::MemfdFlags::empty())?);
    memory.write_all(bundle)?;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    // The running program, also when the file that it was started from has been replaced.
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0(name.as_deref().unwrap_or(OsStr::new("millrace"))).args(arguments);
    // Of what the folder of the user's variable holds the bundle has a copy.
    command.env(BUNDLE, path).env_remove("SSL_CERT_DIR").env(DONE, ca_file);
    Err(command.exec())
}

#[cfg(not(target_os = "linux"))]
fn begin_anew(_ca_file: &Path, _bundle: &[u8]) -> std::io::Result<()> {
    // Development machines only: the system's own store is where to put an authority there.
    eprintln!("millrace: Google's token endpoints do not get [worker] ca_file on this system: put the authority into the system's store");
    Ok(())
}
