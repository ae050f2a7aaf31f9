"""Writes the checkpoint and the reference values of this folder: `python make.py`, with transformers.

A MusicGen with one stream of codes whose codec hears and says two sides. Its tokenizer is that of `musicgen-stereo`."""
import os
import shutil

import torch
from safetensors.torch import save_file
from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration, T5Config

HERE = os.path.dirname(os.path.abspath(__file__))
CARD, BOOKS, HOP = 32, 3, 40
CODEC = dict(
    sampling_rate=8000, audio_channels=2, num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=CARD,
    target_bandwidths=[BOOKS * 5 * 8000 / HOP / 1000], upsampling_ratios=[5, 4, 2], use_causal_conv=False, norm_type="weight_norm",
    pad_mode="reflect", num_lstm_layers=1, num_residual_layers=1, use_conv_shortcut=False, compress=2, kernel_size=7,
    last_kernel_size=7, residual_kernel_size=3, normalize=False, chunk_length_s=None, overlap=None)
TEXT = dict(vocab_size=300, d_model=8, d_kv=4, num_heads=2, d_ff=16, num_layers=1, is_encoder_decoder=False, use_cache=False,
            decoder_start_token_id=0)
DECODER = dict(vocab_size=CARD, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32, num_codebooks=BOOKS,
               audio_channels=1, max_position_embeddings=64, activation_function="gelu", dropout=0.0, attention_dropout=0.0,
               activation_dropout=0.0, pad_token_id=CARD, bos_token_id=CARD, eos_token_id=None, tie_word_embeddings=False)


@torch.no_grad()
def main():
    torch.manual_seed(4)
    model = MusicgenForConditionalGeneration(MusicgenConfig(
        text_encoder=T5Config(**TEXT).to_dict(), audio_encoder=EncodecConfig(**CODEC).to_dict(),
        decoder=MusicgenDecoderConfig(**DECODER).to_dict())).eval()
    for name, value in dict(bos_token_id=CARD, pad_token_id=CARD, decoder_start_token_id=CARD, max_length=40).items():
        setattr(model.generation_config, name, value)
    codec = model.audio_encoder
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_(0, 0.3)
    wave = torch.randn(1, 2, 17 * HOP) * 0.5
    codes = torch.randint(0, CARD, (1, BOOKS, 19))
    made = model.generate(input_ids=torch.tensor([[3, 4, 1]]), input_values=wave[:, :, :6 * HOP], max_new_tokens=12, do_sample=False)
    assert made.shape[1] == 2, made.shape
    model.save_pretrained(HERE)
    shutil.copy(os.path.join(HERE, "..", "musicgen-stereo", "tokenizer.json"), HERE)
    save_file(dict(wave=wave[0].contiguous(), wave_codes=codec.encode(wave).audio_codes[0, 0].contiguous(), codes=codes[0].contiguous(),
                   sound=codec.decode(codes[None], [None]).audio_values[0].contiguous()), os.path.join(HERE, "sound.safetensors"))


if __name__ == "__main__":
    main()
