// The forms for transforms and loops.

import { make, setText } from "../dom.js";
import * as api from "./api.js";
import { Form } from "./form.js";

const NOTES = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"];

/** The way back ends at a flow step: 0 is another sound altogether, higher stays closer. Presets use 0.05 to 0.2. */
const FLOWSTEPS = 0.5;
const strengthOf = (flowstep) => Math.round(100 * (1 - flowstep / FLOWSTEPS));
const flowstepOf = (strength) => Number(((1 - strength / 100) * FLOWSTEPS).toFixed(3));

export class Renders {
  constructor({ project, opened }) {
    Object.assign(this, { project, opened });
    this.preset = null;
    this.list = document.getElementById("presets");
    this.search = document.getElementById("preset-search");
    this.transforms = new Form(document.getElementById("transform"), {
      said: { strength: (value) => `${value} %` },
      send: () => this.transform(),
    });
    this.loops = new Form(document.getElementById("loop"), {
      said: { guidance: (value) => value.toFixed(1) },
      send: () => this.makeLoop(),
    });
    const keys = NOTES.flatMap((note) => [`${note} major`, `${note} minor`]);
    this.loops.field("key").append(new Option("any", ""), ...keys.map((key) => new Option(key, key)));
    this.search.addEventListener("input", () => this.filter());
  }

  /** Asks for the presets, once. */
  async load() {
    if (this.asked) return;
    this.asked = true;
    try {
      const presets = await api.presets();
      this.list.replaceChildren(...presets.map((preset) => this.item(preset)));
    } catch (problem) {
      this.asked = false;
      this.transforms.fail(problem);
    }
  }

  item(preset) {
    const name = preset.name.replaceAll("_", " ");
    const button = make("button", { type: "button", title: preset.prompt }, make("strong", {}, name), make("small", {}, preset.prompt));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.pick(this.preset === preset ? null : preset));
    return make("li", { dataset: { name: preset.name, words: `${name} ${preset.prompt}`.toLowerCase() } }, button);
  }

  pick(preset) {
    this.preset = preset;
    for (const item of this.list.children) item.firstChild.setAttribute("aria-pressed", String(item.dataset.name === preset?.name));
    if (!preset) return;
    this.transforms.field("strength").value = strengthOf(preset.flowstep);
    this.transforms.field("steps").placeholder = String(preset.steps);
    this.transforms.paint();
  }

  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of this.list.children) item.hidden = !words.every((word) => item.dataset.words.includes(word));
  }

  async transform() {
    const form = this.transforms;
    await api.transform({
      session: this.project.id,
      preset: this.preset?.name ?? (form.text("prompt") ? "custom" : undefined),
      prompt: form.text("prompt"),
      flowstep: flowstepOf(form.number("strength")),
      solver: form.field("solver").value,
      steps: form.number("steps"),
      seed: form.text("seed"),
    });
  }

  async makeLoop() {
    const form = this.loops;
    const seed = form.text("seed");
    const taken = await api.makeLoop({
      prompt: form.text("prompt"),
      bpm: form.number("bpm"),
      bars: form.number("bars"),
      key: form.text("key") || undefined,
      avoid: form.text("avoid"),
      guidance: form.number("guidance"),
      seed: /^\d+$/.test(seed) ? Number(seed) : undefined,
      session: this.project.id ?? undefined,
    });
    if (!this.project.id) await this.opened(taken.session);
  }

  /** The loop's tempo follows that of the sound until somebody writes another one. */
  suggest(bars) {
    const field = this.loops.field("bpm");
    if (!bars || document.activeElement === field || field.dataset.own) return;
    setText(field, "");
    field.value = String(Math.round(bars.bpm * 10) / 10);
  }
}
