// The mix as an address: for other players, and for other people.

import * as api from "./api.js";
import { $, copy } from "./dom.js";
import { words } from "./mix.js";

export class Share {
  constructor({ mix, knobs, session, say }) {
    Object.assign(this, { mix, knobs, session, say });
    $("copy").addEventListener("click", async () => {
      $("address").select();
      say((await copy($("address").value)) ? "Address copied." : "Press Ctrl+C to copy the address.");
    });
    $("share").addEventListener("click", () => this.share());
  }

  /** The address that plays a new endless stream of the mix. */
  paint() {
    const { mix, knobs } = this;
    const url = new URL(api.address("generate"));
    for (const { text } of mix.prompts) url.searchParams.append("prompt", text);
    for (const [name, value] of Object.entries(knobs.chosen)) url.searchParams.set(name, value);
    if (knobs.model) url.searchParams.set("model", knobs.model);
    if (knobs.seed !== undefined) url.searchParams.set("seed", knobs.seed);
    $("address").value = url.href;
  }

  async share() {
    const { mix, session } = this;
    const url = new URL(".", document.baseURI);
    for (const { text, weight } of mix.prompts) {
      url.searchParams.append("p", text);
      url.searchParams.append("w", weight.toFixed(2));
    }
    if (session.info) url.searchParams.set("stream", session.info.id);
    const link = { title: "Continuo", text: words(mix.prompts), url: url.href };
    if (navigator.share && matchMedia("(pointer: coarse)").matches) return void navigator.share(link).catch(() => {});
    const live = session.info ? " Who opens it while you play hears what you hear." : "";
    this.say((await copy(link.url)) ? `Link copied.${live}` : link.url, 10);
  }
}

/** What the page's own address brings along. */
export function brought() {
  const query = new URLSearchParams(location.search);
  const weights = query.getAll("w").map(Number);
  const prompts = query.getAll("p").slice(0, 8).map((text, i) => ({ text: text.slice(0, 1000), weight: weights[i] >= 0 ? weights[i] : 1 }));
  return { prompts: prompts.length ? prompts : null, stream: query.get("stream"), station: query.get("station") };
}
