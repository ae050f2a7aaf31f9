//! A codec that hears and says two sides of one stream of codes, against transformers: see
//! `two-sided/make.py`.

use std::path::Path;

use candle_core::{Device, Tensor};
use continuo::{
    engine::{Backend, Decode, MusicGenBackend},
    model::{Files, ModelError, MusicGen, delay, kernels::Kernels, weights::Target},
    units::ModelId,
};

use super::{
    golden::floats,
    steps::{by_channel, by_frame},
};

/// Sums of some tens of f32 products in another order.
const SOUND: f32 = 1e-5;

#[test]
fn a_stream_of_codes_becomes_two_sides_and_two_sides_become_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/two-sided");
    let reference = candle_core::safetensors::load(folder.join("sound.safetensors"), &Device::Cpu).unwrap();
    let ids = |name: &str| -> Vec<u32> {
        let [books, frames] = reference[name].dims() else { panic!("{name} is not [books, frames]") };
        let all = reference[name].flatten_all().unwrap().to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32);
        by_frame(&all.collect::<Vec<_>>(), *books, *frames).concat()
    };
    let wave: Vec<Vec<f32>> = reference["wave"].to_vec2().unwrap();
    let sound = floats(&reference["sound"]);
    for kernels in [Kernels::Native, Kernels::Composed] {
        let target = Target { kernels, ..Target::new(&Device::Cpu) };
        let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
        let model = MusicGen::load(&Files::Folder(folder.clone()), &none, &target).unwrap();
        assert_eq!(model.encode(&wave).unwrap(), ids("wave_codes"));
        assert!(model.encode(&wave[..1]).unwrap_err().to_string().contains("2 channels"));
        close(&floats(&by_channel(&model.codec.decode(&model.to_channels(&ids("codes")).unwrap()).unwrap())), &sound);

        let mut backend = MusicGenBackend::new(ModelId("two-sided".into()), model, 1 << 20).unwrap();
        assert_eq!((backend.info().channels, backend.info().codebooks), (2, 3));
        assert_eq!(backend.info().delays, delay::delays(3, 1));
        assert_eq!(backend.encoder().encode(&wave).unwrap(), ids("wave_codes"));
        // Two voices at once, as the engine asks for them: each of them interleaved.
        let codes = ids("codes");
        let mut states = [backend.codec_state(), backend.codec_state()];
        let mut jobs: Vec<Decode<'_>> =
            states.iter_mut().map(|state| Decode { state: state.as_mut(), codes: &codes, last: true }).collect();
        for pcm in backend.decode(&mut jobs).unwrap() {
            let pcm = pcm.unwrap();
            let samples = pcm.len() / 2;
            let sides = Tensor::from_vec(pcm, (samples, 2), &Device::Cpu).unwrap().t().unwrap();
            close(&floats(&sides.contiguous().unwrap()), &sound);
        }
    }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= SOUND, "sound differs by {worst:e}");
}
