// The forms for pieces of music: going on from the present sound, once more, and from words alone.

import { make, setText } from "../dom.js";
import * as api from "./api.js";
import { Form, VALUES, valueFields, values } from "./form.js";
import { barSeconds } from "./tempo.js";
import { clock } from "./titles.js";

const LONGEST = 300; // seconds of a piece, its prompt included
const seconds = (value) => `${value.toFixed(1)} s`;

export class Pieces {
  constructor({ project, stage, bars, opened }) {
    Object.assign(this, { project, stage, bars, opened });
    for (const grid of document.querySelectorAll(".values")) valueFields(grid, "models");
    this.continues = new Form(document.getElementById("continue"), {
      said: { ...VALUES, prompt_seconds: seconds, more: (value) => this.inBars(value) },
      send: () => this.goOn(),
    });
    this.generates = new Form(document.getElementById("generate"), {
      said: { ...VALUES, seconds },
      send: () => this.generate(),
    });
    this.group = document.getElementById("bars-more");
    this.group.append(...[2, 4, 8, 16].map((count) => this.barButton(count)));
    stage.addEventListener("change", () => this.paint());
  }

  barButton(count) {
    const button = make("button", { type: "button", class: "quiet small" }, `${count} bars`);
    button.addEventListener("click", () => {
      const bars = this.bars();
      if (!bars) return;
      const field = this.continues.field("more");
      // Finer than the slider goes: exactly so many bars.
      field.step = "any";
      field.value = Math.min(Number(field.max), count * barSeconds(bars));
      this.continues.paint();
    });
    return button;
  }

  inBars(value) {
    const bars = this.bars?.();
    return bars ? `${seconds(value)} · ${Number((value / barSeconds(bars)).toFixed(1))} bars` : seconds(value);
  }

  paint() {
    const { shown } = this.stage;
    const bars = this.bars();
    for (const button of this.group.children) button.disabled = !bars;
    const back = this.continues.field("prompt_seconds");
    this.continues.paint();
    const end = shown?.drawing.grows ? null : shown?.drawing.seconds;
    const hint = this.continues.panel.querySelector(".go");
    setText(hint, end ? `from ${clock(Math.max(0, end - back.valueAsNumber))}–${clock(end)} on` : "");
  }

  wish() {
    const form = this.continues;
    const back = Math.min(form.number("prompt_seconds"), LONGEST - 1);
    const more = Math.min(form.number("more"), LONGEST - back);
    return { prompt: form.text("prompt"), prompt_seconds: back, seconds: back + more, ...values(form) };
  }

  async goOn() {
    await api.goOn(this.project.id, this.wish());
  }

  /** The present clip once more: as it was made, but for the seed. */
  async retry() {
    const { project } = this;
    const { present } = project;
    const { verb, prompt, prompt_seconds, seconds, model, sampling, settings } = present;
    const piece = { prompt, seconds, model: model ?? undefined, ...sampling };
    if (verb === "continue" || verb === "retry") {
      await api.choose(project.id, present.id);
      return api.retry(project.id, { ...piece, prompt_seconds });
    }
    if (verb === "generate") return api.generate({ ...piece, session: project.id });
    if (verb === "loop") {
      const { text, avoid, shape } = settings.loop.spec;
      return api.makeLoop({ prompt: text, avoid, bpm: shape.loop.bpm, bars: shape.loop.bars, session: project.id });
    }
    const { variation, prompt: words, flowstep, midpoint, steps } = settings.transform;
    await api.choose(project.id, present.parent);
    const solver = midpoint ? "midpoint" : "euler";
    return api.transform({ session: project.id, preset: variation || "custom", prompt: words, flowstep, solver, steps });
  }

  /** Whether the present clip can be made once more: it was made, and what it was made of is there. */
  get retriable() {
    const { present, clips } = this.project;
    if (!present) return false;
    if (present.verb === "generate" || present.verb === "loop") return true;
    return ["continue", "retry", "transform"].includes(present.verb) && clips.has(present.parent);
  }

  async generate() {
    const form = this.generates;
    const { project } = this;
    const wish = { prompt: form.text("prompt"), seconds: form.number("seconds"), ...values(form) };
    const clip = await api.generate({ ...wish, session: project.id ?? undefined });
    if (!project.id) await this.opened(clip.session);
  }
}
