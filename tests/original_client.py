#!/usr/bin/env python3
"""Reads `POST /generate` the way musicgen-stream's own client does, and reports what came.

    original_client.py URL PROMPTS.json [--seconds S] [--out DIR]

As there: curl sends the file as a form, every round is one block per prompt, a block is four bytes of length and then
32-bit floats, the play time is that of the first prompt's first block, and an end at a block's beginning is a clean one.
It collects `ceil(S / play time)` rounds (or reads to the end when S is 0), writes each prompt's sound to DIR/N.f32 and
prints one JSON object.
"""

import argparse
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

RATE = 32000


def read_block(pipe):
    head = pipe.read(4)
    if not head:
        return None
    if len(head) < 4:
        raise EOFError("the stream ended inside a length")
    (length,) = struct.unpack("<I", head)
    block = pipe.read(length)
    if len(block) != length:
        raise EOFError("the stream ended inside a block")
    return block


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    count = len(json.loads(options.prompts.read_text())["prompts"])
    command = ["curl", "-s", "-k", "-N", "-q", "-d", f"@{options.prompts}", options.url]
    curl = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    streams = [[] for _ in range(count)]
    play_time, rounds, ended, cut = None, 0, False, False
    try:
        while not ended:
            for stream in streams:
                block = read_block(curl.stdout)
                if block is None:
                    ended = True
                    break
                stream.append(block)
            if ended:
                break
            rounds += 1
            if play_time is None:
                play_time = len(streams[0][0]) / 4 / RATE
                print("first round", file=sys.stderr, flush=True)
            if options.seconds and rounds >= math.ceil(options.seconds / play_time):
                break
    except EOFError:
        ended = cut = True
    finally:
        if not ended:
            curl.terminate()
        status = curl.wait()

    report = {"rounds": rounds, "play_time": play_time, "ended": ended, "cut": cut, "curl": status, "streams": []}
    for number, blocks in enumerate(streams):
        sound = b"".join(blocks)
        samples = len(sound) // 4
        some = struct.unpack(f"<{min(samples, RATE)}f", sound[: 4 * RATE])
        power = sum(sample * sample for sample in some) / max(1, len(some))
        report["streams"].append({"blocks": len(blocks), "samples": samples, "rms": math.sqrt(power)})
        if options.out:
            (options.out / f"{number}.f32").write_bytes(sound)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
