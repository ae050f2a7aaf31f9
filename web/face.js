// What the page says of the sound: what plays, how it goes, what is wrong.

import { $, setText } from "./dom.js";
import { words } from "./mix.js";

const STATES = {
  stopped: "",
  starting: "Starting…",
  retrying: "",
  playing: "",
  waiting: "Waiting for the next notes…",
};

export class Face {
  constructor({ session, sound, mix, stations, knobs, recorder }) {
    Object.assign(this, { session, sound, mix, stations, knobs, recorder });
    this.title = "";
    this.notice = "";
    this.startedAt = 0;
    setInterval(() => this.clock(), 1000);
  }

  /** Says something for some seconds. */
  say(text, seconds = 6) {
    this.notice = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.notice = "";
      this.paint();
    }, seconds * 1000);
    this.paint();
  }

  paint() {
    const { session, mix, recorder } = this;
    const { state, info } = session;
    const playing = session.active;
    document.body.classList.toggle("on", playing);
    // The server makes enough to play on without a stop; nobody has to wait for it while there is sound.
    const filling = playing && state !== "playing" && state !== "retrying" && info?.state === "buffering" && info.buffer_target > 0;
    document.body.classList.toggle("busy", filling || state === "starting" || state === "waiting" || state === "retrying");
    $("play").setAttribute("aria-label", playing ? "Stop" : "Play");

    const name = this.stations.title;
    setText($("now-label"), playing ? (name ? `Now playing · ${name}` : "Now playing") : "Press play");
    setText($("now"), playing && this.title ? this.title : words(mix.prompts));
    document.title = playing ? `${words(mix.prompts).slice(0, 60)} · Continuo` : "Continuo";

    this.status(filling);
    this.alarm();
    this.facts();
    $("record").disabled = !(playing && info) && !recorder.active;
    $("again").disabled = !(session.own && info);
  }

  status(filling) {
    const { state, info, seconds } = this.session;
    let status = this.notice || (filling ? "Buffering…" : STATES[state]) || "";
    if (state === "retrying") status = "Trying again soon.";
    setText($("status"), status);
    // For the eye alone: a number that changes every second is no pleasure to be read out.
    $("countdown").hidden = !filling && state !== "retrying";
    const stored = filling ? `${Math.min(info.buffered, info.buffer_target).toFixed(1)} of ${info.buffer_target.toFixed(1)} s` : "";
    setText($("countdown"), stored || (seconds > 0 ? `${seconds} s` : ""));
  }

  get isSlow() {
    return this.session.active && this.session.slow >= 3;
  }

  alarm() {
    const { active: playing, info, problem } = this.session;
    const factor = info?.realtime_factor ?? 0;
    let alarm = problem?.message ?? "";
    if (!alarm && playing && info?.waiting) alarm = info.waiting.reason;
    if (!alarm && this.isSlow) {
      alarm = `This machine makes music at ${factor.toFixed(2)} times real time now, so it will pause now and then to catch up.`;
    }
    if (!alarm && playing && info?.state === "paused") alarm = "This stream is paused.";
    setText($("alert"), alarm);
    $("alert").hidden = alarm === "";
  }

  facts() {
    const { session, sound, knobs } = this;
    const { active: playing, info, own } = session;
    $("facts").hidden = !(playing && info);
    if (playing && info) {
      const factor = info.realtime_factor ?? 0;
      setText($("ahead"), `${(info.buffered + sound.ahead).toFixed(1)} s`);
      setText($("listeners"), String(Math.max(1, info.listeners)));
      setText($("speed"), `${factor < 10 ? factor.toFixed(1) : Math.round(factor)}×`);
      $("speed").parentElement.hidden = factor < 0.01; // not measured yet
      $("speed").classList.toggle("low", this.isSlow);
      knobs.show(info.sampling);
      if (document.activeElement !== $("seed")) $("seed").placeholder = own ? String(info.sampling?.seed ?? "random") : "random";
    }
    $("shared-note").hidden = !(playing && !own && info);
    if (playing && !own && info) {
      const others = Math.max(0, info.listeners - 1);
      const along = others === 0 ? "" : others === 1 ? ", and one other person is listening" : `, and ${others} others are listening`;
      setText($("shared-note"), `This one is shared${along}. Change anything and you get your own.`);
    }
  }

  clock() {
    const { startedAt, session } = this;
    const seconds = startedAt && session.active ? Math.floor((performance.now() - startedAt) / 1000) : 0;
    const two = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    setText($("clock"), `${hours ? `${hours}:${two(Math.floor(seconds / 60) % 60)}` : Math.floor(seconds / 60)}:${two(seconds % 60)}`);
  }

  /** Keys on the headset and the lock screen. */
  mediaSession() {
    if (!("mediaSession" in navigator)) return;
    navigator.mediaSession.playbackState = this.session.active ? "playing" : "paused";
    const name = this.title || words(this.mix.prompts);
    if (navigator.mediaSession.metadata?.title !== name) {
      navigator.mediaSession.metadata = new MediaMetadata({ title: name, artist: "Continuo" });
    }
  }
}
