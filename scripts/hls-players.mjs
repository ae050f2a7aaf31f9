#!/usr/bin/env node
// What players that are no browser make of our HLS, and hls.js in Firefox: each that is installed of ffmpeg, mpv and VLC
// writes down what it plays, which has to be a piece of what the server recorded, without a gap.
//   scripts/hls-players.mjs path/to/continuo [seconds] [serve options...]
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { answer, connect, hlsLibrary, run, serve, sleep } from "./chromium.mjs";

const [continuo, seconds = "20", ...options] = process.argv.slice(2);
const RATE = 8000; // Hz at which sounds are compared
const folder = mkdtempSync(join(tmpdir(), "continuo-players-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }));

const PLAYERS = {
  ffmpeg: (url, file) => ["-v", "error", "-i", url, "-t", seconds, "-y", file],
  mpv: (url, file) => ["--no-config", "--no-video", "--really-quiet", "--ao=pcm", `--ao-pcm-file=${file}`, `--length=${seconds}`, url],
  // Its options for the end mean media time, which began long ago: it is told when to stop.
  cvlc: (url, file) => ["--quiet", "--no-video", "--aout=afile", `--audiofile-file=${file}`, "--audiofile-channels=2", url],
};

/** VLC refuses to be run by root. */
const nobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534, env: { ...process.env, HOME: folder } } : {};
chmodSync(folder, 0o777);

/** A file as samples of one channel at `RATE`. */
function samples(file) {
  const { stdout } = spawnSync("ffmpeg", ["-v", "error", "-i", file, "-ac", "1", "-ar", String(RATE), "-f", "f32le", "-"], {
    maxBuffer: 1 << 30,
  });
  return new Float32Array(stdout.buffer, stdout.byteOffset, stdout.length >> 2);
}

/** How alike a window of one sound and a place of another are, from -1 to 1. */
function alike(one, at, other, place, length) {
  let [sum, ours, theirs] = [0, 0, 0];
  for (let i = 0; i < length; i++) {
    const [a, b] = [one[at + i], other[place + i]];
    sum += a * b;
    ours += a * a;
    theirs += b * b;
  }
  return sum / Math.sqrt(ours * theirs || 1);
}

/** Where a window of `heard` lies in `made`: the place at which they are most alike. */
function place(heard, at, made, length) {
  let [best, found] = [-1, 0];
  for (let lag = 0; lag + length < made.length; lag++) {
    const now = alike(heard, at, made, lag, length);
    if (now > best) [best, found] = [now, lag];
  }
  return [found, best];
}

function judge(name, file, made) {
  const heard = samples(file);
  const window = RATE / 2;
  // The beginning is faded in, the end may be cut anywhere.
  const begin = RATE;
  const [lag] = place(heard, begin, made, window);
  let [worst, at] = [1, begin];
  for (; at + window < heard.length && lag - begin + at + window < made.length; at += window) {
    let best = -1;
    // Clocks of players that resample drift by a sample now and then.
    for (let off = -4; off <= 4; off++) best = Math.max(best, alike(heard, at, made, lag - begin + at + off, window));
    worst = Math.min(worst, best);
  }
  const told = `${(heard.length / RATE).toFixed(1)} s, least alike in half a second: ${worst.toFixed(3)}`;
  console.log(`${name}: ${told}${worst > 0.9 && at > 8 * RATE ? "" : "  NOT what was made"}`);
  if (!(worst > 0.9 && at > 8 * RATE)) process.exitCode = 1;
}

/** hls.js in Firefox, from a page of another origin: plays, goes back, and comes to the live edge again. */
async function firefox(program, page, url) {
  const profile = join(folder, "firefox");
  mkdirSync(profile);
  writeFileSync(join(profile, "user.js"), 'user_pref("media.autoplay.default", 0);\n');
  const port = 20000 + Math.floor(20000 * Math.random());
  run(program, ["--headless", "--no-remote", "--profile", profile, `--remote-debugging-port=${port}`, "about:blank"]);
  const call = await answer(() => connect(`ws://127.0.0.1:${port}/session`));
  await call("session.new", { capabilities: {} });
  const { contexts } = await call("browsingContext.getTree");
  const { context } = contexts[0];
  await call("browsingContext.navigate", { context, url: page, wait: "complete" });
  const evaluate = async (expression) => {
    const told = await call("script.evaluate", { expression, target: { context }, awaitPromise: true });
    if (told.result?.type !== "string") throw new Error(`${expression}: ${JSON.stringify(told)}`);
    return JSON.parse(told.result.value);
  };
  const ask = (expression) => evaluate(`JSON.stringify(${expression})`);
  await evaluate(`
    window.audio = new Audio();
    // Without sound it plays by its own clock: there may be no device to play on.
    audio.muted = true;
    window.hls = new Hls({ lowLatencyMode: true });
    window.trouble = [];
    window.titles = [];
    hls.on(Hls.Events.ERROR, (_, { fatal, details }) => fatal && trouble.push(details));
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      titles = Object.values(details.dateRanges ?? {}).map((range) => range.attr["X-TITLE"]);
    });
    hls.loadSource("${url}");
    hls.attachMedia(audio);
    audio.play();
    "0"`);
  await answer(async () => (await ask("audio.currentTime")) > 1);
  await sleep(8);
  const before = await ask("[audio.currentTime, performance.now()]");
  await sleep(Number(seconds));
  const after = await ask("[audio.currentTime, performance.now()]");
  const pace = (after[0] - before[0]) / ((after[1] - before[1]) / 1000);
  const [latency, trouble, titles, type] = await ask("[hls.latency, trouble, titles, hls.levels[hls.currentLevel]?.audioCodec]");
  console.log(`${program}: ${type}, ${pace.toFixed(3)} of real time, latency ${latency.toFixed(2)} s, titles ${JSON.stringify(titles)} ${trouble}`);
  await ask("audio.currentTime = Math.max(0.5, audio.currentTime - 300)");
  const back = await ask("audio.currentTime");
  await answer(async () => (await ask("audio.currentTime")) > back + 2);
  console.log(`${program}: plays on ${(after[0] - back).toFixed(0)} s earlier ${await ask("trouble")}`);
  if (!(Math.abs(pace - 1) < 0.05 && trouble.length === 0)) process.exitCode = 1;
}

const installed = (program) => spawnSync("which", [program]).status === 0;
const html = `<!doctype html><script>${hlsLibrary()}</script><body>`;
const pages = createServer((_, reply) => reply.setHeader("content-type", "text/html").end(html)).listen(0, "127.0.0.1");
await new Promise((listens) => pages.on("listening", listens));
const page = `http://127.0.0.1:${pages.address().port}`;
const server = await serve(continuo, ["--allow-origin", page, ...options]);
const made = await fetch(`${server.url}/v1/streams`, { method: "POST", body: JSON.stringify({ prompts: ["lofi piano"] }) });
const { id, urls } = await made.json();
const url = `${server.url}${urls.hls}`;
const files = [];
for (const [name, command] of Object.entries(PLAYERS).filter(([name]) => installed(name))) {
  const file = join(folder, `${name}.wav`);
  const player = spawn(name, command(url, file), { stdio: "ignore", timeout: 1000 * (3 * Number(seconds) + 30), ...nobody });
  const stop = name === "cvlc" && setTimeout(() => player.kill("SIGINT"), 1000 * (Number(seconds) + 10));
  const [code] = await new Promise((done) => player.on("exit", (...end) => done(end)));
  clearTimeout(stop);
  if (code !== 0) console.log(`${name}: ended with ${code}`);
  files.push([name, file]);
}
const { to } = await (await fetch(`${server.url}/v1/streams/${id}/history`)).json();
const recording = await fetch(`${server.url}/v1/streams/${id}/recording?from=0&to=${to}&format=wav`);
writeFileSync(join(folder, "made.wav"), new Uint8Array(await recording.arrayBuffer()));
const whole = samples(join(folder, "made.wav"));
for (const [name, file] of files) judge(name, file, whole);
const program = ["firefox", "firefox-esr"].find(installed);
if (program) await firefox(program, page, url);
process.exit();
