//! A node with GPUs and who watches it.

use belfry_tests::{
    agent::Agent,
    cli::Cli,
    collector::Collector,
    gpus::Gpus,
    wait::{SOON, eventually},
};
use serde_json::Value;

/// A scenario of two GPUs.
pub(crate) const TWO: &str = "[[gpu]]\nkind = \"h100\"\ncount = 2\n";

/// Whether both GPUs of [`TWO`] are.
pub(crate) fn are_ok(gpus: &[Value]) -> bool {
    gpus.len() == 2 && gpus.iter().all(|gpu| gpu["state"] == "ok")
}

/// A collector with the rules that ship, and a node with GPUs.
pub(crate) struct Scene {
    pub(crate) collector: Collector,
    pub(crate) agent: Agent,
    pub(crate) gpus: Gpus,
    pub(crate) cli: Cli,
}

impl Scene {
    pub(crate) async fn begin(scenario: &str) -> Self {
        Self::at(Collector::start_with("").await, Gpus::new(scenario)).await
    }

    /// With this collector and these GPUs.
    pub(crate) async fn at(collector: Collector, gpus: Gpus) -> Self {
        let mut agent = Agent::join(&collector, "gpu-01", collector.address()).await;
        agent.equip(&gpus, "");
        agent.start();
        let cli = Cli::admin(&collector);
        Self { collector, agent, gpus, cli }
    }

    /// The GPUs of the node, as its status has them.
    pub(crate) async fn status(&self) -> Vec<Value> {
        self.cli.json(&["status", "gpu-01"]).await["nodes"][0]["gpus"].as_array().unwrap().clone()
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, SOON, async || Some(self.status().await).filter(|gpus| is_so(gpus))).await
    }

    pub(crate) async fn firing(&self, rule: &str) -> Value {
        eventually(rule, SOON, async || {
            let alerts = self.cli.json(&["alerts", "--state", "firing"]).await;
            alerts.as_array().unwrap().iter().find(|alert| alert["rule"] == rule).cloned()
        })
        .await
    }

    pub(crate) async fn resolved(&self, rule: &str) {
        eventually(rule, SOON, async || {
            let alerts = self.cli.json(&["alerts"]).await;
            (!alerts.as_array().unwrap().iter().any(|alert| alert["rule"] == rule)).then_some(())
        })
        .await;
    }

    pub(crate) async fn end(mut self) {
        self.agent.stop().await;
        self.collector.stop().await;
    }
}
