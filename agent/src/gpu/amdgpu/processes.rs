//! Who computes on the cards, and in how much of their memory: from the list that the compute driver (KFD) keeps. Which of its numbers is
//! which card it tells only to who may use the card as a device: under systemd that takes `DeviceAllow=char-drm rw`.
//!
//! Absent: processes that draw and do not compute, which only their open files tell. To find those, every open file of every process of
//! the node would have to be looked at. Absent too: how busy each process keeps a card, which the driver says only to who asks the card.

use std::{io, path::Path};

use belfry_common::wire::message::{GpuHolders, GpuProcess};

use super::{
    super::board::Board,
    card::{Card, names, unsigned},
};
use crate::samplers::attribute;

/// Processes that are looked at; more are not told apart.
const PROCESSES_MAX: usize = 4096;
/// Nodes of the driver's topology: processors, and cards or parts of them.
const NODES_MAX: usize = 1024;

/// A part of the driver's topology that is a card, or a part of one.
struct Node {
    /// The card's index.
    gpu: u32,
    /// The file of a process that says its memory on it.
    file: String,
}

/// The processes of all cards.
pub(super) fn read(sys: &Path, board: &Board, cards: &[Card]) -> io::Result<Vec<GpuHolders>> {
    let directory = sys.join("class/kfd/kfd");
    board.note("kfd/proc", None);
    let nodes = nodes(&directory.join("topology/nodes"), cards)?;
    let pids: Vec<u32> = names(&directory.join("proc"))?.iter().filter_map(|name| name.parse().ok()).collect();
    let mut holders: Vec<_> =
        cards.iter().map(|card| GpuHolders { gpu: card.index(), processes: Vec::new() }).collect();
    for pid in pids.into_iter().take(PROCESSES_MAX) {
        let path = directory.join("proc").join(pid.to_string());
        for GpuHolders { gpu, processes } in &mut holders {
            let files = nodes.iter().filter(|node| node.gpu == *gpu).map(|node| &node.file);
            let bytes: u64 = files.filter_map(|file| unsigned(&attribute(&path.join(file)).ok()?).ok()).sum();
            // A process that computes at all is listed with every card; it holds those in which it has memory.
            if bytes > 0 {
                processes.push(holder(*gpu, pid, bytes));
            }
        }
    }
    Ok(holders)
}

fn holder(gpu: u32, pid: u32, bytes: u64) -> GpuProcess {
    GpuProcess {
        gpu,
        pid,
        memory_bytes: Some(bytes),
        sm_percent: None,
        encoder_percent: None,
        decoder_percent: None,
        gpu_instance: None,
        compute_instance: None,
    }
}

fn nodes(topology: &Path, cards: &[Card]) -> io::Result<Vec<Node>> {
    let names = names(topology)?.into_iter().take(NODES_MAX);
    let nodes = names.map(|name| node(&topology.join(name), cards));
    nodes.filter_map(Result::transpose).collect()
}

/// A processor's own number as a GPU is 0.
fn node(path: &Path, cards: &[Card]) -> io::Result<Option<Node>> {
    let id = attribute(&path.join("gpu_id"))?;
    if id == "0" {
        return Ok(None);
    }
    let address = address(&attribute(&path.join("properties"))?);
    let card = cards.iter().find(|card| Some(&card.address) == address.as_ref());
    Ok(card.map(|card| Node { gpu: card.index(), file: format!("vram_{id}") }))
}

/// The PCI address, from lines of a name and a number.
fn address(properties: &str) -> Option<String> {
    let property = |name: &str| {
        let mut lines = properties.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(known, _)| *known == name)?.1.trim().parse::<u32>().ok()
    };
    // Bits above the lowest 16 number the parts of a card that is split.
    let location = property("location_id")? & 0xffff;
    let (bus, device, function) = (location >> 8, (location >> 3) & 0x1f, location & 7);
    Some(format!("{:04x}:{bus:02x}:{device:02x}.{function}", property("domain")?))
}
