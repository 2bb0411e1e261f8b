//! Whatever an enrolled node says, the collector answers or closes, stays small, and serves the others.

use std::time::Duration;

use belfry_common::{
    client::ConnectError,
    clock,
    identity::{Identity, client_config},
    limits,
    model::Epoch,
    quic::{self, CloseCode},
    wire::{
        codec::Encoder,
        frame::Kind,
        message::{self, Backlog, Batches, FailureCode, SealedBatch},
    },
};
use belfry_tests::{
    collector::{self, Collector},
    hostile::{self, Answer, Live, Stream, connect, correct_checksum, sealed},
    oracle::Stored,
    samples::{Samples, batch_of},
    wait::{SOON, timed},
};
use quinn::Connection;
use serde_json::json;

const EPOCH: Epoch = Epoch(0xE2);
const MIB: u64 = 1024 * 1024;

/// Another node, which must not notice anything.
struct Bystander {
    live: Live,
    samples: Samples,
    next: u64,
}

impl Bystander {
    async fn join(collector: &Collector) -> Self {
        let identity = collector.join("bystander").await;
        let live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
        Self { live, samples: Samples::new(9, clock::now().plus_millis(-60_000), 10), next: 1 }
    }

    /// How long an acknowledgement takes.
    async fn latency(&mut self) -> Duration {
        let (took, ()) = timed(self.live.store(self.next, &self.samples.batch(self.next))).await;
        self.next += 1;
        took
    }
}

async fn member(collector: &Collector, identity: &Identity) -> Connection {
    connect(collector.address(), client_config(identity).unwrap()).await.unwrap()
}

/// Row 10: a collector that is full, or that stops, says when to come back; people still get in.
#[tokio::test]
async fn a_collector_says_when_to_come_back() {
    let mut collector = Collector::start_with("shipped_rules = false\n[limits]\nconnections = 2\n").await;
    let nodes = [collector.join("a").await, collector.join("b").await, collector.join("c").await];
    let first = member(&collector, &nodes[0]).await;
    let second = member(&collector, &nodes[1]).await;
    let third = member(&collector, &nodes[2]).await;
    let (code, reason) = hostile::close_code(&third, SOON).await;
    assert_eq!(code, CloseCode::Overloaded);
    assert_eq!(quic::retry_after(&reason), Some(Duration::from_secs(30)), "{reason}");
    assert_eq!(collector.admin().health("connections").await, 3, "two nodes, and who asks");
    collector.stop().await;
    let mut waits = Vec::new();
    for connection in [first, second] {
        let (code, reason) = hostile::close_code(&connection, SOON).await;
        assert_eq!(code, CloseCode::Stopping);
        waits.push(quic::retry_after(&reason).unwrap_or_else(|| panic!("no time in {reason:?}")));
    }
    assert_ne!(waits[0], waits[1], "they do not come back at one instant");
}

