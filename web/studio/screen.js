// The upper half of the page: the sound with its wave form, bars, selection, and what can be done to it at once.

import { $, fill, setText } from "../dom.js";
import { memory } from "../memory.js";
import * as api from "./api.js";
import { number } from "./form.js";
import { Grid } from "./grid.js";
import { Meter } from "./meter.js";
import { Selection } from "./selection.js";
import { LONGEST } from "./sounds.js";
import { Spectrogram } from "./spectrogram.js";
import { barSeconds, inherits, place, snapped, Tempo } from "./tempo.js";
import { clock, given, title } from "./titles.js";

export class Screen extends EventTarget {
  constructor({ project, stage, deck, wave, attempt }) {
    super();
    Object.assign(this, { project, stage, deck, wave, attempt });
    this.tempo = new Tempo(stage.sounds);
    this.snaps = memory.get("studio.snap") ?? true;
    this.cycles = false;
    this.grid = new Grid($("grid"), wave);
    this.selection = new Selection(wave, (second) => (this.snaps ? snapped(second, this.bars(), wave.seconds) : second));
    this.spectrogram = new Spectrogram(wave);
    this.meter = new Meter($("level"), $("peak"), () => deck.level());
    this.bind();
  }

  bind() {
    const { deck, wave, selection, stage } = this;
    const click = (id, action) => $(id).addEventListener("click", action);
    click("play", () => this.toggle());
    click("rewind", () => (deck.currentTime = 0));
    click("cycle", () => this.setCycle(!this.cycles));
    click("crop", () => this.crop());
    click("one", () => this.barHere());
    click("snap", () => this.setSnap(!this.snaps));
    click("spectrum", () => this.showSpectrum($("spectrum").getAttribute("aria-pressed") !== "true"));
    click("in", () => wave.zoomBy(2));
    click("out", () => wave.zoomBy(0.5));
    click("fit", () => wave.zoomBy(0));
    $("volume").value = memory.get("volume") ?? 80;
    this.setVolume();
    $("volume").addEventListener("input", () => this.setVolume());
    $("title").addEventListener("change", () => this.rename());
    $("title").addEventListener("keydown", ({ key, isComposing }) => key === "Enter" && !isComposing && $("title").blur());
    $("bpm").addEventListener("change", () => this.setTempo());
    for (const id of ["from", "to"]) $(id).addEventListener("change", () => this.write());
    for (const id of ["bpm", "from", "to"]) $(id).addEventListener("keydown", ({ key, target }) => key === "Enter" && target.blur());
    selection.addEventListener("change", () => this.selected());
    selection.addEventListener("seek", ({ detail }) => (deck.currentTime = detail));
    for (const name of ["play", "pause", "filled"]) deck.addEventListener(name, () => this.paintPlaying());
    deck.addEventListener("timeupdate", () => this.paintTime());
    stage.addEventListener("change", () => this.paint());
    wave.addEventListener("change", () => this.paintTools());
  }

  /** The bars of what is shown, or null. */
  bars() {
    const { shown } = this.stage;
    if (!shown) return null;
    return this.tempo.of(this.project.clips.get(shown.clip), this.project.clips, shown.drawing);
  }

  toggle() {
    if (this.stage.live && !this.deck.paused) return this.stage.stopListening();
    if (this.deck.paused) this.deck.play();
    else this.deck.pause();
  }

  /** Moves the play head by beats or bars, or by a tenth where there are none. */
  step(direction, whole) {
    const bars = this.bars();
    const beat = bars ? barSeconds(bars) / 4 : 0.5;
    this.deck.currentTime += direction * (whole ? 4 * beat : beat);
  }

  setVolume() {
    this.deck.volume = $("volume").valueAsNumber / 100;
    fill($("volume"));
    memory.set("volume", $("volume").valueAsNumber);
  }

  setCycle(on) {
    this.cycles = on;
    $("cycle").setAttribute("aria-pressed", String(on));
    this.cycle();
  }

  cycle() {
    const all = { from: 0, to: this.deck.duration };
    this.deck.repeat(this.cycles && !this.stage.live ? (this.selection.range ?? all) : null);
  }

  setSnap(on) {
    this.snaps = on;
    memory.set("studio.snap", on);
    $("snap").setAttribute("aria-pressed", String(on));
  }

  selected() {
    const { range } = this.selection;
    for (const name of ["from", "to"]) if (document.activeElement !== $(name)) $(name).value = range ? range[name].toFixed(2) : "";
    this.cycle();
    this.paintTools();
  }

  /** Takes the selection from its two fields. */
  write() {
    const [from, to] = ["from", "to"].map((id) => number($(id).value));
    if (from === undefined && to === undefined) return this.selection.set(null);
    this.selection.set({ from: from ?? 0, to: to ?? this.wave.seconds });
  }

  /** An edge of the selection comes to the play head. */
  edge(name) {
    const at = this.deck.currentTime;
    const here = this.snaps ? snapped(at, this.bars(), this.wave.seconds) : at;
    const range = this.selection.range ?? { from: 0, to: this.wave.seconds };
    this.selection.set({ ...range, [name]: here });
  }

