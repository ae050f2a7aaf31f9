"""Decoder steps per second of transformers' MusicGen on this CPU, random weights at musicgen-small sizes.

The peer of `continuo bench step`: same rows, same position in the window, sampling included on both sides.
    pip install torch transformers
    python benches/peers/musicgen_transformers.py --rows 2 8 --position 256
"""

import argparse
import json
import time

import torch
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--position", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = MusicgenDecoderConfig(
        vocab_size=2048, num_codebooks=4, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096
    )
    model = MusicgenForCausalLM(config).eval()
    results = []
    for rows in args.rows:
        with torch.inference_mode():
            text = torch.randn(rows, 12, 1024)
            mask = torch.ones(rows, 12, dtype=torch.long)
            history = torch.randint(0, 2048, (rows * 4, args.position))
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            kw = dict(encoder_hidden_states=text, encoder_attention_mask=mask, use_cache=True)
            model(history, past_key_values=cache, **kw)
            column = torch.randint(0, 2048, (rows * 4, 1))
            times = []
            begun = time.perf_counter()
            while len(times) < 3 or time.perf_counter() - begun < args.seconds:
                start = time.perf_counter()
                logits = model(column, past_key_values=cache, **kw).logits[:, -1]
                guided = logits[: rows * 2] + 3.0 * (logits[rows * 2 :] - logits[: rows * 2])
                top = guided.topk(250, dim=-1)
                torch.multinomial(torch.softmax(top.values, dim=-1), 1)
                times.append(time.perf_counter() - start)
                cache.self_attention_cache.crop(-1)
        rate = len(times) / sum(times)
        results.append({"dtype": "f32", "rows": rows, "position": args.position, "steps_per_second": rate, "realtime": rate / 50})
    print(json.dumps({"bench": "transformers step", "threads": args.threads, "results": results}))


if __name__ == "__main__":
    main()
