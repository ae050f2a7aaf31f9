"""Sizes of the model, in the terms of the transformers configurations.

The environment says what plays: MUSIC=synthesis is `composer/`, MUSIC=band is `band/`, whose sound has two sides."""
import os

MUSIC = os.environ.get("MUSIC", "synthesis")
BAND = MUSIC == "band"
SR = 32000
HOP = 1280
FRAME_RATE = 25
SIDES = 2 if BAND else 1    # of the sound
CODEBOOKS = 4   # of codec and decoder, coarse to fine
CODEBOOK_SIZE = 512
CYCLE = 4 if BAND else 1    # bars after which most comes again: in the band the next bar has another chord
WINDOW = 750   # frames (30 s) that the decoder is trained on: a cycle of four chords fits in
KEEP = 500     # frames that a stream keeps when its window is full

CODEC_SYNTHESIS = dict(
    sampling_rate=SR, audio_channels=1, num_filters=16, hidden_size=64, codebook_dim=64,
    codebook_size=CODEBOOK_SIZE, target_bandwidths=[0.9], upsampling_ratios=[4, 5, 8, 8],
    use_causal_conv=False, norm_type="weight_norm", pad_mode="reflect", num_lstm_layers=2,
    num_residual_layers=1, use_conv_shortcut=False, compress=2, kernel_size=7,
    last_kernel_size=7, residual_kernel_size=3, normalize=False, chunk_length_s=None, overlap=None,
)
# For recorded instruments: codes of the middle of two sides, and sound on both of them (`codec.fitted`). It was trained with eight levels,
# of which a decoder learns the first four: see `README.md`.
CODEC_BAND = dict(CODEC_SYNTHESIS, num_filters=20, hidden_size=32, codebook_dim=32, num_lstm_layers=1, audio_channels=2)
CODECS = dict(synthesis=CODEC_SYNTHESIS, band=CODEC_BAND)
CODEC = CODECS[MUSIC]
# The embeddings are a static table of word pieces (`wordpieces.py`), which is not trained.
TEXT = dict(
    vocab_size=27626, d_model=64, d_kv=32, num_heads=4, d_ff=256, num_layers=2, feed_forward_proj="relu",
    dropout_rate=0.0, is_encoder_decoder=False, use_cache=False, pad_token_id=0, eos_token_id=1,
    decoder_start_token_id=0, relative_attention_num_buckets=32, relative_attention_max_distance=128,
)
DECODER = dict(
    vocab_size=CODEBOOK_SIZE, hidden_size=288, num_hidden_layers=6, num_attention_heads=6, ffn_dim=1152,
    num_codebooks=CODEBOOKS, audio_channels=1, max_position_embeddings=2048, activation_function="gelu",
    dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, layerdrop=0.0, scale_embedding=False,
    pad_token_id=CODEBOOK_SIZE, bos_token_id=CODEBOOK_SIZE, eos_token_id=None, tie_word_embeddings=False,
)
SAMPLING = dict(guidance_scale=2.5, do_sample=True, top_k=250, temperature=1.0)
