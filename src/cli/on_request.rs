//! Models that requests ask for beside the one that a server begins with.

use std::sync::Arc;

use candle_core::Device;

use super::load::{DtypeChoice, load_named, weigh};
use super::{Failure, ModelArgs};
use crate::engine::{AskModel, Engine, KV_BUDGET, ModelRequest, VoiceLoader};
use crate::units::ModelId;

/// Weighs and loads them for an engine, as `args` say.
pub(super) fn models(engine: Engine, args: &ModelArgs, device: &Device) -> VoiceLoader {
    VoiceLoader { weigh: weigher(args.clone(), device), load: loader(engine, args.clone()) }
}

/// The arguments for a model that a request asks for.
fn asked(args: &ModelArgs, request: &ModelRequest) -> ModelArgs {
    let mut args = args.clone();
    if request.format.is_some() {
        args.dtype = DtypeChoice(request.format);
    }
    args
}

fn weigher(args: ModelArgs, device: &Device) -> AskModel<u64> {
    // On a GPU a model's keys and values are set aside at once.
    let keys = if device.is_cpu() { 0 } else { KV_BUDGET as u64 };
    Arc::new(move |request| {
        let args = asked(&args, &request);
        Box::pin(async move {
            let weighed = tokio::task::spawn_blocking(move || weigh(&request.model, &args)).await;
            let weighed = weighed.map_err(|error| format!("The model could not be looked at: {error}."))?;
            weighed.map(|bytes| bytes + keys).map_err(|error| error.to_string())
        })
    })
}

fn loader(engine: Engine, args: ModelArgs) -> AskModel<ModelId> {
    Arc::new(move |request| {
        let (engine, args) = (engine.clone(), asked(&args, &request));
        Box::pin(async move {
            let name = request.model.clone();
            let backend = tokio::task::spawn_blocking(move || {
                let device = args.device.open()?;
                load_named(&name, &args, &device)
            })
            .await
            .map_err(|error| format!("The model could not be loaded: {error}."))?
            .map_err(|Failure(sentence)| sentence)?;
            engine.add_model(backend).await.map_err(|error| error.to_string())?;
            Ok(ModelId(request.model))
        })
    })
}
