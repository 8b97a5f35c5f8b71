//! A network between clients and servers that a test can cut: connections that are reset, or along which nothing comes any more.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the wire does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hands them on.
    Pass,
    /// Keeps them: nothing comes along, and no connection ends; as if every packet were dropped.
    Stall,
    /// Ends every connection with a reset, new ones at once.
    Reset,
}

/// Ports of the loopback, each in front of a server's. Dropping it closes them.
pub struct Wire {
    mode: watch::Sender<Mode>,
    runtime: Option<tokio::runtime::Runtime>,
    ports: Vec<u16>,
}

impl Wire {
    /// Opens a port for each (port or 0, server's port).
    pub fn open(ways: &[(u16, u16)]) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let mut ports = Vec::new();
        for (port, server) in ways {
            let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", *port)))?;
            ports.push(listener.local_addr()?.port());
            let (server, seen) = (*server, seen.clone());
            runtime.spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((client, _)) => drop(tokio::spawn(connection(client, server, seen.clone()))),
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        }
        Ok(Self { mode, runtime: Some(runtime), ports })
    }

    /// The port of the way at this index.
    pub fn port(&self, index: usize) -> u16 {
        self.ports[index]
    }

    /// From now on, for connections that are there as well.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connection(client: TcpStream, server: u16, mut mode: watch::Receiver<Mode>) {
    // What a kernel still answers while packets are dropped: nothing. So a stalled connection is made to the server only afterwards.
    if passes(&mut mode).await.is_none() {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let there = hand_on(client_in, server_out, mode.clone());
    let back = hand_on(server_in, client_out, mode);
    tokio::join!(there, back);
}

/// Waits out a stall; `None` at a reset.
async fn passes(mode: &mut watch::Receiver<Mode>) -> Option<()> {
    match *mode.wait_for(|mode| *mode != Mode::Stall).await.ok()? {
        Mode::Reset => None,
        Mode::Pass | Mode::Stall => Some(()),
    }
}

async fn hand_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() == Mode::Reset { break }
                continue;
            }
            read = from.read(&mut bytes) => read,
        };
        let Ok(count @ 1..) = read else {
            // An orderly end goes on as one.
            let _ = to.shutdown().await;
            return;
        };
        if passes(&mut mode).await.is_none() || to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
    let _ = (from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger());
}
