"""All measures of one clip, kept in a file beside it: listening is slow."""
import json
import os

import numpy as np

from . import embedding, hearing

DRUMLESS = {"ambient", "piano", "strings", "choir", "organ", "guitar", "solo", "classical"}


def measures(item, audio, rate, want):
    """Those of `want` that are asked for."""
    out = {}
    if "still" in want:
        out["still_s"] = hearing.still_seconds(audio, rate)
    if "notes" in want:
        played = hearing.notes(audio, rate)
        out["notes_per_s"], out["pitch_classes"] = len(played) * rate / len(audio), hearing.pitch_classes(played)
    if "beats" in want and item.get("bpm"):
        times = hearing.beats(audio, rate)
        out["tempo_found"] = hearing.tempo_found(times, item["bpm"])
        out["beat_spread"] = hearing.beat_spread(times)
    if "level" in want:
        out["movement_db"], out["side_mid_db"] = hearing.movement_db(audio, rate), hearing.side_mid_db(audio)
        out["thirds"] = hearing.thirds_db(audio, rate).round(2).tolist()
    if "harmony" in want:
        out["same_harmony_s"] = hearing.same_harmony_seconds(audio, rate)
    if "embedding" in want:
        out["embedding"] = embedding.embedding(audio, rate).round(5).tolist()
    return out


def listen(folder, clips, want):
    """Measures of clips [(item, audio, rate)], from `heard.json` where they are known already."""
    path = os.path.join(folder, "heard.json")
    heard = {}
    if os.path.exists(path):
        with open(path) as f:
            heard = json.load(f)
    for item, audio, rate in clips:
        known = heard.setdefault(item["file"], {})
        missing = [w for w in want if w not in known.get("done", [])]
        if missing:
            known.update(measures(item, audio, rate, missing))
            known["done"] = known.get("done", []) + missing
            with open(path + ".tmp", "w") as f:
                json.dump(heard, f)
            os.replace(path + ".tmp", path)
        yield item, known


def mean(rows, name, keep=lambda item: True):
    values = [m[name] for item, m in rows if m.get(name) is not None and keep(item)]
    return float(np.mean(values)) if values else None
