// Sounds as the page needs them: drawings (wave form, tempo, loudness) from the server, and samples to play.

import * as api from "./api.js";

const RATE = 48_000;
const MOST = 8; // sounds that are kept decoded
/** Longer ones take too much memory to be kept as samples; they are played by an audio element. */
export const LONGEST = 15 * 60;

const key = (place) => place.clip ?? `${place.session} ${place.of}`;

export class Sounds {
  constructor() {
    this.drawings = new Map();
    this.drawn = new Map(); // what has come of those
    this.buffers = new Map();
    this.decoded = new WeakMap(); // what has come of those promises
  }

  /** The drawing of a sound; asked for once. */
  drawing(place) {
    const known = this.drawings.get(key(place));
    if (known) return known;
    const asked = api.drawingOf(place).then(drawing);
    asked.then((drawn) => this.drawn.set(key(place), drawn), () => this.drawings.delete(key(place)));
    this.drawings.set(key(place), asked);
    return asked;
  }

  /** The drawing of a clip if it is at hand, else null. */
  known(clip) {
    return this.drawn.get(clip) ?? null;
  }

  /** The samples of a sound, the latest wanted ones at hand. */
  buffer(place) {
    const known = this.buffers.get(key(place));
    this.buffers.delete(key(place));
    const wanted = known ?? api.bytesOf(place).then((bytes) => new OfflineAudioContext(2, 1, RATE).decodeAudioData(bytes));
    wanted.then((buffer) => this.decoded.set(wanted, buffer), () => this.buffers.delete(key(place)));
    this.buffers.set(key(place), wanted);
    for (const oldest of [...this.buffers.keys()].slice(0, -MOST)) this.buffers.delete(oldest);
    return wanted;
  }

  /** The samples of a sound if they are at hand, else null. */
  ready(place) {
    return this.decoded.get(this.buffers.get(key(place))) ?? null;
  }
}

function drawing({ data, length, seconds, bpm, first_beat, loudness, true_peak }) {
  const [low, high] = [new Float32Array(length), new Float32Array(length)];
  for (let i = 0; i < length; i++) {
    low[i] = data[2 * i] / 127;
    high[i] = data[2 * i + 1] / 127;
  }
  return { low, high, seconds, bpm, first: first_beat ?? 0, loudness, peak: true_peak };
}
