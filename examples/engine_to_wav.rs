//! The engine alone: a prompt in, a WAV file out.
//!
//!     cargo run --release --example engine_to_wav -- "lofi piano" lofi.wav

use std::error::Error;
use std::path::Path;

use candle_core::Device;
use continuo::audio::Format;
use continuo::engine::{Engine, EngineConfig, KV_BUDGET, MusicGenBackend, Read, VoiceEnd, VoiceSpec};
use continuo::model::weights::Target;
use continuo::model::{BUNDLED, MusicGen, locate};
use continuo::units::{Frames, ModelId, Samples};

const SECONDS: f64 = 8.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(prompt), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: engine_to_wav PROMPT FILE.wav".into());
    };
    make(&prompt, Path::new(&output)).await
}

/// Writes [`SECONDS`] of music for `prompt` to `output`.
pub async fn make(prompt: &str, output: &Path) -> Result<(), Box<dyn Error>> {
    let files = |name: &str| locate(name, &mut |_, _, _| {});
    let model = MusicGen::load(&files(BUNDLED)?, &files, &Target::new(&Device::Cpu))?;
    let backend = MusicGenBackend::new(ModelId(BUNDLED.to_owned()), model, KV_BUDGET)?;
    let engine = Engine::start(Box::new(backend), EngineConfig::default())?;
    let info = engine.models().into_iter().next().ok_or("the engine has a model")?;

    let mut spec = VoiceSpec::endless(prompt);
    spec.length = Some(Frames((SECONDS * info.frame_rate()) as u64));
    let mut voice = engine.join(spec).await?;
    let mut pcm = Vec::new();
    loop {
        match voice.read(Samples(u64::MAX)) {
            Read::Chunk(chunk) => pcm.extend(chunk.pcm),
            Read::Pending => voice.ready().await,
            Read::End(VoiceEnd::Finished) => break,
            Read::End(end) => return Err(end.to_string().into()),
        }
    }
    std::fs::write(output, Format::WAV.encode(&pcm, info.sample_rate, info.channels)?)?;
    Ok(())
}