  async crop() {
    const { range } = this.selection;
    const { id } = this.project;
    if (!range || !id) return;
    await this.attempt(() => api.crop(id, range.from, range.to));
  }

  async rename() {
    const { present } = this.project;
    const name = $("title").value.trim() || null;
    if (present && name !== present.name) await this.attempt(() => api.rename(present.id, name));
  }

  setTempo() {
    const bpm = number($("bpm").value);
    const { present } = this.project;
    const before = this.bars();
    if (bpm >= 20 && bpm <= 400) this.tempo.say(present, { bpm, first: before?.first ?? 0 });
    this.paint();
    this.stage.tell();
  }

  /** A bar begins at the play head. */
  barHere() {
    const bars = this.bars();
    if (!bars) return;
    this.tempo.say(this.project.present, { bpm: bars.bpm, first: this.deck.currentTime });
    this.paint();
  }

  showSpectrum(on) {
    $("spectrum").setAttribute("aria-pressed", String(on));
    $("display").classList.toggle("spectral", on);
    this.spectrogram.show(on ? this.deck.buffer : null);
  }

  paint() {
    const { shown, live } = this.stage;
    const { present } = this.project;
    const clip = this.project.clips.get(shown?.clip) ?? present;
    const sounds = Boolean(shown);
    $("begin").hidden = sounds;
    $("wave").hidden = !sounds;
    const field = $("title");
    field.disabled = !clip || Boolean(live);
    if (document.activeElement !== field) {
      field.value = clip?.name ?? "";
      field.placeholder = clip ? given(clip) : sounds ? "Sound" : "No sound yet";
    }
    document.title = clip ? `${title(clip)} · Continuo` : "Studio · Continuo";
    const drawing = shown?.drawing;
    const facts = [];
    if (drawing && !drawing.grows) {
      facts.push(drawing.loudness === null ? "silent" : `${told(drawing.loudness)} LUFS`);
      if (drawing.peak !== null) facts.push(`peak ${told(drawing.peak)} dB`);
    }
    setText($("facts"), facts.join(" · "));
    const bars = this.bars();
    this.grid.set({ bars, joint: this.joint(clip) });
    if (document.activeElement !== $("bpm")) $("bpm").value = bars ? String(Math.round(bars.bpm * 10) / 10) : "";
    if (shown !== this.last) {
      this.last = shown;
      this.selection.set(null);
    }
    if ($("spectrum").getAttribute("aria-pressed") === "true") this.spectrogram.show(this.deck.buffer);
    this.paintPlaying();
    this.paintTime();
    this.paintTools();
  }

  /** The second at which a clip's own sound begins, once that is known; null where all of it is its own. */
  joint(clip) {
    const { sounds } = this.stage;
    const { clips } = this.project;
    if (!clip || !inherits(clip) || !clips.has(clip.parent)) return null;
    for (let one = clip; inherits(one) && clips.has(one.parent); one = clips.get(one.parent)) {
      if (sounds.known(one.parent)) continue;
      sounds.drawing({ clip: one.parent }).then(() => this.paint(), () => {});
      break;
    }
    const before = sounds.known(clip.parent);
    return clip.verb === "transform" ? null : (before?.seconds ?? null);
  }

  paintTools() {
    const { shown, live } = this.stage;
    const still = Boolean(shown) && !live;
    const able = { rewind: still, play: Boolean(shown), cycle: still, from: still, to: still, bpm: still, one: still && Boolean(this.bars()) };
    Object.assign(able, { spectrum: still && Boolean(this.deck.buffer), in: Boolean(shown), out: this.wave.zoom > 0, fit: this.wave.zoom > 0 });
    able.crop = still && Boolean(this.selection.range) && Boolean(this.project.id);
    for (const [id, on] of Object.entries(able)) $(id).disabled = !on;
    const long = still && shown.drawing.seconds > LONGEST;
    $("spectrum").title = long ? `A spectrogram is drawn of sounds up to ${LONGEST / 60} minutes` : "Spectrogram (G)";
  }

  paintPlaying() {
    const playing = !this.deck.paused;
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    $("screen").classList.toggle("on", playing);
    $("screen").classList.toggle("busy", playing && !this.deck.ready);
    if (playing) this.meter.run(() => !this.deck.paused);
    if (playing && !this.ticking) this.tick();
  }

  tick() {
    this.ticking = !this.deck.paused;
    this.paintTime();
    if (this.ticking) requestAnimationFrame(() => this.tick());
  }

  paintTime() {
    const { currentTime, duration } = this.deck;
    setText($("time"), clock(currentTime));
    setText($("length"), `/ ${clock(duration)}`);
    const bars = this.bars();
    setText($("place"), bars && duration ? place(currentTime, bars) : "");
  }
}

/** A level with a true minus. */
const told = (decibels) => decibels.toFixed(1).replace("-", "−");
