//! The process that makes the calls which can hang: `belfry-agent gpu-worker`, started by the agent alone.
//!
//! It reads what it is asked for and answers; it has no schedule, no limits of time and no judgement: those are the agent's
//! ([`super::supervisor`]), which looks at this process from outside. It ends with the socket that is its standard input, and
//! so with the agent; from within a call that hangs by the kernel's hand, with the thread that started it.

use std::{
    io, mem,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
};

use belfry_common::{
    clock,
    model::{Batch, Timestamp},
    wire::{
        codec::Encoder,
        frame::Kind,
        message::{GpuEvent, GpuIdentity, GpuReadings, GpuReady, GpuRequest},
    },
};
use rustix::process::Signal;

use super::{
    amdgpu,
    board::Board,
    driver::{Driver, DriverState, Events, Maker, Set, Unusable},
    nvml,
    pause::Pause,
    protocol::{self, Outlet, ProtocolError},
};
use crate::readings::Readings;

/// What the agent tells its worker.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Whose GPUs
    pub(super) maker: Maker,
    /// The file descriptor on which calls are noted
    #[arg(long)]
    pub(super) board: i32,
    /// The agent's state directory: where a pause is requested, and the lock that this process holds
    #[arg(long)]
    pub(super) state: PathBuf,
    /// Where sysfs is
    #[arg(long)]
    pub(super) sys: PathBuf,
    /// The maker's library
    #[arg(long)]
    pub(super) library: PathBuf,
    /// Indices of GPUs that are not to be touched
    #[arg(long, value_delimiter = ',')]
    pub(super) without: Vec<u32>,
}

/// Serves the agent until it goes away.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // What `ps` shows: the program was started by a link of the kernel's, whose name says nothing.
    let _ = rustix::thread::set_name(c"belfry-gpu");
    // The end of the socket is not seen from within a call that hangs.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let board = Rc::new(Board::inherited(args.board)?);
    let pause = Pause::new(&args.state);
    let lock = pause.hold()?;
    let mut driver = match open(args, &pause, board) {
        Ok(driver) => driver,
        Err(Unusable { state, detail }) => {
            let ready = GpuReady { state: state.code(), detail, gpus: Vec::new() };
            return Ok(Outlet::new(channel).send(Kind::GpuReady, &ready)?);
        }
    };
    let outlet = Arc::new(Outlet::new(channel.try_clone()?));
    let gpus = driver.gpus();
    outlet.send(Kind::GpuReady, &ready(gpus.clone()))?;
    if let Some(events) = driver.events() {
        let outlet = Arc::clone(&outlet);
        thread::Builder::new()
            .name("gpu-events".into())
            .stack_size(256 * 1024)
            .spawn(move || watch(events, &outlet))?;
    }
    let mut server =
        Server { driver, gpus, channel, outlet, encoder: Encoder::new(), readings: Set::ALL.map(readings) };
    let served = server.serve();
    drop(server);
    // Held to the very end of the process: whoever gets it then finds no process any more.
    mem::forget(lock);
    match served {
        Err(ProtocolError::Gone(_)) => Ok(()),
        other => Ok(other?),
    }
}

fn open(args: &Args, pause: &Pause, board: Rc<Board>) -> Result<Box<dyn Driver>, Unusable> {
    // Requested after the agent looked: whoever did so had the lock before this process, and believes that it is alone.
    if pause.is_requested(clock::now()) {
        return Err(Unusable { state: DriverState::Paused, detail: String::new() });
    }
    match args.maker {
        Maker::Nvidia => Ok(Box::new(nvml::Nvidia::open(&args.library, &args.without, board)?)),
        Maker::Amd => Ok(Box::new(amdgpu::Amd::open(&args.sys, &args.without, board)?)),
    }
}

fn ready(gpus: Vec<GpuIdentity>) -> GpuReady {
    GpuReady { state: DriverState::Ok.code(), detail: String::new(), gpus }
}

/// Within the worker a set is a group; the agent knows it by its own number.
fn readings(set: Set) -> Readings {
    Readings::new(u16::from(set.code()), "", 0)
}

fn watch(mut events: Box<dyn Events>, outlet: &Outlet) {
    loop {
        let Some(reported) = events.next() else { continue };
        let event = GpuEvent { time_ms: clock::now().as_millis(), gpu: reported.gpu, xid: reported.xid };
        if outlet.send(Kind::GpuEvent, &event).is_err() {
            return;
        }
    }
}

struct Server {
    driver: Box<dyn Driver>,
    /// The GPUs that the agent was told of.
    gpus: Vec<GpuIdentity>,
    channel: UnixStream,
    outlet: Arc<Outlet>,
    encoder: Encoder,
    /// By set.
    readings: [Readings; 3],
}

impl Server {
    /// Answers requests until there are no more.
    fn serve(&mut self) -> Result<(), ProtocolError> {
        loop {
            let frame = protocol::receive(&self.channel)?;
            let request: GpuRequest = protocol::expect(Kind::GpuRequest, &frame)?;
            self.answer(request)?;
        }
    }

    fn answer(&mut self, request: GpuRequest) -> Result<(), ProtocolError> {
        let mut batch = Batch::default();
        let mut holders = None;
        // A set of a later agent has no readings here.
        if let Some(set) = Set::from_code(request.set)
            && let Some(readings) = self.readings.get_mut(usize::from(set.code()))
        {
            let time = Timestamp::from_millis(request.time_ms);
            self.driver.sample(set, time, readings);
            readings.take_missing();
            batch.ticks.extend(readings.finish(time));
            if set == Set::Condition {
                holders = Some(self.driver.holders());
                self.tell_of_new_gpus()?;
            }
        }
        let mut body = Vec::new();
        if let Err(error) = self.encoder.encode(&batch, &mut body) {
            tracing::error!(%error, "readings contradict themselves");
            body.clear();
        }
        let answer = GpuReadings { sequence: request.sequence, body: &body, holders };
        self.outlet.send(Kind::GpuReadings, &answer)
    }

    fn tell_of_new_gpus(&mut self) -> Result<(), ProtocolError> {
        let gpus = self.driver.gpus();
        if gpus != self.gpus {
            self.outlet.send(Kind::GpuReady, &ready(gpus.clone()))?;
            self.gpus = gpus;
        }
        Ok(())
    }
}
