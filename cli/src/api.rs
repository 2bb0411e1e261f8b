//! What clients ask and what they are told: JSON, so that a script sees what the program sees.
//!
//! Field names are a contract. A request is one object; a reply is text, a document or lines, ended by a frame of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alerts::Number;

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The fleet, or one node: a [`StatusDocument`].
    Status {
        node: Option<String>,
    },
    /// Samples as they come, as lines of [`TailLine`].
    Tail {
        selectors: Vec<String>,
        node: Option<String>,
        since_ms: Option<u64>,
    },
    /// What an expression amounts to: a [`QueryAnswer`].
    Query {
        expression: String,
        /// Without it, at one instant: the end.
        start_ms: Option<i64>,
        /// Without it, now.
        end_ms: Option<i64>,
        step_ms: Option<i64>,
        timeout_ms: u64,
    },
    /// The nodes, as a list of [`NodeRow`].
    Nodes,
    RevokeNode {
        name: String,
    },
    ForgetNode {
        name: String,
    },
    /// A new token: a [`TokenCreated`].
    CreateToken {
        role: String,
        ttl_ms: u64,
        uses: u32,
        names: String,
    },
    /// A new token for HTTP: an [`HttpTokenCreated`].
    CreateHttpToken {
        name: String,
        role: String,
        ttl_ms: u64,
    },
    /// The tokens, as a list of [`TokenRow`].
    Tokens,
    RevokeToken {
        id: String,
    },
    /// The alerts that stand, as a list.
    Alerts {
        states: Vec<String>,
    },
    /// The event stream, as lines. A cursor that is named is put where the stream begins, unless it stands there; only
    /// [`Request::MoveCursor`] moves it on.
    Follow {
        from: Start,
        cursor: Option<String>,
        is_once: bool,
    },
    /// Notes that every event up to this one was delivered to whoever reads by this cursor.
    MoveCursor {
        name: String,
        seq: u64,
    },
    /// The rules and how they fare, as a list.
    Rules,
    /// Reads the rule files again.
    ReloadRules,
    /// What the collector says of itself: a [`Health`].
    Health {
        /// Whether the audit log is to be checked as well, from its first row on.
        #[serde(default)]
        with_audit: bool,
    },
    /// The audit log's rows.
    Audit {
        count: usize,
    },
}

/// The result of a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueryAnswer {
    pub(crate) r#type: ResultType,
    /// When it was evaluated, or the end of the range.
    pub(crate) time_ms: i64,
    /// Of a vector one sample each; of a scalar one series without labels.
    pub(crate) series: Vec<QuerySeries>,
    /// Of a string.
    pub(crate) text: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) infos: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResultType {
    Scalar,
    Vector,
    Matrix,
    String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuerySeries {
    /// The metric's name among them.
    pub(crate) labels: BTreeMap<String, String>,
    /// Times in milliseconds, and values.
    pub(crate) samples: Vec<(i64, Number)>,
}

/// Where an event stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    /// With what happens from now on.
    Now,
    /// Behind this number.
    After(u64),
    /// With what happened since so many milliseconds ago.
    Ago(u64),
    /// Behind what the cursor says was delivered; from now on if it is new.
    Cursor,
}

/// `belfry status -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusDocument {
    pub(crate) time: String,
    pub(crate) nodes: Vec<NodeStatus>,
}

/// One node of the status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    /// `up`, `stale` or `down`.
    pub(crate) state: String,
    /// Why it is not up: `silent`, `awaited`, `never_seen`, `unreachable`, `stopped` or `revoked`.
    pub(crate) reason: Option<String>,
    pub(crate) last_seen: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) boot_time: Option<String>,
    pub(crate) cpu: CpuStatus,
    pub(crate) memory: MemoryStatus,
    pub(crate) disk: DiskStatus,
    /// Of one node alone, when it was asked for by name: the fullest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) filesystems: Vec<FilesystemStatus>,
    pub(crate) network: NetworkStatus,
    pub(crate) gpus: Vec<GpuStatus>,
    pub(crate) alerts: AlertCounts,
}

