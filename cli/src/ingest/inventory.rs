//! Looks at an inventory before anything is made of it. Pure.

use belfry_common::{
    limits,
    model::check_label_name,
    wire::message::{Inventory, InventoryProcess},
};

/// Labels of one job: kind, id and what is known besides.
const JOB_LABELS_MAX: usize = 16;

/// Whether an inventory can be used, or why not.
pub(super) fn inspect(inventory: &Inventory) -> Result<(), &'static str> {
    if inventory.processes.len() > limits::INVENTORY_PROCESSES_MAX {
        return Err("more processes than an inventory may have");
    }
    if inventory.gpus.len() > limits::INVENTORY_GPUS_MAX {
        return Err("more GPUs than an inventory may have");
    }
    let are_short = inventory.gpus.iter().all(|uuid| uuid.len() <= limits::LABEL_VALUE_BYTES_MAX);
    if !are_short || !inventory.processes.iter().all(is_short) {
        return Err("a text that is too long");
    }
    let jobs = inventory.processes.iter().filter_map(|process| process.job.as_ref());
    for job in jobs {
        if job.labels.len() > JOB_LABELS_MAX || job.labels.iter().any(|(name, _)| check_label_name(name).is_err()) {
            return Err("a job with unacceptable labels");
        }
    }
    Ok(())
}

fn is_short(process: &InventoryProcess) -> bool {
    let labels = process.job.iter().flat_map(|job| &job.labels).map(|(_, value)| value);
    let texts = [&process.uuid, &process.user, &process.command].into_iter().chain(labels);
    texts.into_iter().all(|text| text.len() <= limits::LABEL_VALUE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use belfry_common::wire::message::{GpuProcess, InventoryJob};

    use super::*;

    fn process(command: &str, label: &str) -> InventoryProcess {
        let holds = GpuProcess {
            gpu: 0,
            pid: 1,
            memory_bytes: None,
            sm_percent: None,
            encoder_percent: None,
            decoder_percent: None,
            gpu_instance: None,
            compute_instance: None,
        };
        let job = InventoryJob { labels: vec![(label.to_owned(), "1".to_owned())] };
        InventoryProcess { holds, uuid: "GPU-1".into(), user: String::new(), command: command.into(), job: Some(job) }
    }

    #[test]
    fn what_is_too_much_or_no_label_is_refused() {
        let gpus = |count| vec!["GPU-1".to_owned(); count];
        let inventory = |processes| Inventory { time_ms: 1, gpus: gpus(1), processes, left_out: 0 };
        assert_eq!(inspect(&inventory(vec![process("python", "job_id")])), Ok(()));
        assert!(inspect(&inventory(vec![process(&"x".repeat(513), "job_id")])).is_err());
        assert!(inspect(&inventory(vec![process("python", "job-id")])).is_err());
        assert!(inspect(&inventory(vec![process("python", "job_id"); 513])).is_err());
        assert!(inspect(&Inventory { gpus: gpus(257), ..inventory(vec![]) }).is_err());
    }
}
