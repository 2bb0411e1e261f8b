//! The jobs that use GPUs, over all nodes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{
    Look, machine,
    output::Format,
    table::{Cell, Column, Fit, Table},
    units::{bytes, percent},
};
use crate::api::{GpuProcess, NodeStatus, StatusDocument};

const COLUMNS: &[Column] = &[
    Column::left("JOB", Fit::Name(24)),
    Column::left("USER", Fit::Flexible(8)),
    Column::right("NODES", Fit::Always),
    Column::right("GPUS", Fit::Always),
    Column::right("UTIL", Fit::Always),
    Column::right("MEMORY", Fit::Always),
    Column::left("NAME", Fit::Flexible(12)),
    Column::left("WHERE", Fit::Flexible(12)),
];

/// One job, and what it has in all.
#[derive(Debug, Default)]
struct Job {
    labels: BTreeMap<String, String>,
    nodes: BTreeSet<String>,
    /// By node and index: the utilisation of the whole GPU, where it is known.
    gpus: BTreeMap<(String, String), Option<f64>>,
    processes: usize,
    memory_bytes: Option<f64>,
}

impl Job {
    fn add(&mut self, node: &NodeStatus, index: &str, utilization: Option<f64>, process: &GpuProcess) {
        // Of one job's processes one may know more than another.
        if process.job_labels.len() > self.labels.len() {
            self.labels.clone_from(&process.job_labels);
        }
        self.nodes.insert(node.name.clone());
        self.gpus.insert((node.name.clone(), index.to_owned()), utilization);
        self.processes += 1;
        if let Some(bytes) = process.memory_bytes {
            *self.memory_bytes.get_or_insert(0.0) += bytes;
        }
    }

    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The mean over its GPUs.
    fn utilization(&self) -> Option<f64> {
        let known: Vec<f64> = self.gpus.values().copied().flatten().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// What people call it: a job's own name, a pod with its namespace.
    fn name(&self) -> String {
        match (self.label("namespace"), self.label("pod")) {
            ("", _) | (_, "") => self.label("job_name").to_owned(),
            (namespace, pod) => format!("{namespace}/{pod}"),
        }
    }
}

/// All jobs, those with most GPUs first.
pub(crate) fn view(document: &StatusDocument, format: Format, look: &Look) -> anyhow::Result<String> {
    let jobs = jobs(document);
    Ok(match format {
        Format::Table if jobs.is_empty() => "no job uses a GPU\n".to_owned(),
        Format::Table => table(&jobs, look),
        Format::Json => {
            let jobs: Vec<_> = jobs.iter().map(|(id, job)| object(id, job)).collect();
            machine::json(&serde_json::Value::from(jobs).to_string())
        }
        Format::Jsonl => jobs.iter().map(|(id, job)| machine::json(&object(id, job).to_string())).collect(),
        Format::Csv => machine::csv(CSV_NAMES, jobs.iter().map(|(id, job)| csv_row(id, job)))?,
    })
}

fn jobs(document: &StatusDocument) -> Vec<(String, Job)> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for node in &document.nodes {
        for gpu in &node.gpus {
            for process in &gpu.processes {
                let Some(id) = &process.job else { continue };
                jobs.entry(id.clone()).or_default().add(node, &gpu.index, gpu.utilization_ratio, process);
            }
        }
    }
    let mut jobs: Vec<_> = jobs.into_iter().collect();
    jobs.sort_by_key(|(_, job)| std::cmp::Reverse(job.gpus.len()));
    jobs
}

fn table(jobs: &[(String, Job)], look: &Look) -> String {
    let rows = jobs.iter().map(|(id, job)| {
        vec![
            Cell::plain(id),
            Cell::plain(job.label("user")),
            Cell::plain(&job.nodes.len().to_string()),
            Cell::plain(&job.gpus.len().to_string()),
            Cell::known(job.utilization().map(percent)),
            Cell::known(job.memory_bytes.map(bytes)),
            Cell::plain(&job.name()),
            Cell::plain(&job.nodes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        ]
    });
    Table { columns: COLUMNS, rows: rows.collect() }.render(look)
}

fn object(id: &str, job: &Job) -> serde_json::Value {
    let gpus: Vec<_> = job.gpus.keys().map(|(node, index)| json!({"node": node, "index": index})).collect();
    json!({
        "job": id, "labels": job.labels, "nodes": job.nodes, "gpus": gpus, "processes": job.processes,
        "utilization_ratio": job.utilization(), "memory_bytes": job.memory_bytes,
    })
}

const CSV_NAMES: &[&str] = &["job", "user", "name", "nodes", "gpus", "processes", "utilization_ratio", "memory_bytes"];

fn csv_row(id: &str, job: &Job) -> Vec<String> {
    vec![
        id.to_owned(),
        job.label("user").to_owned(),
        job.name(),
        job.nodes.len().to_string(),
        job.gpus.len().to_string(),
        job.processes.to_string(),
        machine::field(job.utilization()),
        machine::field(job.memory_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{api::GpuStatus, render::tests::look};

    fn process(job: &str, labels: &[(&str, &str)]) -> GpuProcess {
        let job_labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        GpuProcess { job: Some(job.to_owned()), job_labels, memory_bytes: Some(40e9), ..GpuProcess::default() }
    }

    fn node(name: &str, processes: &[GpuProcess]) -> NodeStatus {
        let gpu = |(index, process): (usize, &GpuProcess)| GpuStatus {
            index: index.to_string(),
            utilization_ratio: Some(0.9),
            processes: vec![process.clone()],
            ..GpuStatus::default()
        };
        let gpus = processes.iter().enumerate().map(gpu).collect();
        NodeStatus { name: name.into(), gpus, ..crate::render::tests::up(name, &[]) }
    }

    #[test]
    fn a_job_over_several_nodes_is_one_line() {
        let slurm = process("slurm 4711", &[("job_id", "4711"), ("user", "ada")]);
        let known = process("slurm 4711", &[("job_id", "4711"), ("user", "ada"), ("job_name", "llama-70b")]);
        let pod = process("kubernetes 1-2", &[("namespace", "vision"), ("pod", "eval-0"), ("user", "1000")]);
        let nodes = vec![node("gpu-01", &[slurm.clone(), slurm]), node("gpu-02", &[known, pod])];
        let document = StatusDocument { time: String::new(), nodes };
        expect![[r#"
            JOB             USER  NODES  GPUS  UTIL   MEMORY  NAME           WHERE
            slurm 4711      ada       2     3   90%  112 GiB  llama-70b      gpu-01 gpu-02
            kubernetes 1-2  1000      1     1   90%   37 GiB  vision/eval-0  gpu-02
        "#]]
        .assert_eq(&view(&document, Format::Table, &look(Some(100))).unwrap());
        expect![[r#"
            job,user,name,nodes,gpus,processes,utilization_ratio,memory_bytes
            slurm 4711,ada,llama-70b,2,3,3,0.9,120000000000
            kubernetes 1-2,1000,vision/eval-0,1,1,1,0.9,40000000000
        "#]]
        .assert_eq(&view(&document, Format::Csv, &look(None)).unwrap());
    }
}
