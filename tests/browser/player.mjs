// The page's audio worklet on a made-up clock: what it keeps in store when the network stumbles, and afterwards.
import assert from "node:assert";
import { readFileSync } from "node:fs";

const RATE = 48000;
const BLOCK = 128;
let Player;
globalThis.sampleRate = RATE;
globalThis.AudioWorkletProcessor = class {
  port = { postMessage() {} };
};
globalThis.registerProcessor = (_, type) => (Player = type);
new Function(readFileSync(process.argv[2], "utf8"))();

const player = new Player();
let [sent, now, dry] = [0, 0, 0];
/** Plays for some seconds; the server sends 20 ms pieces 0.24 s ahead, except while it is silent. */
function play(seconds, silent) {
  for (const end = now + seconds; now < end; now += BLOCK / RATE) {
    while (!silent && sent < now + 0.24) {
      player.put([new Float32Array(RATE / 50)]);
      sent += 0.02;
    }
    const before = player.playing;
    player.process(null, [[new Float32Array(BLOCK)]]);
    if (before && !player.playing) dry += 1;
  }
}

play(10);
assert(player.playing && dry === 0, "an even network is played without a gap");
assert.equal(player.target, 0.2 * RATE);
play(1.5, true);
assert.equal(dry, 1, "a gap of the network that is longer than the store is heard once");
assert.equal(player.target, 0.4 * RATE, "and then more is kept");
play(20);
assert.equal(player.target, 0.4 * RATE, "at first");
play(300);
assert.equal(dry, 1, "nothing is missing while the store shrinks");
assert.equal(player.target, 0.2 * RATE, "after a calm while as much as at the start");
const held = (player.held - player.at) / RATE;
assert(held < 0.75, `the store follows: ${held} s`);
