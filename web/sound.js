// The sound: one <audio> element, and a Web Audio graph for volume, level and spectrum.
//
// Where the browser can, the graph plays the stream's WebSocket with little delay (`live.js`) and the element plays the
// graph; elsewhere the element plays the stream's address and the graph follows it. Where that fails too, an element
// plays playlists without a graph (`hls.js`).
// Events: `playing` (sound is heard), `waiting` (the buffer ran dry), `lost` (the connection or the stream ended), `way`
// (there is no graph any more), `title` (detail: what begins to play, told with the sound).

import { Hls } from "./hls.js";
import { Live } from "./live.js";

const SILENCE = -90; // dBFS shown as nothing

export class Sound extends EventTarget {
  constructor(audio) {
    super();
    this.audio = audio;
    this.wanted = false;
    this.graph = null;
    this.live = null;
    this.hls = null;
    this.failures = 0; // of the element alone, in a row
    this.loudness = 0.8;
    for (const name of ["playing", "waiting"]) audio.addEventListener(name, () => this.isPlain && this.tell(name));
    for (const name of ["error", "ended"]) audio.addEventListener(name, () => this.isPlain && this.tell("lost"));
    audio.addEventListener("playing", () => (this.failures = 0));
    audio.addEventListener("error", () => (this.failures += 1));
    document.addEventListener("visibilitychange", () => this.wanted && this.graph?.context.resume());
  }

  tell(name) {
    if (this.wanted) this.dispatchEvent(new Event(name));
  }

  /** The element plays the stream's address by itself. */
  get isPlain() {
    return !this.live && !this.hls;
  }

  /** What this browser plays best: Opus, or MP3 where Ogg is unknown (older Safari). */
  static format() {
    return document.createElement("audio").canPlayType('audio/ogg; codecs="opus"') ? "ogg" : "mp3";
  }

  /** Must be called within the click or key press: browsers let sound begin only there. */
  unlock() {
    this.ready ??= this.connect();
    this.graph?.context.resume();
    const audio = this.hls?.audio ?? this.audio;
    if (!audio.src && !audio.srcObject) audio.play().catch(() => {});
  }

  /** Makes the graph at once; how it is fed is decided a moment later. */
  async connect() {
    let context;
    try {
      context = new AudioContext({ latencyHint: "balanced", sampleRate: 48_000 });
    } catch {
      return; // no Web Audio: the element plays alone, without a meter
    }
    const analyser = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0.75, minDecibels: -85, maxDecibels: -20 });
    const gain = new GainNode(context, { gain: this.loudness ** 2 });
    analyser.connect(gain);
    this.graph = {
      context,
      analyser,
      gain,
      wave: new Float32Array(analyser.fftSize / 2),
      bins: new Uint8Array(analyser.frequencyBinCount),
    };
    this.live = await Live.within(context);
    if (!this.live) return this.settle();
    for (const name of ["playing", "waiting", "lost"]) this.live.addEventListener(name, () => this.tell(name));
    this.live.node.connect(analyser);
    // Through the element, so that the system knows that this page plays: media keys, the lock screen, the background.
    const speaker = new MediaStreamAudioDestinationNode(context);
    gain.connect(speaker);
    this.audio.srcObject = speaker.stream;
  }

  /** Without the socket's sound. */
  settle() {
    if (Hls.preferred) return this.takePlaylists(this.audio);
    // The graph follows the element, which plays by itself.
    const { context, analyser, gain } = this.graph;
    context.createMediaElementSource(this.audio).connect(analyser);
    gain.connect(context.destination);
  }

  /** Something between us and the server lets no WebSocket through: the element has to do. */
  giveLiveUp() {
    this.live.node.disconnect();
    this.graph.gain.disconnect();
    this.live = null;
    this.audio.srcObject = null;
    this.settle();
  }

  /** An element plays playlists. It must not be one that the graph has taken: nothing would be heard of it. */
  takePlaylists(audio) {
    this.graph?.context.close();
    this.graph = null;
    this.hls = new Hls(audio);
    for (const name of ["playing", "waiting", "lost"]) this.hls.addEventListener(name, () => this.tell(name));
    this.hls.addEventListener("title", ({ detail }) => this.dispatchEvent(new CustomEvent("title", { detail })));
    this.volume = this.loudness;
    this.dispatchEvent(new Event("way"));
  }

  /**
   * Plays a live stream, given its addresses `{ audio, socket, playlist }`, of which a playlist is begun `behind` seconds
   * before its end; resolves when the browser accepted it.
   */
  async play({ audio, socket, playlist, behind }) {
    this.wanted = true;
    await this.ready;
    if (!this.wanted) return;
    if (this.live?.failures >= 2) this.giveLiveUp();
    if (this.isPlain && this.failures >= 2 && Hls.possible) this.takePlaylists(new Audio());
    if (this.hls) return this.hls.play(playlist, behind);
    if (this.live) this.live.play(socket);
    else this.audio.src = audio;
    await this.audio.play();
  }

  stop() {
    this.wanted = false;
    if (this.hls) return this.hls.stop();
    this.audio.pause();
    if (this.live) return this.live.stop();
    this.audio.removeAttribute("src");
    this.audio.load(); // closes the connection
  }

  /** 0 to 1; squared, so that the slider feels even to the ear. */
  set volume(value) {
    this.loudness = value;
    if (this.graph) this.graph.gain.gain.setTargetAtTime(value ** 2, this.graph.context.currentTime, 0.02);
    else (this.hls?.audio ?? this.audio).volume = value ** 2;
  }

  /** Whether the page can change how loud it is. */
  get adjustable() {
    return this.hls?.adjustable ?? true;
  }

  /** Whether titles come with the sound, at the moment when they are heard. */
  get told() {
    return this.hls?.told ?? false;
  }

  /** Moves while sound is played. */
  get position() {
    return this.live?.played ?? this.hls?.position ?? this.audio.currentTime;
  }

  /** Seconds of sound that the browser holds and has not played. */
  get ahead() {
    if (this.live) return this.live.held;
    if (this.hls) return this.hls.ahead;
    const { buffered, currentTime } = this.audio;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }

  /** Root mean square and peak of the last instants, in dBFS. */
  level() {
    if (!this.graph || !this.wanted) return { rms: SILENCE, peak: SILENCE };
    const { analyser, wave } = this.graph;
    analyser.getFloatTimeDomainData(wave);
    let sum = 0;
    let peak = 0;
    for (const sample of wave) {
      sum += sample * sample;
      peak = Math.max(peak, Math.abs(sample));
    }
    const decibels = (value) => Math.max(SILENCE, 20 * Math.log10(value || 1e-9));
    return { rms: decibels(Math.sqrt(sum / wave.length)), peak: decibels(peak) };
  }

  /** Fills `bars` (0 to 1) with the spectrum, 40 Hz to 14 kHz, evenly spaced in pitch. */
  spectrum(bars) {
    if (!this.graph || !this.wanted) return void bars.fill(0);
    const { analyser, bins, context } = this.graph;
    analyser.getByteFrequencyData(bins);
    const width = context.sampleRate / analyser.fftSize;
    const edge = (i) => (40 * 350 ** (i / bars.length)) / width;
    for (let i = 0; i < bars.length; i++) {
      const from = Math.floor(edge(i));
      const to = Math.max(from + 1, Math.floor(edge(i + 1)));
      let top = 0;
      for (let bin = from; bin < to && bin < bins.length; bin++) top = Math.max(top, bins[bin]);
      bars[i] = top / 255;
    }
  }
}
