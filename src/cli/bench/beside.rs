//! Live voices while a transform is made on the same device: whether a listener would have heard a
//! gap.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{RandomModel, Row};
use crate::cli::Failure;
use crate::engine::{
    Engine, EngineConfig, Read, RenderModel, RenderSpec, TransformMethod, TransformSettings, TransformSpec, Voice,
    VoiceSpec,
};
use crate::units::Samples;

/// Seconds that voices have ahead, as `serve` gives them.
const LEAD: f64 = 8.0;
/// How often a listener takes what is due.
const TICK: Duration = Duration::from_millis(20);
/// Time for voices to fill their lead.
const FILL: Duration = Duration::from_secs(120);

/// A listener who takes sound as time goes by.
struct Ear {
    voice: Voice,
    heard: u64,
    dry: bool,
    gaps: u64,
    missed: f64,
    least: f64,
}

impl Ear {
    fn listen(&mut self, elapsed: f64, passed: f64) -> Result<(), Failure> {
        let due = (elapsed * f64::from(self.voice.model().sample_rate.0)) as u64;
        self.least = self.least.min(self.voice.buffered());
        while self.heard < due {
            match self.voice.read(Samples(due - self.heard)) {
                Read::Chunk(chunk) => {
                    self.heard += (chunk.pcm.len() / chunk.channels) as u64;
                    self.dry = false;
                }
                Read::Pending => {
                    self.gaps += u64::from(!self.dry);
                    self.missed += passed;
                    // What could not be heard is not caught up with.
                    (self.dry, self.heard) = (true, due);
                }
                Read::End(end) => return Err(Failure(format!("A voice ended: {end}."))),
            }
        }
        Ok(())
    }
}

/// Plays `voices` while a transform of `sound` seconds is made, for at most `patience` seconds.
pub(super) fn run(
    voices: &RandomModel,
    count: usize,
    model: RenderModel,
    (sound, patience): (f64, f64),
) -> Result<Row, Failure> {
    let (backend, dtype, _) = voices.build()?;
    let engine = Engine::start(Box::new(backend), EngineConfig::default())?;
    let speed = engine.status().realtime_factor;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ears = Vec::new();
        for _ in 0..count {
            let spec = VoiceSpec { lead: Duration::from_secs_f64(LEAD), ..VoiceSpec::endless("lofi piano") };
            let voice = engine.join(spec).await?;
            ears.push(Ear { voice, heard: 0, dry: false, gaps: 0, missed: 0.0, least: LEAD });
        }
        let filling = Instant::now();
        while ears.iter().any(|ear| ear.voice.buffered() < 0.9 * LEAD) {
            if filling.elapsed() > FILL {
                return Err(Failure(format!("{count} voices do not play in real time on this machine.")));
            }
            tokio::time::sleep(TICK).await;
        }
        let info = model.info();
        let frames = (sound * f64::from(info.rate.0)) as usize;
        let pcm: Vec<f32> = (0..frames * info.channels).map(|n| (n as f32 * 0.01).sin() * 0.3).collect();
        let settings = TransformSettings::of(TransformMethod::Euler);
        let spec = RenderSpec::Transform(TransformSpec { text: "a string quartet".into(), settings, seed: 1 });
        let job = model.begin(spec, Some(pcm)).map_err(Failure)?;
        let (begun, mut before) = (Instant::now(), 0.0);
        let handle = engine.submit(job);
        let progress = handle.watch();
        let mut end = std::pin::pin!(handle.finish());
        let mut tick = tokio::time::interval(TICK);
        let complete = loop {
            tokio::select! {
                done = &mut end => break done.map(|_| true)?,
                _ = tick.tick() => {}
            }
            let elapsed = begun.elapsed().as_secs_f64();
            for ear in &mut ears {
                ear.listen(elapsed, elapsed - before)?;
            }
            before = elapsed;
            if elapsed > patience {
                break false;
            }
        };
        let (done, of) = *progress.borrow();
        let device = if info.device.is_gpu() { "GPU" } else { "CPU" };
        Ok(vec![
            ("what", json!("live voices beside a transform")),
            ("device", json!(device)),
            ("voices", json!(count)),
            ("voices_dtype", json!(dtype)),
            ("voice_times_real_time", json!(speed)),
            ("sound_seconds", json!(sound)),
            ("seconds", json!(begun.elapsed().as_secs_f64())),
            ("solver_steps", json!(done)),
            ("of", json!(of)),
            ("complete", json!(complete)),
            ("underruns", json!(ears.iter().map(|ear| ear.gaps).sum::<u64>())),
            ("seconds_missed", json!(ears.iter().map(|ear| ear.missed).sum::<f64>())),
            ("least_lead_seconds", json!(ears.iter().map(|ear| ear.least).fold(LEAD, f64::min))),
        ])
    })
}
