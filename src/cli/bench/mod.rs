//! `continuo bench`: figures of this machine, as a table or as JSON. Nothing here asserts a time.

mod agree;
mod beside;
mod client;
mod cluster;
mod codec;
mod fanout;
mod first_sound;
mod hls;
mod journal;
mod kernels;
mod listen;
mod loopback;
mod quality;
mod step;
mod stillness;
mod streams;
mod transform;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::load::{DeviceChoice, DtypeChoice};
use super::log::print;
use super::{Failure, Outcome};
use crate::engine::{KV_BUDGET, MusicGenBackend};
use crate::model::MusicGen;
use crate::model::config::Config;
use crate::model::weights::Target;
use crate::units::ModelId;

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// Decoder steps per second with random weights
    Step(step::StepArgs),
    /// Whether the GPU's own kernels compute what candle's operations compute there
    Agree(agree::AgreeArgs),
    /// Where the time of a decoder step goes, part by part
    Kernels(kernels::KernelsArgs),
    /// How fast this machine reads memory, and how near to it a decoder step comes
    Bandwidth(kernels::BandwidthArgs),
    /// What bf16, q8 and q4 change in a model's choices, against f32
    Quality(quality::QualityArgs),
    /// Streaming codec decoder, seconds of sound per second
    Codec(codec::CodecArgs),
    /// How many endless streams this machine makes at once
    Streams(streams::StreamsArgs),
    /// From the request for a stream to its first packet
    FirstSound(first_sound::FirstSoundArgs),
    /// Many listeners on one stream over loopback: CPU per listener, gaps
    Fanout(fanout::FanoutArgs),
    /// Many players of HLS on one station over loopback: CPU per player, memory
    Hls(hls::HlsArgs),
    /// Listeners at the edges of a cluster, and nodes that are killed under them; needs a NATS
    /// server that runs
    Cluster(cluster::ClusterArgs),
    /// Solver steps and codec of the transform model with random weights
    Transform(transform::TransformArgs),
    /// Solver steps and codec of the loop model with random weights
    Loop(transform::SolverArgs),
    /// What a player hears of a machine that is only just fast enough: stops, missing sound
    Listen(listen::ListenArgs),
    /// How long sound files stand still, heard as the engine hears its voices
    Stillness(stillness::StillnessArgs),
    /// What journals cost, and how soon a place in the past is heard
    Journal(journal::JournalArgs),
    /// How fast a part of a stream becomes a file: of the model, and with a codec of full size and
    /// random weights
    Recording(journal::RecordingArgs),
    /// The listeners of `fanout`, for measuring another server beside it
    Listeners(fanout::ListenersArgs),
    /// The players of `hls`, for measuring another server beside it
    Players(hls::PlayersArgs),
}

