"""Captions in many wordings, made from what was really composed."""
from band.words import KNOWN, USES
from band.words import STYLE_WORDS as NAMES

from .theory import NOTE_NAMES, asked_bpm

STYLE_WORDS = {
    "lofi": ["lofi hip hop", "lo-fi hip hop", "lofi", "chillhop", "lofi beats", "lo-fi beat", "chill hip hop", "study beats"],
    "techno": ["techno", "driving techno", "acid techno", "minimal techno", "warehouse techno", "techno track"],
    "house": ["house", "deep house", "house music", "classic house", "piano house", "club house"],
    "dnb": ["drum and bass", "dnb", "drum & bass", "liquid drum and bass", "jungle", "fast breakbeat"],
    "ambient": ["ambient", "ambient music", "ambient drone", "ambient soundscape", "space music", "meditation music"],
    "synthwave": ["synthwave", "80s synthwave", "retrowave", "80s synth pop", "outrun", "retro synth"],
    "chiptune": ["chiptune", "8-bit", "8-bit game music", "video game music", "chip music", "retro game tune"],
    "trap": ["trap", "trap beat", "808 trap", "dark trap", "trap instrumental", "modern hip hop"],
    "piano": ["piano", "solo piano", "piano ballad", "slow piano", "piano piece", "gentle piano"],
    "strings": ["strings", "string ensemble", "orchestral strings", "string quartet", "orchestra", "cinematic strings"],
    "dub": ["reggae", "dub", "reggae dub", "roots reggae", "dub reggae"],
    "funk": ["funk", "funky groove", "funk groove", "70s funk", "slap bass funk", "disco funk"],
}
MOODS = {
    "lofi": ["chill", "mellow", "relaxing", "warm", "dusty", "cozy"],
    "techno": ["hypnotic", "driving", "dark", "pulsing"],
    "house": ["groovy", "upbeat", "uplifting", "danceable"],
    "dnb": ["fast", "energetic", "rolling", "intense"],
    "ambient": ["calm", "peaceful", "dreamy", "floating", "atmospheric", "slow"],
    "synthwave": ["nostalgic", "neon", "retro", "night drive"],
    "chiptune": ["playful", "fun", "cheerful", "bouncy"],
    "trap": ["dark", "hard", "moody", "heavy"],
    "piano": ["gentle", "emotional", "tender", "quiet", "romantic"],
    "strings": ["emotional", "cinematic", "epic", "sweeping", "noble"],
    "dub": ["laid back", "sunny", "deep", "relaxed"],
    "funk": ["funky", "groovy", "lively", "tight"],
}
INSTRUMENTS = {
    "epiano": ["electric piano", "rhodes"], "piano": ["piano"], "pad": ["warm pads", "synth pad"],
    "glass": ["soft pads", "glassy pad"], "strings": ["strings", "violins"], "cello": ["cello"],
    "pluck": ["plucked synth", "synth plucks"], "stab": ["synth stabs", "synth chords"], "organ": ["organ"],
    "square": ["square lead", "8-bit lead"], "pulse25": ["fast arpeggio", "chip arpeggio"],
    "tribass": ["triangle bass"], "sawbass": ["synth bass", "analog bass"], "acid": ["acid bass", "303 bass"],
    "sub": ["deep bass", "sub bass"], "808": ["808 bass", "808s"], "reese": ["reese bass", "growling bass"],
    "finger": ["bass guitar", "round bass"], "slap": ["slap bass"], "clav": ["clavinet"],
    "guitar": ["guitar", "clean guitar"], "brass": ["brass", "horns"], "bell": ["bells"], "flute": ["flute"],
    "sawlead": ["synth lead", "saw lead"], "marimba": ["marimba"], "harp": ["harp"],
}
DRUM_WORDS = {"dusty": ["dusty drums", "boom bap drums"], "909": ["four on the floor drums", "house drums"],
              "techno": ["pounding kick", "four on the floor"], "break": ["breakbeats", "fast drums"],
              "gated": ["gated drums", "electronic drums"], "chip": ["8-bit drums"],
              "trap": ["trap hats", "rolling hi-hats"], "dub": ["one drop drums", "reggae drums"],
              "funk": ["tight drums", "funky drums"]}
