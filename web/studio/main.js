// The studio: binds session, sound, history and forms together.

import { $, setText } from "../dom.js";
import { namedModels } from "../api.js";
import { memory } from "../memory.js";
import { giveUp } from "./api.js";
import { Deck } from "./deck.js";
import { Intake } from "./intake.js";
import { Keys } from "./keys.js";
import { Out } from "./out.js";
import { Pieces } from "./pieces.js";
import { Project } from "./project.js";
import { Recorder } from "./recorder.js";
import { Renders } from "./renders.js";
import { Screen } from "./screen.js";
import { Sounds } from "./sounds.js";
import { Stage } from "./stage.js";
import { Tabs } from "./tabs.js";
import { Take } from "./take.js";
import { progress, title } from "./titles.js";
import { Tree } from "./tree.js";
import { Wave } from "./wave.js";

const project = new Project();
const sounds = new Sounds();
const deck = new Deck();
const wave = new Wave($("wave"), deck);
const stage = new Stage({ project, sounds, deck, wave });
const screen = new Screen({ project, stage, deck, wave, attempt });
const tree = new Tree($("nodes"), $("rails"), project, sounds);
const tabs = new Tabs(document.querySelector("[role=tablist]"));
const pieces = new Pieces({ project, stage, bars: () => screen.bars(), opened: open });
const renders = new Renders({ project, opened: open });
const intake = new Intake(project);
const recorder = new Recorder();
const take = new Take(project);
const out = new Out({ project, say });

// ---- what is said ------------------------------------------------------------------------------------------------

let notice = "";
let noticeTimer;

/** Says something for a moment, below the sound. */
function say(text, seconds = 5) {
  notice = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => {
    notice = "";
    paintStatus();
  }, seconds * 1000);
  paintStatus();
}

function fail(problem) {
  setText($("alert"), problem?.message ?? "");
  $("alert").hidden = !problem;
}

/** Does what the tools of the screen do; what the server refuses is said below them. */
async function attempt(action) {
  fail(null);
  try {
    await action();
  } catch (problem) {
    fail(problem);
  }
}

function paintStatus() {
  const making = project.making.map((clip) => `${title(clip)}: ${progress(clip)}`);
  const hint = project.place ? "Drag over the sound to select. ? shows all keys." : "";
  setText($("status"), notice || making.join(" · ") || hint);
}

// ---- sessions ----------------------------------------------------------------------------------------------------

/** Opens a session, and puts it into the address. */
async function open(id) {
  const url = new URL(location);
  url.searchParams.set("session", id);
  history.replaceState(null, "", url);
  memory.set("studio.session", id);
  stage.empty();
  await project.open(id);
}

function begin() {
  const url = new URL(location);
  url.searchParams.delete("session");
  history.replaceState(null, "", url);
  project.close();
  fail(null);
}

/** The session that was open here last, one click away. */
function offerEarlier() {
  const id = memory.get("studio.session");
  $("earlier").hidden = !id;
  if (!id) return;
  const link = Object.assign(document.createElement("a"), { textContent: "Open the session that you had last", href: "#" });
  link.addEventListener("click", (event) => {
    event.preventDefault();
    openOr(id);
  });
  $("earlier").replaceChildren(link);
}

async function openOr(id) {
  try {
    await open(id);
  } catch (problem) {
    if (problem.gone) {
      if (memory.get("studio.session") === id) memory.set("studio.session", null);
      begin();
    }
    fail(problem);
  }
}

project.addEventListener("gone", () => {
  begin();
  fail(project.gone);
});
project.addEventListener("connection", () => {
  setText($("connection"), project.connected ? "" : "The server cannot be reached. Trying again…");
  $("connection").classList.toggle("bad", !project.connected);
});

// ---- what changes ------------------------------------------------------------------------------------------------

const ended = new Map(); // how clips stood when they were looked at last

project.addEventListener("change", () => {
  for (const clip of project.clips.values()) {
    const before = ended.get(clip.id);
    ended.set(clip.id, clip.status);
    if (before && before !== clip.status && clip.status === "failed") fail({ message: `${title(clip)}: ${clip.error}` });
    if (before && before !== clip.status && clip.status === "completed") say(`${title(clip)} is there.`);
  }
  paint();
});
project.addEventListener("present", paint);
stage.addEventListener("change", () => {
  if (stage.problem) fail(stage.problem);
  paint();
});

function paint() {
  const { present, id } = project;
  const sound = Boolean(project.place);
  if (!id) offerEarlier();
  tabs.able("continue", sound);
  tabs.able("transform", sound);
  if (!sound && (tabs.shown === "continue" || tabs.shown === "transform")) tabs.show("generate");
  if (sound && !paint.had && tabs.shown === "generate") tabs.show("continue");
  paint.had = sound;
  $("fresh").disabled = !id;
  $("undo").disabled = !project.back;
  $("redo").disabled = !project.forth;
  $("retry").disabled = !pieces.retriable;
  $("no-history").hidden = project.clips.size > 0;
  const { slots } = stage;
  Object.assign(tree.marks, { a: stage.other || slots.a === present?.id ? slots.a : null, b: stage.other ? slots.b : null, heard: stage.live });
  for (const name of ["a", "b"]) {
    const clip = project.clips.get(slots[name]);
    const button = $(`slot-${name}`);
    setText(button.querySelector("span"), clip ? title(clip) : "–");
    button.disabled = !clip;
    button.setAttribute("aria-pressed", String(Boolean(clip) && slots.at === name));
  }
  tree.paint();
  out.paint();
  renders.suggest(screen.bars());
  paintStatus();
}

