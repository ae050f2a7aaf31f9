// A level meter: the mean as a bar, the highest peak as a line that sinks slowly.

const FLOOR = 54; // dB below full scale that are shown

export class Meter {
  /** `level` gives `{ rms, peak }` in dBFS. */
  constructor(bar, line, level) {
    Object.assign(this, { bar, line, level });
    this.hold = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
  }

  /** Moves while `on` says so, and until it has sunk. */
  run(on) {
    this.on = on;
    if (this.running) return;
    this.running = true;
    const frame = () => {
      const { rms, peak } = this.on() ? this.level() : { rms: -90, peak: -90 };
      const place = (decibels) => Math.min(1, Math.max(0, (decibels + FLOOR) / FLOOR));
      this.hold = Math.max(place(peak), this.hold - 0.01);
      this.bar.style.transform = `scaleX(${place(rms).toFixed(3)})`;
      this.line.style.transform = `translateX(calc(${(100 * this.hold).toFixed(1)}% - 3px))`;
      if (!this.on() && this.hold === 0) return void (this.running = false);
      if (this.calm.matches) setTimeout(frame, 250);
      else requestAnimationFrame(frame);
    };
    frame();
  }
}
