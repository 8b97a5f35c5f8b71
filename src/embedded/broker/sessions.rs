//! Sessions of consumer groups of the new protocol (KIP-848), which the mock cluster leaves at 30 s with a heartbeat every 5 s: as
//! ConsumerGroupHeartbeat passes the relay, members that fall silent are made to leave, and answers ask for heartbeats as often as was
//! chosen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frame::read_frame;

/// ConsumerGroupHeartbeat.
pub(super) const HEARTBEAT: i16 = 68;
/// The only version that the mock cluster speaks.
const VERSION: i16 = 1;
/// How often silent members are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the mock broker may take to let a member go: others wait for their turn meanwhile.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a broker's settings say of consumer groups of the new protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTimes {
    /// `group.consumer.session.timeout.ms`: who is silent for so long is no member any more.
    pub session: Duration,
    /// `group.consumer.heartbeat.interval.ms`: how often members are to send heartbeats, and learn of changes.
    pub heartbeat: Duration,
}

/// Who is a member of which group, and when each was heard last.
pub(super) struct Sessions {
    times: GroupTimes,
    members: Mutex<HashMap<Member, Heard>>,
}

/// A member: its id is unique beyond its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    group: Vec<u8>,
    id: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    /// The mock broker that coordinates its group.
    broker: u16,
    /// It has been in an epoch of the group.
    has_joined: bool,
}

impl Sessions {
    pub(super) fn new(times: GroupTimes) -> Self {
        Self { times, members: Mutex::default() }
    }

    /// Takes note of a heartbeat (a whole frame) on its way to this mock broker. Gives the member if it begins anew: the mock cluster would
    /// take it for the one that it was, and never tell it what it is assigned, so it is to [`leave`] first.
    pub(super) fn heard(&self, request: &[u8], broker: u16, at: Instant) -> Option<Member> {
        let (member, epoch) = sender_of(request)?;
        let mut members = self.members.lock();
        if epoch < 0 {
            members.remove(&member);
            return None;
        }
        let before = members.insert(member.clone(), Heard { at, broker, has_joined: epoch > 0 });
        before.is_some_and(|before| before.has_joined && epoch == 0).then_some(member)
    }

    /// Puts the interval into the answer to a heartbeat, and takes note of who has joined by it.
    pub(super) fn pace(&self, answer: &mut [u8]) {
        if let Some((id, epoch)) = receiver_of(answer)
            && epoch > 0
        {
            let mut members = self.members.lock();
            members.iter_mut().filter(|(member, _)| member.id == id).for_each(|(_, heard)| heard.has_joined = true);
        }
        if let Some(interval) = interval_in(answer).and_then(|at| answer.get_mut(at..at + 4))
            // 0 beside errors: the client keeps the interval that it has.
            && *interval != [0; 4]
        {
            interval.copy_from_slice(&i32::try_from(self.times.heartbeat.as_millis()).unwrap_or(i32::MAX).to_be_bytes());
        }
    }

    /// For how long a member's connection is kept towards the mock cluster when it has ended: by then the member has another one, or is
    /// out.
    pub(super) fn linger(&self) -> Duration {
        self.times.session + 5 * LOOK_EVERY
    }

    /// Takes those out that were silent for a session.
    fn silent(&self, now: Instant) -> Vec<(Member, u16)> {
        let mut members = self.members.lock();
        members
            .extract_if(|_, heard| now.duration_since(heard.at) >= self.times.session)
            .map(|(member, heard)| (member, heard.broker))
            .collect()
    }

    /// A silent member that could not be made to leave is looked at again, unless it was heard meanwhile.
    fn again(&self, member: Member, broker: u16) {
        if let Some(at) = Instant::now().checked_sub(self.times.session) {
            self.members.lock().entry(member).or_insert(Heard { at, broker, has_joined: true });
        }
    }

    /// Makes silent members leave, until aborted.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (member, broker) in self.silent(Instant::now()) {
                if leave(&member, broker).await.is_err() {
                    self.again(member, broker);
                }
            }
        }
    }
}

