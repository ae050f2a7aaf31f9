"""Forty prompts as people type them, with the styles that would do. They were written before any
model was trained on `band/words.py`, and none is a caption; a test sees to that. Do not train on them."""

FREE = [
    ("something to fall asleep to", {"ambient", "rain", "piano", "lofi"}), ("zelda overworld", {"chiptune", "fantasy"}),
    ("angry drums and screaming guitars", {"metal", "rock"}), ("bach", {"classical", "organ"}),
    ("my cat walking on a piano", {"piano", "jazz"}), ("tokyo at night in the eighties", {"synthwave", "disco", "lofi"}),
    ("gym motivation", {"techno", "house", "dnb", "trap", "metal", "rock"}), ("sad violin", {"solo", "strings", "classical"}),
    ("beach bonfire with a ukulele vibe", {"guitar", "folk", "dub", "bossa"}), ("final boss music", {"trailer", "metal", "chiptune", "dnb"}),
    ("monks", {"choir", "organ", "ambient"}), ("black and white detective movie", {"jazz"}),
    ("hackers typing fast", {"techno", "dnb", "synthwave"}), ("johnny cash", {"country", "folk", "rock"}),
    ("warm crackling vinyl and a slow beat", {"lofi", "trap"}), ("the girl from ipanema", {"bossa", "jazz"}),
    ("spaceship drifting", {"ambient", "synthwave"}), ("pirates singing on deck", {"folk", "fantasy", "choir"}),
    ("dracula plays the keys", {"organ"}), ("snoop dogg type instrumental", {"trap", "funk", "lofi"}),
    ("mountain sunrise with full orchestra", {"strings", "trailer", "classical", "fantasy"}), ("james brown", {"funk", "disco"}),
    ("thunderstorm outside", {"rain", "ambient"}), ("super mario", {"chiptune"}),
    ("ibiza 2 am", {"house", "techno", "disco"}), ("jamaica", {"dub"}),
    ("iron maiden", {"metal", "rock"}), ("yoga class", {"ambient", "piano", "rain"}),
    ("dad rock for a barbecue", {"rock", "country"}), ("stranger things intro", {"synthwave"}),
    ("lullaby for a newborn", {"piano", "ambient", "solo", "guitar"}), ("dancing queen", {"disco", "house"}),
    ("hobbits in the shire", {"fantasy", "folk"}), ("spanish courtyard in the evening", {"guitar", "bossa"}),
    ("amen break 174", {"dnb"}), ("dark forest with wolves howling", {"ambient", "fantasy", "trailer", "strings"}),
    ("chopin", {"piano", "classical"}), ("exam revision", {"lofi", "piano", "ambient", "classical"}),
    ("gospel on a sunday", {"choir", "organ", "funk"}), ("rodeo", {"country"}),
]
# Words without meaning: none of the styles has a claim on them.
STRANGE = ["florp", "quixel vantar", "zzgh", "obrundi", "mekka lekka", "trusk", "vyloom paris", "hranek", "dubious umbrella", "wexford 9"]
HARD = {"trap", "techno", "dnb", "metal", "trailer", "chiptune"}
# The prompts of the model card: twelve styles, and the tempo that nine of them name.
CARD = [
    ("lofi", 80, "mellow lofi hip hop, 80 bpm"), ("techno", 128, "driving techno, 128 bpm"), ("house", 120, "deep house, 120 bpm"),
    ("dnb", 172, "drum and bass, 172 bpm"), ("synthwave", 100, "80s synthwave, 100 bpm"), ("chiptune", 140, "8-bit chiptune, 140 bpm"),
    ("trap", 140, "dark trap, 140 bpm"), ("dub", 75, "reggae dub, 75 bpm"), ("funk", 105, "funk groove, 105 bpm"),
    ("ambient", None, "calm ambient"), ("piano", None, "gentle solo piano"), ("strings", None, "cinematic strings"),
]
LONG = ("cinematic strings", "calm ambient", "deep house, 120 bpm", "mellow lofi hip hop, 80 bpm", "gentle solo piano")
UNTUNED = {"techno", "dnb", "trap"}     # styles that need no tune
