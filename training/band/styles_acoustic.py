"""Styles of acoustic bands, orchestras and single players."""

ACOUSTIC = {
    "piano": dict(
        bpm=(60, 96), forms=["tune", "swell", "theme"], progs=["pop", "sad", "classical", "film"], room=0.18,
        grooves=[("none", "half", "quarter"), ("none", "fifth", "hold"), ("none", "hold", "waits")],
        bass=["piano"], chords=["piano"], lead=["piano"], answer=["piano"], arp=["piano"], density=0.45),
    "strings": dict(
        bpm=(60, 96), forms=["theme", "swell"], progs=["film", "sad", "classical"], room=0.28,
        grooves=[("none", "hold", "hold"), ("none", "half", "half"), ("none", "half", "eighth")],
        bass=["contrabass", "cello"], chords=["slowstrings", "strings", "tremolo"], pad=["horn", "slowstrings"],
        lead=["violin", "strings", "cello"], answer=["cello", "oboe", "horn"], arp=["pizzicato", "harp"], density=0.35),
    "jazz": dict(
        bpm=(100, 176), forms=["tune"], progs=["jazz", "blues"], swing=0.33, kit=["jazz", "brush"], lifts=(0, 1),
        grooves=[("swing", "walk", "charleston"), ("brush", "walk", "comp"), ("swing", "two", "comp2")],
        bass=["doublebass"], chords=["piano", "jazzguitar", "vibes"], lead=["tenor", "alto", "trumpet", "mutetrumpet", "vibes", "clarinet"],
        answer=["piano", "jazzguitar", "trombone"], density=0.6),
    "bossa": dict(
        bpm=(100, 144), forms=["tune", "song"], progs=["bossa", "jazz"], kit=["brush", "jazz"],
        grooves=[("bossa", "bossa", "bossa"), ("samba", "bossa", "samba")],
        bass=["doublebass", "fretless"], chords=["nylon"], pad=["strings", "voice"], lead=["flute", "alto", "piano", "vibes", "harmonica"],
        answer=["nylon", "piano"], density=0.4),
    "country": dict(
        bpm=(96, 136), forms=["song", "tune"], progs=["country"], kit=["standard", "brush"],
        grooves=[("train", "country", "boom"), ("twostep", "two", "strum"), ("rock", "country", "strum2")],
        bass=["finger", "doublebass"], chords=["steel", "clean"], pad=[], lead=["fiddle", "harmonica", "clean", "banjo"],
        answer=["banjo", "fiddle", "honky"], arp=["banjo"], arp_every=1, density=0.55),
    "folk": dict(
        bpm=(80, 120), forms=["song", "tune"], progs=["folk"], kit=["brush"],
        grooves=[("none", "half", "strum"), ("folk", "two", "strum2"), ("soft", "fifth", "boom")],
        bass=["doublebass"], chords=["steel", "nylon", "accordion"], pad=[], lead=["whistle", "fiddle", "flute", "accordion", "recorder"],
        answer=["steel", "dulcimer", "harmonica"], arp=["steel", "nylon", "dulcimer"], density=0.55),
    "classical": dict(
        bpm=(84, 140), forms=["tune"], progs=["classical"], room=0.22, lifts=(0, 7, -5),
        grooves=[("none", "fifth", "eighth"), ("none", "half", "quarter"), ("none", "two", "off")],
        bass=["cello", "contrabass", "bassoon"], chords=["strings", "pizzicato", "harpsichord"], pad=["horn"],
        lead=["violin", "flute", "oboe", "clarinet"], answer=["cello", "bassoon", "horn", "viola"],
        arp=["harpsichord", "pizzicato", "harp"], density=0.6),
    "choir": dict(
        bpm=(60, 92), forms=["swell", "theme"], progs=["hymn", "film"], room=0.35,
        grooves=[("none", "hold", "hold"), ("none", "half", "half")],
        bass=["choir"], chords=["choir"], pad=["voice", "church"], lead=["choir", "voice"], answer=["voice"], density=0.3),
    "organ": dict(
        bpm=(66, 112), forms=["tune", "theme"], progs=["hymn", "classical"], room=0.35,
        grooves=[("none", "half", "quarter"), ("none", "walk", "half"), ("none", "fifth", "hold")],
        bass=["church"], chords=["church"], lead=["church"], answer=["church"], arp=["church"], density=0.5),
    "guitar": dict(
        bpm=(66, 120), forms=["tune", "swell"], progs=["folk", "pop", "sad", "bossa"], room=0.15,
        grooves=[("none", "half", "waits"), ("none", "fifth", "quarter"), ("none", "hold", "hold")],
        bass=["nylon"], chords=["nylon"], lead=["nylon"], answer=["nylon"], arp=["nylon", "steel"], arp_every=2, density=0.45),
    "solo": dict(
        bpm=(60, 110), forms=["tune", "swell"], progs=["folk", "classical", "sad"], room=0.3,
        grooves=[("none", "hold", "hold")],
        lead=["violin", "cello", "flute", "clarinet", "oboe", "alto", "trumpet", "harmonica", "pan", "recorder", "sitar"],
        answer=[], density=0.6, loud=0.9),
    "trailer": dict(
        bpm=(70, 140), forms=["theme"], progs=["film", "sad"], kit=["orchestra"], room=0.3, lifts=(0, 2, 3),
        grooves=[("trailer", "pump", "eighth"), ("march", "half", "hold"), ("trailer", "drive", "power")],
        bass=["contrabass", "timpani"], chords=["strings", "brass", "tremolo"], pad=["choir", "horn"],
        lead=["horn", "brass", "choir", "trumpet"], answer=["trombone", "strings"], arp=["strings", "pizzicato"], density=0.35, loud=1.05),
    "rain": dict(
        bpm=(60, 80), forms=["swell"], progs=["float", "soul"], hold=1, room=0.35,
        grooves=[("none", "hold", "hold"), ("soft", "hold", "waits")],
        bass=["subbass", "doublebass"], chords=["rhodes", "piano", "warm"], pad=["voice", "halo"], lead=["piano", "vibes", "flute"],
        answer=["glock"], arp=["harp", "musicbox"], arp_every=4, density=0.25, noise="rain"),
    "fantasy": dict(
        bpm=(80, 120), forms=["theme", "tune"], progs=["folk", "film"], room=0.25, kit=["orchestra"],
        grooves=[("folk", "fifth", "strum"), ("none", "half", "hold"), ("march", "half", "quarter")],
        bass=["cello", "contrabass"], chords=["harp", "strings", "nylon"], pad=["choir", "horn"],
        lead=["flute", "pan", "whistle", "oboe", "violin"], answer=["horn", "recorder", "celesta"], arp=["harp", "dulcimer", "musicbox"], density=0.5),
}
