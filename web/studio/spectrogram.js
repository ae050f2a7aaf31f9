// The spectrogram, on demand: computed beside the page from the samples that it plays, drawn under the wave form.

const ROWS = 160;

export class Spectrogram {
  constructor(wave) {
    this.wave = wave;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("part", "spectrogram");
    this.on = false;
    this.of = null; // the samples that are drawn
    wave.addEventListener("change", () => this.place());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.image && requestAnimationFrame(() => this.paint()));
  }

  place() {
    const { wave, canvas } = this;
    canvas.style.display = this.on && this.image ? "block" : "none";
    if (wave.wrapper && canvas.parentNode !== wave.wrapper) wave.wrapper.prepend(canvas);
  }

  /** Shows that of these samples, or none. */
  show(buffer) {
    this.on = buffer !== null;
    if (buffer !== this.of) this.image = null;
    this.place();
    if (!this.on || buffer === this.of) return;
    this.of = buffer;
    this.worker?.terminate();
    this.worker = new Worker(new URL("spectrogram-worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => {
      this.worker.terminate();
      this.image = data;
      this.paint();
    };
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, n) => buffer.getChannelData(n).slice());
    this.worker.postMessage({ channels, rate: buffer.sampleRate, rows: ROWS }, channels.map(({ buffer }) => buffer));
  }

  paint() {
    const { columns, rows, levels } = this.image;
    const style = getComputedStyle(document.documentElement);
    const stops = ["--raised", "--wave", "--accent", "--ink"].map((name) => rgb(style.getPropertyValue(name).trim()));
    this.canvas.width = columns;
    this.canvas.height = rows;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < levels.length; i++) {
      const place = (levels[i] / 255) * (stops.length - 1);
      const at = Math.min(stops.length - 2, Math.floor(place));
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = stops[at][c] + (stops[at + 1][c] - stops[at][c]) * (place - at);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    this.place();
  }
}

/** `#rrggbb` as numbers. */
const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
