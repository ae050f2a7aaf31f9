"""The twelve styles as tables.

Rhythm strings have 16 steps (one 4/4 bar). Drums: X loud, x normal, o soft.
Bass: r root, f fifth, o octave, t third, s seventh step down; chords: x strike;
in both, '-' holds the note and '.' rests.
"""

def _s(**kw):
    base = dict(swing=0.0, reverb=0.15, delay=0.0, sidechain=0.0, sevenths=False, arp=[], lead=[],
                drums=[], kit=None, bass=[], chords=[], lead_density=0.5, per_chord=1, tone=0, lead_low=72, hold=2)
    base.update(kw)
    return base


FOUR = "X...X...X...X..."
STYLES = {
    "lofi": _s(
        bpm=(70, 95), scales=["major"], progs=["jazz"], sevenths=True, kit="dusty", swing=0.28,
        drums=[dict(k="X.....x.X.......", s="....X.......X...", h="x.o.x.o.x.o.x.o."),
               dict(k="X..x....X.x.....", s="....X.......X..o", h="x.x.x.x.x.x.x.x.")],
        bass=[("finger", "r-----..r-..f-.."), ("sub", "r-------..r-f-..")],
        chords=[("epiano", "x-------....x--."), ("epiano", "x-----x---------"), ("guitar", "x---x---x---x---")],
        lead=["flute", "bell", "guitar"], lead_density=0.35, reverb=0.18),
    "techno": _s(
        bpm=(120, 140), scales=["minor"], progs=["vamp"], kit="techno", sidechain=0.7, hold=4,
        drums=[dict(k=FOUR, h="..x...x...x...x.", s="....x.......x..."),
               dict(k=FOUR, h="x.xxx.xxx.xxx.xx", p="...x..x....x..x.")],
        bass=[("acid", "..r...r...r...r."), ("acid", "r.rrr.ror.rrr.of"), ("sawbass", "..rr..rr..rr..ro")],
        chords=[("stab", "...x..x.....x..."), ("stab", "..x..x....x..x..")],
        lead=["pluck"], arp=[("pluck", 1)], reverb=0.15, delay=0.35, lead_density=0.5),
    "house": _s(
        bpm=(115, 130), scales=["minor"], progs=["minor"], kit="909", sidechain=0.6, sevenths=True,
        drums=[dict(k=FOUR, s="....x.......x...", o="..x...x...x...x.", h="x...x...x...x..."),
               dict(k=FOUR, s="....x.......x...", o="..x...x...x...x.", h="xoxoxoxoxoxoxoxo")],
        bass=[("sawbass", "..r-..r-..r-..o-"), ("finger", "r..r..r-..r..fo.")],
        chords=[("piano", "x..x..x...x..x.."), ("organ", "..x...x...x...x."), ("stab", "x..x..x..x..x...")],
        lead=["pluck", "organ"], lead_density=0.45, reverb=0.14, delay=0.15),
    "dnb": _s(
        bpm=(164, 178), scales=["minor"], progs=["drone"], kit="break", sidechain=0.3, hold=4,
        drums=[dict(k="X.........X.....", s="....X.......X...", h="x.x.x.x.x.x.x.x."),
               dict(k="X.........X.....", s="....X..o.o..X...", h="x.x.x.x.x.x.x.x.", p="..x...x...x...x.")],
        bass=[("reese", "r---------r-----"), ("reese", "r--r------o---f-")],
        chords=[("pad", "x---------------")], arp=[("pluck", 2)],
        lead=["bell", "sawlead"], reverb=0.16, delay=0.2, lead_density=0.3),
    "ambient": _s(
        bpm=(60, 75), scales=["major", "lydian"], progs=["drone", "lydian"], kit=None, sevenths=True,
        bass=[("sub", "r---------------")],
        chords=[("glass", "x---------------"), ("pad", "x---------------")],
        lead=["bell", "flute"], arp=[("harp", 4)], lead_density=0.2, reverb=0.55, delay=0.3),
    "synthwave": _s(
        bpm=(85, 115), scales=["minor"], progs=["minor"], kit="gated", sidechain=0.35,
        drums=[dict(k="X...X...X...X...", s="....X.......X...", h="x.x.x.x.x.x.x.x."),
               dict(k="X.......X.x.....", s="....X.......X...", h="xxxxxxxxxxxxxxxx")],
        bass=[("sawbass", "r.r.r.r.r.r.r.r."), ("sawbass", "rororororororoRo".replace("R", "r")), ("sawbass", "r.rrr.rrr.rrr.rr")],
        chords=[("pad", "x---------------"), ("stab", "x-----x-----x---")], arp=[("pluck", 1), ("square", 2)],
        lead=["sawlead"], lead_density=0.5, reverb=0.2, delay=0.25),
    "chiptune": _s(
        bpm=(120, 165), scales=["major", "mixolydian"], progs=["pop", "mixolydian"], kit="chip", reverb=0.0,
        drums=[dict(k="X...x...X...x...", s="....X.......X...", h="x.x.x.x.x.x.x.x."),
               dict(k="X..x....X..x....", s="....X.......X.x.", h="..x...x...x...x.")],
        bass=[("tribass", "r-o-r-o-r-o-r-o-"), ("tribass", "r-r-f-f-o-o-f-f-")],
        arp=[("pulse25", 1), ("pulse25", 2)], lead=["square"], lead_density=0.8, tone=1),
    "trap": _s(
        bpm=(130, 150), scales=["minor"], progs=["drone", "vamp"], kit="trap", hold=4,
        drums=[dict(k="X.....x...x.....", s="........X.......", h="x.x.x.x.x.x.x.x."),
               dict(k="X..x......x.....", s="........X.......", h="x.x.xxx.x.x.xxxx", p="......x.......x."),
               dict(k="X.........x..x..", s="........X.......", h="x.xxx.x.x.xxx.xx", o="..............x.")],
        bass=[("808", "r-----r---r-----"), ("808", "r---------r--r--")],
        chords=[("bell", "x-------x-------"), ("glass", "x---------------"), ("harp", "x---x---x---x---")],
        lead=["bell", "flute", "pluck"], lead_density=0.4, reverb=0.25),
    "piano": _s(
        bpm=(65, 90), scales=["major", "minor"], progs=["major", "minor"], kit=None, hold=1,
        bass=[("piano", "r-------f-------"), ("piano", "r---------------")],
        chords=[("piano", "x---x---x---x---"), ("piano", "x-------x-------")], arp=[("piano", 2)],
        lead=["piano"], lead_density=0.4, reverb=0.25),
    "strings": _s(
        bpm=(65, 90), scales=["minor", "major"], progs=["minor", "major"], kit=None, hold=1,
        bass=[("cello", "r---------------"), ("cello", "r-------f-------")],
        chords=[("strings", "x---------------"), ("strings", "x-------x-------")],
        lead=["strings"], lead_density=0.3, reverb=0.35),
    "dub": _s(
        bpm=(70, 90), scales=["minor", "major"], progs=["dub"], kit="dub", swing=0.12,
        drums=[dict(k="........X.......", s="........x.......", h="x.x.x.x.x.x.x.x."),
               dict(k="X.......X.......", s="....x.......x...", h="..x.x.x...x.x.x.")],
        bass=[("sub", "r-..r-o-..f-r-.."), ("sub", "r---..t-f-..r-..")],
        chords=[("organ", "..x...x...x...x."), ("clav", "....x.......x...")],
        lead=["flute", "brass"], lead_density=0.25, reverb=0.25, delay=0.5),
    "funk": _s(
        bpm=(95, 118), scales=["mixolydian", "minor"], progs=["vamp"], sevenths=True, kit="funk", swing=0.08,
        drums=[dict(k="X..x..x...x.....", s="....X..o.o..X..o", h="x.x.x.x.x.x.x.x."),
               dict(k="X.x.......xx....", s="....X..o.o..X...", h="xoxoxoxoxoxoxoxo")],
        bass=[("slap", "r..r..o.r.s..fo."), ("slap", "r.ro..r..f.r.ts.")],
        chords=[("clav", "x.x..x.xx.x..x.x"), ("guitar", "..x.x..x..x.x..x"), ("epiano", "x..x......x..x..")],
        lead=["brass"], lead_density=0.35, reverb=0.08),
}
NAMES = list(STYLES)
