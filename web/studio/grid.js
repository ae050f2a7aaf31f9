// The lines over the wave form: bars and beats above, seconds below, and where a piece begins that was added.

import { barSeconds } from "./tempo.js";

const ROOM = 46; // pixels that a label takes
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];

export class Grid {
  constructor(canvas, wave) {
    this.canvas = canvas;
    this.wave = wave;
    this.bars = null;
    this.joint = null; // the second at which new sound begins
    const draw = () => this.draw();
    wave.addEventListener("change", draw);
    new ResizeObserver(draw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(draw));
  }

  set({ bars, joint }) {
    Object.assign(this, { bars, joint });
    this.draw();
  }

  draw() {
    const { canvas, wave } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const ratio = devicePixelRatio;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    if (!wave.seconds || !width) return;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const scale = wave.pixelsPerSecond;
    const end = Math.min(wave.seconds, wave.start + width / scale);
    const x = (second) => Math.round((second - wave.start) * scale) + 0.5;
    const line = (second, from, to, name) => {
      context.strokeStyle = colour(name);
      context.beginPath();
      context.moveTo(x(second), from);
      context.lineTo(x(second), to);
      context.stroke();
    };
    const label = (text, second, y) => {
      context.fillStyle = colour("--soft");
      const room = context.measureText(text).width;
      if (x(second) + 4 + room < width) context.fillText(text, x(second) + 4, y);
    };

    const step = STEPS.find((step) => step * scale >= ROOM * 1.4) ?? 1200;
    for (let n = Math.ceil(wave.start / step); n * step <= end; n++) {
      line(n * step, height - 16, height - 10, "--edge");
      label(told(n * step, step), n * step, height - 4);
    }
    if (this.bars) {
      const bar = barSeconds(this.bars);
      const every = 2 ** Math.max(0, Math.ceil(Math.log2(ROOM / (bar * scale))));
      const first = this.bars.first % bar;
      const shift = Math.round((this.bars.first - first) / bar);
      const beats = bar * scale > 90;
      for (let n = Math.floor((wave.start - first) / bar); first + n * bar <= end; n++) {
        const second = first + n * bar;
        const number = n - shift + 1;
        const whole = (((number - 1) % every) + every) % every === 0;
        if (second >= 0 && whole) {
          line(second, 4, height - 18, "--grid");
          label(String(number > 0 ? number : number - 1), second, 14);
        } else if (second >= 0 && bar * scale > 8) {
          line(second, 20, height - 18, "--grid-faint");
        }
        if (beats) for (const beat of [1, 2, 3]) if (second + (beat * bar) / 4 <= end) line(second + (beat * bar) / 4, 20, height - 18, "--grid-faint");
      }
    }
    if (this.joint !== null && this.joint > wave.start && this.joint < end) {
      context.setLineDash([3, 3]);
      line(this.joint, 20, height - 18, "--accent");
      context.setLineDash([]);
    }
  }
}

function told(seconds, step) {
  const minutes = Math.floor(seconds / 60);
  const rest = seconds - 60 * minutes;
  return `${minutes}:${rest.toFixed(step < 1 ? 1 : 0).padStart(step < 1 ? 4 : 2, "0")}`;
}