ENERGY = {0: ["low energy", "soft", "sparse", "minimal"], 1: ["medium energy", "steady"], 2: ["high energy", "full", "powerful"]}
SCALE_WORDS = {"major": "major", "minor": "minor", "mixolydian": "mixolydian", "lydian": "lydian"}


# What is played for a style that `band/` has and this composer has not.
STANDS_FOR = {
    "rock": ("funk", "synthwave"), "metal": ("dnb", "techno"), "disco": ("house", "funk"), "jazz": ("lofi", "piano"),
    "bossa": ("lofi", "dub"), "country": ("funk", "dub"), "folk": ("piano", "strings"), "classical": ("strings", "piano"),
    "choir": ("ambient", "strings"), "organ": ("ambient", "strings"), "guitar": ("piano", "lofi"), "solo": ("piano", "strings"),
    "trailer": ("strings",), "rain": ("ambient", "lofi"), "fantasy": ("strings", "chiptune"),
}


def pick(rng, items):
    return items[rng.integers(len(items))]


def tempo_words(bpm):
    if bpm < 85:
        return ["slow", "slow tempo", "downtempo"]
    if bpm < 118:
        return ["medium tempo", "mid tempo", "moderate"]
    return ["fast", "fast tempo", "up-tempo"]


def head_of(rng, style, phrases=None):
    """What a piece is called: mostly by the name of its style; or by a use or an example of it, by the name of a
    style that it stands for, or by a phrase that is near to it (see `phrases.py`)."""
    kind = rng.random()
    if kind < 0.45 or (kind > 0.75 and not phrases):
        word = pick(rng, STYLE_WORDS[style])
        return pick(rng, MOODS[style]) + " " + word if rng.random() < 0.5 else word
    if kind > 0.75:
        return pick(rng, phrases[style])
    others = [s for s, instead in STANDS_FOR.items() if style in instead]
    called = pick(rng, others) if others and kind > 0.66 else style
    return pick(rng, pick(rng, (NAMES, USES, KNOWN))[called])


def details(rng, info):
    """Tempo, instruments, key, mood and energy, each now and then."""
    parts = []
    if rng.random() < 0.75:
        parts.append(pick(rng, ["%d bpm", "at %d bpm", "%d BPM", "tempo %d bpm"]) % asked_bpm(rng, info["half"]))
    elif rng.random() < 0.4:
        parts.append(pick(rng, tempo_words(info["bpm"])))
    instruments = [pick(rng, INSTRUMENTS[i]) for i in info["instruments"]]
    if info["kit"] in DRUM_WORDS:
        instruments.append(pick(rng, DRUM_WORDS[info["kit"]]))
    rng.shuffle(instruments)
    chosen = instruments[: int(rng.integers(0, 3))]
    if chosen:
        parts.append(pick(rng, ["with ", "", "featuring "]) + " and ".join(chosen))
    if rng.random() < 0.25:
        parts.append("in " + NOTE_NAMES[info["root"]] + " " + SCALE_WORDS[info["scale"]])
    elif rng.random() < 0.15:
        parts.append(pick(rng, ["happy", "bright"] if info["scale"] != "minor" else ["sad", "melancholic", "dark"]))
    if rng.random() < 0.25:
        parts.append(pick(rng, ENERGY[info["energy"]]))
    if info["kit"] is None and rng.random() < 0.2:
        parts.append(pick(rng, ["no drums", "beatless"]))
    rng.shuffle(parts)
    return parts


def make_caption(rng, info, phrases=None):
    """One caption for a piece. `info` is what `render.make_piece` returns."""
    head = head_of(rng, info["style"], phrases)
    form = rng.random()
    if form < 0.25:
        return head
    if form < 0.35:
        return pick(rng, ["play {}", "i want {}", "some {}", "{} please", "a {} track", "{} music", "music for {}", "{} vibes"]).format(head)
    parts = [head] + details(rng, info)
    if form < 0.45:
        parts = parts[1:] + [head]
    return pick(rng, [", ", " "]).join(parts)
