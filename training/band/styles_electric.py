"""Styles with machines, basses and electric guitars. A groove is (drums, bass, chords)."""

ELECTRIC = {
    "lofi": dict(
        bpm=(70, 92), forms=["loop"], progs=["jazz", "soul"], hold=1, swing=0.25, kit=["standard", "jazz"], room=0.08,
        grooves=[("hiphop", "hiphop", "lofi"), ("hiphop2", "hiphop2", "hold"), ("hiphop", "hiphop2", "charleston")],
        bass=["finger", "doublebass", "subbass"], chords=["rhodes", "piano", "jazzguitar", "fm"], pad=["warm", "voice"],
        lead=["vibes", "jazzguitar", "flute", "mutetrumpet", "kalimba"], answer=["rhodes", "glock"], density=0.35),
    "techno": dict(
        bpm=(122, 142), forms=["dance"], progs=["dance", "vamp"], hold=2, kit=["electronic", "808"], room=0.1, lifts=(0,),
        grooves=[("techno", "acid2", "stab2"), ("techno2", "acid", "stab2"), ("techno", "off2", "stab")],
        bass=["synthbass", "subbass"], chords=["poly", "synthbrass"], pad=["sweep", "halo"], lead=["saw", "crystal"],
        answer=["square"], arp=["crystal", "saw", "square"], arp_every=1, density=0.4),
    "house": dict(
        bpm=(116, 130), forms=["dance"], progs=["dance", "soul", "jazz"], kit=["electronic", "power"],
        grooves=[("house", "off", "stab"), ("house2", "off2", "off"), ("house", "octave", "chops2")],
        bass=["synthbass", "finger"], chords=["piano", "upright", "jazzorgan", "rhodes"], pad=["synthstrings", "warm"],
        lead=["saw", "vibes", "alto", "flute"], answer=["brass", "crystal"], arp=["crystal"]),
    "dnb": dict(
        bpm=(165, 178), forms=["dance"], progs=["dance", "sad", "float"], hold=2, kit=["power", "room"], lifts=(0,),
        grooves=[("break", "reese", "hold"), ("break2", "808", "hold")],
        bass=["subbass", "synthbass"], chords=["rhodes", "poly", "piano"], pad=["halo", "warm"], lead=["saw", "flute", "vibes"],
        answer=["crystal"], arp=["crystal"], density=0.35),
    "synthwave": dict(
        bpm=(82, 116), forms=["song", "dance"], progs=["sad", "dance", "pop"], kit=["electronic", "power"], room=0.2,
        grooves=[("gated", "drive", "hold"), ("gated2", "octave", "hold"), ("gated", "gallop", "ride")],
        bass=["synthbass"], chords=["synthstrings", "poly", "synthbrass"], pad=["warm", "sweep"], lead=["saw", "square"],
        answer=["synthbrass", "crystal"], arp=["crystal", "saw"], arp_every=1, density=0.5),
    "chiptune": dict(
        bpm=(120, 165), forms=["tune", "loop"], progs=["pop", "rock", "sad"], kit=["electronic"], room=0.0,
        grooves=[("chip", "octave", "hold"), ("chip2", "pump", "hold")],
        bass=["square"], arp=["square", "saw"], arp_every=1, lead=["square", "saw"], answer=["square", "recorder"], density=0.75),
    "trap": dict(
        bpm=(130, 152), forms=["dance", "loop"], progs=["sad", "vamp"], hold=2, kit=["808"], lifts=(0,),
        grooves=[("trap", "808", "hold"), ("trap2", "8082", "half")],
        bass=["subbass"], chords=["bells", "piano", "bowed"], pad=["space", "halo"], lead=["flute", "musicbox", "saw", "pan"],
        answer=["glock", "harp"], arp=["harp", "kalimba"], density=0.35),
    "dub": dict(
        bpm=(68, 90), forms=["loop", "song"], progs=["reggae"], hold=1, swing=0.1, kit=["standard", "room"], room=0.22,
        grooves=[("onedrop", "dub", "skank"), ("steppers", "dub2", "skank2")],
        bass=["finger", "subbass"], chords=["jazzorgan", "muted", "clean"], pad=[], lead=["trombone", "alto", "clean", "harmonica"],
        answer=["brass", "trumpet"], density=0.3, fills=False),
    "funk": dict(
        bpm=(94, 120), forms=["song", "loop"], progs=["vamp", "soul"], hold=2, swing=0.05, kit=["standard", "room"],
        grooves=[("funk", "funk", "chops"), ("funk2", "funk2", "chops2")],
        bass=["slap", "finger"], chords=["clav", "clean", "rhodes", "muted"], pad=[], lead=["brass", "alto", "trumpet"],
        answer=["brass", "jazzorgan"], density=0.4),
    "ambient": dict(
        bpm=(60, 78), forms=["swell"], progs=["float"], hold=1, room=0.4, lifts=(0, 5),
        grooves=[("none", "hold", "hold"), ("none", "hold", "half")],
        bass=["subbass"], chords=["halo", "sweep", "warm"], pad=["bowed", "space", "voice"], lead=["flute", "vibes", "pan", "bells"],
        answer=["glock", "piano"], arp=["harp", "kalimba", "vibes"], arp_every=4, density=0.25),
    "rock": dict(
        bpm=(98, 152), forms=["song"], progs=["rock", "pop"], kit=["power", "room", "standard"],
        grooves=[("rock", "rock", "eighth"), ("rock2", "pump", "power"), ("ride", "rock", "strum")],
        bass=["pick", "finger"], chords=["overdrive", "distortion"], pad=["rockorgan", "strings"], lead=["overdrive", "distortion"],
        answer=["clean", "rockorgan"], arp=["clean"], density=0.5),
    "metal": dict(
        bpm=(120, 176), forms=["song"], progs=["metal"], kit=["power"], room=0.06, lifts=(0, 1),
        grooves=[("metal", "gallop", "chug"), ("blast", "pump", "power"), ("half", "gallop", "chug")],
        bass=["pick"], chords=["distortion"], pad=["choir", "strings"], lead=["distortion", "overdrive"],
        answer=["distortion"], density=0.6, loud=1.05),
    "disco": dict(
        bpm=(108, 126), forms=["song", "dance"], progs=["soul", "dance", "jazz"], kit=["standard", "power"],
        grooves=[("disco", "octave", "chops2"), ("disco", "octave", "off")],
        bass=["finger", "slap"], chords=["clean", "rhodes", "clav"], pad=["strings", "synthstrings"], lead=["strings", "brass", "flute"],
        answer=["brass"], density=0.5),
}
