// The microphone, uncompressed and unprocessed, with its level and a count-in of clicks. What came in before the count was
// over is cut off to the sample.
//
// Events: `change` (state), `beat` (detail: beats left).

import { levelOf } from "./deck.js";
import { wav } from "./wav.js";

const LONGEST = 15 * 60; // seconds

export class Microphone extends EventTarget {
  constructor() {
    super();
    this.state = "closed"; // closed, open, counting, recording
  }

  /** Asks for the microphone. */
  async open() {
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
    const context = new AudioContext({ latencyHint: "interactive" });
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    const source = context.createMediaStreamSource(stream);
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    source.connect(analyser);
    source.connect(capture);
    capture.port.onmessage = ({ data }) => this.take(data);
    Object.assign(this, { stream, context, analyser, wave: new Float32Array(analyser.fftSize) });
    this.set("open");
  }

  level() {
    if (!this.analyser) return { rms: -90, peak: -90 };
    this.analyser.getFloatTimeDomainData(this.wave);
    return levelOf(this.wave);
  }

  /** Records after `bars` of clicks; `bpm` is their tempo. */
  record(bars, bpm) {
    const { context } = this;
    context.resume();
    const beat = 60 / bpm;
    const beats = 4 * bars;
    const start = context.currentTime + 0.1;
    this.begin = start + beats * beat;
    this.blocks = null;
    this.frames = 0;
    for (let n = 0; n < beats; n++) this.click(start + n * beat, n % 4 === 0);
    this.left = null;
    this.beatAt = (time) => Math.ceil((this.begin - time) / beat - 1e-6);
    this.set(beats ? "counting" : "recording");
  }

  click(time, strong) {
    const { context } = this;
    const tone = new OscillatorNode(context, { frequency: strong ? 1600 : 1100 });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime(0.4, time);
    gain.gain.exponentialRampToValueAtTime(0.001, time + 0.06);
    tone.connect(gain).connect(context.destination);
    tone.start(time);
    tone.stop(time + 0.07);
  }

  take({ time, channels }) {
    if (this.state !== "counting" && this.state !== "recording") return;
    const { sampleRate } = this.context;
    const skip = Math.max(0, Math.round((this.begin - time) * sampleRate));
    if (skip >= channels[0].length) {
      const left = this.beatAt(time);
      if (left !== this.left) this.dispatchEvent(new CustomEvent("beat", { detail: (this.left = left) }));
      return;
    }
    if (this.state === "counting") this.set("recording");
    // A device whose channels come and go is recorded with those that it began with.
    this.blocks ??= channels.map(() => []);
    this.blocks.forEach((blocks, n) => blocks.push((channels[n] ?? channels[0]).subarray(skip)));
    this.frames += channels[0].length - skip;
    if (this.seconds >= LONGEST) this.dispatchEvent(new Event("full"));
  }

  get seconds() {
    return this.state === "recording" ? this.frames / this.context.sampleRate : 0;
  }

  /** Ends the recording; its file, or null when nothing was recorded. */
  finish() {
    const { blocks, context } = this;
    if (this.state !== "counting" && this.state !== "recording") return null;
    this.set("open");
    this.blocks = null;
    return blocks ? wav(blocks, context.sampleRate) : null;
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    Object.assign(this, { stream: null, context: null, analyser: null, blocks: null });
    this.set("closed");
  }

  set(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}
