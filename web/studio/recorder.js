// The dialog in which something is recorded.
//
// Events: `recorded` (detail: the file).

import { $, setText } from "../dom.js";
import { number } from "./form.js";
import { Meter } from "./meter.js";
import { Microphone } from "./microphone.js";
import { clock } from "./titles.js";

export class Recorder extends EventTarget {
  constructor() {
    super();
    this.dialog = $("recorder");
    this.microphone = new Microphone();
    this.meter = new Meter($("input-level"), $("input-peak"), () => this.microphone.level());
    $("recorder-go").addEventListener("click", () => this.go());
    $("recorder-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.microphone.close());
    this.microphone.addEventListener("change", () => this.paint());
    this.microphone.addEventListener("beat", ({ detail }) => setText($("count"), String(detail)));
    this.microphone.addEventListener("full", () => this.finish());
  }

  /** `bars` are those of the present sound, if there are any. */
  async open(bars) {
    if (bars) $("count-bpm").value = String(Math.round(bars.bpm * 10) / 10);
    this.fail("");
    this.dialog.showModal();
    try {
      await this.microphone.open();
      this.meter.run(() => this.microphone.state !== "closed");
      if (!this.dialog.open) this.microphone.close();
    } catch (error) {
      const blocked = error.name === "NotAllowedError";
      if (blocked) this.fail("The browser does not let this page hear a microphone. Allow it beside the address, then open this again.");
      else if (!isSecureContext) this.fail("Browsers let pages record only over https or from this machine itself.");
      else this.fail("No microphone is found. Plug one in, then open this again.");
    }
  }

  go() {
    const { microphone } = this;
    if (microphone.state !== "open") return this.finish();
    const bpm = number($("count-bpm").value);
    if (!(bpm >= 20 && bpm <= 400)) return this.fail("The tempo must lie between 20 and 400.");
    this.fail("");
    microphone.record(Number($("count-in").value), bpm);
    this.tick();
  }

  finish() {
    const sound = this.microphone.finish();
    if (!sound) return;
    this.dialog.close();
    const time = new Date().toTimeString().slice(0, 5).replace(":", ".");
    this.dispatchEvent(new CustomEvent("recorded", { detail: new File([sound], `Recording ${time}.wav`, { type: sound.type }) }));
  }

  tick() {
    if (this.microphone.state === "closed" || this.microphone.state === "open") return;
    setText($("recorder-time"), clock(this.microphone.seconds));
    requestAnimationFrame(() => this.tick());
  }

  paint() {
    const { state } = this.microphone;
    setText($("recorder-go"), state === "recording" ? "Stop and take it" : state === "counting" ? "Stop" : "Record");
    $("recorder-go").disabled = state === "closed";
    if (state !== "counting") setText($("count"), state === "recording" ? "Recording" : "");
    for (const id of ["count-in", "count-bpm"]) $(id).disabled = state === "counting" || state === "recording";
    if (state === "open") setText($("recorder-time"), clock(0));
  }

  fail(sentence) {
    setText($("recorder-alert"), sentence);
    $("recorder-alert").hidden = !sentence;
  }
}
