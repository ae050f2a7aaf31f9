// The time line under the dial: what the stream has played, its prompts as marks, and the way back.
//
// A server keeps what was heard. Sliding back plays from there, "Live" returns; a part can be kept as a file or brought into
// the studio, and a new stream can go on from any moment.

import * as api from "./api.js";
import { $, fill, make, setText } from "./dom.js";

const EVERY = 5_000; // ms between two looks at the history
const AT_ONCE = 3; // seconds: nearer to now than this is live
const KEEP = [30, 60, 180, 600]; // seconds that can be kept in one go

/** `1:05`, `1:02:30`. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

const words = (event) => event.prompts.map((prompt) => prompt.text.trim()).filter(Boolean).join(" + ") || "no description";

export class Timeline {
  constructor({ session, say }) {
    Object.assign(this, { session, say });
    this.history = null;
    this.range = $("time");
    this.range.addEventListener("input", () => this.paint(this.range.valueAsNumber));
    this.range.addEventListener("change", () => this.seek(this.range.valueAsNumber));
    $("to-live").addEventListener("click", () => this.session.listenAt(null));
    $("fork").addEventListener("click", () => this.fork());
    $("keep-file").addEventListener("click", () => this.download());
    $("keep-studio").addEventListener("click", () => this.bring());
    $("keep-length").replaceChildren(...KEEP.map((seconds) => new Option(`the last ${clock(seconds)}`, seconds)));
    session.addEventListener("change", () => this.follow());
    setInterval(() => this.tick(), 500);
  }

  /** Another stream is another past. */
  follow() {
    const id = this.session.active ? (this.session.info?.id ?? null) : null;
    if (id === this.id) return;
    this.id = id;
    this.history = null;
    clearTimeout(this.timer);
    if (id) this.ask();
    this.paint();
  }

  async ask() {
    const id = this.id;
    try {
      const history = await api.streamHistory(id);
      if (id !== this.id) return;
      this.history = history;
      this.read = performance.now();
      this.mark();
    } catch (problem) {
      // A server that keeps nothing of a stream has no time line.
      if (id === this.id && problem.gone) this.history = null;
    }
    if (id !== this.id) return;
    this.paint();
    this.timer = setTimeout(() => this.ask(), EVERY);
  }

  /** Media time of the newest sound. */
  get now() {
    if (!this.history) return 0;
    const moves = this.session.info?.state === "playing";
    return this.history.to + (moves ? (performance.now() - this.read) / 1000 : 0);
  }

  /** Media time of what is heard. */
  get at() {
    const { shift, sound } = this.session;
    return shift === null ? this.now : Math.min(this.now, shift + sound.position);
  }

  tick() {
    if (this.history && !this.range.matches(":active")) this.paint();
  }

  mark() {
    const { from, events } = this.history;
    const asked = events.filter((event) => event.prompts && event.at >= from);
    const length = Math.max(1, this.now - from);
    $("marks").replaceChildren(...asked.map((event) => {
      const name = words(event);
      const mark = make("button", { type: "button", title: `${clock(event.at)} ${name}`, ariaLabel: `From ${clock(event.at)}: ${name}` });
      mark.style.setProperty("left", `${(100 * (event.at - from)) / length}%`);
      mark.addEventListener("click", () => this.seek(event.at));
      return mark;
    }));
  }

  paint(at = this.at) {
    const shown = this.history !== null && this.now - this.history.from > AT_ONCE;
    $("timeline").hidden = !shown;
    if (!shown) return;
    const { range, now } = this;
    range.min = this.history.from;
    range.max = now;
    range.value = at;
    fill(range);
    const behind = now - at;
    const live = this.session.shift === null && behind < AT_ONCE;
    const text = live ? "Live" : `${clock(behind)} ago`;
    range.setAttribute("aria-valuetext", text);
    setText($("time-now"), text);
    setText($("time-from"), `−${clock(now - this.history.from)}`);
    $("to-live").disabled = live;
  }

  seek(at) {
    this.session.listenAt(this.now - at < AT_ONCE ? null : at);
  }

  /** A new stream of one's own that goes on from what is heard. */
  async fork() {
    try {
      const live = this.session.shift === null;
      const stream = await api.forkStream(this.id, live ? {} : { from: this.heard });
      this.session.playForked(stream);
      this.say("A stream of your own goes on from here.");
    } catch (problem) {
      this.say(problem.message);
    }
  }

  /** Media time of what is heard of the past; what the server has not written down yet it could not go back to. */
  get heard() {
    return Math.min(this.at, this.history.to);
  }

  /** The part that is to be kept: it ends with what is heard. Live, the server knows best when that is. */
  get part() {
    const length = Number($("keep-length").value);
    if (this.session.shift === null) return { from: -length };
    return { from: Math.max(this.history.from, this.heard - length), to: this.heard };
  }

  download() {
    const link = make("a", { href: api.recordingAddress(this.id, { ...this.part, format: $("keep-format").value }), download: "" });
    link.click();
    this.say("The recording is being made.");
  }

  async bring() {
    try {
      const { session } = await api.clipStream(this.id, this.part);
      location.href = api.studioAddress(session);
    } catch (problem) {
      this.say(problem.message);
    }
  }
}
