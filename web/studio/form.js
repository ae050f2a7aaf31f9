// What every form of the studio does: sliders that say their values, numbers that are read kindly, one sentence when the
// server refuses, and no second request while the first one is on its way.

import { fill, make, setText } from "../dom.js";

/** A number as people write it, or undefined. */
export function number(text) {
  const value = Number.parseFloat(String(text).trim().replace(",", "."));
  return Number.isFinite(value) ? value : undefined;
}

export class Form {
  /** `said` gives the texts of sliders by name; `send` makes the request. */
  constructor(panel, { said = {}, send }) {
    this.panel = panel;
    this.form = panel.querySelector("form");
    this.alert = panel.querySelector(".alert");
    this.button = panel.querySelector("[type=submit]");
    this.said = said;
    this.busy = false;
    this.form.addEventListener("input", () => this.paint());
    this.form.addEventListener("keydown", (event) => {
      const submits = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.target.tagName === "INPUT");
      if (!submits || event.isComposing) return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (this.busy || this.button.disabled) return;
      await this.attempt(send);
    });
    this.paint();
  }

  field(name) {
    return this.form.elements[name];
  }

  text(name) {
    return this.field(name).value.trim();
  }

  number(name) {
    const field = this.field(name);
    return field.type === "range" ? field.valueAsNumber : number(field.value);
  }

  async attempt(request) {
    this.busy = true;
    this.fail(null);
    this.form.setAttribute("aria-busy", "true");
    try {
      await request();
    } catch (problem) {
      this.fail(problem);
    } finally {
      this.busy = false;
      this.form.removeAttribute("aria-busy");
    }
  }

  fail(problem) {
    setText(this.alert, problem?.message ?? "");
    this.alert.hidden = !problem;
  }

  paint() {
    for (const [name, say] of Object.entries(this.said)) {
      const range = this.field(name);
      if (!range) continue;
      setText(range.closest("label").querySelector("output"), say(range.valueAsNumber));
      fill(range);
    }
  }
}

/** How models play, for forms that make pieces. */
export const VALUES = {
  guidance: (value) => value.toFixed(1),
  temperature: (value) => value.toFixed(2),
  top_k: (value) => (value ? String(value) : "off"),
};

/** Fields for the model and its values. */
export function valueFields(grid, list) {
  const slider = (label, name, min, max, step, value) =>
    make("label", {}, `${label} `, make("output"), make("input", { name, type: "range", min, max, step, value }));
  const field = (label, name, more) => make("label", {}, `${label} `, make("input", { name, type: "text", autocomplete: "off", ...more }));
  const model = field("Model", "model", { placeholder: "the server’s", maxLength: 200, spellcheck: false });
  model.querySelector("input").setAttribute("list", list);
  grid.append(
    model,
    field("Seed", "seed", { inputMode: "numeric", placeholder: "random", maxLength: 16 }),
    slider("Guidance", "guidance", "1", "10", "0.1", "3"),
    slider("Temperature", "temperature", "0.1", "2", "0.05", "1"),
    slider("Top-k", "top_k", "0", "1000", "10", "250"),
  );
}

export function values(form) {
  const seed = form.text("seed");
  return {
    model: form.text("model") || undefined,
    seed: /^\d+$/.test(seed) && Number.isSafeInteger(Number(seed)) ? Number(seed) : undefined,
    guidance: form.number("guidance"),
    temperature: form.number("temperature"),
    top_k: form.number("top_k"),
  };
}
