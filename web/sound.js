// The sound: one <audio> element, and behind it a Web Audio graph for volume, level and spectrum.
//
// Events: `playing` (sound is heard), `waiting` (the buffer ran dry), `lost` (the connection or the stream ended).

const SILENCE = -90; // dBFS shown as nothing

export class Sound extends EventTarget {
  constructor(audio) {
    super();
    this.audio = audio;
    this.wanted = false;
    this.graph = null;
    this.loudness = 0.8;
    for (const name of ["playing", "waiting"]) this.audio.addEventListener(name, () => this.wanted && this.tell(name));
    for (const name of ["error", "ended"]) this.audio.addEventListener(name, () => this.wanted && this.tell("lost"));
    document.addEventListener("visibilitychange", () => this.wanted && this.graph?.context.resume());
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }

  /** What this browser plays best: Opus, or MP3 where Ogg is unknown (older Safari). */
  static format() {
    return document.createElement("audio").canPlayType('audio/ogg; codecs="opus"') ? "ogg" : "mp3";
  }

  /** Must be called within the click or key press: browsers let sound begin only there. */
  unlock() {
    if (!this.graph) this.graph = this.connect();
    this.graph?.context.resume();
    if (!this.audio.src) this.audio.play().catch(() => {});
  }

  connect() {
    try {
      const context = new AudioContext({ latencyHint: "playback" });
      const source = context.createMediaElementSource(this.audio);
      const analyser = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0.75, minDecibels: -85, maxDecibels: -20 });
      const gain = new GainNode(context, { gain: this.loudness ** 2 });
      source.connect(analyser).connect(gain).connect(context.destination);
      return {
        context,
        analyser,
        gain,
        wave: new Float32Array(analyser.fftSize / 2),
        bins: new Uint8Array(analyser.frequencyBinCount),
      };
    } catch {
      return null; // no Web Audio: the element plays alone, without a meter
    }
  }

  /** Plays a live address; resolves when the browser accepted it. */
  async play(url) {
    this.wanted = true;
    this.audio.src = url;
    await this.audio.play();
  }

  stop() {
    this.wanted = false;
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.audio.load(); // closes the connection
  }

  /** 0 to 1; squared, so that the slider feels even to the ear. */
  set volume(value) {
    this.loudness = value;
    if (this.graph) this.graph.gain.gain.setTargetAtTime(value ** 2, this.graph.context.currentTime, 0.02);
    else this.audio.volume = value ** 2;
  }

  /** Seconds of sound that the browser holds and has not played. */
  get ahead() {
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
