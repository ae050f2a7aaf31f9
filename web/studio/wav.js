// Samples as a WAV file of 24 bits, so that nothing of a recording is lost.

/** `channels`: one list of blocks (Float32Array) per channel. */
export function wav(channels, rate) {
  const frames = channels[0].reduce((sum, block) => sum + block.length, 0);
  const bytes = frames * channels.length * 3;
  const view = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels.length * 3, true);
  view.setUint16(32, channels.length * 3, true);
  view.setUint16(34, 24, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  channels.forEach((blocks, channel) => {
    let at = 44 + 3 * channel;
    for (const block of blocks) {
      for (const sample of block) {
        const value = Math.round(Math.max(-1, Math.min(1, sample)) * 0x7f_ff_ff);
        view.setUint16(at, value & 0xff_ff, true);
        view.setInt8(at + 2, value >> 16);
        at += 3 * channels.length;
      }
    }
  });
  return new Blob([view.buffer], { type: "audio/wav" });
}
