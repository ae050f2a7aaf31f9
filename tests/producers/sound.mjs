// 16-bit WAV files: made, and looked into.

export function wav(seconds, rate = 44100, channels = 1) {
 const frames = Math.round(seconds * rate), bytes = frames * channels * 2;
 const file = Buffer.alloc(44 + bytes);
 file.write('RIFF', 0); file.writeUInt32LE(36 + bytes, 4); file.write('WAVEfmt ', 8);
 file.writeUInt32LE(16, 16); file.writeUInt16LE(1, 20); file.writeUInt16LE(channels, 22);
 file.writeUInt32LE(rate, 24); file.writeUInt32LE(rate * channels * 2, 28);
 file.writeUInt16LE(channels * 2, 32); file.writeUInt16LE(16, 34);
 file.write('data', 36); file.writeUInt32LE(bytes, 40);
 // A second, again and again: a sine for every sample of a large file would take longer than its way to the server.
 const second = Math.min(frames, rate) * channels;
 for (let n = 0; n < second; n++) {
  file.writeInt16LE(Math.round(8000 * Math.sin(0.03 * Math.floor(n / channels))), 44 + 2 * n);
 }
 for (let at = 2 * second; at < bytes; at += 2 * second) file.copy(file, 44 + at, 44, 44 + Math.min(2 * second, bytes - at));
 return file;
}

export function look(base64) {
 const file = Buffer.from(base64, 'base64');
 const channels = file.readUInt16LE(22), rate = file.readUInt32LE(24);
 return {
  file, channels, rate,
  bits: file.readUInt16LE(34),
  frames: (file.length - 44) / channels / 2,
  // Channel 0 from frame `from` to `to`.
  left: (from, to) => Array.from({ length: to - from }, (_, n) => file.readInt16LE(44 + (from + n) * channels * 2)),
 };
}
