//! A stream as clients see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::links::Links;
use super::super::sound_paths::Sounds;
use crate::engine::Ack;
use crate::station::StreamInfo;

/// Streams, the oldest first.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct StreamList {
    pub streams: Vec<StreamView>,
}

/// A stream and where to go from it.
#[derive(Serialize, ToSchema)]
#[schema(as = Stream)]
pub(in crate::http) struct StreamView {
    #[serde(flatten)]
    info: StreamInfo,
    /// Where it is heard, by format and by HLS (`hls`), watched (`events`) and steered (`ws`).
    urls: BTreeMap<String, String>,
    /// The node that makes it; only in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl StreamView {
    pub fn new(info: StreamInfo, links: &Links, node: Option<&str>) -> Self {
        let url = |end: &str| links.to(&format!("/v1/streams/{}/{end}", info.id));
        let sounds = Sounds::Live.formats().map(|format| (format.extension().to_owned(), Sounds::Live.segment(format)));
        let others = [("ws", "ws"), ("events", "events"), ("hls", "hls/master.m3u8")];
        let others = others.map(|(name, end)| (name.to_owned(), end.to_owned()));
        let urls = sounds.chain(others).map(|(name, end): (String, String)| (name, url(&end))).collect();
        Self { info, urls, node: node.map(str::to_owned) }
    }
}

/// A change was accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = Ack)]
pub(in crate::http) struct AckView {
    id: String,
    /// Media time in seconds of the first sample that the change affects.
    at: f64,
    /// Epoch of the sound from there on.
    epoch: u32,
}

impl AckView {
    pub fn new(id: &str, ack: Ack) -> Self {
        Self { id: id.to_owned(), at: ack.at, epoch: ack.epoch }
    }
}
