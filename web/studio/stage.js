// What is shown and heard: the session's present sound, or a clip while it is made. Two slots, A and B, hold the sounds that
// were shown last; going from one to the other keeps the place.
//
// Events: `change`.

import * as api from "./api.js";
import { LONGEST } from "./sounds.js";
import { isBeingMade } from "./titles.js";

export class Stage extends EventTarget {
  constructor({ project, sounds, deck, wave }) {
    super();
    Object.assign(this, { project, sounds, deck, wave });
    this.shown = null; // { place, clip, drawing }
    this.live = null; // the clip that is heard while it is made
    this.slots = { a: null, b: null, at: "a" };
    this.compares = false; // the next sound is compared with this one
    this.problem = null;
    this.turn = 0; // raised whenever something else is shown: what an older turn still awaits is dropped
    project.addEventListener("present", () => (this.live ? this.whenMade() : this.follow()));
    project.addEventListener("change", () => this.whenMade());
  }

  /** Shows the present sound. */
  async follow() {
    const { place, present } = this.project;
    if (!place) return this.empty();
    const turn = ++this.turn;
    if (present) this.slot(present.id);
    const keep = this.keeps(present);
    const drawing = await this.attempt(turn, this.sounds.drawing(place));
    if (!drawing) return;
    this.shown = { place, clip: present?.id ?? null, drawing };
    const long = drawing.seconds > LONGEST;
    const url = long ? api.soundOf(place, "audio.wav") : null;
    this.deck.load({ seconds: drawing.seconds, buffer: this.sounds.ready(place), url, keep });
    this.tell();
    await this.wave.show(drawing, keep);
    if (long || this.deck.buffer) return;
    const buffer = await this.attempt(turn, this.sounds.buffer(place));
    if (buffer) this.deck.fill(buffer);
    this.tell();
  }

  /** Whether the place within the sound means the same in another one: both are of one family. */
  keeps(clip) {
    const { clips } = this.project;
    const family = (one) => {
      let at = one;
      while (at && at.verb !== "crop" && clips.has(at.parent)) at = clips.get(at.parent);
      return at?.id;
    };
    const before = clips.get(this.shown?.clip);
    const compares = this.compares;
    this.compares = false;
    return Boolean(clip && before) && (compares || family(clip) === family(before));
  }

  async attempt(turn, promise) {
    try {
      const value = await promise;
      if (turn !== this.turn) return null;
      this.problem = null;
      return value;
    } catch (problem) {
      if (turn !== this.turn || problem.name === "AbortError") return null;
      this.problem = problem instanceof api.Problem ? problem : new api.Problem("The browser cannot read this sound.");
      this.tell();
      if (problem.retryAfter) setTimeout(() => turn === this.turn && this.follow(), 1000 * problem.retryAfter);
      return null;
    }
  }

  empty() {
    this.turn += 1;
    this.shown = null;
    this.live = null;
    this.slots = { a: null, b: null, at: "a" };
    this.deck.pause();
    this.deck.load({ seconds: 0 });
    this.tell();
  }

  /** Puts a clip into the slot that is heard next: the other one, unless it stands in one already. */
  slot(id) {
    const { slots } = this;
    const other = slots.at === "a" ? "b" : "a";
    if (slots[slots.at] === id) return;
    if (slots[slots.at] === null) slots[slots.at] = id;
    else {
      slots[other] = id;
      slots.at = other;
    }
  }

  /** The clip in the slot that is not heard. */
  get other() {
    const id = this.slots[this.slots.at === "a" ? "b" : "a"];
    return this.project.clips.get(id)?.status === "completed" ? id : null;
  }

  /** Goes to the other slot, at the same place. */
  flip() {
    if (!this.other) return null;
    this.compares = true;
    return this.project.choose(this.other);
  }

  /** A clip to compare the present one with. */
  compare(id) {
    if (id === this.project.present?.id) return;
    this.slots[this.slots.at === "a" ? "b" : "a"] = id;
    this.sounds.buffer({ clip: id }).catch(() => {}); // so that it is at hand
    this.tell();
  }

  /** Hears a clip while it is made, from its beginning. */
  async listen(clip) {
    this.deck.unlock();
    const turn = ++this.turn;
    this.live = clip.id;
    const before = clip.parent ? await this.sounds.drawing({ clip: clip.parent }).catch(() => null) : null;
    if (turn !== this.turn) return;
    const joined = clip.verb === "continue" || clip.verb === "retry" ? before : null;
    const seconds = joined ? joined.seconds + clip.seconds - clip.prompt_seconds : clip.seconds;
    const drawing = growing(joined, seconds);
    this.shown = { place: null, clip: clip.id, drawing };
    const ogg = document.createElement("audio").canPlayType('audio/ogg; codecs="opus"');
    this.deck.load({ seconds, url: api.address(`v1/clips/${clip.id}/live.${ogg ? "ogg" : "wav"}`) });
    this.deck.play();
    this.tell();
    await this.wave.show(drawing, false);
  }

  stopListening() {
    this.live = null;
    this.deck.pause();
    this.follow();
  }

  /** When what is heard is made, the result takes its place. */
  whenMade() {
    const clip = this.project.clips.get(this.live);
    if (!this.live || (clip && isBeingMade(clip))) return;
    if (clip?.status === "completed" && this.project.view?.clip !== clip.id) return; // the session will say so
    this.live = null;
    this.follow();
  }

  tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The drawing of a sound of which only the beginning is known. */
function growing(known, seconds) {
  const perSecond = known ? known.high.length / known.seconds : 50;
  const length = Math.max(1, Math.round(seconds * perSecond));
  const padded = (from) => {
    const values = new Float32Array(length);
    if (from) values.set(from.subarray(0, length));
    return values;
  };
  return { low: padded(known?.low), high: padded(known?.high), seconds, bpm: known?.bpm ?? null, first: known?.first ?? 0, loudness: null, peak: null, grows: true };
}
