//! Ports for servers that have to be told theirs: processes that are started with it, and those that come back on it after a kill.

use std::io::{Error, ErrorKind, Result};
use std::net::TcpListener;

/// Below are the ports of well-known services.
const LOWEST: u16 = 10_240;
/// Where Linux begins to take the ports of outgoing connections from unless told otherwise: ip(7), `ip_local_port_range`.
const FIRST_EPHEMERAL: u16 = 32_768;
const TRIES: u32 = 200;

/// `N` loopback ports in a row that are free now, and that no outgoing connection takes by itself until they are bound: a port that
/// binding to 0 has given can be some connection's own a moment after it was let go.
///
/// # Errors
/// When binding fails for another reason than a port that is taken, or none was found in many tries.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ephemeral = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(FIRST_EPHEMERAL);
    let count = u16::try_from(N).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
    let end = ephemeral.max(2 * LOWEST) - count;
    let mut taken = Error::new(ErrorKind::AddrInUse, "no port was tried");
    for _ in 0..TRIES {
        let first = rand::random_range(LOWEST..end);
        // All are held until the last is, so that they are free together.
        let held: Result<Vec<TcpListener>> = (first..first + count).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        match held {
            Ok(_) => return Ok(std::array::from_fn(|index| first + index as u16)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_a_row_free_and_no_outgoing_connection_takes_them() {
        let ports: [u16; 16] = free_ports().unwrap();
        assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ports:?}");
        let listener = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
        let out = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(out.local_addr().unwrap().port() > ports[15], "connections take ports from {} on", out.local_addr().unwrap());
        for _ in 0..50 {
            let [other] = free_ports().unwrap();
            assert_ne!(other, ports[0], "it is taken");
        }
    }
}
