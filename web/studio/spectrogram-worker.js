// The spectrum of a sound, column by column, rows evenly spaced in pitch from 40 Hz to 16 kHz, the highest first.

const SIZE = 2048;
const MOST = 2400; // columns
const [LOWEST, HIGHEST] = [40, 16_000];
const FLOOR = -95; // dB that are drawn as nothing

onmessage = ({ data: { channels, rate, rows } }) => {
  const mono = channels[0];
  for (const other of channels.slice(1)) for (let i = 0; i < mono.length; i++) mono[i] += other[i];
  const columns = Math.max(1, Math.min(MOST, Math.floor(mono.length / 256)));
  const levels = new Uint8Array(columns * rows);
  const shape = Float32Array.from({ length: SIZE }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / SIZE));
  const [re, im] = [new Float32Array(SIZE), new Float32Array(SIZE)];
  const fft = transform(SIZE);
  const edge = (row) => (LOWEST * (HIGHEST / LOWEST) ** (row / rows) * SIZE) / rate;
  for (let column = 0; column < columns; column++) {
    const middle = ((column + 0.5) * mono.length) / columns;
    const from = Math.round(middle - SIZE / 2);
    for (let n = 0; n < SIZE; n++) re[n] = (mono[from + n] ?? 0) * shape[n];
    im.fill(0);
    fft(re, im);
    for (let row = 0; row < rows; row++) {
      const low = Math.floor(edge(row));
      const high = Math.min(SIZE / 2, Math.max(low + 1, Math.floor(edge(row + 1))));
      let power = 0;
      for (let bin = low; bin < high; bin++) power = Math.max(power, re[bin] ** 2 + im[bin] ** 2);
      const decibels = 10 * Math.log10((power * 16) / SIZE ** 2 / channels.length ** 2 + 1e-12);
      levels[(rows - 1 - row) * columns + column] = 255 * Math.max(0, Math.min(1, (decibels - FLOOR) / -FLOOR));
    }
  }
  postMessage({ columns, rows, levels }, [levels.buffer]);
};

/** The fast Fourier transform of `size` points, a power of two, in place. */
function transform(size) {
  const bits = Math.log2(size);
  const places = Uint32Array.from({ length: size }, (_, n) => {
    let place = 0;
    for (let bit = 0; bit < bits; bit++) place |= ((n >> bit) & 1) << (bits - 1 - bit);
    return place;
  });
  const cos = Float32Array.from({ length: size / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / size));
  const sin = Float32Array.from({ length: size / 2 }, (_, n) => -Math.sin((2 * Math.PI * n) / size));
  return (re, im) => {
    for (let n = 0; n < size; n++) {
      const other = places[n];
      if (other > n) {
        [re[n], re[other]] = [re[other], re[n]];
        [im[n], im[other]] = [im[other], im[n]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let n = 0; n < half; n++) {
          const [a, b] = [start + n, start + n + half];
          const [c, s] = [cos[n * stride], sin[n * stride]];
          const [x, y] = [re[b] * c - im[b] * s, re[b] * s + im[b] * c];
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  };
}
