// The history as a list beside its lines: open a clip, compare with it, hear it while it is made, give it up.

import { make, setText } from "../dom.js";
import { graph } from "./history.js";
import { ago, given, isBeingMade, progress, title } from "./titles.js";

const ROW = 56; // pixels, as in the style sheet
const COLUMN = 16;
const SVG = "http://www.w3.org/2000/svg";

export class Tree extends EventTarget {
  constructor(list, rails, project, sounds) {
    super();
    Object.assign(this, { list, rails, project, sounds });
    this.items = new Map();
    this.line = Promise.resolve();
    this.marks = { a: null, b: null, heard: null }; // who stands in which slot; what is heard while it is made
    list.addEventListener("keydown", (event) => this.arrow(event));
  }

  paint() {
    const { project } = this;
    const rows = graph([...project.clips.values()]);
    const width = Math.max(1, ...rows.map(({ column }) => column + 1)) * COLUMN + 6;
    this.list.style.setProperty("--rails", `${width}px`);
    for (const id of this.items.keys()) if (!project.clips.has(id)) this.items.delete(id);
    const items = rows.map((row) => this.item(row.clip));
    if (items.length !== this.list.children.length || items.some((item, n) => item !== this.list.children[n])) this.list.replaceChildren(...items);
    this.draw(rows, width);
    this.reveal(this.project.present?.id);
  }

  /** Brings a clip that has become the present one into view; nothing but the list moves. */
  reveal(id) {
    if (id === this.revealed) return;
    this.revealed = id;
    const item = this.items.get(id);
    const box = this.list.parentElement;
    if (!item || box.scrollHeight <= box.clientHeight) return;
    box.scrollTop = Math.min(item.offsetTop, Math.max(box.scrollTop, item.offsetTop + ROW - box.clientHeight));
  }

  item(clip) {
    const item = this.items.get(clip.id) ?? this.create(clip.id);
    const present = this.project.present?.id === clip.id;
    const name = title(clip);
    const part = (selector) => item.querySelector(selector);
    setText(part("strong"), name);
    const running = isBeingMade(clip);
    const about = clip.name ? `${given(clip)} · ` : "";
    setText(part("small"), running ? progress(clip) : clip.status === "cancelled" ? "Given up" : clip.status === "failed" ? clip.error : about + ago(clip.created));
    part("small").title = clip.status === "failed" ? clip.error : (clip.prompt ?? "");
    item.className = `${clip.status}${present ? " present" : ""}`;
    const open = part(".open");
    open.setAttribute("aria-current", String(present));
    open.disabled = clip.status !== "completed";
    part("progress").hidden = !running;
    if (running) part("progress").value = clip.progress;
    part("progress").setAttribute("aria-label", `${name}: ${progress(clip)}`);
    const slot = this.marks.a === clip.id ? "A" : this.marks.b === clip.id ? "B" : "";
    part(".compare").hidden = clip.status !== "completed";
    setText(part(".compare"), slot || "A/B");
    part(".compare").classList.toggle("set", slot !== "");
    part(".compare").setAttribute("aria-label", slot ? `${name} is ${slot}` : `A/B: compare with ${name}`);
    const audible = running && clip.status === "running" && clip.verb !== "transform" && clip.verb !== "loop";
    part(".listen").hidden = !audible;
    setText(part(".listen"), this.marks.heard === clip.id ? "Stop" : "Listen");
    part(".listen").setAttribute("aria-label", `${this.marks.heard === clip.id ? "Stop" : "Listen to"} ${name} while it is made`);
    part(".give-up").hidden = !running;
    part(".give-up").setAttribute("aria-label", `Give up ${name}`);
    if (clip.status === "completed") this.thumb(part("canvas"), clip.id);
    return item;
  }

  create(id) {
    const button = (name, text) => make("button", { type: "button", class: `quiet small ${name}` }, text);
    const open = make("button", { type: "button", class: "open" }, make("canvas", { width: 96, height: 64 }), make("span", {}, make("strong"), make("small")));
    open.querySelector("canvas").setAttribute("aria-hidden", "true");
    const item = make("li", { dataset: { id } }, open, make("progress", { max: 100 }), button("listen", "Listen"), button("give-up", "Give up"), button("compare", "A/B"));
    const tell = (name) => () => this.dispatchEvent(new CustomEvent(name, { detail: id }));
    open.addEventListener("click", tell("open"));
    for (const name of ["listen", "give-up", "compare"]) item.querySelector(`.${name}`).addEventListener("click", tell(name));
    this.items.set(id, item);
    return item;
  }

  /** A small wave form. */
  thumb(canvas, id) {
    const scheme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    if (canvas.dataset.drawn === scheme || canvas.dataset.asked === scheme) return;
    canvas.dataset.asked = scheme;
    const draw = ({ low, high }) => {
      const context = canvas.getContext("2d");
      const { width, height } = canvas;
      context.clearRect(0, 0, width, height);
      context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--wave");
      for (let x = 0; x < width; x += 3) {
        const [from, to] = [x, x + 3].map((at) => Math.floor((at * high.length) / width));
        let most = 0;
        for (let n = from; n < Math.max(to, from + 1); n++) most = Math.max(most, high[n] ?? 0, -(low[n] ?? 0));
        const tall = Math.max(2, most * height);
        context.fillRect(x, (height - tall) / 2, 2, tall);
      }
      canvas.dataset.drawn = scheme;
    };
    // One after the other: they are in nobody's way.
    this.line = this.line.then(() => this.sounds.drawing({ clip: id })).then(draw, () => delete canvas.dataset.asked);
  }

  draw(rows, width) {
    const { rails } = this;
    rails.setAttribute("width", width);
    rails.setAttribute("height", rows.length * ROW);
    const [x, y] = [(column) => column * COLUMN + COLUMN / 2 + 2, (row) => row * ROW + ROW / 2];
    const shape = (tag, attributes) => {
      const element = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const lines = rows
      .filter(({ parent }) => parent)
      .map(({ row, column, parent }) => {
        const [x1, y1, x2, y2] = [x(parent.column), y(parent.row), x(column), y(row)];
        const bend = x1 === x2 ? "" : `C${x1} ${y1 - ROW / 2} ${x2} ${y1 - ROW / 2} ${x2} ${y1 - ROW}`;
        return shape("path", { d: `M${x1} ${y1}${bend}L${x2} ${y2}` });
      });
    const present = this.project.present?.id;
    const dots = rows.map(({ clip, row, column }) => shape("circle", { cx: x(column), cy: y(row), r: clip.id === present ? 6 : 4, class: `${clip.status}${clip.id === present ? " present" : ""}` }));
    rails.replaceChildren(...lines, ...dots);
  }

  arrow(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const buttons = [...this.list.querySelectorAll(".open:not(:disabled)")];
    const at = buttons.indexOf(event.target.closest("li")?.querySelector(".open"));
    buttons[Math.max(0, Math.min(buttons.length - 1, at + step))]?.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  /** The completed clip above or below the present one. */
  beside(step) {
    const ids = [...this.list.children].map((item) => item.dataset.id).filter((id) => this.project.clips.get(id)?.status === "completed");
    return ids[ids.indexOf(this.project.present?.id) + step] ?? null;
  }
}
