// What is listened to: a stream of one's own (which can be steered and ends with us) or a shared one.
//
// A session keeps playing: when the connection or the stream is lost it says so and tries again until it is stopped.
// Events: `change` (state, message or stream facts), `title`, `heard` (a steer's delay in seconds).

import * as api from "./api.js";
import { Sound } from "./sound.js";

const PATIENCE = 20_000; // ms without sound and without news before a connection counts as dead

export class Session extends EventTarget {
  constructor(sound) {
    super();
    this.sound = sound;
    this.state = "stopped"; // stopped, starting, playing, waiting, retrying
    this.problem = null;
    this.info = null;
    this.own = false;
    this.target = null;
    this.shift = null; // media seconds from which on it is heard; null is live
    this.owed = null; // changes made while there was no stream to make them on
    this.attempts = 0;
    this.slow = 0; // status reports in a row that say "below real time"
    this.turn = 0; // raised by every start and stop: what an older turn still awaits is dropped
    sound.addEventListener("playing", () => this.became("playing"));
    sound.addEventListener("waiting", () => this.became("waiting"));
    sound.addEventListener("lost", () => this.lost());
    setInterval(() => this.watch(), 1000);
  }

  get active() {
    return this.state !== "stopped";
  }

  /** What plays is one's own, or is about to be: a change belongs to it and needs no new stream. */
  get steerable() {
    return this.active && (this.target.id === null || this.target.mine === true);
  }

  /** Plays a new stream of one's own. `spec` is the body of `POST /v1/streams`. */
  playOwn(spec) {
    return this.begin({ spec, id: null });
  }

  /** Plays a stream that exists. `spec` is what to play instead when it has ended; null if there is no such thing. */
  playShared(id, spec = null) {
    return this.begin({ spec, id });
  }

  /** Plays a stream that was made just now, as one's own. */
  playForked(info) {
    return this.begin({ spec: { prompts: info.prompts, model: info.model }, id: info.id, mine: true });
  }

  /** Goes on from media time `at`, or live. */
  listenAt(at) {
    if (!this.active || !this.info) return;
    this.shift = at;
    this.turn += 1;
    this.sound.stop();
    this.set("starting", null);
    this.hear(this.info.id).catch((problem) => this.set("stopped", problem));
  }

  hear(id) {
    return this.sound.play({
      audio: api.since(api.audioAddress(id, Sound.format()), this.shift),
      socket: api.since(api.socketAddress(id), this.shift),
      playlist: api.playlistAddress(id),
      behind: this.shift === null ? 0 : Math.max(0, this.now - this.shift),
    });
  }

  /** Media time of the sound that leaves the server now. */
  get now() {
    return this.info.playhead + (performance.now() - this.read) / 1000;
  }

  begin(target) {
    this.sound.unlock();
    this.leave();
    this.shift = null;
    this.target = target;
    this.owed = null;
    this.attempts = 0;
    return this.connect();
  }

  async connect() {
    const turn = ++this.turn;
    this.set("starting", null);
    try {
      const info = await this.resolve();
      if (turn !== this.turn) return void (this.own && api.deleteStream(info.id).catch(() => {}));
      this.info = info;
      this.read = performance.now();
      this.follow(info.id);
      this.tell("change");
      if (this.owed) this.steer(this.owed);
      await this.hear(info.id);
    } catch (problem) {
      if (turn !== this.turn) return;
      if (problem.name === "NotAllowedError") {
        this.stop();
        this.set("stopped", new api.Problem("The browser wants one more click before it plays sound."));
      } else if (problem instanceof api.Problem) {
        this.retry(problem);
      } // else the element reports it by its own `error` event
    }
  }

  /** The stream to listen to: the wanted one, or a new one. */
  async resolve() {
    const { id, spec } = this.target;
    if (id !== null) {
      try {
        const info = await api.showStream(id);
        if (info.state !== "ended") {
          this.own = this.target.mine === true;
          return info;
        }
      } catch (problem) {
        if (!problem.gone) throw problem;
      }
      if (!spec) throw new api.Problem("This stream has ended.");
    }
    const info = await api.createStream(spec);
    this.own = true;
    this.target = { spec, id: info.id, mine: true };
    return info;
  }

