#!/usr/bin/env node
// Memory of a server and of a page over a long time of HLS: hls.js in Chromium, with low latency. One line per minute.
//   scripts/soak-hls.mjs path/to/continuo [seconds] [serve options...]
import { readdirSync, readFileSync } from "node:fs";

import { hlsLibrary, memory, open, serve, sleep } from "./chromium.mjs";

const [continuo, seconds = "3600", ...options] = process.argv.slice(2);
/** Until then buffers fill. */
const WARM = 120;

const server = await serve(continuo, options);
const made = await fetch(`${server.url}/v1/streams`, { method: "POST", body: JSON.stringify({ prompts: ["lofi piano"] }) });
const { urls } = await made.json();
const page = await open(`${server.url}/icon.svg`);
await page.eval(`${hlsLibrary()}; 0`);
await page.eval(`
  window.audio = new Audio();
  window.hls = new Hls({ lowLatencyMode: true, backBufferLength: 30 });
  window.trouble = [];
  window.stops = 0;
  hls.on(Hls.Events.ERROR, (_, { fatal, details }) => fatal && trouble.push(details));
  audio.addEventListener("waiting", () => (stops += 1));
  hls.loadSource("${urls.hls}");
  hls.attachMedia(audio);
  audio.play();
  0`);
await page.until("audio.currentTime > 1");

/** All processes of the browser, in MB. */
function browser() {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const ours = pids.filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(page.profile);
    } catch {
      return false; // it has gone
    }
  });
  return ours.reduce((sum, pid) => sum + memory(pid), 0);
}

async function look(at) {
  await page.call("HeapProfiler.collectGarbage");
  const { metrics } = await page.call("Performance.getMetrics");
  const heap = metrics.find(({ name }) => name === "JSHeapUsedSize").value / 1e6;
  const [played, latency, stops, trouble] = await page.eval("[audio.currentTime, hls.latency, stops, trouble]");
  const now = { server: memory(server.pid), heap, browser: browser() };
  const told = Object.entries(now).map(([name, mb]) => `${name} ${mb.toFixed(1)} MB`).join(", ");
  console.log(`second ${at}: ${told}; played ${played.toFixed(1)} s, latency ${latency.toFixed(2)} s, ${stops} stops ${trouble}`);
  return now;
}

const begun = Date.now();
const passed = () => (Date.now() - begun) / 1000;
let warm = null;
for (let at = 0; ; at += 60) {
  await sleep(Math.max(0, at - passed()));
  const now = await look(at);
  if (at >= WARM) warm ??= now;
  if (at + 60 > Number(seconds)) {
    if (warm) console.log(Object.keys(now).map((name) => `${name} ${(now[name] - warm[name]).toFixed(1)} MB`).join(", "), `more than after ${WARM} s`);
    process.exit(0);
  }
}
