"""Notes played by FluidSynth through a General MIDI sound font: dry, on the grid, to the sample.

Reverb and chorus are off and no note is moved, so a bar that comes again has the same samples."""
import ctypes
import ctypes.util
import os
from functools import lru_cache

import numpy as np

from .instruments import KITS
from .score import DRUMS
from .tempo import SR

FONT = os.environ.get("SOUND_FONT", "/usr/share/sounds/sf2/FluidR3_GM.sf2")
VOLUME, PAN = 7, 10     # MIDI controllers
BLOCK = 64              # samples that FluidSynth computes at once: events take effect between blocks


@lru_cache(maxsize=None)
def library():
    name = os.environ.get("FLUIDSYNTH") or ctypes.util.find_library("fluidsynth")
    if not name:
        raise SystemExit("FluidSynth is missing: `make instruments` installs it and the sound font.")
    lib, pointer, number = ctypes.CDLL(name), ctypes.c_void_p, ctypes.c_double
    lib.new_fluid_settings.restype = lib.new_fluid_synth.restype = pointer
    lib.new_fluid_synth.argtypes = [pointer]
    lib.fluid_settings_setnum.argtypes = [pointer, ctypes.c_char_p, number]
    lib.fluid_settings_setint.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int]
    lib.fluid_synth_sfload.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int]
    lib.fluid_synth_program_select.argtypes = [pointer] + 4 * [ctypes.c_int]
    lib.fluid_synth_cc.argtypes = lib.fluid_synth_noteon.argtypes = [pointer] + 3 * [ctypes.c_int]
    lib.fluid_synth_noteoff.argtypes = [pointer] + 2 * [ctypes.c_int]
    lib.fluid_synth_system_reset.argtypes = [pointer]
    lib.fluid_synth_write_float.argtypes = [pointer, ctypes.c_int] + 2 * [pointer, ctypes.c_int, ctypes.c_int]
    return lib


class Player:
    """One sound font, loaded once for many pieces."""

    def __init__(self, font):
        if not os.path.exists(font):
            raise SystemExit(f"{font} is missing: `make instruments` installs it.")
        self.lib = library()
        settings = self.lib.new_fluid_settings()
        for name, value in ((b"synth.sample-rate", float(SR)), (b"synth.gain", 0.5)):
            self.lib.fluid_settings_setnum(settings, name, value)
        for name, value in ((b"synth.reverb.active", 0), (b"synth.chorus.active", 0), (b"synth.polyphony", 512)):
            self.lib.fluid_settings_setint(settings, name, value)
        self.synth = self.lib.new_fluid_synth(settings)
        self.font = self.lib.fluid_synth_sfload(self.synth, font.encode(), 0)

    def channel(self, number, instrument, kit):
        """Put an instrument, or the drum kit, on a channel."""
        bank, program = (128, KITS[kit]) if instrument is None else (0, instrument.program)
        gain, pan = (-2.0, 0.0) if instrument is None else (instrument.gain, instrument.pan)
        if self.lib.fluid_synth_program_select(self.synth, number, self.font, bank, program):
            raise ValueError(f"no program {program} in bank {bank} of the sound font")
        self.lib.fluid_synth_cc(self.synth, number, VOLUME, int(np.clip(100 * 10 ** (gain / 40), 1, 127)))
        self.lib.fluid_synth_cc(self.synth, number, PAN, int(round(64 + 63 * pan)))

    def write(self, out, start, end):
        """Compute samples of out [2, n]."""
        left, right = (out[side, start:end].ctypes.data for side in (0, 1))
        self.lib.fluid_synth_write_float(self.synth, end - start, left, 0, 1, right, 0, 1)

    def silence(self):
        """Forget the piece before: its last blocks may still be on their way."""
        self.lib.fluid_synth_system_reset(self.synth)
        rest = np.ones((2, 16 * BLOCK), np.float32)
        for _ in range(200):
            self.write(rest, 0, rest.shape[1])
            if not rest.any():
                return

    def play(self, score, samples):
        """Audio [2, samples] of a score."""
        self.silence()
        # Channel 9 is that of the drums.
        channels = {DRUMS: 9}
        for number, role in enumerate(score.cast):
            channels[role] = number
            self.channel(number, score.program(role), None)
        self.channel(9, None, score.kit)
        events = []
        for note in score.notes:
            if note.start < samples:
                end = -(-(note.start + note.length) // BLOCK) * BLOCK
                events += [(note.start, 1, channels[note.role], note.pitch, note.velocity),
                           (end, 0, channels[note.role], note.pitch, 0)]
        out, now = np.zeros((2, samples), np.float32), 0
        for at, on, channel, pitch, velocity in sorted(set(events)):
            if min(at, samples) > now:
                self.write(out, now, min(at, samples))
                now = min(at, samples)
            if on:
                self.lib.fluid_synth_noteon(self.synth, channel, pitch, velocity)
            else:
                self.lib.fluid_synth_noteoff(self.synth, channel, pitch)
        if now < samples:
            self.write(out, now, samples)
        return out


@lru_cache(maxsize=None)
def player(font):
    return Player(font)
