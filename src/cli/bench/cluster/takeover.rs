//! The node that makes a stream is killed, again and again, under somebody who listens at an edge.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::{Row, quantile};
use super::ear::Ear;
use super::node::{Nodes, STATION, plays};
use crate::cli::Failure;

/// How long it is listened behind each kill: all that is late is late by then.
const AFTER: Duration = Duration::from_secs(6);

pub(super) async fn run(cluster: &str, kills: usize) -> Result<Row, Failure> {
    let mut nodes = Nodes::new(cluster)?;
    nodes.engine().await?;
    let edge = nodes.edge().await?;
    let ear = Ear::open(&edge.address, &format!("/generate?station={STATION}&format=wav")).await?;
    let (mut took, mut silences, mut least, mut stops) = (Vec::new(), Vec::new(), f64::MAX, 0);
    for _ in 0..kills {
        let heir = nodes.engine().await?;
        let settled = edge.until(|nodes| {
            let has_room = |node: &Value| node["name"] == heir.name.as_str() && node["room"].as_u64() > Some(0);
            nodes.iter().any(has_room) && nodes.iter().filter(|node| plays(node)).count() == 1
        });
        let owner = settled.await?.into_iter().find(plays).unwrap_or_default();
        // The journal has what was heard, and the one before is forgotten.
        sleep(AFTER).await;
        ear.mark();
        nodes.kill(owner["name"].as_str().unwrap_or_default()).await?;
        sleep(AFTER).await;
        let heard = ear.heard()?;
        silences.push(heard.silence);
        least = least.min(heard.least);
        stops += usize::from(heard.least < 0.0);
        let is_heir = |node: &Value| node["name"] == heir.name.as_str() && node["takeovers"].as_u64() > Some(0);
        let seen = edge.until(|nodes| nodes.iter().any(is_heir)).await?;
        let seconds = seen.iter().find(|node| is_heir(node)).and_then(|node| node["takeover_seconds"].as_f64());
        took.extend(seconds.map(Duration::from_secs_f64));
    }
    nodes.end().await;
    Ok(vec![
        ("kills", json!(kills)),
        ("takeover_p50_ms", json!(1000.0 * quantile(&took, 0.5))),
        ("takeover_p99_ms", json!(1000.0 * quantile(&took, 0.99))),
        ("silence_p50_ms", json!(1000.0 * quantile(&silences, 0.5))),
        ("silence_p99_ms", json!(1000.0 * quantile(&silences, 0.99))),
        ("least_store_s", json!(least)),
        ("stops", json!(stops)),
    ])
}
