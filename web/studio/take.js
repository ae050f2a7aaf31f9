// The last moments of a stream as a sound: what was just heard, and should not be gone.
//
// Events: `taken` (detail: the session's id).

import { listStreams } from "../api.js";
import { $, make, setText } from "../dom.js";
import { words } from "../mix.js";
import * as api from "./api.js";

export class Take extends EventTarget {
  constructor(project) {
    super();
    this.project = project;
    this.dialog = $("taker");
    for (const id of ["take", "bring-stream"]) $(id).addEventListener("click", () => this.open());
    $("taker-close").addEventListener("click", () => this.dialog.close());
  }

  async open() {
    this.fail(null);
    this.dialog.showModal();
    try {
      const streams = (await listStreams()).filter(({ state, playhead }) => state !== "ended" && playhead > 0);
      $("taker-list").replaceChildren(...streams.map((stream) => this.item(stream)));
      setText($("taker-none"), streams.length ? "" : "No stream was heard yet. Begin one in the player.");
    } catch (problem) {
      this.fail(problem);
    }
  }

  item(stream) {
    const button = make("button", { type: "button" }, make("strong", {}, stream.name ?? "Stream"), make("small", {}, words(stream.prompts)));
    button.addEventListener("click", () => this.take(stream));
    return make("li", {}, button);
  }

  async take(stream) {
    this.fail(null);
    $("taker-list").setAttribute("aria-busy", "true");
    try {
      const { session, title } = await api.cutOut(stream.id, Number($("taker-seconds").value), this.project.id);
      const { clip } = await api.showSession(session);
      const name = (stream.name ?? title ?? "").slice(0, 80).trim();
      if (name) await api.rename(clip, name).catch(() => {});
      this.dialog.close();
      this.dispatchEvent(new CustomEvent("taken", { detail: session }));
    } catch (problem) {
      this.fail(problem);
    } finally {
      $("taker-list").removeAttribute("aria-busy");
    }
  }

  fail(problem) {
    setText($("taker-alert"), problem?.message ?? "");
    $("taker-alert").hidden = !problem;
  }
}
