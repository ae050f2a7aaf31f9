// The page: binds the form, the dial and the session together.

import * as api from "./api.js";
import { Dial } from "./dial.js";
import { Midi } from "./midi.js";
import { fill, Mix } from "./mix.js";
import { Recorder } from "./record.js";
import { Session } from "./session.js";
import { Sound } from "./sound.js";

const $ = (id) => document.getElementById(id);
const FIRST = [{ text: "warm lofi hip hop, mellow electric piano, soft drums, vinyl crackle, 80 bpm", weight: 1 }];

const sound = new Sound($("audio"));
const session = new Session(sound);
const dial = new Dial($("dial"), sound, $("level"), $("peak"));
const recorder = new Recorder();
const mix = new Mix($("mix"), $("add"), mixChanged);

let selected = null; // the key of the station that the mix came from
let starters = [];
let onAir = [];
let title = "";
let notice = "";
let noticeTimer;
let startedAt = 0;

// ---- remembering -------------------------------------------------------------------------------------------------

const memory = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`continuo.${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`continuo.${key}`, JSON.stringify(value));
    } catch {
      /* private windows may refuse */
    }
  },
};

// ---- the advanced values -----------------------------------------------------------------------------------------

const dials = {
  guidance: { range: $("guidance"), show: (value) => value.toFixed(1) },
  temperature: { range: $("temperature"), show: (value) => value.toFixed(2) },
  top_k: { range: $("top-k"), show: (value) => (value ? String(value) : "off") },
};
let chosen = {}; // values that the listener has set; all others are the model's own
let defaults = {};
let models = [];
let model = null; // the id of the model that the listener has chosen; null is the server's own choice

function useModel(id) {
  const known = models.find((one) => one.id === id) ?? models[0];
  if (!known) return;
  defaults = Object.fromEntries(Object.keys(dials).map((name) => [name, known.sampling?.[name]]).filter(([, value]) => value !== undefined));
  setText($("machine"), known.description ?? known.id);
  $("machine").hidden = false;
  $("model").value = known.id;
  showSampling();
}

async function refreshModels() {
  try {
    models = await api.listModels();
  } catch {
    return; // the player says so when it matters
  }
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  $("model-field").hidden = models.length < 2;
  useModel(session.info?.model ?? model);
}

function showSampling(current = {}) {
  for (const [name, { range, show }] of Object.entries(dials)) {
    const value = chosen[name] ?? current[name] ?? defaults[name];
    if (value !== undefined && document.activeElement !== range) range.value = value;
    $(`${range.id}-out`).textContent = show(range.valueAsNumber);
    fill(range);
  }
  const ramp = $("ramp");
  $("ramp-out").textContent = ramp.valueAsNumber ? `${ramp.value} s` : "at once";
  fill(ramp);
}

function seed() {
  const text = $("seed").value.trim();
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
}

function spec() {
  const wanted = seed();
  return { prompts: mix.prompts, ...(model ? { model } : {}), ...chosen, ...(wanted === undefined ? {} : { seed: wanted }) };
}

// ---- steering ----------------------------------------------------------------------------------------------------

/** Calls `send` at most once per `gap` ms while calls come in, and always with the last one. */
function throttled(send, gap) {
  let timer = null;
  let again = false;
  const fire = () => {
    again = false;
    send();
    timer = setTimeout(() => {
      timer = null;
      if (again) fire();
    }, gap);
  };
  return () => (timer === null ? fire() : (again = true));
}

let sent = ""; // the prompts last sent, so that leaving a field unchanged sends nothing
let typing;

function sendPrompts(ramp) {
  clearTimeout(typing);
  if (!session.active || mix.silent) return;
  const prompts = mix.prompts;
  if (JSON.stringify(prompts) === sent) return;
  sent = JSON.stringify(prompts);
  if (session.steerable) session.steer({ prompts, ramp });
  else branch();
}

/** A shared stream stays as it is for the others; a change begins one of one's own. */
function branch() {
  deselect();
  start();
}

const slide = throttled(() => sendPrompts(Math.min(0.5, $("ramp").valueAsNumber)), 250);

function mixChanged(kind) {
  memory.set("mix", mix.prompts);
  clearTimeout(typing);
  if (kind === "weight") slide();
  else if (kind === "text") typing = setTimeout(() => sendPrompts($("ramp").valueAsNumber), 1200);
  else sendPrompts($("ramp").valueAsNumber);
  if (kind !== "weight") deselect();
  if (mix.silent) say("Every share is at zero. Raise one to hear it.");
  paint();
}

const sendSampling = throttled(() => {
  if (session.steerable) session.steer(chosen);
  else if (session.active) branch();
}, 250);

// ---- playing -----------------------------------------------------------------------------------------------------

function start() {
  const station = onAir.find((stream) => key(stream) === selected);
  sent = JSON.stringify(mix.prompts);
  title = "";
  startedAt = 0;
  if (station) session.playShared(station.id, null);
  else if (visiting) session.playShared(visiting, spec());
  else session.playOwn(spec());
  dial.run();
}

function stop() {
  if (recorder.active) recorder.finish();
  session.stop();
}

function toggle() {
  if (session.active) stop();
  else start();
}

const key = (station) => station.name;
let visiting = null; // the id of the stream that a share link named

function deselect() {
  selected = null;
  visiting = null;
  for (const button of $("stations").querySelectorAll("button")) button.setAttribute("aria-pressed", "false");
}

function choose(station) {
  const glides = session.steerable;
  visiting = null;
  selected = key(station);
  const live = onAir.find((stream) => key(stream) === selected);
  mix.prompts = (live ?? station).prompts;
  memory.set("mix", mix.prompts);
  chosen = {};
  if (!live) for (const name of Object.keys(dials)) if (station[name] !== undefined) chosen[name] = station[name];
  $("seed").value = "";
  showSampling();
  if (glides && !live) {
    // One's own stream glides into the other style; nothing stops.
    sent = JSON.stringify(mix.prompts);
    session.steer({ prompts: mix.prompts, ...defaults, ...chosen, ramp: $("ramp").valueAsNumber });
  } else {
    start();
  }
  paint();
  paintStations();
}

// ---- painting ----------------------------------------------------------------------------------------------------

const STATES = {
  stopped: "",
  starting: "Starting…",
  retrying: "",
  playing: "",
  waiting: "Waiting for the next notes…",
};

function say(text, seconds = 6) {
  notice = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => {
    notice = "";
    paint();
  }, seconds * 1000);
  paint();
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const words = (prompts) =>
  prompts
    .map(({ text }) => text)
    .filter(Boolean)
    .join("  +  ") || "Free improvisation";

function paint() {
  const { state, info, problem } = session;
  const playing = session.active;
  document.body.classList.toggle("on", playing);
  // The server makes enough to play on without a stop; nobody has to wait for it while there is sound.
  const filling = playing && state !== "playing" && state !== "retrying" && info?.state === "buffering" && info.buffer_target > 0;
  document.body.classList.toggle("busy", filling || state === "starting" || state === "waiting" || state === "retrying");
  $("play").setAttribute("aria-label", playing ? "Stop" : "Play");

  const name = starters.find((station) => key(station) === selected)?.title ?? selected;
  setText($("now-label"), playing ? (name ? `Now playing · ${name}` : "Now playing") : "Press play");
  setText($("now"), playing && title ? title : words(mix.prompts));
  document.title = playing ? `${words(mix.prompts).slice(0, 60)} · Continuo` : "Continuo";

  let status = notice || (filling ? "Buffering…" : STATES[state]) || "";
  if (state === "retrying") status = "Trying again soon.";
  setText($("status"), status);
  // For the eye alone: a number that changes every second is no pleasure to be read out.
  $("countdown").hidden = !filling && state !== "retrying";
  const stored = filling ? `${Math.min(info.buffered, info.buffer_target).toFixed(1)} of ${info.buffer_target.toFixed(1)} s` : "";
  setText($("countdown"), stored || (session.seconds > 0 ? `${session.seconds} s` : ""));

  const factor = info?.realtime_factor ?? 0;
  const slow = playing && session.slow >= 3;
  let alarm = problem?.message ?? "";
  if (!alarm && playing && info?.waiting) alarm = info.waiting.reason;
  if (!alarm && slow) {
    alarm = `This machine makes music at ${factor.toFixed(2)} times real time now, so it will pause now and then to catch up.`;
  }
  if (!alarm && playing && info?.state === "paused") alarm = "This stream is paused.";
  setText($("alert"), alarm);
  $("alert").hidden = alarm === "";

  $("facts").hidden = !(playing && info);
  if (playing && info) {
    setText($("ahead"), `${(info.buffered + sound.ahead).toFixed(1)} s`);
    setText($("listeners"), String(Math.max(1, info.listeners)));
    setText($("speed"), `${factor < 10 ? factor.toFixed(1) : Math.round(factor)}×`);
    $("speed").parentElement.hidden = factor < 0.01; // not measured yet
    $("speed").classList.toggle("low", slow);
    showSampling(info.sampling);
    if (document.activeElement !== $("seed")) $("seed").placeholder = session.own ? String(info.sampling?.seed ?? "random") : "random";
  }
  $("shared-note").hidden = !(playing && !session.own && info);
  if (playing && !session.own && info) {
    const others = Math.max(0, info.listeners - 1);
    const along = others === 0 ? "" : others === 1 ? ", and one other person is listening" : `, and ${others} others are listening`;
    setText($("shared-note"), `This one is shared${along}. Change anything and you get your own.`);
  }
  $("record").disabled = !(playing && info) && !recorder.active;
  $("again").disabled = !(session.own && info);
  paintAddress();
}

function paintStations() {
  const names = new Set(onAir.map(key));
  const all = [...onAir, ...starters.filter((station) => !names.has(key(station)))];
  const places = new Map([...$("stations").children].map((item) => [item.dataset.key, item]));
  $("stations").replaceChildren(
    ...all.map((station) => {
      const item = places.get(key(station)) ?? document.createElement("li");
      if (!item.dataset.key) {
        item.dataset.key = key(station);
        const button = document.createElement("button");
        button.type = "button";
        button.append(document.createElement("strong"), document.createElement("small"));
        button.addEventListener("click", () => choose([...onAir, ...starters].find((one) => key(one) === item.dataset.key) ?? station));
        item.append(button);
      }
      const starter = starters.find((one) => key(one) === key(station));
      setText(item.querySelector("strong"), starter?.title ?? station.title ?? station.name);
      const heard = station.listeners > 0 ? (station.listeners === 1 ? "1 listening" : `${station.listeners} listening`) : "";
      setText(item.querySelector("small"), heard || starter?.note || words(station.prompts).slice(0, 34));
      item.querySelector("button").setAttribute("aria-pressed", String(selected === key(station)));
      return item;
    }),
  );
}

function paintAddress() {
  const url = new URL(api.address("generate"));
  for (const { text } of mix.prompts) url.searchParams.append("prompt", text);
  for (const [name, value] of Object.entries(chosen)) url.searchParams.set(name, value);
  if (model) url.searchParams.set("model", model);
  if (seed() !== undefined) url.searchParams.set("seed", seed());
  $("address").value = url.href;
}

// ---- events ------------------------------------------------------------------------------------------------------

session.addEventListener("change", () => {
  if (session.state === "playing" && !startedAt) startedAt = performance.now();
  if (session.active) dial.run();
  paint();
  mediaSession();
});
session.addEventListener("title", (event) => {
  title = event.detail;
  paint();
});
session.addEventListener("heard", (event) => {
  const seconds = Math.max(1, Math.round(event.detail));
  say(`You will hear the change in about ${seconds} s.`, seconds);
});

$("play").addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (event.code !== "Space" || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("button, input, textarea, summary, a, select")) return;
  event.preventDefault();
  toggle();
});

$("volume").addEventListener("input", () => {
  sound.volume = $("volume").valueAsNumber / 100;
  fill($("volume"));
  memory.set("volume", $("volume").valueAsNumber);
});

for (const [name, { range }] of Object.entries(dials)) {
  range.addEventListener("input", () => {
    chosen[name] = range.valueAsNumber;
    showSampling();
    sendSampling();
    paintAddress();
  });
}
$("ramp").addEventListener("input", () => showSampling());
$("model").addEventListener("change", () => {
  model = $("model").value;
  chosen = {};
  useModel(model);
  if (session.steerable) session.steer({ model });
  else if (session.active) branch();
  paintAddress();
});
$("defaults").addEventListener("click", () => {
  chosen = {};
  showSampling();
  if (session.steerable && Object.keys(defaults).length) session.steer(defaults);
});
$("dice").addEventListener("click", () => {
  $("seed").value = String(Math.floor(Math.random() * 1e9));
  $("seed").dispatchEvent(new Event("change"));
});
$("seed").addEventListener("change", () => {
  const wanted = seed();
  if (wanted === undefined && $("seed").value.trim() !== "") say("A seed is a whole number below 9007199254740992.");
  else if (wanted !== undefined && session.steerable) session.steer({ seed: wanted });
  paintAddress();
});

const midi = new Midi(memory);
$("midi").hidden = !Midi.possible;
$("midi").addEventListener("click", async () => {
  midi.learning = !midi.learning;
  $("midi").setAttribute("aria-pressed", String(midi.learning));
  if (!midi.learning) return say("The knobs stay with their sliders.");
  try {
    const controllers = await midi.connect();
    say(controllers ? "Select a slider, then turn a knob." : "Plug in a controller, select a slider, then turn a knob.", 12);
  } catch {
    midi.learning = false;
    $("midi").setAttribute("aria-pressed", "false");
    say("The browser does not let this page use MIDI.");
  }
});

$("again").addEventListener("click", () => session.startOver());
$("copy").addEventListener("click", async () => {
  $("address").select();
  say((await copy($("address").value)) ? "Address copied." : "Press Ctrl+C to copy the address.");
});
$("share").addEventListener("click", async () => {
  const url = new URL(".", document.baseURI);
  for (const { text, weight } of mix.prompts) {
    url.searchParams.append("p", text);
    url.searchParams.append("w", weight.toFixed(2));
  }
  if (session.info) url.searchParams.set("stream", session.info.id);
  const link = { title: "Continuo", text: words(mix.prompts), url: url.href };
  if (navigator.share && matchMedia("(pointer: coarse)").matches) return void navigator.share(link).catch(() => {});
  const live = session.info ? " Who opens it while you play hears what you hear." : "";
  say((await copy(link.url)) ? `Link copied.${live}` : link.url, 10);
});
$("record").addEventListener("click", async () => {
  if (recorder.active) recorder.finish();
  else recorder.begin(api.audioAddress(session.info.id, Sound.format()), Sound.format(), words(mix.prompts));
});
recorder.addEventListener("change", () => {
  $("record").setAttribute("aria-pressed", String(recorder.active));
  $("record").textContent = recorder.active ? "Stop recording" : "Record";
  if (recorder.error) say(recorder.error);
  paint();
});

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Keys on the keyboard, the headset and the lock screen. */
function mediaSession() {
  if (!("mediaSession" in navigator)) return;
  navigator.mediaSession.playbackState = session.active ? "playing" : "paused";
  const name = title || words(mix.prompts);
  if (navigator.mediaSession.metadata?.title !== name) {
    navigator.mediaSession.metadata = new MediaMetadata({ title: name, artist: "Continuo" });
  }
}
if ("mediaSession" in navigator) {
  navigator.mediaSession.setActionHandler("play", () => session.active || start());
  for (const name of ["pause", "stop"]) navigator.mediaSession.setActionHandler(name, stop);
}

window.addEventListener("pagehide", () => session.active && stop());

function clock() {
  const seconds = startedAt && session.active ? Math.floor((performance.now() - startedAt) / 1000) : 0;
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  setText($("clock"), `${hours ? `${hours}:${two(Math.floor(seconds / 60) % 60)}` : Math.floor(seconds / 60)}:${two(seconds % 60)}`);
}
setInterval(clock, 1000);

// ---- beginning ---------------------------------------------------------------------------------------------------

function fromLink() {
  const query = new URLSearchParams(location.search);
  const weights = query.getAll("w").map(Number);
  const prompts = query.getAll("p").slice(0, 8).map((text, i) => ({ text: text.slice(0, 1000), weight: weights[i] >= 0 ? weights[i] : 1 }));
  visiting = query.get("stream");
  selected = query.get("station");
  return prompts.length ? prompts : null;
}

async function refreshStations() {
  if (document.hidden) return;
  try {
    onAir = (await api.listStreams()).filter((stream) => stream.name && stream.state !== "ended");
  } catch {
    return; // the player says so when it matters
  }
  paintStations();
  paint();
}

mix.prompts = fromLink() ?? memory.get("mix") ?? FIRST;
$("volume").value = memory.get("volume") ?? 80;
sound.volume = $("volume").valueAsNumber / 100;
fill($("volume"));
showSampling();
paint();
clock();

refreshModels();
api
  .listStarters()
  .then((list) => {
    starters = list;
    paintStations();
  })
  .catch(() => {});
refreshStations();
setInterval(refreshStations, 15_000);
$("model").closest("details").addEventListener("toggle", refreshModels); // models come and go while the page is open
