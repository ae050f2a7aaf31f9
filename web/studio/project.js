// The session that the page works on, as the server has it: its clips, which of them is the present one, what is being
// made. One connection tells of every change, whichever window made it; when it is lost it is made again.
//
// Events: `change` (anything), `present` (another clip is the present one), `connection`.

import * as api from "./api.js";
import { isBeingMade } from "./titles.js";

const AGAIN = 2000; // ms after which a connection that the browser has given up is tried again

export class Project extends EventTarget {
  constructor() {
    super();
    this.forget();
  }

  forget() {
    this.events?.close();
    clearTimeout(this.timer);
    this.id = null;
    this.view = null;
    this.clips = new Map(); // by id, the oldest first
    this.choosing = null; // a clip that the server has not yet been told to be the present one
    this.ways = new Map(); // the child that was gone to last, by its parent: where redo leads
    this.connected = true;
    this.refreshing = null;
    this.stale = false;
    this.telling = Promise.resolve(); // what the server is being told
  }

  close() {
    this.forget();
    this.tell("present");
    this.tell("change");
    this.tell("connection");
  }

  /** Opens a session that exists. */
  async open(id) {
    this.forget();
    this.id = id;
    this.tell("change");
    this.follow();
    await this.refresh();
  }

  /** The clip whose sound is the session's; null for none, or for a sound that no clip made. */
  get present() {
    return this.clips.get(this.choosing ?? this.view?.clip) ?? null;
  }

  /** Where the present sound is. */
  get place() {
    if (this.present) return { clip: this.present.id };
    return this.view?.has_sound && !this.choosing ? { session: this.id, of: this.view.updated } : null;
  }

  get making() {
    return [...this.clips.values()].filter(isBeingMade);
  }

  follow() {
    this.events?.close();
    const { id } = this;
    const events = (this.events = new EventSource(api.sessionEvents(id)));
    events.onopen = () => this.setConnected(true);
    events.onerror = () => {
      if (id !== this.id) return;
      this.setConnected(false);
      if (events.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.look(), AGAIN);
    };
    events.addEventListener("session", () => void this.refresh().catch(() => {}));
    events.addEventListener("clip", ({ data }) => {
      const clip = JSON.parse(data);
      const known = this.clips.get(clip.id);
      if (!known) return void this.refresh().catch(() => {});
      // What it is called is told with the session.
      this.clips.set(clip.id, { ...clip, name: known.name });
      this.tell("change");
    });
  }

  /** Whether the server is there again, and the session still is. */
  async look() {
    const { id } = this;
    try {
      await api.showSession(id);
      if (id === this.id) this.follow();
    } catch (problem) {
      if (id !== this.id) return;
      if (!problem.gone) return void (this.timer = setTimeout(() => this.look(), AGAIN));
      this.gone = problem;
      this.close();
      this.tell("gone");
    }
  }

  setConnected(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.tell("connection");
  }

  /** Reads session and clips, once more if they were found to have changed meanwhile. */
  refresh() {
    const { id } = this;
    this.stale = true;
    const reading = async () => {
      while (this.stale && id === this.id) {
        this.stale = false;
        const [view, clips] = await Promise.all([api.showSession(id), api.listClips(id)]);
        if (id === this.id) this.take(view, clips);
      }
    };
    this.refreshing ??= reading().finally(() => (this.refreshing = null));
    return this.refreshing;
  }

  take(view, clips) {
    const before = this.place;
    this.view = view;
    this.clips = new Map(clips.reverse().map((clip) => [clip.id, clip]));
    this.remember(this.present);
    if (!same(before, this.place)) this.tell("present");
    this.tell("change");
  }

  remember(clip) {
    if (clip?.parent) this.ways.set(clip.parent, clip.id);
  }

  /** Makes a clip the present one, here at once and everywhere in a moment. */
  async choose(clip) {
    if (clip === this.present?.id) return;
    const { id } = this;
    this.choosing = clip;
    this.remember(this.present);
    this.tell("present");
    this.tell("change");
    // One after the other, and of those that are overtaken only the last.
    const before = this.telling;
    const telling = (async () => {
      await before.catch(() => {});
      return this.id === id && this.choosing === clip ? api.choose(id, clip) : null;
    })();
    this.telling = telling;
    try {
      const view = await telling;
      if (view && this.id === id && this.choosing === clip) this.view = view;
    } finally {
      if (this.id === id && this.choosing === clip) {
        this.choosing = null;
        if (this.view.clip !== clip) this.tell("present");
        this.tell("change");
      }
    }
  }

  /** Where undo leads: the clip that the present one was made of. */
  get back() {
    return this.clips.get(this.present?.parent) ?? null;
  }

  /** Where redo leads: the clip made of the present one that was left last, or was made last. */
  get forth() {
    const { present } = this;
    if (!present) return null;
    const way = this.clips.get(this.ways.get(present.id));
    if (way) return way;
    return [...this.clips.values()].reverse().find((clip) => clip.parent === present.id && clip.status === "completed") ?? null;
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }
}

const same = (a, b) => a?.clip === b?.clip && a?.session === b?.session && a?.of === b?.of;