/// Random weights at a published model's sizes: speed does not depend on their values.
#[derive(Args)]
struct RandomModel {
    /// Sizes to measure
    #[arg(long, default_value = "small")]
    size: SizeChoice,
    /// Where to compute
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Number format of the weights
    #[arg(long, default_value = "auto")]
    dtype: DtypeChoice,
    /// On a GPU: custom kernels, or candle's operations alone
    #[arg(long, default_value = "own")]
    kernels: KernelsChoice,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KernelsChoice {
    Own,
    Composed,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SizeChoice {
    /// Hidden 256, 6 layers
    Tiny,
    /// As facebook/musicgen-small
    Small,
    /// As facebook/musicgen-medium
    Medium,
    /// As facebook/musicgen-large
    Large,
}

impl SizeChoice {
    /// Width, layers, heads.
    fn dims(self) -> (usize, usize, usize) {
        match self {
            Self::Tiny => (256, 6, 4),
            Self::Small => (1024, 24, 16),
            Self::Medium => (1536, 48, 24),
            Self::Large => (2048, 48, 32),
        }
    }
}

impl RandomModel {
    /// The backend, the name of its number format, and the bytes of decoder weights that a step
    /// reads.
    fn build(&self) -> Result<(MusicGenBackend, &'static str, usize), Failure> {
        let (model, dtype) = self.model()?;
        let bytes = model.decoder.bytes();
        Ok((MusicGenBackend::new(ModelId("random".into()), model, KV_BUDGET)?, dtype, bytes))
    }

    /// Where and in which number format, and the name of the latter.
    fn target(&self) -> Result<(Target, &'static str), Failure> {
        let (target, dtype) = self.dtype.on(&self.device.open()?);
        Ok((Target { fused: self.kernels == KernelsChoice::Own, ..target }, dtype))
    }

    /// The model and the name of its number format.
    fn model(&self) -> Result<(MusicGen, &'static str), Failure> {
        let (target, dtype) = self.target()?;
        let (hidden, layers, heads) = self.size.dims();
        let config = json!({
            "model_type": "musicgen",
            "decoder": {
                "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * hidden,
                "num_codebooks": 4, "vocab_size": 2048, "audio_channels": 1, "activation_function": "gelu",
            },
            "audio_encoder": {
                "model_type": "encodec", "sampling_rate": 32_000, "audio_channels": 1, "hidden_size": 128,
                "codebook_dim": 128, "codebook_size": 2048, "num_filters": 64, "num_residual_layers": 1,
                "upsampling_ratios": [8, 5, 4, 4], "kernel_size": 7, "residual_kernel_size": 3, "last_kernel_size": 7,
                "dilation_growth_rate": 2, "compress": 2, "num_lstm_layers": 2, "pad_mode": "reflect",
                "norm_type": "weight_norm", "use_conv_shortcut": false, "use_causal_conv": false, "normalize": false,
                "trim_right_ratio": 1.0, "target_bandwidths": [2.2],
            },
            "text_encoder": {
                "model_type": "t5", "vocab_size": 32_128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12,
                "num_heads": 12, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
                "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6, "initializer_factor": 1.0,
                "feed_forward_proj": "relu", "is_decoder": false, "is_encoder_decoder": false, "use_cache": false,
                "pad_token_id": 0, "eos_token_id": 1,
            },
        });
        let config = Config::from_hf(&config, &json!({ "max_length": 1500 })).map_err(Failure)?;
        Ok((MusicGen::random(config, 0, &target)?, dtype))
    }
}

/// One line of figures.
type Row = Vec<(&'static str, Value)>;

pub(super) fn run(args: BenchArgs) -> Outcome {
    // What is slower than it should be says so, as when the GPU's own kernels cannot be compiled.
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_target(false);
    let _ = log.with_writer(std::io::stderr).try_init();
    let (name, rows) = match args.bench {
        Bench::Step(options) => ("step", step::run(&options)?),
        Bench::Agree(options) => ("agree", agree::run(&options)?),
        Bench::Kernels(options) => ("kernels", kernels::run(&options)?),
        Bench::Bandwidth(options) => ("bandwidth", kernels::bandwidth(&options)?),
        Bench::Quality(options) => ("quality", quality::run(&options)?),
        Bench::Codec(options) => ("codec", codec::run(&options)?),
        Bench::Streams(options) => ("streams", streams::run(&options)?),
        Bench::FirstSound(options) => ("first-sound", first_sound::run(&options)?),
        Bench::Fanout(options) => ("fanout", fanout::run(&options)?),
        Bench::Hls(options) => ("hls", hls::run(&options)?),
        Bench::Cluster(options) => ("cluster", cluster::run(&options)?),
        Bench::Transform(options) => ("transform", transform::transform(&options)?),
        Bench::Loop(options) => ("loop", transform::make_loop(&options)?),
        Bench::Listen(options) => ("listen", listen::run(&options)?),
        Bench::Listeners(options) => ("listeners", fanout::listeners(&options)?),
        Bench::Players(options) => ("players", hls::players(&options)?),
        Bench::Journal(options) => ("journal", journal::journal(&options)?),
        Bench::Recording(options) => ("recording", journal::recording(&options)?),
        Bench::Stillness(options) => ("stillness", stillness::run(&options)?),
    };
    if args.json {
        let results: Vec<Value> =
            rows.into_iter().map(|row| row.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()).collect();
        return print(json!({ "bench": name, "results": results }));
    }
    for row in rows {
        let cells: Vec<String> = row
            .into_iter()
            .map(|(key, value)| match value.as_f64() {
                Some(number) if value.is_f64() => format!("{key} {number:.3}"),
                _ => format!("{key} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            })
            .collect();
        print(cells.join("  "))?;
    }
    Ok(())
}

/// The `share` quantile of some times, in seconds.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).map_or(f64::NAN, Duration::as_secs_f64)
}
