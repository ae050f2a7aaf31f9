"""Keys, scales and chord progressions as MIDI note numbers."""
NOTE_NAMES = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]

# Pure intonation on G = 100 Hz: every note of the G major scale then repeats after a
# whole number of 40 ms codec frames (1, 2, 3 or 6), so that a held note has few codes.
# The keys are the modes of that scale.
RATIOS = {7: 1.0, 9: 9 / 8, 11: 5 / 4, 0: 4 / 3, 2: 3 / 2, 4: 5 / 3, 6: 15 / 8}
KEYS = {"major": 7, "minor": 4, "mixolydian": 2, "lydian": 0}


def frequency(midi):
    """Frequency in Hz; notes outside the scale take the scale note below."""
    while midi % 12 not in RATIOS:
        midi -= 1
    return 100.0 * RATIOS[midi % 12] * 2.0 ** ((midi - 43) // 12)


SCALES = {
    "major": [0, 2, 4, 5, 7, 9, 11],
    "minor": [0, 2, 3, 5, 7, 8, 10],
    "mixolydian": [0, 2, 4, 5, 7, 9, 10],
    "lydian": [0, 2, 4, 6, 7, 9, 11],
}


def degree(scale, step):
    """Semitones above the root of scale step `step` (may be negative)."""
    octave, index = divmod(step, 7)
    return 12 * octave + SCALES[scale][index]


def chord(root, scale, step, size=3):
    """Stacked thirds on a scale step, as MIDI notes."""
    return [root + degree(scale, step + 2 * i) for i in range(size)]


def voiced(notes, low, count=None):
    """Fold notes into the octave above `low`; adds octaves until `count` notes."""
    folded = sorted(low + (n - low) % 12 for n in notes)
    extra = [n + 12 for n in folded]
    return (folded + extra)[: count or len(folded)]


def note_near(note, low):
    """The note of the same pitch class in the octave that starts at `low`."""
    return low + (note - low) % 12


# Progressions as scale steps, all within the one scale. A style says for how many bars each
# chord is held; a piece has two of them, see `Piece.chord_at`.
PROGRESSIONS = {
    "major": [[0, 4, 5, 3], [0, 5, 3, 4], [0, 3, 1, 4], [5, 3, 0, 4], [0, 2, 3, 4]],
    "minor": [[0, 5, 2, 6], [0, 3, 5, 4], [0, 6, 5, 6], [0, 2, 6, 3], [5, 6, 0, 0], [0, 3, 6, 2]],
    "pop": [[0, 5, 3, 4], [3, 0, 4, 5], [0, 4, 5, 3], [3, 4, 0, 5]],
    "lydian": [[0, 1], [0, 4], [0, 1, 4, 1], [0, 2, 1, 4]],
    "mixolydian": [[0, 6, 3, 0], [0, 3, 6, 3], [0, 4, 6, 3]],
    "jazz": [[1, 4, 0, 5], [3, 2, 1, 4], [0, 5, 1, 4], [3, 4, 2, 5]],
    "drone": [[0, 5], [0, 3], [0, 5, 3, 4], [0, 2, 5, 3]],
    "vamp": [[0, 6], [0, 3], [0, 5, 6, 0], [0, 0, 3, 6]],
    "dub": [[0, 3], [0, 6], [0, 3, 4, 3]],
}
# Order of the two progressions of a piece; each sounds for one turn, or two when it is fast.
FORMS = ("AABA", "ABAB", "AABB", "ABBA")

# Tempo grid. A beat is a whole number of half codec frames (20 ms), so a bar is a whole
# number of frames and repeats to the sample. Neighbours are 4 to 11 % apart.
HALF_FRAMES = (17, 18, 20, 22, 23, 24, 25, *range(26, 51, 2))


def bpm_of(half):
    return 3000.0 / half


def asked_bpm(rng, half):
    """A whole number that lies nearer to this tempo than to its neighbours."""
    i = HALF_FRAMES.index(half)
    bpm = bpm_of(half)
    up = 0.5 * (bpm_of(HALF_FRAMES[i - 1]) - bpm) if i else 0.04 * bpm
    down = 0.5 * (bpm - bpm_of(HALF_FRAMES[i + 1])) if i + 1 < len(HALF_FRAMES) else 0.04 * bpm
    if rng.random() < 0.4:
        return int(round(bpm))
    return int(round(bpm + rng.uniform(-0.9 * down, 0.9 * up)))