/// Makes a member leave.
///
/// # Errors
/// The mock broker does not answer, or not within [`LEAVE_TIMEOUT`].
pub(super) async fn leave(member: &Member, broker: u16) -> std::io::Result<()> {
    let left = async {
        let mut connection = TcpStream::connect(("127.0.0.1", broker)).await?;
        connection.write_all(&leave_request(member)).await?;
        match read_frame(&mut connection, &mut Vec::new()).await? {
            true => Ok(()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    };
    tokio::time::timeout(LEAVE_TIMEOUT, left).await?
}

/// A heartbeat with epoch -1: the member leaves.
fn leave_request(member: &Member) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(HEARTBEAT.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend((-1_i16).to_be_bytes()); // no client id
    body.push(0); // no tags
    for text in [&member.group, &member.id] {
        put_length(&mut body, text.len() + 1);
        body.extend(text);
    }
    body.extend((-1_i32).to_be_bytes());
    body.extend([0, 0]); // neither instance nor rack
    body.extend((-1_i32).to_be_bytes()); // rebalance timeout: as it was
    body.extend([0, 0, 0, 0]); // topics, regex, assignor, partitions: as they were
    body.push(0); // no tags
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// Whose heartbeat it is, and its epoch: below 0 it leaves.
fn sender_of(request: &[u8]) -> Option<(Member, i32)> {
    let client = i16::from_be_bytes(request.get(12..14)?.try_into().ok()?);
    // Behind the client's id come no tags: a single 0.
    let mut at = 14 + usize::try_from(client).unwrap_or(0) + 1;
    let group = compact_text(request, &mut at)?.to_vec();
    let id = compact_text(request, &mut at)?.to_vec();
    let epoch = i32::from_be_bytes(request.get(at..at + 4)?.try_into().ok()?);
    Some((Member { group, id }, epoch))
}

/// Whom an answer is for, and its epoch; nobody beside an error.
fn receiver_of(answer: &[u8]) -> Option<(&[u8], i32)> {
    let mut at = INTO_ANSWER;
    compact_text(answer, &mut at)?;
    let id = compact_text(answer, &mut at)?;
    Some((id, i32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?)))
}

/// Length, correlation, tags, throttle, error.
const INTO_ANSWER: usize = 4 + 4 + 1 + 4 + 2;

/// Where an answer names the interval: the error's message, member, epoch stand before it.
fn interval_in(answer: &[u8]) -> Option<usize> {
    let mut at = INTO_ANSWER;
    compact_text(answer, &mut at)?;
    compact_text(answer, &mut at)?;
    Some(at + 4)
}

/// A string of the flexible versions: its length plus one as a varint; 0 is null.
fn compact_text<'a>(frame: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = *frame.get(*at)?;
        *at += 1;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 28 {
            return None;
        }
    }
    let from = *at;
    *at += length.saturating_sub(1);
    frame.get(from..*at)
}

fn put_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(GroupTimes { session: Duration::from_secs(3), heartbeat: Duration::from_millis(500) })
    }

    /// A heartbeat as a client sends it, up to the epoch.
    fn heartbeat(group: &str, id: &str, epoch: i32) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 0, 0, 68, 0, 1, 0, 0, 0, 7, 0, 3];
        frame.extend(b"abc\0");
        for text in [group, id] {
            put_length(&mut frame, text.len() + 1);
            frame.extend(text.as_bytes());
        }
        frame.extend(epoch.to_be_bytes());
        frame
    }

    #[test]
    fn the_silent_leave_and_the_others_stay() {
        let (sessions, start) = (sessions(), Instant::now());
        let long = "g".repeat(200);
        sessions.heard(&heartbeat(&long, "a", 0), 1000, start);
        sessions.heard(&heartbeat(&long, "b", 0), 1000, start);
        sessions.heard(&heartbeat(&long, "left", 5), 1000, start);
        sessions.heard(&heartbeat(&long, "left", -1), 1000, start);
        sessions.heard(&heartbeat(&long, "b", 2), 1000, start + Duration::from_secs(2));
        assert!(sessions.silent(start + Duration::from_millis(2_999)).is_empty());
        let a = Member { group: long.into_bytes(), id: b"a".to_vec() };
        assert_eq!(sessions.silent(start + Duration::from_secs(3)), [(a.clone(), 1000)]);
        assert!(sessions.silent(start + Duration::from_secs(3)).is_empty(), "once only");
        sessions.again(a.clone(), 1000);
        assert_eq!(sessions.silent(Instant::now()), [(a.clone(), 1000)], "it could not be made to leave");
        assert_eq!(sender_of(&leave_request(&a)), Some((a, -1)), "what is sent for it is read the same way");
    }

    #[test]
    fn who_begins_anew_leaves_first() {
        let (sessions, now) = (sessions(), Instant::now());
        let says = |epoch| sessions.heard(&heartbeat("g", "me", epoch), 1000, now);
        assert_eq!((says(0), says(0)), (None, None), "still joining");
        assert_eq!(says(4), None);
        assert_eq!(says(0), Some(Member { group: b"g".to_vec(), id: b"me".to_vec() }));
        assert_eq!(says(0), None, "it has left");
        let mut joined = vec![0; INTO_ANSWER];
        joined.extend([0, 3, b'm', b'e', 0, 0, 0, 5, 0, 0, 0, 1]);
        sessions.pace(&mut joined);
        assert!(says(0).is_some(), "the answer that let it in was lost");
    }

    #[test]
    fn answers_ask_for_the_interval_that_was_chosen() {
        let answer = |interval: i32| {
            let mut frame = vec![0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
            put_length(&mut frame, 8);
            frame.extend(b"Success");
            put_length(&mut frame, 3);
            frame.extend(b"me");
            frame.extend(9_i32.to_be_bytes());
            frame.extend(interval.to_be_bytes());
            frame.push(0xFF);
            frame
        };
        let mut paced = answer(5_000);
        sessions().pace(&mut paced);
        assert_eq!(paced, answer(500));
        assert_eq!(receiver_of(&paced), Some((&b"me"[..], 9)));
        let mut error = answer(0);
        sessions().pace(&mut error);
        assert_eq!(error, answer(0));
        sessions().pace(&mut [0; 9]);
    }
}
