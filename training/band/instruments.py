"""The instruments: General MIDI program, comfortable range, gain in dB, place from left (-1) to
right (1), and the words that people have for them."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    program: int
    low: int
    high: int
    gain: float
    pan: float
    words: tuple


def _i(program, low, high, gain, pan, *words):
    return Instrument(program, low, high, gain, pan, words)


INSTRUMENTS = {
    "piano": _i(0, 40, 88, 0, -0.15, "piano", "grand piano", "acoustic piano", "keys"),
    "upright": _i(1, 40, 88, -1, 0.15, "bright piano", "upright piano"),
    "honky": _i(3, 45, 84, -2, 0.2, "honky-tonk piano", "saloon piano"),
    "rhodes": _i(4, 40, 84, 0, 0.2, "electric piano", "rhodes", "warm keys"),
    "fm": _i(5, 40, 88, -1, 0.2, "dx electric piano", "fm piano"),
    "harpsichord": _i(6, 43, 84, -2, 0.2, "harpsichord"),
    "clav": _i(7, 40, 79, -3, 0.3, "clavinet", "clav"),
    "celesta": _i(8, 60, 96, -1, -0.3, "celesta"),
    "glock": _i(9, 72, 100, -5, 0.35, "glockenspiel"),
    "musicbox": _i(10, 60, 96, -1, -0.2, "music box"),
    "vibes": _i(11, 53, 89, -1, 0.3, "vibraphone", "vibes"),
    "marimba": _i(12, 48, 89, 0, -0.3, "marimba", "mallets"),
    "bells": _i(14, 55, 84, -3, 0.2, "tubular bells", "bells"),
    "dulcimer": _i(15, 50, 86, -2, -0.25, "dulcimer"),
    "jazzorgan": _i(17, 40, 84, -3, -0.3, "hammond organ", "jazz organ"),
    "rockorgan": _i(18, 40, 84, -4, -0.3, "rock organ", "distorted organ"),
    "church": _i(19, 36, 84, -3, 0.0, "church organ", "pipe organ", "organ"),
    "accordion": _i(21, 50, 84, -3, 0.25, "accordion", "squeezebox"),
    "harmonica": _i(22, 57, 84, -2, 0.1, "harmonica", "mouth organ"),
    "nylon": _i(24, 40, 79, 1, 0.25, "nylon guitar", "classical guitar", "acoustic guitar", "spanish guitar"),
    "steel": _i(25, 40, 81, 0, -0.3, "acoustic guitar", "steel guitar", "strummed guitar", "fingerpicked guitar"),
    "jazzguitar": _i(26, 40, 79, 0, 0.25, "jazz guitar", "hollow body guitar"),
    "clean": _i(27, 40, 81, -1, 0.35, "clean guitar", "electric guitar"),
    "muted": _i(28, 40, 76, 0, -0.35, "muted guitar", "palm muted guitar"),
    "overdrive": _i(29, 40, 81, -5, 0.4, "overdriven guitar", "crunchy guitar", "electric guitar"),
    "distortion": _i(30, 38, 81, -6, -0.4, "distorted guitar", "heavy guitar", "guitar riff"),
    "doublebass": _i(32, 28, 55, 3, 0.0, "double bass", "upright bass", "walking bass"),
    "finger": _i(33, 28, 57, 1, 0.0, "bass guitar", "electric bass", "bass"),
    "pick": _i(34, 28, 57, 0, 0.0, "picked bass", "bass guitar"),
    "fretless": _i(35, 28, 57, 0, 0.0, "fretless bass"),
    "slap": _i(36, 28, 57, 0, 0.0, "slap bass"),
    "synthbass": _i(38, 28, 55, -1, 0.0, "synth bass", "analog bass"),
    "subbass": _i(39, 26, 52, 1, 0.0, "deep bass", "sub bass", "808 bass"),
    "violin": _i(40, 55, 93, -1, -0.3, "violin", "solo violin"),
    "viola": _i(41, 48, 84, -1, 0.15, "viola"),
    "cello": _i(42, 36, 72, 0, 0.3, "cello"),
    "contrabass": _i(43, 28, 55, 1, 0.2, "contrabass", "string bass"),
    "tremolo": _i(44, 48, 84, -2, 0.0, "tremolo strings", "tense strings"),
    "pizzicato": _i(45, 45, 84, 1, -0.1, "pizzicato strings", "plucked strings"),
    "harp": _i(46, 40, 91, 1, 0.35, "harp"),
    "timpani": _i(47, 36, 55, 1, 0.1, "timpani", "war drums", "big drums"),
    "strings": _i(48, 40, 88, -2, 0.0, "strings", "string section", "violins", "orchestra strings"),
    "slowstrings": _i(49, 40, 88, -1, 0.0, "slow strings", "lush strings", "legato strings"),
    "synthstrings": _i(50, 40, 88, -3, 0.0, "synth strings", "string machine"),
    "choir": _i(52, 45, 81, -1, 0.0, "choir", "voices", "choir of aahs", "vocal ensemble"),
    "voice": _i(53, 48, 81, -1, 0.0, "oohs", "soft voices", "humming"),
    "trumpet": _i(56, 55, 84, -2, 0.25, "trumpet"),
    "trombone": _i(57, 40, 72, -2, -0.25, "trombone"),
    "tuba": _i(58, 28, 58, 0, 0.1, "tuba"),
    "mutetrumpet": _i(59, 55, 84, -2, 0.2, "muted trumpet"),
    "horn": _i(60, 41, 77, -1, -0.2, "french horn", "horns"),
    "brass": _i(61, 43, 84, -3, 0.1, "brass", "brass section", "horn section"),
    "synthbrass": _i(62, 43, 84, -4, 0.1, "synth brass", "eighties brass"),
    "alto": _i(65, 50, 82, -2, 0.15, "saxophone", "alto sax", "sax"),
    "tenor": _i(66, 45, 77, -2, 0.15, "tenor sax", "saxophone"),
    "oboe": _i(68, 58, 86, -2, -0.2, "oboe"),
    "bassoon": _i(70, 36, 70, -1, 0.2, "bassoon"),
    "clarinet": _i(71, 50, 86, -1, -0.1, "clarinet"),
    "piccolo": _i(72, 74, 100, -4, 0.2, "piccolo"),
    "flute": _i(73, 60, 93, 0, -0.2, "flute"),
    "recorder": _i(74, 65, 93, -1, 0.2, "recorder"),
    "pan": _i(75, 60, 88, 0, 0.2, "pan flute", "pan pipes"),
    "whistle": _i(78, 67, 93, -4, 0.1, "whistle", "tin whistle"),
    "square": _i(80, 48, 96, -7, 0.1, "square lead", "8-bit lead", "chip lead"),
    "saw": _i(81, 48, 91, -6, -0.1, "saw lead", "synth lead"),
    "warm": _i(89, 40, 84, -1, 0.0, "warm pad", "synth pad", "pads"),
    "poly": _i(90, 40, 88, -3, 0.2, "polysynth", "synth chords", "analog synth"),
    "space": _i(91, 48, 84, -1, 0.0, "space voices", "choir pad"),
    "bowed": _i(92, 48, 84, -2, 0.0, "bowed glass", "glassy pad"),
    "halo": _i(94, 40, 84, -2, 0.0, "halo pad", "ambient pad"),
    "sweep": _i(95, 40, 84, -2, 0.0, "sweeping pad", "evolving pad"),
    "crystal": _i(98, 55, 96, -3, 0.3, "crystal synth", "plucked synth", "plucks"),
    "sitar": _i(104, 48, 81, -1, 0.2, "sitar"),
    "banjo": _i(105, 48, 84, -1, 0.3, "banjo"),
    "koto": _i(107, 48, 84, 0, -0.3, "koto"),
    "kalimba": _i(108, 53, 89, 1, 0.3, "kalimba", "thumb piano"),
    "fiddle": _i(110, 55, 91, -2, -0.25, "fiddle", "country fiddle"),
    "steeldrum": _i(114, 52, 88, -2, 0.25, "steel drums", "steelpan"),
}
# Drum kits of bank 128.
KITS = {"standard": 0, "room": 8, "power": 16, "electronic": 24, "808": 25, "jazz": 32, "brush": 40, "orchestra": 48}
KIT_WORDS = {
    "standard": ["drums", "drum kit", "live drums"], "room": ["roomy drums", "drum kit"],
    "power": ["big drums", "powerful drums", "loud drums"], "electronic": ["electronic drums", "drum machine"],
    "808": ["808 drums", "drum machine", "trap drums"], "jazz": ["jazz drums", "ride cymbal"],
    "brush": ["brushed drums", "brushes", "soft drums"], "orchestra": ["orchestral drums", "cymbals and drums"],
}
HITS = dict(k=36, s=38, x=37, c=39, h=42, o=46, f=44, r=51, b=53, C=49, t=45, m=47, T=50, a=70, j=54, w=56, g=63, G=64, q=76, v=75)
