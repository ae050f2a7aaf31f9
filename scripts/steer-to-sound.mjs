#!/usr/bin/env node
// From the key that changes a prompt in the page to the changed music leaving the page's sound graph, recorded in Chromium.
//   scripts/steer-to-sound.mjs path/to/continuo [changes] [serve options...]
//
// The server answers a change with the media time from which on the music is another. What it recorded from there on is
// looked for in what the page has played since the key was pressed. The system's own buffer for the sound comes on top.
import { open, quantile, serve, sleep } from "./chromium.mjs";

const [continuo, changes = "20", ...options] = process.argv.slice(2);
const PROMPTS = ["drum and bass, fast breakbeats", "solo cello, slow", "techno, hard kick", "harp, bright arpeggios"];

/** Keeps the last seconds that the page plays, and what it needs to say when that was. */
const TAPE = `
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof MediaStreamAudioDestinationNode) record(this);
    return connect.call(this, to, ...rest);
  };
  const PROCESSOR = \`registerProcessor("tape", class extends AudioWorkletProcessor {
    process([[plane]]) {
      if (plane) this.port.postMessage({ frame: currentFrame, plane: plane.slice() });
      return true;
    }
  });\`;
  window.tape = [];
  async function record(node) {
    window.context = node.context;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([PROCESSOR], { type: "text/javascript" })));
    const recorder = new AudioWorkletNode(context, "tape", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => {
      tape.push(data);
      if (tape.length > 8 * 375) tape.shift();
    };
    connect.call(node, recorder);
  }
  addEventListener("keydown", (event) => event.key === "Enter" && (window.pressed = performance.now()), true);
  const plain = window.fetch;
  window.fetch = async (url, options) => {
    const answer = await plain(url, options);
    if (options?.method === "PATCH") answer.clone().json().then((ack) => (window.ack = ack));
    return answer;
  };
  const every8 = (sound) => Float32Array.from({ length: sound.length >> 3 }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < 8; k++) sum += sound[8 * i + k];
    return sum;
  });
  // When the sound of a recording was played, and how alike the two are there.
  window.played = async (address) => {
    const file = await (await plain(address)).arrayBuffer();
    const channels = new DataView(file).getUint16(22, true);
    const samples = new Int16Array(file.slice(44, 44 + 2 * Math.floor((file.byteLength - 44) / 2)));
    const wanted = every8(Float32Array.from({ length: samples.length / channels }, (_, i) => samples[channels * i]));
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    const when = (frame) => performanceTime + 1000 * (frame / context.sampleRate - contextTime);
    const pieces = tape.filter(({ frame }) => when(frame) > pressed);
    const heard = every8(Float32Array.from(pieces.flatMap(({ plane }) => [...plane])));
    const power = (sound, from, length) => {
      let sum = 0;
      for (let i = from; i < from + length; i++) sum += sound[i] * sound[i];
      return sum;
    };
    const ours = power(wanted, 0, wanted.length);
    let [best, place] = [0, 0];
    for (let lag = 0; lag + wanted.length < heard.length; lag++) {
      let sum = 0;
      for (let i = 0; i < wanted.length; i++) sum += wanted[i] * heard[lag + i];
      const alike = sum / Math.sqrt(ours * power(heard, lag, wanted.length) || 1);
      if (alike > best) [best, place] = [alike, lag];
    }
    return { delay: when(pieces[0].frame + 8 * place) - pressed, alike: best };
  };`;

const server = await serve(continuo, options);
const page = await open(`${server.url}/`, TAPE);
await page.eval("document.querySelector('details.advanced').open = true, ramp.value = 0, ramp.dispatchEvent(new Event('input')), 0");
await page.eval("document.getElementById('play').click()");
await page.until("tape.length > 2000");
const id = (await (await fetch(`${server.url}/v1/streams`)).json()).streams.find(({ listeners }) => listeners > 0).id;
const stream = `${server.url}/v1/streams/${id}`;
const delays = [];
for (let n = 0; delays.length < Number(changes) && n < 3 * Number(changes); n++) {
  await page.eval("window.ack = null, document.querySelector('#mix textarea').focus(), document.activeElement.select(), 0");
  await page.call("Input.insertText", { text: PROMPTS[n % PROMPTS.length] });
  for (const type of ["keyDown", "keyUp"]) {
    await page.call("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: type === "keyDown" ? "\r" : "" });
  }
  const { at } = await page.until("window.ack", 10);
  while ((await (await fetch(`${stream}/history`)).json()).to < at + 0.6) await sleep(0.2);
  const { delay, alike } = await page.eval(`played("${stream}/recording?from=${at}&to=${at + 0.4}")`);
  // What is silent there cannot be found.
  if (alike < 0.7) console.log(`${PROMPTS[n % PROMPTS.length]}: not found (${alike.toFixed(2)})`);
  else delays.push(delay / 1000);
  await sleep(1 + Math.random());
}
const [p50, p95] = [0.5, 0.95].map((share) => quantile(delays, share).toFixed(3));
console.log(`${delays.length} changes: p50 ${p50} s, p95 ${p95} s, ${Math.min(...delays).toFixed(3)} to ${Math.max(...delays).toFixed(3)} s`);
process.exit(0);
