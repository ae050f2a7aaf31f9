//! What `/v1` answers with, as types: the JSON that is sent and its description come from the same
//! fields. What `/v1` is asked with stands beside the routes.

mod clip;
mod model;
mod node;
mod render;
mod session;
mod stream;

use serde_json::Value;
use utoipa::OpenApi;

pub(super) use self::clip::{ClipList, ClipView};
pub(super) use self::model::{ModelList, ModelView};
pub(super) use self::node::NodeList;
pub(super) use self::render::{AcceptedRender, PresetList, PresetView, RenderView};
pub(super) use self::session::{SessionList, SessionView};
pub(super) use self::stream::{AckView, StreamList, StreamView};
use super::{clips, history, input, journal, models, ops, renders, sessions, stats, upload};
use crate::station::{Event, History};
use crate::studio::Drawing;

/// Every body of `/v1` by the name under which the description refers to it, with those within.
#[derive(OpenApi)]
#[openapi(components(schemas(
    AcceptedRender,
    AckView,
    ClipList,
    ClipView,
    Drawing,
    Event,
    History,
    ModelList,
    ModelView,
    NodeList,
    PresetList,
    RenderView,
    SessionList,
    SessionView,
    StreamList,
    StreamView,
    clips::Onward,
    history::Rename,
    input::Change,
    input::Create,
    journal::ClipOfStream,
    journal::Onward,
    journal::Part,
    models::Load,
    ops::Readiness,
    renders::LoopBody,
    sessions::Change,
    sessions::Crop,
    stats::Stats,
    upload::Fields,
)))]
struct Bodies;

/// The JSON schemas of all bodies, by name.
pub(super) fn schemas() -> Value {
    let components = Bodies::openapi().components.map(|components| components.schemas);
    // A test reads them.
    let mut schemas = serde_json::to_value(components).unwrap_or_default();
    join_lines(&mut schemas);
    schemas
}

/// Comments end their lines where the source does; whoever reads a description has lines of his
/// own.
fn join_lines(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            fields.values_mut().for_each(join_lines);
        }
        Value::Array(values) => values.iter_mut().for_each(join_lines),
        _ => {}
    }
}
