// The wave form: wavesurfer.js draws it from the server's drawing, zooms and scrolls it, and moves the play head. A click
// is a place; what is dragged over it is the selection's business.

import WaveSurfer from "../vendor/wavesurfer/wavesurfer.esm.js";

const HEIGHT = 168;
const CLOSEST = 600; // pixels per second

export class Wave extends EventTarget {
  constructor(container, deck) {
    super();
    this.container = container;
    this.deck = deck;
    this.surfer = null;
    this.zoom = 0; // pixels per second; 0 is all of it
    this.shown = null;
    const recolour = () => this.surfer?.setOptions(colours());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(recolour));
    container.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Shows a drawing. */
  async show(drawing, keep) {
    this.shown = drawing;
    if (!keep) this.zoom = 0;
    this.surfer ??= this.create();
    this.surfer.options.minPxPerSec = this.zoom;
    await this.surfer.load("", [drawing.high, drawing.low], drawing.seconds).catch(() => {}); // another one came meanwhile
    this.changed();
  }

  create() {
    const surfer = WaveSurfer.create({
      container: this.container,
      media: this.deck,
      height: HEIGHT,
      interact: false,
      cursorWidth: 2,
      autoCenter: false,
      hideScrollbar: false,
      cspNonce: document.querySelector("meta[name=style-nonce]").content,
      ...colours(),
    });
    for (const event of ["scroll", "redraw", "resize"]) surfer.on(event, () => this.changed());
    return surfer;
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** The element that is as wide as the whole sound: for what lies on it. */
  get wrapper() {
    return this.surfer?.getWrapper() ?? null;
  }

  get seconds() {
    return this.shown?.seconds ?? 0;
  }

  get width() {
    return this.container.clientWidth;
  }

  get pixelsPerSecond() {
    return this.seconds ? Math.max(this.zoom, this.width / this.seconds) : 0;
  }

  /** Seconds at the left edge. */
  get start() {
    return this.surfer && this.pixelsPerSecond ? this.surfer.getScroll() / this.pixelsPerSecond : 0;
  }

  /** The second at a place in the window. */
  secondAt(x) {
    const left = this.container.getBoundingClientRect().left;
    return Math.max(0, Math.min(this.seconds, this.start + (x - left) / this.pixelsPerSecond));
  }

  /** `factor` times as close, around a second; 0 shows all. */
  zoomBy(factor, around = this.deck.currentTime) {
    if (!this.seconds) return;
    const all = this.width / this.seconds;
    const wanted = factor ? Math.min(CLOSEST, this.pixelsPerSecond * factor) : 0;
    const place = (around - this.start) * this.pixelsPerSecond;
    this.zoom = wanted > all * 1.01 ? wanted : 0;
    this.surfer.zoom(this.zoom);
    const inside = Math.max(0, Math.min(this.width, place));
    if (this.zoom) this.surfer.setScroll(around * this.zoom - inside);
    this.changed();
  }

  wheel(event) {
    if (!this.surfer || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.zoomBy(2 ** (-event.deltaY / 200), this.secondAt(event.clientX));
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  return { waveColor: colour("--wave"), progressColor: colour("--accent"), cursorColor: colour("--ink") };
}
