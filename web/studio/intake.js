// How sounds come in: dropped, chosen, pasted or recorded, one after the other, each with its progress and a stop.
//
// Events: `taken` (detail: the session), `failed` (detail: the problem).

import { $, setText } from "../dom.js";
import * as api from "./api.js";

export class Intake extends EventTarget {
  constructor(project) {
    super();
    this.project = project;
    this.line = Promise.resolve();
    this.stops = new Set();
    $("choose").addEventListener("click", () => $("file").click());
    $("bring").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => {
      this.bring([...$("file").files]);
      $("file").value = "";
    });
    $("sending-stop").addEventListener("click", () => {
      for (const stop of this.stops) stop.abort();
    });
    document.addEventListener("paste", ({ clipboardData }) => this.bring([...clipboardData.files]));
    this.watchDrops();
  }

  /** The whole page is a place to drop files; a clip that is dragged out of it is not one. */
  watchDrops() {
    const hasFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
    let depth = 0;
    const show = (inside) => {
      depth = inside ? depth : 0;
      $("drop-here").hidden = !inside;
    };
    document.addEventListener("dragenter", (event) => hasFiles(event) && (depth += 1) && show(true));
    document.addEventListener("dragleave", (event) => hasFiles(event) && (depth -= 1) <= 0 && show(false));
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      show(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.bring([...event.dataTransfer.files]);
    });
  }

  /** Takes files in; the first one begins a session if none is open. */
  bring(files) {
    for (const file of files) {
      const stop = new AbortController();
      this.stops.add(stop);
      this.line = this.line.then(() => this.send(file, stop)).finally(() => this.stops.delete(stop));
    }
    return this.line;
  }

  async send(file, stop) {
    if (stop.signal.aborted) return;
    this.show(file.name);
    try {
      const told = (part) => this.show(file.name, part);
      const session = await api.upload(file, this.project.id, told, stop.signal);
      const name = file.name.replace(/\.[^.]*$/, "").slice(0, 80).trim();
      if (session.clip && name) await api.rename(session.clip, name).catch(() => {});
      this.dispatchEvent(new CustomEvent("taken", { detail: session }));
    } catch (problem) {
      if (problem.name !== "AbortError") this.dispatchEvent(new CustomEvent("failed", { detail: problem }));
    } finally {
      if (this.stops.size <= 1) this.hide();
    }
  }

  show(name, part = 0) {
    $("sending").hidden = false;
    setText($("sending-name"), part < 1 ? `Bringing in ${name}` : `Reading ${name}`);
    setText($("sending-percent"), part < 1 ? `${Math.round(100 * part)} %` : "");
    if (part < 1) $("sending-bar").value = part;
    else $("sending-bar").removeAttribute("value");
  }

  hide() {
    $("sending").hidden = true;
  }
}