async fn is_served(connection: &Connection) -> bool {
    let Ok(mut stream) = Stream::open(connection).await else { return false };
    let sent = stream.frame(Kind::Request, br#"{"request": "health"}"#).await;
    sent.is_ok() && matches!(stream.reader.next_within(SOON).await, Ok((Kind::Reply, _)))
}

/// Whoever has an identity has not all connections: the fleet and other people get in.
#[tokio::test]
async fn connections_of_one_identity_are_bounded() {
    let collector = Collector::start().await;
    let greedy = collector.join_as("viewer", "eve").await;
    let mut open = Vec::new();
    let refused = loop {
        let connection = member(&collector, &greedy).await;
        if !is_served(&connection).await {
            break connection;
        }
        open.push(connection);
        assert!(open.len() <= 64, "{} connections of one identity", open.len());
    };
    assert_eq!(hostile::close_code(&refused, SOON).await.0, CloseCode::Overloaded);
    assert_eq!(open.len(), 64);
    let other = collector.join_as("viewer", "ada").await;
    collector::ask(&other, collector.address(), &json!({"request": "health"})).await.expect("others are served");
}

/// A client of another version that asks for what this collector does not know is told so.
#[tokio::test]
async fn a_client_of_another_version_is_told_so() {
    let collector = Collector::start().await;
    let newer = json!({"request": "health", "in_the_way_of": "tomorrow"});
    for request in [json!({"request": "divine"}), json!({"question": "health"}), json!([]), newer] {
        let refused = collector.admin().try_ask(&request).await;
        let Err(ConnectError::Refused { code: FailureCode::Invalid, message, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(message.contains("is one of the two newer?"), "{message}");
    }
}

/// A peer of another protocol gets no further than the handshake.
#[tokio::test]
async fn another_alpn_is_refused_in_the_handshake() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    for protocols in [vec![b"belfry/2".to_vec()], vec![b"h3".to_vec()], vec![]] {
        let mut tls = client_config(&identity).unwrap();
        tls.alpn_protocols = protocols;
        let error = connect(collector.address(), tls).await.unwrap_err();
        assert!(error.to_string().contains("ALPN") || error.to_string().contains("peer doesn't support"), "{error}");
    }
}

/// Rows 47 to 50: every frame that cannot be closes the connection with a reason, before it costs anything.
#[tokio::test]
async fn a_frame_that_cannot_be_closes_the_connection_with_a_reason() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut bystander = Bystander::join(&collector).await;
    let hello = || sealed(Kind::Hello, &message::encode(&hostile::hello(EPOCH)));
    let changed = |at: usize, to: u8| {
        let mut frame = hello();
        frame[at] = to;
        correct_checksum(&mut frame);
        frame
    };
    let with_length = |length: u32| {
        let mut frame = hello();
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        frame
    };
    let mut wrong_sum = hello();
    wrong_sum[9] ^= 1;
    let with_tail = [message::encode(&hostile::hello(EPOCH)), vec![0]].concat();
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("garbage", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "not a frame of this protocol"),
        ("version", changed(2, 2), "peer uses frames of version 2, this build version 1; update the older"),
        ("kind", changed(3, 99), "unknown kind 99; update the older"),
        ("checksum", wrong_sum, "wrong checksum"),
        ("length", with_length(limits::CONTROL_BYTES_MAX as u32 + 1), "exceeds the limit of 65536"),
        ("longest", with_length(u32::MAX >> 1), "exceeds the limit of 65536"),
        ("welcome", sealed(Kind::Welcome, &[]), "unexpected Welcome"),
        ("batches", sealed(Kind::Batches, &[0]), "unexpected Batches"),
        ("hello", sealed(Kind::Hello, &[0xFF; 40]), "malformed Hello"),
        ("tail", sealed(Kind::Hello, &with_tail), "malformed Hello"),
    ];
    for (name, frame, words) in cases {
        let connection = member(&collector, &identity).await;
        let mut stream = Stream::open(&connection).await.unwrap();
        stream.raw(&frame).await.unwrap();
        let (code, reason) = hostile::close_code(&connection, SOON).await;
        assert_eq!(code, CloseCode::Protocol, "{name}: {reason}");
        assert!(reason.contains(words), "{name}: {reason}");
    }
    bystander.latency().await;
    assert!(collector.process_mut().ended().is_none());
}

/// Row 19: an agent of a version that is not spoken here is told which of the two to update.
#[tokio::test]
async fn an_agent_of_another_version_is_told_so() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let connection = member(&collector, &identity).await;
    let mut stream = Stream::open(&connection).await.unwrap();
    let hello = message::Hello { protocol_min: 3, protocol_max: 9, ..hostile::hello(EPOCH) };
    stream.message(Kind::Hello, &hello).await.unwrap();
    let Answer::Failure(code, words) = stream.answer().await.unwrap() else { panic!("no failure") };
    assert_eq!(code, FailureCode::Version);
    assert_eq!(words, "the agent speaks protocol versions 3 to 9, this collector 1 to 2: update the older of the two");
    // One that also speaks this version is welcome, on the same connection.
    let mut stream = Stream::open(&connection).await.unwrap();
    let hello = message::Hello { protocol_min: 1, protocol_max: 9, ..hostile::hello(EPOCH) };
    stream.message(Kind::Hello, &hello).await.unwrap();
    let Answer::Welcome(welcome) = stream.answer().await.unwrap() else { panic!("no welcome") };
    assert_eq!(welcome.protocol, 2);
}

