//! A path between agents and a collector that loses, delays, doubles and reorders packets, is cut on one side, or changes the
//! sender's port as a router does that forgets.
//!
//! Agents know the relay's address, which stays; where the collector is can change with each of its starts.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_common::clock;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

const DATAGRAM_BYTES_MAX: usize = 65_536;

/// What one direction does to packets.
#[derive(Debug, Clone)]
pub struct Way {
    /// Share of the packets that are lost.
    pub loss: f64,
    /// Share of the packets that come twice.
    pub duplication: f64,
    /// How long each packet takes; a wide range changes their order.
    pub delay_ms: Range<u64>,
    /// Nothing gets through.
    pub is_cut: bool,
}

impl Way {
    /// Everything gets through at once.
    pub const CLEAR: Self = Self { loss: 0.0, duplication: 0.0, delay_ms: 0..1, is_cut: false };
    /// Nothing gets through.
    pub const CUT: Self = Self { is_cut: true, ..Self::CLEAR };
}

/// The path. Dropping it cuts it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<()>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    scheduled: mpsc::UnboundedSender<Packet>,
}

#[derive(Debug)]
struct State {
    collector: SocketAddr,
    up: Way,
    down: Way,
    rng: fastrand::Rng,
    /// Packets that got through, up and down.
    passed: [u64; 2],
    /// Bytes of these packets, both ways.
    bytes: u64,
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// A clear path to a collector.
    pub async fn to(collector: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = front.local_addr().unwrap();
        let rng = fastrand::Rng::with_seed(7);
        let state = State { collector, up: Way::CLEAR, down: Way::CLEAR, rng, passed: [0; 2], bytes: 0 };
        let (scheduled, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { state: Mutex::new(state), scheduled });
        let (commands, orders) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(deliver(inbox));
        tasks.spawn(relay(front, Arc::clone(&shared), orders));
        Self { address, shared, commands, _tasks: tasks }
    }

    /// Where agents reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to another collector from now on.
    pub fn lead_to(&self, collector: SocketAddr) {
        self.shared.lock().collector = collector;
    }

    /// How packets fare from now on, to the collector and back.
    pub fn set(&self, up: Way, down: Way) {
        let mut state = self.shared.lock();
        state.up = up;
        state.down = down;
    }

    /// The collector sees every agent under another port from now on.
    pub fn rebind(&self) {
        self.commands.send(()).unwrap();
    }

    /// Bytes of the packets that got through so far, both ways: UDP payload.
    #[must_use]
    pub fn bytes_passed(&self) -> u64 {
        self.shared.lock().bytes
    }

    /// Packets that got through so far, to the collector and back.
    #[must_use]
    pub fn passed(&self) -> [u64; 2] {
        self.shared.lock().passed
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a packet on by the rules of its direction.
    fn pass(&self, is_up: bool, socket: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.lock();
        let way = if is_up { state.up.clone() } else { state.down.clone() };
        if way.is_cut || state.rng.f64() < way.loss {
            return;
        }
        let copies = if state.rng.f64() < way.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let due =
                Instant::from_std(clock::monotonic()) + Duration::from_millis(state.rng.u64(way.delay_ms.clone()));
            // The deliverer ends with the relay only.
            drop(self.scheduled.send(Packet { due, socket: Arc::clone(socket), to, bytes: bytes.to_vec() }));
        }
        state.passed[usize::from(!is_up)] += 1;
        state.bytes += bytes.len() as u64;
    }
}

/// Takes packets of all agents; each has a socket of its own towards the collector.
async fn relay(front: Arc<UdpSocket>, shared: Arc<Shared>, mut orders: mpsc::UnboundedReceiver<()>) {
    let mut agents: HashMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)> = HashMap::new();
    let mut readers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = front.recv_from(&mut buffer) => received,
            Some(()) = orders.recv() => {
                for (_, (_, reader)) in agents.drain() {
                    reader.abort();
                }
                continue;
            }
        };
        // Loopback reports that an agent's port is closed; other agents are not concerned.
        let Ok((length, agent)) = received else { continue };
        let (socket, _) = match agents.entry(agent) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                let reader = back(Arc::clone(&socket), Arc::clone(&front), agent, Arc::clone(&shared));
                new.insert((socket, readers.spawn(reader)))
            }
        };
        let collector = shared.lock().collector;
        shared.pass(true, socket, collector, &buffer[..length]);
    }
}

async fn back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, agent: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A collector that is down makes the kernel say so; it comes back.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        shared.pass(false, &front, agent, &buffer[..length]);
    }
}

async fn deliver(mut inbox: mpsc::UnboundedReceiver<Packet>) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut packets: HashMap<u64, Packet> = HashMap::new();
    let mut number = 0;
    loop {
        let next = waiting.peek().map(|Reverse((due, _))| *due);
        tokio::select! {
            packet = inbox.recv() => {
                let Some(packet) = packet else { return };
                number += 1;
                waiting.push(Reverse((packet.due, number)));
                packets.insert(number, packet);
            }
            () = sleep_until(next.unwrap_or_else(|| Instant::from_std(clock::monotonic()))), if next.is_some() => {
                let Some(Reverse((_, number))) = waiting.pop() else { continue };
                let Packet { socket, to, bytes, .. } = packets.remove(&number).unwrap();
                // A packet that cannot be sent is lost, as packets may be.
                drop(socket.send_to(&bytes, to).await);
            }
        }
    }
}
