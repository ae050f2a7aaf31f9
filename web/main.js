// The player: binds the form, the dial and the session together.

import * as api from "./api.js";
import { Dial } from "./dial.js";
import { $, fill } from "./dom.js";
import { Face } from "./face.js";
import { Knobs } from "./knobs.js";
import { memory } from "./memory.js";
import { Midi } from "./midi.js";
import { Mix, words } from "./mix.js";
import { Recorder } from "./record.js";
import { Session } from "./session.js";
import { brought, Share } from "./share.js";
import { Sound } from "./sound.js";
import { Stations } from "./stations.js";
import { throttled } from "./throttle.js";
import { Timeline } from "./timeline.js";

const FIRST = [{ text: "warm lofi hip hop, mellow electric piano, soft drums, vinyl crackle, 80 bpm", weight: 1 }];

const sound = new Sound($("audio"));
const session = new Session(sound);
const dial = new Dial($("dial"), sound, $("level"), $("peak"));
const recorder = new Recorder();
const knobs = new Knobs();
const stations = new Stations();
const mix = new Mix($("mix"), $("add"), mixChanged);
const face = new Face({ session, sound, mix, stations, knobs, recorder });
const say = (text, seconds) => {
  face.say(text, seconds);
  share.paint();
};
new Timeline({ session, say });
const share = new Share({ mix, knobs, session, say });

function paint() {
  face.paint();
  share.paint();
}

// ---- steering ----------------------------------------------------------------------------------------------------

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
  stations.deselect();
  start();
}

const slide = throttled(() => sendPrompts(Math.min(0.5, knobs.ramp)), 250);

function mixChanged(kind) {
  memory.set("mix", mix.prompts);
  clearTimeout(typing);
  if (kind === "weight") slide();
  else if (kind === "text") typing = setTimeout(() => sendPrompts(knobs.ramp), 1200);
  else sendPrompts(knobs.ramp);
  if (kind !== "weight") stations.deselect();
  if (mix.silent) say("Every share is at zero. Raise one to hear it.");
  paint();
}

const sendSampling = throttled(() => {
  if (session.steerable) session.steer(knobs.chosen);
  else if (session.active) branch();
}, 250);

knobs.addEventListener("sampling", () => {
  sendSampling();
  share.paint();
});
knobs.addEventListener("model", () => {
  if (session.steerable) session.steer({ model: knobs.model });
  else if (session.active) branch();
  share.paint();
});
knobs.addEventListener("defaults", () => {
  if (session.steerable && Object.keys(knobs.defaults).length) session.steer(knobs.defaults);
});
knobs.addEventListener("seed", () => {
  if (knobs.seedless) say("A seed is a whole number below 9007199254740992.");
  else if (knobs.seed !== undefined && session.steerable) session.steer({ seed: knobs.seed });
  share.paint();
});

// ---- playing -----------------------------------------------------------------------------------------------------

function start() {
  const spec = { prompts: mix.prompts, ...knobs.spec };
  sent = JSON.stringify(mix.prompts);
  face.title = "";
  face.startedAt = 0;
  if (stations.live) session.playShared(stations.live.id, null);
  else if (stations.visiting) session.playShared(stations.visiting, spec);
  else session.playOwn(spec);
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

stations.addEventListener("change", paint);
stations.addEventListener("choose", ({ detail: station }) => {
  const glides = session.steerable;
  stations.select(station);
  const { live } = stations;
  mix.prompts = (live ?? station).prompts;
  memory.set("mix", mix.prompts);
  knobs.take(live ? null : station);
  if (glides && !live) {
    // One's own stream glides into the other style; nothing stops.
    sent = JSON.stringify(mix.prompts);
    session.steer({ prompts: mix.prompts, ...knobs.defaults, ...knobs.chosen, ramp: knobs.ramp });
  } else {
    start();
  }
  paint();
  stations.paint();
});

session.addEventListener("change", () => {
  if (session.state === "playing" && !face.startedAt) face.startedAt = performance.now();
  if (session.active) dial.run();
  paint();
  face.mediaSession();
});
function titled({ detail }) {
  face.title = detail;
  paint();
  face.mediaSession();
}

// What is told with the sound is told when it is heard.
session.addEventListener("title", (event) => sound.told || titled(event));
sound.addEventListener("title", titled);
sound.addEventListener("way", () => {
  $("meter").hidden = true;
  $("volume").closest("label").hidden = !sound.adjustable;
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
if ("mediaSession" in navigator) {
  navigator.mediaSession.setActionHandler("play", () => session.active || start());
  for (const name of ["pause", "stop"]) navigator.mediaSession.setActionHandler(name, stop);
}
window.addEventListener("pagehide", () => session.active && stop());

function setVolume() {
  sound.volume = $("volume").valueAsNumber / 100;
  fill($("volume"));
}
$("volume").addEventListener("input", () => {
  setVolume();
  memory.set("volume", $("volume").valueAsNumber);
});

// ---- recording, starting over, MIDI ------------------------------------------------------------------------------

$("again").addEventListener("click", () => session.startOver());
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

// ---- beginning ---------------------------------------------------------------------------------------------------

const { prompts, stream, station } = brought();
stations.visiting = stream;
stations.selected = station;
mix.prompts = prompts ?? memory.get("mix") ?? FIRST;
$("volume").value = memory.get("volume") ?? 80;
setVolume();
knobs.show();
paint();
face.clock();

const refreshModels = () => knobs.refresh(session.info?.model);
refreshModels();
stations.load();
stations.refresh();
setInterval(() => stations.refresh(), 15_000);
$("model").closest("details").addEventListener("toggle", refreshModels); // models come and go while the page is open