/// Rows 49 and 50: a few bytes never make the collector ask for much memory.
#[tokio::test]
async fn bombs_are_refused_before_they_unpack() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut bystander = Bystander::join(&collector).await;
    let before = collector.process().resident_bytes();
    let bomb = sealed(Kind::Batches, &vec![0; 200 * MIB as usize]);
    assert!(bomb.len() < 64 * 1024, "the bomb is small: {}", bomb.len());
    let lying = |size: u32| {
        let mut frame = bomb.clone();
        frame[12..16].copy_from_slice(&size.to_le_bytes());
        correct_checksum(&mut frame);
        frame
    };
    // Lengths as bincode writes them: 253 and eight bytes.
    let endless = |bytes: &[u8]| sealed(Kind::Batches, &[&[253; 1][..], &[0xFF; 8], bytes].concat());
    let cases = [
        ("declared", bomb.clone(), "exceeds the limit of 4194304"),
        ("lying", lying(1000), "malformed packed payload"),
        ("lying at the limit", lying(limits::FRAME_UNPACKED_BYTES_MAX as u32), "malformed packed payload"),
        ("count", endless(&[]), "malformed Batches"),
        ("body", sealed(Kind::Batches, &[&[1, 1, 253][..], &[0xFF; 8]].concat()), "malformed Batches"),
    ];
    for (name, frame, words) in cases {
        let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
        let (took, (code, reason)) = timed(async {
            live.stream.raw(&frame).await.unwrap();
            hostile::close_code(&live.connection, SOON).await
        })
        .await;
        assert_eq!(code, CloseCode::Protocol, "{name}: {reason}");
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");
    }
    bystander.latency().await;
    let grown = collector.process().resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "the collector has grown by {} MiB", grown / MIB);
}

/// Row 50: definitions that refer to each other make much out of little; the work for one frame stays bounded.
#[tokio::test]
async fn layouts_that_repeat_each_other_do_not_occupy_the_collector() {
    use message::{Definitions, LayoutDefinition, MetricDefinition, SeriesRun};
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut bystander = Bystander::join(&collector).await;
    let metric =
        MetricDefinition { name: "m".into(), kind: 1, digits: 0, label_names: Vec::new(), help: String::new() };
    let layout = |series| LayoutDefinition { group: 1, sampler: "s".into(), interval_ms: 1000, series };
    let count = 60_000;
    let first = layout((0..count).map(|_| SeriesRun::New { metric: 0, label_values: Vec::new() }).collect());
    let again = layout(vec![SeriesRun::Kept { first: 0, count }]);
    let layouts = std::iter::once(first).chain(std::iter::repeat_n(again, 18_000)).collect();
    let definitions = message::encode(&Definitions { metrics: vec![metric], layouts });
    let mut body = vec![3];
    body.extend_from_slice(&(definitions.len() as u32).to_le_bytes());
    body.extend_from_slice(&definitions);
    body.push(0);
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    let (took, answer) = timed(async {
        live.send_body(1, &body).await.unwrap();
        let latency = bystander.latency().await;
        assert!(latency < Duration::from_secs(2), "the bystander waited {latency:?}");
        live.stream.answer().await
    })
    .await;
    assert!(took < Duration::from_secs(5), "{answer:?} took {took:?}");
}

/// Row 49: bytes that were changed on purpose, with a right checksum, are an error and nothing worse.
#[tokio::test]
async fn mutated_batches_never_harm_the_collector() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut bystander = Bystander::join(&collector).await;
    let samples = Samples::new(3, clock::now().plus_millis(-60_000), 10);
    let mut encoder = Encoder::new();
    let bodies: Vec<Vec<u8>> = (1..=4)
        .map(|sequence| {
            let mut body = Vec::new();
            encoder.encode(&samples.batch(sequence), &mut body).unwrap();
            body
        })
        .collect();
    let batches = (1..).zip(&bodies).map(|(sequence, body)| SealedBatch { sequence, body }).collect();
    let valid = message::encode(&Batches { batches });
    let mut rng = fastrand::Rng::with_seed(0xBE1F);
    for round in 0..150 {
        let mut payload = valid.clone();
        for _ in 0..rng.usize(1..6) {
            match rng.u8(..4) {
                0 => payload.truncate(rng.usize(1..=payload.len())),
                1 => payload.extend((0..rng.usize(1..20)).map(|_| rng.u8(..))),
                _ => {
                    let at = rng.usize(..payload.len());
                    payload[at] = rng.u8(..);
                }
            }
        }
        let mut live = Live::open(collector.address(), &identity, Epoch(1 + round / 50)).await.unwrap();
        live.stream.frame(Kind::Batches, &payload).await.unwrap();
        // An answer or the end: each is right, as long as it comes.
        let answer = tokio::time::timeout(SOON, live.stream.answer()).await.unwrap();
        assert!(!matches!(answer, Err(quic::StreamError::Timeout(_))), "round {round}: silence");
    }
    bystander.latency().await;
    assert!(collector.process_mut().ended().is_none());
    collector.stop().await;
    // What was accepted is stored in a form that can be read back.
    drop(Stored::read(&collector.data_directory()));
}

