//! `bench cluster`: nodes of this program over a NATS server that runs already. What listeners cost
//! at edges, whose stream another node makes, and what is heard at an edge when the node that makes
//! it is killed.

mod ear;
mod node;
mod takeover;

use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use self::node::{Nodes, STATION};
use super::Row;
use super::loopback::cpu_seconds;
use crate::cli::Failure;

/// Listeners are all there after so long, and their burst is over.
const ARRIVAL: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct ClusterArgs {
    /// NATS servers with JetStream, as `serve --cluster` takes them; what this leaves there is
    /// called `continuo-bench-...`
    #[arg(long, value_name = "ADDRESS", default_value = "nats://127.0.0.1:4222")]
    cluster: String,
    /// Edges that have the listeners
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    edges: Vec<usize>,
    /// Listeners, over all edges
    #[arg(long, default_value_t = 600)]
    listeners: usize,
    /// Seconds to measure once all are connected
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How often the node that makes a stream is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Also read the CPU time of this process id: that of the NATS server, say
    #[arg(long)]
    pid: Option<u32>,
}

pub(super) fn run(args: &ClusterArgs) -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut rows = Vec::new();
        for &edges in args.edges.iter().filter(|edges| **edges > 0) {
            rows.push(listeners(args, edges).await?);
        }
        if args.kills > 0 {
            rows.push(takeover::run(&args.cluster, args.kills).await?);
        }
        Ok(rows)
    })
}

/// A station of one engine, heard at so many edges.
async fn listeners(args: &ClusterArgs, edges: usize) -> Result<Row, Failure> {
    let mut nodes = Nodes::new(&args.cluster)?;
    let engine = nodes.engine().await?;
    let mut fronts = Vec::new();
    for _ in 0..edges {
        fronts.push(nodes.edge().await?);
    }
    let path = format!("/generate?station={STATION}");
    let each = args.listeners / edges;
    let listening = fronts.iter().map(|edge| async {
        let mut listening = tokio::process::Command::new(std::env::current_exe()?);
        listening.args(["bench", "listeners", &edge.address, &path, "--json"]);
        listening.args(["--count", &each.to_string(), "--seconds", &args.seconds.to_string()]);
        listening.args(["--pid", &edge.pid.to_string()]).stderr(Stdio::inherit()).kill_on_drop(true);
        let report: Value = serde_json::from_slice(&listening.output().await?.stdout)?;
        Ok::<_, Failure>(report["results"][0].clone())
    });
    let others = async {
        let read = || (cpu_seconds(engine.pid), args.pid.and_then(cpu_seconds));
        tokio::time::sleep(ARRIVAL).await;
        let before = read();
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        let percent = |after: Option<f64>, before| Some(100.0 * (after? - before?) / args.seconds);
        let after = read();
        Ok((percent(after.0, before.0), percent(after.1, before.1)))
    };
    let (reports, (owner, other)) = tokio::try_join!(try_join_all(listening), others)?;
    nodes.end().await;
    let all = |key: &str| reports.iter().filter_map(|report| report[key].as_f64()).collect::<Vec<f64>>();
    let sum = |key: &str| all(key).iter().sum::<f64>();
    Ok(vec![
        ("edges", json!(edges)),
        ("listeners", json!(each * edges)),
        ("kbit_per_listener", json!(sum("kbit_per_listener") / edges as f64)),
        ("longest_gap_ms", json!(all("longest_gap_ms").into_iter().fold(0.0, f64::max))),
        ("lost", json!(sum("lost") as u64)),
        ("edges_cpu_percent", json!(sum("server_cpu_percent"))),
        ("edge_cpu_us_per_listener_second", json!(sum("server_cpu_us_per_listener_second") / edges as f64)),
        ("owner_cpu_percent", json!(owner)),
        ("pid_cpu_percent", json!(other)),
    ])
}
