// The advanced values: model, sampling, seed, glide. What the listener has not set is the model's own.
//
// Events: `sampling`, `model`, `defaults`, `seed`, as the listener changes them.

import * as api from "./api.js";
import { $, fill, setText } from "./dom.js";

const DIALS = {
  guidance: { range: $("guidance"), show: (value) => value.toFixed(1) },
  temperature: { range: $("temperature"), show: (value) => value.toFixed(2) },
  top_k: { range: $("top-k"), show: (value) => (value ? String(value) : "off") },
};

export class Knobs extends EventTarget {
  constructor() {
    super();
    this.chosen = {}; // values that the listener has set; all others are the model's own
    this.defaults = {};
    this.models = [];
    this.model = null; // the id of the model that the listener has chosen; null is the server's own choice
    for (const [name, { range }] of Object.entries(DIALS)) {
      range.addEventListener("input", () => {
        this.chosen[name] = range.valueAsNumber;
        this.show();
        this.tell("sampling");
      });
    }
    $("ramp").addEventListener("input", () => this.show());
    $("model").addEventListener("change", () => {
      this.model = $("model").value;
      this.chosen = {};
      this.use(this.model);
      this.tell("model");
    });
    $("defaults").addEventListener("click", () => {
      this.chosen = {};
      this.show();
      this.tell("defaults");
    });
    $("dice").addEventListener("click", () => {
      $("seed").value = String(Math.floor(Math.random() * 1e9));
      $("seed").dispatchEvent(new Event("change"));
    });
    $("seed").addEventListener("change", () => this.tell("seed"));
  }

  /** Asks which models there are; `current` is the one that plays. */
  async refresh(current) {
    try {
      this.models = await api.listModels();
    } catch {
      return; // the player says so when it matters
    }
    $("model").replaceChildren(...this.models.map(({ id }) => new Option(id, id)));
    $("model-field").hidden = this.models.length < 2;
    this.use(current ?? this.model);
  }

  use(id) {
    const known = this.models.find((one) => one.id === id) ?? this.models[0];
    if (!known) return;
    const own = Object.keys(DIALS).map((name) => [name, known.sampling?.[name]]);
    this.defaults = Object.fromEntries(own.filter(([, value]) => value !== undefined));
    setText($("machine"), known.description ?? known.id);
    $("machine").hidden = false;
    $("model").value = known.id;
    this.show();
  }

  /** The values of a station that is chosen; its seed is another each time. */
  take(station) {
    this.chosen = {};
    for (const name of Object.keys(DIALS)) if (station?.[name] !== undefined) this.chosen[name] = station[name];
    $("seed").value = "";
    this.show();
  }

  /** Shows what is set, else what plays, else the model's own. */
  show(current = {}) {
    for (const [name, { range, show }] of Object.entries(DIALS)) {
      const value = this.chosen[name] ?? current[name] ?? this.defaults[name];
      if (value !== undefined && document.activeElement !== range) range.value = value;
      $(`${range.id}-out`).textContent = show(range.valueAsNumber);
      fill(range);
    }
    const ramp = $("ramp");
    $("ramp-out").textContent = ramp.valueAsNumber ? `${ramp.value} s` : "at once";
    fill(ramp);
  }

  get ramp() {
    return $("ramp").valueAsNumber;
  }

  get seed() {
    const text = $("seed").value.trim();
    return /^\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
  }

  /** Something was written that is no seed. */
  get seedless() {
    return this.seed === undefined && $("seed").value.trim() !== "";
  }

  /** What of them a new stream is asked for. */
  get spec() {
    return { ...(this.model ? { model: this.model } : {}), ...this.chosen, ...(this.seed === undefined ? {} : { seed: this.seed }) };
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }
}
