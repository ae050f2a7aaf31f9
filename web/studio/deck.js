// What is heard: one sound at a time through one graph, with a level and a place. Sounds that are in memory start, repeat
// and change places with each other to the sample; long ones, and those that are still being made, come from an audio
// element.
//
// To the wave form it looks like a media element: `play`, `pause`, `currentTime`, `duration` and their events.

const RATE = 48_000;
const FADE = 0.008; // seconds

export class Deck extends EventTarget {
  constructor() {
    super();
    this.graph = null;
    this.loudness = 0.8;
    this.silence();
    // What a media element has besides.
    Object.assign(this, { readyState: 4, seeking: false, ended: false, muted: false, playbackRate: 1, src: "", currentSrc: "", error: null });
    document.addEventListener("visibilitychange", () => !this.paused && this.graph?.context.resume());
  }

  silence() {
    this.halt();
    this.buffer = null;
    this.url = null;
    this.paused = true;
    this.at = 0;
    this.duration = 0;
    this.cycle = null;
  }

  /** A sound of `seconds`, whose samples may still be on their way. Keeps the place, and plays on if it plays. */
  load({ seconds, buffer = null, url = null, keep = false }) {
    const at = keep ? Math.min(this.currentTime, seconds) : 0;
    const playing = !this.paused && keep;
    this.halt();
    const changes = this.duration !== seconds;
    Object.assign(this, { buffer, url, duration: seconds, at, paused: !playing });
    if (!keep) this.cycle = null;
    if (changes) this.tell("durationchange");
    if (playing && this.ready) this.start();
    this.tell("timeupdate");
    if (!playing) this.tell("pause");
  }

  /** The samples have come. */
  fill(buffer) {
    this.buffer = buffer;
    if (!this.paused && !this.voice) this.start();
    this.tell("filled");
  }

  get ready() {
    return this.buffer !== null || this.url !== null;
  }

  /** Must first be called within a click or key press: browsers let sound begin only there. */
  unlock() {
    if (!this.graph) {
      const context = new AudioContext({ latencyHint: "interactive", sampleRate: RATE });
      const analyser = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
      const gain = new GainNode(context, { gain: this.loudness ** 2 });
      analyser.connect(gain).connect(context.destination);
      this.graph = { context, analyser, gain, wave: new Float32Array(analyser.fftSize) };
    }
    this.graph.context.resume();
  }

  async play() {
    if (!this.paused || !this.duration) return;
    this.unlock();
    this.paused = false;
    if (this.at >= this.duration - 0.01) this.at = this.cycle?.from ?? 0;
    if (this.ready) this.start();
    this.tell("play");
  }

  pause() {
    if (this.paused) return;
    this.at = this.currentTime;
    this.halt();
    this.paused = true;
    this.tell("pause");
  }

  get currentTime() {
    return this.voice ? this.voice.position() : this.at;
  }

  set currentTime(seconds) {
    this.at = Math.max(0, Math.min(seconds, this.duration));
    if (this.voice) this.start();
    this.tell("timeupdate");
  }

  /** Repeats the seconds `{ from, to }`; null plays to the end. */
  repeat(cycle) {
    this.cycle = cycle;
    if (!this.voice) return;
    this.at = this.currentTime;
    this.start();
  }

  start() {
    this.halt();
    const { context, analyser } = this.graph;
    const gain = new GainNode(context, { gain: 0 });
    gain.connect(analyser);
    gain.gain.setTargetAtTime(1, context.currentTime, FADE / 3);
    const cycle = this.cycle && this.at < this.cycle.to ? this.cycle : null;
    const options = { at: this.at, cycle, ended: () => this.finish() };
    this.voice = this.buffer ? bufferVoice(context, gain, this.buffer, options) : elementVoice(context, gain, this.url, options);
  }

  halt() {
    this.voice?.stop();
    this.voice = null;
  }

  finish() {
    this.halt();
    this.at = this.duration;
    this.paused = true;
    this.tell("pause");
    this.tell("ended");
  }

  /** 0 to 1; squared, so that the slider feels even to the ear. */
  set volume(value) {
    this.loudness = value;
    this.graph?.gain.gain.setTargetAtTime(value ** 2, this.graph.context.currentTime, 0.02);
  }

  get volume() {
    return this.loudness;
  }

  /** Root mean square and peak of the last instants, in dBFS. */
  level() {
    if (!this.graph) return { rms: -90, peak: -90 };
    const { analyser, wave } = this.graph;
    analyser.getFloatTimeDomainData(wave);
    return levelOf(wave);
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }

  canPlayType() {
    return "maybe";
  }
  removeAttribute() {}
}

/** Plays samples; the place is counted on the context's clock. */
function bufferVoice(context, out, buffer, { at, cycle, ended }) {
  const source = new AudioBufferSourceNode(context, { buffer });
  if (cycle) Object.assign(source, { loop: true, loopStart: cycle.from, loopEnd: cycle.to });
  source.connect(out);
  source.onended = ended;
  const began = context.currentTime;
  source.start(began, at);
  return {
    position() {
      const place = at + Math.max(0, context.currentTime - began);
      if (!cycle || place < cycle.to) return Math.min(place, buffer.duration);
      return cycle.from + ((place - cycle.from) % (cycle.to - cycle.from));
    },
    stop() {
      source.onended = null;
      fadeOut(context, out);
      source.stop(context.currentTime + 2 * FADE);
    },
  };
}

/** Plays an address; repeating leaves a gap of a moment. */
function elementVoice(context, out, url, { at, cycle, ended }) {
  const audio = new Audio(url);
  context.createMediaElementSource(audio).connect(out);
  if (at > 0) audio.currentTime = at;
  audio.onended = ended;
  audio.onerror = ended;
  if (cycle) audio.ontimeupdate = () => audio.currentTime >= cycle.to && (audio.currentTime = cycle.from);
  audio.play().catch(() => {}); // stopped before it began
  return {
    position: () => audio.currentTime,
    stop() {
      audio.onended = audio.onerror = audio.ontimeupdate = null;
      fadeOut(context, out);
      setTimeout(() => {
        audio.pause();
        audio.removeAttribute("src");
        audio.load(); // closes the connection
        out.disconnect();
      }, 3000 * FADE);
    },
  };
}

function fadeOut(context, out) {
  out.gain.cancelScheduledValues(context.currentTime);
  out.gain.setTargetAtTime(0, context.currentTime, FADE / 3);
}

export function levelOf(wave) {
  let sum = 0;
  let peak = 0;
  for (const sample of wave) {
    sum += sample * sample;
    peak = Math.max(peak, Math.abs(sample));
  }
  const decibels = (value) => Math.max(-90, 20 * Math.log10(value || 1e-9));
  return { rms: decibels(Math.sqrt(sum / wave.length)), peak: decibels(peak) };
}
