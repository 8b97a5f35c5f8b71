//! A port in front of a server that a test can close, fill with rubbish, and open.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a connection through the gate meets.
#[derive(Clone, Copy)]
pub enum Behind {
    /// An HTTP server whose every answer is a page of rubbish with this status.
    Rubbish(u16),
    /// The server at this port.
    Server(u16),
}

/// An open gate. Dropping it closes the port: connections are refused.
pub struct Gate {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens `port` of the loopback.
    pub fn open(port: u16, behind: Behind) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    // A side that hangs up ends the connection; that is no error of the gate.
                    let _ = client.set_nonblocking(false).and_then(|()| serve(client, behind));
                });
            }
        });
        Ok(Self { stop, connections, thread: Some(thread) })
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut client: TcpStream, behind: Behind) -> std::io::Result<()> {
    match behind {
        Behind::Rubbish(status) => {
            let mut request = [0; 4096];
            if client.read(&mut request)? == 0 {
                return Ok(());
            }
            let page = "<html>the proxy is having lunch</html>";
            write!(
                client,
                "HTTP/1.1 {status} Lunch\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            )
        }
        Behind::Server(port) => {
            let server = TcpStream::connect(("127.0.0.1", port))?;
            let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
            let back = std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            let _ = std::io::copy(&mut client, &mut &server);
            let _ = server.shutdown(Shutdown::Both);
            let _ = back.join();
            Ok(())
        }
    }
}