  /** Changes one's own stream, now or as soon as it is there. */
  async steer(change) {
    if (!this.steerable) return;
    const { ramp, ...lasting } = change;
    this.target.spec = { ...this.target.spec, ...lasting };
    if (!this.own || !this.info || this.state === "retrying") {
      this.owed = { ...this.owed, ...change };
      return;
    }
    this.owed = null;
    const turn = this.turn;
    try {
      const ack = await api.steerStream(this.info.id, change);
      if (turn !== this.turn) return;
      if (this.problem) this.set(this.state, null);
      this.heard(ack);
    } catch (problem) {
      if (turn === this.turn) this.set(this.state, problem);
    }
  }

  async startOver() {
    if (!this.own || !this.info) return;
    try {
      this.heard(await api.resetStream(this.info.id));
    } catch (problem) {
      this.set(this.state, problem);
    }
  }

  heard(ack) {
    if (typeof ack?.at !== "number") return;
    const delay = Math.max(0, ack.at - this.now) + this.sound.ahead;
    this.dispatchEvent(new CustomEvent("heard", { detail: Math.min(delay, 60) }));
  }

  stop() {
    this.leave();
    this.set("stopped", null);
  }

  leave() {
    this.turn += 1;
    clearTimeout(this.timer);
    this.events?.close();
    this.events = null;
    this.sound.stop();
    // Others may be listening along; then the stream pauses by itself once the last one has left.
    if (this.own && this.info && this.info.listeners <= 1) api.deleteStream(this.info.id).catch(() => {});
    this.info = null;
    this.own = false;
    this.slow = 0;
  }

  async lost() {
    if (!this.active || this.state === "retrying" || !this.info) return;
    const turn = ++this.turn;
    const problem = await api.whyNot(api.audioAddress(this.info.id, Sound.format()));
    if (turn !== this.turn) return;
    const again = problem === null || problem.gone;
    this.retry(again ? new api.Problem(problem ? "The stream has ended." : "The connection was lost.", { retryAfter: 1 }) : problem);
  }

  retry(problem) {
    this.events?.close();
    this.sound.stop();
    if (problem.retryAfter === null) {
      this.leave();
      return this.set("stopped", problem);
    }
    this.turn += 1;
    this.attempts += 1;
    let seconds = Math.max(problem.retryAfter, Math.min(30, 2 ** (this.attempts - 1)));
    const count = () => {
      if (seconds <= 0) return void this.connect();
      this.set("retrying", problem, seconds);
      seconds -= 1;
      this.timer = setTimeout(count, 1000);
    };
    clearTimeout(this.timer);
    count();
  }

  /** Server-sent events: the browser itself connects again when they break off. */
  follow(id) {
    this.news = performance.now();
    this.events?.close();
    this.events = new EventSource(api.eventsAddress(id));
    const receive = (event) => {
      this.news = performance.now();
      let data;
      try {
        data = JSON.parse(event.data);
      } catch {
        return;
      }
      const kind = data.type ?? event.type;
      if (kind === "status") {
        this.info = data;
        this.read = performance.now();
        const below = (data.state === "playing" || data.state === "buffering") && data.realtime_factor > 0.01 && data.realtime_factor < 0.97;
        this.slow = below ? this.slow + 1 : 0;
        this.tell("change");
      } else if (kind === "title") {
        this.dispatchEvent(new CustomEvent("title", { detail: data.title }));
      }
    };
    for (const kind of ["message", "title", "status", "steer"]) this.events.addEventListener(kind, receive);
  }

  watch() {
    if (!this.active || this.state === "retrying" || this.state === "starting") return;
    const now = performance.now();
    if (this.sound.position !== this.position) {
      this.position = this.sound.position;
      this.moved = now;
    } else if (now - this.moved > PATIENCE && now - this.news > PATIENCE) {
      this.lost();
    }
  }

  became(state) {
    if (!this.active || (state === "waiting" && this.state === "starting")) return;
    this.moved = performance.now();
    if (state === "playing") this.attempts = 0;
    this.set(state, state === "playing" ? null : this.problem);
  }

  set(state, problem, seconds = 0) {
    this.state = state;
    this.problem = problem;
    this.seconds = seconds;
    this.tell("change");
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }
}
