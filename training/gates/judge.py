"""The figures of each gate from what was heard."""
import os
from collections import Counter

import numpy as np

from . import clips, embedding, hearing, prompts, recorded
from .listen import DRUMLESS, listen, mean

STILL_S = 4.0


def recordings(work):
    """Measures of recorded music."""
    items = [(dict(file=path), *recorded.middle(path)) for path in recorded.tunes()]
    return [m for _, m in listen(work, items, ["still", "level", "embedding"])]


def decoder(folder, work, long_folder=None):
    rows = list(listen(folder, clips.load(folder), ["still", "notes", "beats", "level", "embedding"]))
    real = recordings(work)
    tuned = lambda item: item["style"] not in prompts.UNTUNED
    thirds = np.mean([m["thirds"] for _, m in rows], 0) - np.mean([m["thirds"] for m in real], 0)
    out = dict(
        clips=len(rows),
        still_share=float(np.mean([m["still_s"] > STILL_S for _, m in rows])), still_worst_s=max(m["still_s"] for _, m in rows),
        still_real=float(np.mean([m["still_s"] > STILL_S for m in real])),
        notes_per_s=mean(rows, "notes_per_s"), pitch_classes=mean(rows, "pitch_classes", tuned),
        tempo_found=mean(rows, "tempo_found"), beat_spread=mean(rows, "beat_spread", lambda i: i["style"] not in DRUMLESS),
        movement_db=mean(rows, "movement_db"), movement_real_db=float(np.mean([m["movement_db"] for m in real])),
        balance_db=float(np.abs(thirds).mean()),
        distance=embedding.distance([m["embedding"] for _, m in rows], [m["embedding"] for m in real]))
    if long_folder and os.path.exists(os.path.join(long_folder, "clips.json")):
        heard = list(listen(long_folder, clips.load(long_folder), ["still", "harmony"]))
        out["same_harmony_s"] = max(m["same_harmony_s"] for _, m in heard)
        out["still_long_s"] = max(m["still_s"] for _, m in heard)
    return out


def codec(pairs):
    """`pairs` yields (reference, decoded, rate) of unseen renders."""
    f1, chroma, side = [], [], []
    for before, after, rate in pairs:
        size = min(len(before), len(after))
        before, after = before[:size], after[:size]
        f1.append(hearing.note_f1(hearing.notes(before, rate), hearing.notes(after, rate)))
        a, b = hearing.chroma(before, rate), hearing.chroma(after, rate)
        cosine = (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0) + 1e-9)
        chroma.append(float(cosine.mean()))
        side.append(hearing.side_mid_db(after))
    return dict(pieces=len(f1), note_f1=float(np.mean(f1)), chroma=float(np.mean(chroma)), side_mid_db=float(np.mean(side)))


def words(folder, renders):
    """`renders` is a folder of composer renders whose `clips.json` names their styles."""
    of_style = {}
    for item, m in listen(renders, clips.load(renders), ["embedding"]):
        of_style.setdefault(item["style"], []).append(np.array(m["embedding"]))
    free, strange = [], []
    for item, m in listen(folder, clips.load(folder), ["embedding"]):
        style = embedding.nearest_style(np.array(m["embedding"]), of_style)
        if item["styles"] is None:
            strange.append(style)
        else:
            free.append((item["prompt"], style, style in item["styles"]))
    return dict(right=sum(ok for *_, ok in free), strange_hard=float(np.mean([s in prompts.HARD for s in strange])),
                heard=Counter(style for _, style, _ in free).most_common(), wrong=[f"{p}: {s}" for p, s, ok in free if not ok])
