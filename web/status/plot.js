// One plot of the last minutes, with its newest figures as text beside the title.

import { make } from "../dom.js";

/** Points that a plot remembers. */
const KEPT = 450;
const SECONDS = 900;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plot {
  /** `lines`: `{ name, color, dashed }`, colours as custom properties; `least` is what the scale shows at least; `text`
   * makes a sentence of the newest values. */
  constructor(home, { title, lines, unit = "", least = 1, text }) {
    this.lines = lines;
    this.text = text;
    this.unit = unit;
    this.least = least;
    this.points = [[], ...lines.map(() => [])];
    this.canvas = make("div", { class: "canvas" });
    this.output = make("output");
    const key = make("p", { class: "key" }, ...lines.map(({ name, color, dashed }) => {
      const entry = make("span", { class: dashed ? "dashed" : "", textContent: name });
      entry.style.setProperty("--of", `var(${color})`);
      return entry;
    }));
    const head = make("div", { class: "panel-head" }, make("h2", { textContent: title }), this.output);
    home.append(make("section", { class: "panel plot" }, head, this.canvas, key));
    this.draw();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
  }

  get size() {
    return { width: Math.max(1, this.canvas.clientWidth), height: Math.max(1, this.canvas.clientHeight) };
  }

  draw() {
    this.plot?.destroy();
    const soft = color("--soft");
    const axis = { stroke: soft, font: "11px system-ui, sans-serif", grid: { stroke: color("--grid-faint"), width: 1 }, ticks: { show: false } };
    const ago = (seconds) => (seconds === 0 ? "now" : `−${Math.round(-seconds / 60)} min`);
    this.plot = new uPlot({
      ...this.size,
      cursor: { show: false },
      legend: { show: false },
      scales: {
        x: { time: false, range: () => [-SECONDS, 0] },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 0, this.least) * 1.15] },
      },
      axes: [
        { ...axis, size: 24, splits: () => [-900, -600, -300, 0], values: (_, splits) => splits.map(ago) },
        { ...axis, size: 46, values: (_, splits) => splits.map((value) => `${Number(value.toPrecision(3))}${this.unit}`) },
      ],
      series: [{}, ...this.lines.map(({ color: name, dashed }) => ({
        stroke: color(name), width: 2, dash: dashed ? [5, 5] : undefined, points: { show: false }, spanGaps: false,
      }))],
    }, this.data, this.canvas);
  }

  /** As seconds before now. */
  get data() {
    const now = performance.now() / 1000;
    return [this.points[0].map((at) => at - now), ...this.points.slice(1)];
  }

  resize() {
    this.plot.setSize(this.size);
  }

  /** One value per line, null where there is none. */
  add(values) {
    this.points[0].push(performance.now() / 1000);
    values.forEach((value, index) => this.points[index + 1].push(value));
    if (this.points[0].length > KEPT) this.points.forEach((points) => points.shift());
    this.plot.setData(this.data);
    const { words, over = false } = this.text(values);
    this.output.textContent = words;
    this.output.classList.toggle("over", over);
  }
}
