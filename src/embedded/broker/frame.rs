//! Frames of the Kafka protocol (a length of four bytes, then that many): reading them, and the broker addresses inside answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Produce (beside NOT_LEADER_OR_FOLLOWER, since version 10), Metadata, FindCoordinator: the answers that name brokers. A client that
/// learned a mock broker's own port would drop its connection and go past the relay. Fetch names brokers beside the same error only, which
/// this relay never asks for: an answer that holds records is not touched.
const NAMES_BROKERS: [i16; 3] = [0, 3, 10];

/// JoinGroup.
pub(super) const JOIN: i16 = 11;

/// A frame larger than this is no Kafka traffic.
const MAX_FRAME_BYTES: usize = 256 * 1024 * 1024;

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestHead {
    pub(super) api: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

impl RequestHead {
    /// Of a whole frame, length included.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let api = i16::from_be_bytes(frame.get(4..6)?.try_into().ok()?);
        let version = i16::from_be_bytes(frame.get(6..8)?.try_into().ok()?);
        Some(Self { api, version, correlation: i32::from_be_bytes(frame.get(8..12)?.try_into().ok()?) })
    }

    pub(super) fn answer_names_brokers(self) -> bool {
        NAMES_BROKERS.contains(&self.api)
    }
}

/// The number that ties an answer (a whole frame) to its request.
pub(super) fn correlation_of_answer(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}

/// The session that a JoinGroup (a whole frame, of the versions before 6 that the mock cluster speaks) asks for.
pub(super) fn session_of_join(frame: &[u8]) -> Option<Duration> {
    if RequestHead::of(frame)?.api != JOIN {
        return None;
    }
    // The client's id and the group, each behind its length; a client without an id says -1.
    let mut at = 12;
    for _ in 0..2 {
        let length = i16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        at += 2 + usize::try_from(length).unwrap_or_default();
    }
    let session_ms = i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
    Some(Duration::from_millis(u64::try_from(session_ms).ok()?))
}

/// The answer (a whole frame) to a JoinGroup of these versions that says UNKNOWN_MEMBER_ID: with whom it was a member it is no more.
pub(super) fn refused_join(correlation: i32, version: i16) -> Vec<u8> {
    const UNKNOWN_MEMBER_ID: i16 = 25;
    let mut frame = [&[0; 4], &correlation.to_be_bytes()[..]].concat();
    if version >= 2 {
        frame.extend(0_i32.to_be_bytes()); // throttle_time_ms
    }
    frame.extend(UNKNOWN_MEMBER_ID.to_be_bytes());
    frame.extend((-1_i32).to_be_bytes()); // generation_id
    frame.extend([0; 6]); // protocol_name, leader, member_id: empty
    frame.extend(0_i32.to_be_bytes()); // members
    let length = u32::try_from(frame.len() - 4).unwrap_or_default();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Reads one frame, its length included, into `frame`; `false` at the end of the connection.
pub(super) async fn read_frame(from: &mut (impl AsyncRead + Unpin), frame: &mut Vec<u8>) -> std::io::Result<bool> {
    frame.clear();
    frame.resize(4, 0);
    if let Err(e) = from.read_exact(frame).await {
        return if e.kind() == std::io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(e) };
    }
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a frame of {length} bytes is no Kafka traffic")));
    }
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(true)
}

/// The mock brokers' addresses and the relay's in their place: `127.0.0.1` followed by a port of four bytes, so that lengths stay.
pub(super) struct PortRewrites(Vec<([u8; 13], [u8; 4])>);

impl PortRewrites {
    pub(super) fn new(mock: &[u16], relay: &[SocketAddr]) -> Self {
        Self(
            mock.iter()
                .zip(relay)
                .map(|(&from, to)| {
                    let mut pattern = *b"127.0.0.1\0\0\0\0";
                    pattern[9..].copy_from_slice(&u32::from(from).to_be_bytes());
                    (pattern, u32::from(to.port()).to_be_bytes())
                })
                .collect(),
        )
    }

    /// Puts the relay's ports into an answer that names brokers.
    pub(super) fn apply(&self, answer: &mut [u8]) {
        let mut at = 0;
        while at + 13 <= answer.len() {
            if let Some((_, port)) = self.0.iter().find(|(pattern, _)| answer[at..at + 13] == *pattern) {
                answer[at + 9..at + 13].copy_from_slice(port);
                at += 13;
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_behind_the_host_is_changed() {
        let rewrites = PortRewrites::new(&[40000], &["127.0.0.1:9092".parse().unwrap()]);
        let mut answer = b"xx127.0.0.1".to_vec();
        answer.extend(40000u32.to_be_bytes());
        answer.extend(40000u32.to_be_bytes());
        rewrites.apply(&mut answer);
        assert_eq!(&answer[11..15], &9092u32.to_be_bytes());
        assert_eq!(&answer[15..19], &40000u32.to_be_bytes());
    }

    #[test]
    fn a_join_says_how_long_its_session_is() {
        let join = |api: u8, client: &[u8]| {
            let head = [&[0, 0, 0, 99, 0, api, 0, 5, 0, 0, 0, 7], client, b"\0\x05group".as_slice()].concat();
            [&head[..], &6_000_i32.to_be_bytes(), &300_000_i32.to_be_bytes()].concat()
        };
        assert_eq!(session_of_join(&join(11, b"\0\x02me")), Some(Duration::from_secs(6)));
        assert_eq!(session_of_join(&join(11, b"\xFF\xFF")), Some(Duration::from_secs(6)));
        assert_eq!(session_of_join(&join(14, b"\0\x02me")), None);
        assert_eq!(session_of_join(&join(11, b"\0\x02me")[..20]), None);
    }

    #[test]
    fn a_refused_join_is_a_whole_frame_of_its_version() {
        let old = refused_join(7, 1);
        assert_eq!(old, [&[0, 0, 0, 20, 0, 0, 0, 7, 0, 25, 255, 255, 255, 255][..], &[0; 10]].concat());
        let new = refused_join(7, 5);
        assert_eq!((new.len(), &new[..12], &new[12..]), (28, &[0, 0, 0, 24, 0, 0, 0, 7, 0, 0, 0, 0][..], &old[8..]));
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_error_and_an_end_between_frames_is_none() {
        let mut frame = Vec::new();
        assert!(!read_frame(&mut &b""[..], &mut frame).await.unwrap());
        assert!(read_frame(&mut &[0u8, 0, 0, 2, 9, 8][..], &mut frame).await.unwrap());
        assert_eq!(frame, [0, 0, 0, 2, 9, 8]);
        assert!(read_frame(&mut &[0u8, 0, 0, 2, 9][..], &mut frame).await.is_err());
        assert!(read_frame(&mut &[0xFFu8, 0, 0, 2, 9][..], &mut frame).await.is_err());
    }
}