/// A file system as `df` counts: what root alone may use is neither used nor available.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FilesystemStatus {
    pub(crate) mountpoint: String,
    pub(crate) used_ratio: f64,
    pub(crate) size_bytes: f64,
    pub(crate) available_bytes: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuStatus {
    pub(crate) utilization_ratio: Option<f64>,
    pub(crate) cores: Option<u64>,
    pub(crate) load1: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemoryStatus {
    pub(crate) used_bytes: Option<f64>,
    pub(crate) total_bytes: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DiskStatus {
    /// Of the fullest file system.
    pub(crate) used_ratio_max: Option<f64>,
    pub(crate) mountpoint: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkStatus {
    pub(crate) receive_bytes_per_second: Option<f64>,
    pub(crate) transmit_bytes_per_second: Option<f64>,
}

/// One GPU of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuStatus {
    pub(crate) index: String,
    pub(crate) uuid: String,
    pub(crate) model: Option<String>,
    /// `ok`, `degraded`, `failed` or `unknown`.
    pub(crate) state: String,
    /// Why it is not `ok`, in words, the worst first.
    #[serde(default)]
    pub(crate) causes: Vec<String>,
    pub(crate) utilization_ratio: Option<f64>,
    pub(crate) memory_used_bytes: Option<f64>,
    pub(crate) memory_total_bytes: Option<f64>,
    pub(crate) temperature_celsius: Option<f64>,
    pub(crate) power_watts: Option<f64>,
    pub(crate) processes: Vec<GpuProcess>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuProcess {
    pub(crate) pid: u32,
    pub(crate) user: String,
    pub(crate) command: String,
    /// Kind and id: `slurm 4711`.
    pub(crate) job: Option<String>,
    /// All that is known of the job, by the names of its series' labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) job_labels: BTreeMap<String, String>,
    pub(crate) memory_bytes: Option<f64>,
    #[serde(default)]
    pub(crate) gpu_instance: Option<u32>,
    #[serde(default)]
    pub(crate) utilization_ratio: Option<f64>,
    #[serde(default)]
    pub(crate) encoder_ratio: Option<f64>,
    #[serde(default)]
    pub(crate) decoder_ratio: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlertCounts {
    pub(crate) firing: u64,
    pub(crate) pending: u64,
}

/// One sample of `belfry tail -o jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TailLine {
    pub(crate) time: String,
    pub(crate) metric: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// `null` for a failed reading. NaN and infinities are the strings `NaN`, `+Inf` and `-Inf`.
    pub(crate) value: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// One node of `belfry nodes -o json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) joined_at: String,
    pub(crate) last_seen: Option<String>,
    pub(crate) series: u64,
    pub(crate) series_left_out: u64,
    pub(crate) clock_skew_seconds: Option<f64>,
}

/// A token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenCreated {
    pub(crate) id: String,
    /// The secret; it is shown once and kept nowhere.
    pub(crate) token: String,
    pub(crate) role: String,
    pub(crate) expires_at: String,
    /// Where those who join can reach the collector, as far as it knows.
    pub(crate) collector: String,
}

/// A token for HTTP as `belfry token create --http -o json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpTokenCreated {
    pub(crate) id: String,
    /// The secret; it is shown once and kept nowhere.
    pub(crate) token: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) expires_at: String,
    /// Where HTTP is served, as far as the collector knows. Of `http://` it asks for no token.
    pub(crate) url: String,
}

/// One token of `belfry token list -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) role: String,
    /// Which names those who join may take; of a token for HTTP, the name of who shows it.
    pub(crate) names: String,
    /// Nothing of a token for HTTP, which is used without end.
    pub(crate) uses_left: Option<u32>,
    pub(crate) uses_total: Option<u32>,
    pub(crate) expires_at: String,
    pub(crate) created_at: String,
    pub(crate) created_by: String,
    /// `usable`, `used up`, `expired` or `revoked`.
    pub(crate) state: String,
    /// `join` or `http`.
    pub(crate) kind: String,
}

/// What the collector says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) version: String,
    pub(crate) time: String,
    pub(crate) started_at: String,
    pub(crate) data_directory: String,
    pub(crate) is_full: bool,
    pub(crate) database: String,
    /// If it was to be checked: `intact`, or which row of the audit log is not what was written.
    pub(crate) audit: Option<String>,
    pub(crate) nodes: u64,
    pub(crate) connections: u64,
    pub(crate) series: u64,
    pub(crate) head_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) rules: u64,
    pub(crate) rules_failing: u64,
    /// Why rules were not read again the last time, if they were not.
    pub(crate) rules_refused: Option<String>,
    pub(crate) next_event: u64,
    /// Processor time of the collector so far; none where there is no `/proc`.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) actor: String,
    pub(crate) role: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) detail: String,
    pub(crate) outcome: String,
}

/// A time as JSON shows it: RFC 3339, UTC, milliseconds.
pub(crate) fn time(time: belfry_common::model::Timestamp) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    // Beyond the year 9999 there is nothing to show.
    let millis = millis.min(253_402_300_799_000);
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis)).to_string()
}
