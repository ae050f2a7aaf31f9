// The operators' page: how the machine does, from the same figures that Prometheus reads.

import { address, listModels, listStreams, Problem } from "../api.js";
import { $, setText } from "../dom.js";
import { Figures } from "./metrics.js";
import { Plot } from "./plot.js";
import { paintModels, paintNodes, paintStreams } from "./tables.js";

const EVERY = 2000;

const digits = (value, count = 1) => (value === null ? "–" : value.toFixed(count));
const home = $("plots");

const steps = new Plot(home, {
  title: "Decoder step",
  unit: " ms",
  least: 5,
  lines: [{ name: "mean", color: "--accent" }, { name: "95 %", color: "--wave" }, { name: "budget of a frame", color: "--bad", dashed: true }],
  text: ([mean, high, budget]) => ({ words: `${digits(mean)} ms of ${digits(budget)}`, over: high !== null && high > budget }),
});
const speed = new Plot(home, {
  title: "Seconds made per second",
  unit: "×",
  lines: [{ name: "made", color: "--accent" }, { name: "played", color: "--bad", dashed: true }],
  text: ([made, played]) => ({ words: `${digits(made)}× for ${played} that play`, over: made < played }),
});
const ahead = new Plot(home, {
  title: "Sound ahead of listeners",
  unit: " s",
  lines: [{ name: "median stream", color: "--wave" }, { name: "least", color: "--accent" }],
  text: ([median, least]) => ({ words: least === null ? "nothing plays" : `least ${digits(least)} s, median ${digits(median)} s`, over: least !== null && least < 0.2 }),
});
const listeners = new Plot(home, {
  title: "Listeners",
  lines: [{ name: "connected", color: "--accent" }],
  text: ([count]) => ({ words: `${count}` }),
});
const faults = new Plot(home, {
  title: "Underruns and freezes per minute",
  lines: [{ name: "underruns", color: "--bad" }, { name: "freezes taken back", color: "--wave" }],
  text: ([underruns, freezes]) => ({ words: `${digits(underruns)} and ${digits(freezes)}`, over: underruns > 0 }),
});
const clips = new Plot(home, {
  title: "Clips",
  lines: [{ name: "waiting", color: "--wave" }, { name: "being made", color: "--accent" }],
  text: ([waiting, running]) => ({ words: `${waiting} wait, ${running} are made` }),
});

let before = null;

async function text(path) {
  const response = await fetch(address(path), { cache: "no-store", signal: AbortSignal.timeout(10_000) });
  if (response.status === 401) throw new Problem("This server asks for a token. Open the page with ?token=… at the end of its address.");
  return { ok: response.ok, text: await response.text() };
}

async function readiness() {
  const { ok, text: body } = await text("readyz");
  const ready = $("ready");
  ready.classList.toggle("bad", !ok);
  const said = JSON.parse(body);
  setText(ready, ok ? (said.model ? `Ready, plays ${said.model}` : "Ready, plays what other nodes make") : (said.detail ?? "Not ready"));
}

/** The nodes, or why they are not known. */
async function cluster() {
  const { ok, text: body } = await text("v1/nodes");
  const said = JSON.parse(body);
  if (!ok) throw new Problem(said.detail);
  return said;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}

function plot(figures, streams, models) {
  const playing = streams.filter((stream) => ["playing", "buffering"].includes(stream.state));
  const leads = playing.map((stream) => stream.buffered);
  const since = before ?? figures;
  const { mean, high } = figures.spread("continuo_step_seconds", since);
  const millis = (seconds) => (seconds === null ? null : 1000 * seconds);
  steps.add([millis(mean), millis(high), models.length ? 1000 / models[0].frame_rate : null]);
  speed.add([figures.sum("continuo_realtime_factor"), playing.length]);
  ahead.add([median(leads), leads.length ? Math.min(...leads) : null]);
  listeners.add([figures.sum("continuo_listeners")]);
  faults.add(["continuo_underruns_total", "continuo_freezes_total"].map((name) => figures.perMinute(name, since)));
  clips.add([figures.sum("continuo_clips_waiting"), figures.sum("continuo_clips_running")]);
  before = figures;
}

async function round() {
  const alert = $("alert");
  try {
    const [metrics, streams, models] = await Promise.all([text("metrics"), listStreams(), listModels(), readiness()]);
    if (metrics.ok) plot(new Figures(metrics.text), streams, models);
    paintStreams(streams);
    paintModels(models);
    paintNodes(await cluster());
    alert.hidden = true;
  } catch (error) {
    setText(alert, error instanceof Problem ? error.message : "The server cannot be reached; this page goes on asking.");
    alert.hidden = false;
  }
  setTimeout(round, EVERY);
}

round();