/// Row 47: whoever sends a byte now and then loses the stream, or the connection if it had begun a frame on an open stream.
#[tokio::test]
async fn slow_lorises_are_dropped() {
    let collector = Collector::start().await;
    let identity = collector.join("first").await;
    let second = collector.join("second").await;
    let first_frame = async {
        let connection = member(&collector, &identity).await;
        let mut stream = Stream::open(&connection).await.unwrap();
        let frame = sealed(Kind::Hello, &message::encode(&hostile::hello(EPOCH)));
        let (took, ()) = timed(dribble(&mut stream, &frame)).await;
        assert!(took < Duration::from_secs(9), "the first frame was waited for {took:?}");
    };
    let later_frame = async {
        let mut live = Live::open(collector.address(), &second, EPOCH).await.unwrap();
        let frame = sealed(Kind::Batches, &[7; 400]);
        let (took, ()) = timed(dribble(&mut live.stream, &frame)).await;
        assert!(took < Duration::from_secs(14), "a frame was waited for {took:?}");
        let (code, reason) = hostile::close_code(&live.connection, SOON).await;
        assert_eq!(code, CloseCode::TooSlow, "{reason}");
    };
    tokio::join!(first_frame, later_frame);
    Bystander::join(&collector).await.latency().await;
}

/// Sends byte by byte until the collector has had enough.
async fn dribble(stream: &mut Stream, frame: &[u8]) {
    for byte in frame {
        if stream.raw(&[*byte]).await.is_err() {
            return;
        }
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(250), stream.reader.next()).await {
            assert!(!matches!(ended, Ok(Some(_))), "{ended:?} in answer to half a frame");
            return;
        }
    }
    panic!("the collector took {} bytes of it", frame.len());
}

/// A connection has four streams and no more.
#[tokio::test]
async fn streams_beyond_four_have_to_wait() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = Stream::open(&live.connection).await.unwrap();
        stream.message(Kind::Backlog, &Backlog { epoch: EPOCH.0 }).await.unwrap();
        open.push(stream);
    }
    let fifth = tokio::time::timeout(Duration::from_millis(500), Stream::open(&live.connection)).await;
    assert!(fifth.is_err(), "a fifth stream was granted");
    let datagram = tokio::time::timeout(Duration::from_millis(100), live.connection.open_uni()).await;
    assert!(datagram.is_err(), "a stream in one direction was granted");
}

/// Row 13: a sender that reads no acknowledgement is slowed down; it does not fill the collector's memory.
#[tokio::test]
async fn a_sender_that_does_not_listen_costs_no_memory() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let mut bystander = Bystander::join(&collector).await;
    let before = collector.process().resident_bytes();
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    let began = clock::monotonic();
    let mut sequence = 0;
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        for _ in 0..50 {
            sequence += 1;
            let batch = batch_of(1, "flood", 0..500, clock::now(), sequence as f64);
            let sent = tokio::time::timeout(Duration::from_millis(500), live.send(sequence, &batch)).await;
            if sent.is_err() {
                break;
            }
        }
        slowest = slowest.max(bystander.latency().await);
    }
    let grown = collector.process().resident_bytes().saturating_sub(before);
    assert!(sequence > 100, "only {sequence} batches were sent");
    assert!(grown < 96 * MIB, "the collector has grown by {} MiB over {sequence} batches", grown / MIB);
    assert!(slowest < Duration::from_secs(2), "the bystander waited {slowest:?}");
}
