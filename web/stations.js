// The stations: those on the air, and styles to begin with. One of them may be selected.
//
// Events: `choose` (detail: the station), `change` (what is on the air).

import * as api from "./api.js";
import { $, setText } from "./dom.js";
import { words } from "./mix.js";

const key = (station) => station.name;

export class Stations extends EventTarget {
  constructor() {
    super();
    this.selected = null; // the key of the station that the mix came from
    this.visiting = null; // the id of the stream that a share link named
    this.starters = [];
    this.onAir = [];
  }

  /** The selected one, if it is on the air. */
  get live() {
    return this.onAir.find((stream) => key(stream) === this.selected);
  }

  /** What the selected one is called. */
  get title() {
    return this.starters.find((station) => key(station) === this.selected)?.title ?? this.selected;
  }

  select(station) {
    this.visiting = null;
    this.selected = key(station);
  }

  deselect() {
    this.selected = null;
    this.visiting = null;
    for (const button of $("stations").querySelectorAll("button")) button.setAttribute("aria-pressed", "false");
  }

  async load() {
    try {
      this.starters = await api.listStarters();
    } catch {
      return; // there are the others
    }
    this.paint();
  }

  async refresh() {
    if (document.hidden) return;
    try {
      this.onAir = (await api.listStreams()).filter((stream) => stream.name && stream.state !== "ended");
    } catch {
      return; // the player says so when it matters
    }
    this.paint();
    this.dispatchEvent(new Event("change"));
  }

  paint() {
    const { starters, onAir } = this;
    const names = new Set(onAir.map(key));
    const all = [...onAir, ...starters.filter((station) => !names.has(key(station)))];
    const places = new Map([...$("stations").children].map((item) => [item.dataset.key, item]));
    $("stations").replaceChildren(
      ...all.map((station) => {
        const item = places.get(key(station)) ?? this.create(station);
        const starter = starters.find((one) => key(one) === key(station));
        setText(item.querySelector("strong"), starter?.title ?? station.title ?? station.name);
        const heard = station.listeners > 0 ? (station.listeners === 1 ? "1 listening" : `${station.listeners} listening`) : "";
        setText(item.querySelector("small"), heard || starter?.note || words(station.prompts).slice(0, 34));
        item.querySelector("button").setAttribute("aria-pressed", String(this.selected === key(station)));
        return item;
      }),
    );
  }

  create(station) {
    const item = document.createElement("li");
    item.dataset.key = key(station);
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("strong"), document.createElement("small"));
    button.addEventListener("click", () => {
      const detail = [...this.onAir, ...this.starters].find((one) => key(one) === item.dataset.key) ?? station;
      this.dispatchEvent(new CustomEvent("choose", { detail }));
    });
    item.append(button);
    return item;
  }
}
