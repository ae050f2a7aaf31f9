// Draws the spectrum as rays around the play button, and moves the level meter below it.
//
// Where less motion is asked for, the rays stay still and only the level meter moves, four times a second.

const RAYS = 96;

export class Dial {
  constructor(canvas, sound, level, peak) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.sound = sound;
    this.level = level;
    this.peak = peak;
    this.bars = new Float32Array(RAYS / 2);
    this.shown = new Float32Array(RAYS / 2);
    this.hold = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.running = false;
    this.colours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.colours());
    new ResizeObserver(() => this.resize()).observe(canvas);
    document.addEventListener("visibilitychange", () => this.run());
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    this.ink = style.getPropertyValue("--accent");
    this.rest = style.getPropertyValue("--line");
    this.draw();
  }

  resize() {
    const size = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.width = this.canvas.height = size;
    this.draw();
  }

  /** Starts the animation; it ends by itself when the sound has ended and the rays have sunk. */
  run() {
    if (this.running || document.hidden) return;
    this.running = true;
    const frame = () => {
      if (document.hidden) return void (this.running = false);
      const moving = this.update();
      this.draw();
      if (!moving && !this.sound.wanted) return void (this.running = false);
      if (this.calm.matches) setTimeout(frame, 250);
      else requestAnimationFrame(frame);
    };
    frame();
  }

  update() {
    const { rms, peak } = this.sound.level();
    const place = (decibels) => Math.min(1, Math.max(0, (decibels + 54) / 54));
    this.hold = Math.max(place(peak), this.hold - 0.006);
    this.level.style.transform = `scaleX(${place(rms).toFixed(3)})`;
    this.peak.style.transform = `translateX(calc(${(100 * this.hold).toFixed(1)}% - 3px))`;
    if (this.calm.matches) this.bars.fill(0);
    else this.sound.spectrum(this.bars);
    let moving = this.hold > 0;
    for (let i = 0; i < this.bars.length; i++) {
      this.shown[i] = Math.max(this.bars[i], this.shown[i] * 0.88 - 0.004, 0);
      moving ||= this.shown[i] > 0.002;
    }
    return moving;
  }

  draw() {
    const { context, canvas } = this;
    const size = canvas.width;
    if (!size) return;
    context.clearRect(0, 0, size, size);
    context.save();
    context.translate(size / 2, size / 2);
    context.lineCap = "round";
    context.lineWidth = size * 0.0085;
    const inner = size * 0.29;
    const reach = size * 0.18;
    for (let ray = 0; ray < RAYS; ray++) {
      // Low notes at the foot, high ones at the top, the same on both sides.
      const side = ray < RAYS / 2 ? ray : RAYS - 1 - ray;
      const value = this.shown[side];
      const angle = Math.PI / 2 + (2 * Math.PI * (ray + 0.5)) / RAYS;
      const [x, y] = [Math.cos(angle), Math.sin(angle)];
      const length = size * 0.012 + reach * value ** 1.4;
      context.globalAlpha = value > 0.01 ? 0.35 + 0.65 * value : 1;
      context.strokeStyle = value > 0.01 ? this.ink : this.rest;
      context.beginPath();
      context.moveTo(x * inner, y * inner);
      context.lineTo(x * (inner + length), y * (inner + length));
      context.stroke();
    }
    context.restore();
  }
}
