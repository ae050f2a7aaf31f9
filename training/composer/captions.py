"""Captions in many wordings, made from what was really composed."""
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


def tempo_word(rng, bpm):
    if bpm < 85:
        return rng.choice(["slow", "slow tempo", "downtempo"])
    if bpm < 118:
        return rng.choice(["medium tempo", "mid tempo", "moderate"])
    return rng.choice(["fast", "fast tempo", "up-tempo"])


def make_caption(rng, info):
    """One caption for a piece. `info` is what `render.make_piece` returns."""
    style = info["style"]
    word = rng.choice(STYLE_WORDS[style])
    if rng.random() < 0.12:
        return str(word)
    shown = asked_bpm(rng, info["half"])
    parts = []
    if rng.random() < 0.75:
        parts.append(rng.choice(["%d bpm", "at %d bpm", "%d BPM", "tempo %d bpm"]) % shown)
    elif rng.random() < 0.4:
        parts.append(tempo_word(rng, info["bpm"]))
    instruments = [rng.choice(INSTRUMENTS[i]) for i in info["instruments"]]
    if info["kit"] in DRUM_WORDS:
        instruments.append(rng.choice(DRUM_WORDS[info["kit"]]))
    rng.shuffle(instruments)
    chosen = instruments[: int(rng.integers(0, 3))]
    if chosen:
        parts.append(rng.choice(["with ", "", "featuring "]) + " and ".join(chosen))
    if rng.random() < 0.25:
        parts.append("in " + NOTE_NAMES[info["root"]] + " " + SCALE_WORDS[info["scale"]])
    elif rng.random() < 0.15:
        parts.append(rng.choice(["happy", "bright"] if info["scale"] != "minor" else ["sad", "melancholic", "dark"]))
    if rng.random() < 0.25:
        parts.append(rng.choice(ENERGY[info["energy"]]))
    if info["kit"] is None and rng.random() < 0.2:
        parts.append(rng.choice(["no drums", "beatless"]))
    head = word
    if rng.random() < 0.5:
        head = rng.choice(MOODS[style]) + " " + word
    rng.shuffle(parts)
    if rng.random() < 0.08:
        parts, head = parts + [head], ""
    glue = rng.choice([", ", " "])
    return str(glue.join([p for p in [head] + parts if p]))
