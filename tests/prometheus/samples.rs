//! The samples that both sides have: two hours of a few nodes, with gaps, resets, and numbers that are none.

use std::fmt::Write as _;

use belfry_common::model::Timestamp;

/// Nodes of the data.
pub(crate) const NODES: [&str; 3] = ["gpu-01", "gpu-02", "gpu-03"];
const STEP_MS: i64 = 15_000;
/// Samples of each series.
const STEPS: i64 = 480;

/// OpenMetrics text; the newest sample is at this time.
pub(crate) fn text(end: Timestamp) -> String {
    let mut data = Data { text: String::new(), end_ms: end.as_millis(), random: fastrand::Rng::with_seed(7) };
    data.gauges();
    data.counters();
    data.histogram();
    data.oddities();
    data.text + "# EOF\n"
}

struct Data {
    text: String,
    end_ms: i64,
    random: fastrand::Rng,
}

impl Data {
    fn begin(&mut self, name: &str, kind: &str) {
        writeln!(self.text, "# HELP {name} Made for a comparison.\n# TYPE {name} {kind}").unwrap();
    }

    /// One series; no value where there is no sample.
    fn series(
        &mut self,
        name: &str,
        node: &str,
        labels: &str,
        mut value: impl FnMut(&mut fastrand::Rng, i64) -> Option<f64>,
    ) {
        let separator = if labels.is_empty() { "" } else { "," };
        for step in 0..STEPS {
            let Some(value) = value(&mut self.random, step) else { continue };
            let time = (self.end_ms - (STEPS - 1 - step) * STEP_MS) as f64 / 1000.0;
            let value = if value.is_infinite() {
                if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
            } else {
                value.to_string()
            };
            writeln!(self.text, "{name}{{instance=\"{node}\",job=\"belfry\"{separator}{labels}}} {value} {time:.3}")
                .unwrap();
        }
    }

    fn gauges(&mut self) {
        for (name, base, spread) in [
            ("gpu_utilization_ratio", 0.5, 0.5),
            ("gpu_power_watts", 350.0, 200.0),
            ("gpu_temperature_celsius", 60.0, 20.0),
        ] {
            self.begin(name, "gauge");
            for (number, node) in NODES.into_iter().enumerate() {
                for gpu in 0..2 {
                    // The last GPU of all is gone for a while.
                    let is_gone = move |step: i64| number == 2 && gpu == 1 && (200..260).contains(&step);
                    self.series(name, node, &format!("gpu=\"{gpu}\",uuid=\"GPU-{number}{gpu}\""), |random, step| {
                        (!is_gone(step)).then(|| base + spread * (random.f64() - 0.5))
                    });
                }
            }
        }
        self.begin("node_load1", "gauge");
        for node in NODES {
            self.series("node_load1", node, "", |random, step| Some((step % 40) as f64 / 10.0 + random.f64()));
        }
    }

    fn counters(&mut self) {
        self.begin("node_cpu_seconds", "counter");
        for (number, node) in NODES.into_iter().enumerate() {
            for cpu in 0..2 {
                for mode in ["idle", "system", "user"] {
                    let mut total = 1_000.0 * f64::from(cpu + 1);
                    self.series(
                        "node_cpu_seconds_total",
                        node,
                        &format!("cpu=\"{cpu}\",mode=\"{mode}\""),
                        |random, step| {
                            // A node begins anew.
                            total = if number == 1 && step == 300 { 0.0 } else { total + 15.0 * random.f64() };
                            Some(total)
                        },
                    );
                }
            }
        }
        self.begin("node_network_receive_bytes", "counter");
        for node in NODES {
            for device in ["eth0", "ib0"] {
                let mut total = 0.0;
                self.series(
                    "node_network_receive_bytes_total",
                    node,
                    &format!("device=\"{device}\""),
                    |random, step| {
                        total += (1_000_000.0 * random.f64()).floor();
                        (step % 7 != 3).then_some(total)
                    },
                );
            }
        }
    }

    fn histogram(&mut self) {
        self.begin("request_duration_seconds", "histogram");
        for node in NODES {
            let mut counts = [0.0_f64; 5];
            for (place, le) in ["0.01", "0.1", "0.5", "1", "+Inf"].into_iter().enumerate() {
                let mut total = counts[place];
                self.series("request_duration_seconds_bucket", node, &format!("le=\"{le}\""), |_, step| {
                    // Each bucket has what the one below has, and some more.
                    total += ((step % 5) as f64 + 1.0) * (place as f64 + 1.0);
                    Some(total)
                });
                counts[place] = total;
            }
        }
    }

    fn oddities(&mut self) {
        self.begin("odd_value", "gauge");
        for (node, values) in NODES.into_iter().zip([
            [1.0, f64::NAN, -3.0, 0.0],
            [f64::INFINITY, 1e300, -1e-9, 2.5],
            [-0.5, f64::NEG_INFINITY, 7.0, 1e12],
        ]) {
            self.series("odd_value", node, "", |_, step| Some(values[(step % 4) as usize]));
        }
        self.begin("machine_info", "gauge");
        for (node, model) in NODES.into_iter().zip(["H100", "H100", "A100"]) {
            self.series("machine_info", node, &format!("model=\"{model}\",rack=\"r{}\"", &node[4..]), |_, _| Some(1.0));
        }
    }
}
