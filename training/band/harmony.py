"""Chords and keys in equal temperament, A = 440 Hz: any of twelve keys, chords as Roman numerals."""
import re

NOTE_NAMES = ["C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
SCALES = {
    "major": [0, 2, 4, 5, 7, 9, 11], "minor": [0, 2, 3, 5, 7, 8, 10], "dorian": [0, 2, 3, 5, 7, 9, 10],
    "mixolydian": [0, 2, 4, 5, 7, 9, 10], "lydian": [0, 2, 4, 6, 7, 9, 11], "phrygian": [0, 1, 3, 5, 7, 8, 10],
    "blues": [0, 2, 3, 5, 6, 7, 10],
}
NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
MAJOR, MINOR = [0, 4, 7], [0, 3, 7]
QUALITIES = {
    "": None, "5": [0, 7, 12], "7": [10], "maj7": [11], "9": [10, 14], "maj9": [11, 14], "6": [9], "add9": [14],
    "sus2": [0, 2, 7], "sus4": [0, 5, 7], "dim": [0, 3, 6], "dim7": [0, 3, 6, 9], "m7b5": [0, 3, 6, 10], "+": [0, 4, 8],
}


def chord(numeral):
    """Semitones above the tonic: of the root, and of the tones above the root. `bVI`, `V7`, `ii7`
    and `iv6` are examples; small letters are minor."""
    flat, roman, quality = re.fullmatch(r"([b#]?)([iIvV]+)(.*)", numeral).groups()
    root = NUMERALS[roman.lower()] + {"b": -1, "#": 1, "": 0}[flat]
    triad = MINOR if roman.islower() else MAJOR
    more = QUALITIES[quality]
    if more is None:
        return root, list(triad)
    return root, list(more) if more[0] == 0 else triad + more


# Chords in the order in which they are played; each for as many bars as the style says.
PROGRESSIONS = {
    "pop": ["I V vi IV", "vi IV I V", "I vi IV V", "IV I V vi", "I iii IV V", "I IV vi V", "I V ii IV"],
    "sad": ["i bVI bIII bVII", "i bVII bVI V", "i iv bVI V", "i bIII bVII iv", "bVI bVII i i", "i v bVI bVII"],
    "rock": ["I bVII IV I", "I IV V IV", "I V bVII IV", "vi IV I V", "I bIII IV bVII"],
    "metal": ["i5 bVI5 bVII5 i5", "i5 i5 bII5 i5", "i5 bIII5 bVI5 bVII5", "i5 iv5 bVI5 V5", "i5 bVII5 bVI5 bVII5"],
    "jazz": ["ii7 V7 Imaj7 vi7", "Imaj7 vi7 ii7 V7", "iii7 VI7 ii7 V7", "Imaj7 IVmaj7 iii7 VI7", "iim7b5 V7 i6 i6"],
    "bossa": ["Imaj7 II7 ii7 V7", "Imaj7 bIIImaj7 ii7 bIImaj7", "Imaj9 vi9 ii9 V7", "i6 iim7b5 V7 i6"],
    "soul": ["ii9 V7 Imaj9 IVmaj7", "IVmaj9 iii7 vi9 V7", "Imaj7 iii7 vi7 ii9", "IVmaj7 V7 iii7 vi7"],
    "country": ["I IV I V", "I I IV V", "I V vi IV", "I IV V I", "I vi ii V7"],
    "folk": ["I V vi iii", "I IV I V", "vi IV I V", "I bVII IV I", "i bVII i v"],
    "classical": ["I V vi iii", "I IV V I", "I vi ii V7", "i iv V i", "i bVI iv V", "I ii V7 I"],
    "film": ["i bVI bIII bVII", "i bVI i bVI", "i iv bVI bVII", "vi IV I V", "I iii vi IV", "i bIII bVI iv"],
    "hymn": ["I IV I V", "I vi IV V", "I V vi IV", "IV I ii V", "i bVII bVI V"],
    "dance": ["vi IV I V", "i bVI bIII bVII", "i bVII bVI bVII", "i iv bVI v", "vi V IV V"],
    "float": ["Imaj7 IVmaj7", "Imaj9 vi9 IVmaj9 Vsus4", "iadd9 bVImaj7", "IVmaj9 Imaj9", "Isus2 bVIIadd9 IVadd9 Isus2"],
    "vamp": ["i7 IV7", "i9 bVIImaj7", "I7 bVII IV7 I7", "i7 v7", "i bVI i bVII"],
    "blues": ["I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7"],
    "reggae": ["I IV", "i bVII", "I V vi IV", "i iv", "I ii"],
}


def mode_of(numerals):
    """The scale that a progression is in, by its first chord of the tonic and its flat degrees."""
    degrees = {re.match(r"[b#]?[iIvV]+", n).group() for n in numerals}
    if "bII" in degrees:
        return "phrygian"
    if "i" in degrees or degrees & {"bVI", "bIII"} and "I" not in degrees:
        return "dorian" if "IV" in degrees and "bVI" not in degrees else "minor"
    return "mixolydian" if "bVII" in degrees else "major"


def keys_of(root, scale):
    """Pitch classes of a scale."""
    return [(root + s) % 12 for s in SCALES[scale]]


def voiced(classes, low, count, last=None):
    """`count` notes of the pitch classes from about `low` upwards, near the notes `last`."""
    options = []
    for lift in range(0, 12):
        start = low - 5 + lift
        notes = sorted({start + (c - start) % 12 for c in classes})
        while len(notes) < count:
            notes.append(notes[len(notes) - len(set(n % 12 for n in notes))] + 12)
        options.append(notes[:count])
    if last is None:
        return min(options, key=lambda n: abs(n[0] - low))
    return min(options, key=lambda n: (sum(abs(a - b) for a, b in zip(n, last)), abs(n[0] - low)))


def near(pitch_class, low):
    """The note of a pitch class in the octave that starts at `low`."""
    return low + (pitch_class - low) % 12


def step(scale_classes, note, steps):
    """The note that lies `steps` scale steps above `note` (or below)."""
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        note += direction
        while note % 12 not in scale_classes:
            note += direction
    return note
