// The audio worklet of `live.js`: a queue of decoded sound, played as evenly as the network allows.
//
// It begins with TARGET seconds in store. When it runs dry it fades out, waits for more than before, and fades in; after a
// calm while it wants less again. The clocks of two machines never agree: it plays a thousandth faster or slower until the
// store is what it should be, three thousandths (five cents) when far from it.

const TARGET = 0.2; // seconds; the server sends 0.24 at once
const MOST = 2;
const SLACK = 0.1; // seconds of store above or below the target that are no reason to act
const NUDGE = 0.001;
const FAR = 0.5; // seconds of store off the target that call for a stronger nudge
const ROUND = 5; // seconds over which the smallest store is taken
const CALM = 6; // rounds without running dry before less is wanted
const SHRINK = 0.95; // of the target, per further round
const FADE = 128; // frames

class LivePlayer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = ({ data: { source } }) => this.follow(source);
    this.reset();
  }

  follow(source) {
    this.source?.close();
    this.source = source;
    this.reset();
    if (source) source.onmessage = ({ data }) => this.put(data);
  }

  reset() {
    this.queue = [];
    this.at = 0; // position in the first piece, with a fraction
    this.held = 0; // frames
    this.playing = false;
    this.target = TARGET * sampleRate;
    this.rate = 1;
    this.least = Infinity;
    this.round = 0;
    this.calm = 0; // rounds
    this.told = 0;
    this.played = 0; // frames
  }

  put(planes) {
    this.queue.push(planes);
    this.held += planes[0].length;
  }

  process(_, [output]) {
    const frames = output[0].length;
    if (!this.playing && this.held >= this.target) this.turn(true);
    if (this.playing) this.play(output, frames);
    this.told += frames;
    if (this.told >= sampleRate / 10) this.tell();
    return true;
  }

  play(output, frames) {
    const dry = this.held - this.at < frames * this.rate + 2;
    for (let i = 0; i < frames; i++) {
      const fade = Math.min(1, (this.faded += 1 / FADE), dry ? 1 - (i + 1) / frames : 1);
      for (let channel = 0; channel < output.length; channel++) output[channel][i] = fade * this.sample(channel);
      this.advance();
    }
    this.played += frames;
    if (dry) {
      this.target = Math.min(MOST * sampleRate, this.target * 2);
      this.calm = 0;
      this.turn(false);
    } else {
      this.steady(frames);
    }
  }

  /** The sound at the present position; between two frames, the straight line. */
  sample(channel) {
    const [piece, next] = this.queue;
    if (!piece) return 0;
    const index = Math.floor(this.at);
    const plane = piece[Math.min(channel, piece.length - 1)];
    const part = this.at - index;
    if (part === 0) return plane[index];
    const after = index + 1 < plane.length ? plane[index + 1] : next ? next[Math.min(channel, next.length - 1)][0] : plane[index];
    return plane[index] + part * (after - plane[index]);
  }

  advance() {
    if (!this.queue.length) return;
    this.at += this.rate;
    const length = this.queue[0][0].length;
    if (this.at < length) return;
    this.at -= length;
    this.held -= length;
    this.queue.shift();
  }

  /** Watches the smallest store of each round and nudges the rate. */
  steady(frames) {
    this.least = Math.min(this.least, this.held - this.at);
    this.round += frames;
    if (this.round < ROUND * sampleRate) return;
    this.calm += 1;
    if (this.calm > CALM) this.target = Math.max(TARGET * sampleRate, this.target * SHRINK);
    const excess = (this.least - this.target) / sampleRate;
    const nudge = Math.abs(excess) > FAR ? 3 * NUDGE : NUDGE;
    if (Math.abs(excess) > SLACK) this.rate = 1 + Math.sign(excess) * nudge;
    else if (this.rate > 1 ? excess < SLACK / 3 : excess > -SLACK / 3) this.rate = 1;
    if (this.rate === 1) this.at = Math.floor(this.at); // exact samples again
    this.least = Infinity;
    this.round = 0;
  }

  turn(playing) {
    this.playing = playing;
    this.faded = 0;
    this.least = Infinity;
    this.round = 0;
    this.tell(playing ? "playing" : "waiting");
  }

  tell(state) {
    this.told = 0;
    this.port.postMessage({ held: Math.max(0, this.held - this.at) / sampleRate, played: this.played / sampleRate, state });
  }
}

registerProcessor("live-player", LivePlayer);