// ---- what is done ------------------------------------------------------------------------------------------------

const choose = (id) => id && attempt(() => project.choose(id));
const undo = () => choose(project.back?.id);
const redo = () => choose(project.forth?.id);
const retry = () => pieces.retriable && attempt(() => pieces.retry());
const flip = () => stage.other && attempt(() => stage.flip());
const record = () => recorder.open(screen.bars());

$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("retry").addEventListener("click", retry);
$("slot-a").addEventListener("click", () => stage.slots.at !== "a" && flip());
$("slot-b").addEventListener("click", () => stage.slots.at !== "b" && flip());
$("record").addEventListener("click", record);
$("bring-recording").addEventListener("click", record);
$("fresh").addEventListener("click", begin);

tree.addEventListener("open", ({ detail }) => choose(detail));
tree.addEventListener("compare", ({ detail }) => (detail === stage.other ? flip() : stage.compare(detail)));
tree.addEventListener("give-up", ({ detail }) => attempt(() => giveUp(detail)));
tree.addEventListener("listen", ({ detail }) => (stage.live === detail ? stage.stopListening() : stage.listen(project.clips.get(detail))));

recorder.addEventListener("recorded", ({ detail }) => intake.bring([detail]));
intake.addEventListener("taken", ({ detail }) => {
  fail(null);
  if (project.id === null) openOr(detail.id);
});
take.addEventListener("taken", ({ detail }) => project.id === null && openOr(detail));
intake.addEventListener("failed", ({ detail }) => fail(detail));
tabs.addEventListener("change", () => tabs.shown === "transform" && renders.load());

const form = (id) => () => {
  tabs.show(id);
  if (!$(id).hidden) $(id).querySelector("textarea, input").focus();
};
const still = (action) => () => stage.shown && !stage.live && action();

new Keys(
  [
    [[" "], "Play, pause", () => stage.shown && screen.toggle()],
    [["ArrowLeft"], "A beat back", still(() => screen.step(-1))],
    [["ArrowRight"], "A beat on", still(() => screen.step(1))],
    [["Shift+ArrowLeft"], "A bar back", still(() => screen.step(-1, true))],
    [["Shift+ArrowRight"], "A bar on", still(() => screen.step(1, true))],
    [["Home"], "To the beginning", still(() => (deck.currentTime = 0))],
    [["End"], "To the end", still(() => (deck.currentTime = deck.duration))],
    [["["], "Selection begins here", still(() => screen.edge("from"))],
    [["]"], "Selection ends here", still(() => screen.edge("to"))],
    [["Escape"], "No selection", still(() => screen.selection.set(null))],
    [["l"], "Repeat", still(() => screen.setCycle(!screen.cycles))],
    [["c"], "Crop to the selection", still(() => screen.crop())],
    [["z", "Ctrl+z"], "Undo", undo],
    [["Shift+z", "Ctrl+y", "Ctrl+Shift+z"], "Redo", redo],
    [["r"], "Retry", retry],
    [["b"], "Compare A and B, at the same place", flip],
    [["j"], "Older clip", () => choose(tree.beside(1))],
    [["k"], "Newer clip", () => choose(tree.beside(-1))],
    [["n"], "Name this clip", () => $("title").select()],
    [["1"], "Continue", form("continue")],
    [["2"], "Transform", form("transform")],
    [["3"], "Loop", form("loop")],
    [["4"], "New piece", form("generate")],
    [["Ctrl+Enter"], "In a form: make it", () => {}],
    [["s"], "Snap to bars", () => screen.setSnap(!screen.snaps)],
    [["d"], "A bar begins here", still(() => screen.barHere())],
    [["g"], "Spectrogram", still(() => $("spectrum").click())],
    [["+", "="], "Zoom in", () => wave.zoomBy(2)],
    [["-"], "Zoom out", () => wave.zoomBy(0.5)],
    [["0"], "All of it", () => wave.zoomBy(0)],
    [["o"], "Bring in a file", () => $("file").click()],
    [["m"], "Record", record],
    [["t"], "The last moments of a stream", () => take.open()],
    [["?"], "These keys", () => $("help").click()],
  ],
  { dialog: $("keys"), list: $("key-list"), button: $("help") },
);

// ---- beginning ---------------------------------------------------------------------------------------------------

screen.setSnap(screen.snaps);
tabs.show("generate");
screen.paint();
paint();
const named = new URLSearchParams(location.search).get("session");
if (named) openOr(named);

namedModels()
  .then(({ models, more }) => {
    const list = Object.assign(document.createElement("datalist"), { id: "models" });
    list.append(...models.map(({ id }) => new Option("loaded", id)), ...more.map((name) => new Option("is loaded first", name)));
    document.body.append(list);
  })
  .catch(() => {}); // the forms say so when it matters
