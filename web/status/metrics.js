// The server's figures: the text that Prometheus reads, and what happened between two readings of it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The figures of one moment. */
export class Figures {
  constructor(text) {
    this.at = performance.now() / 1000;
    this.rows = new Map();
    for (const line of text.split("\n")) {
      const found = LINE.exec(line);
      if (!found) continue;
      const [, name, labels = "", value] = found;
      const row = { value: Number(value) };
      for (const [, label, of] of labels.matchAll(LABEL)) row[label] = of;
      if (!this.rows.has(name)) this.rows.set(name, []);
      this.rows.get(name).push(row);
    }
  }

  /** The sum over all labels; `otherwise` if nothing was counted yet. */
  sum(name, otherwise = 0) {
    const rows = this.rows.get(name);
    return rows ? rows.reduce((sum, row) => sum + row.value, 0) : otherwise;
  }

  /** How much was counted since `before`, a minute. */
  perMinute(name, before) {
    const seconds = this.at - before.at;
    return seconds > 0 ? (60 * Math.max(0, this.sum(name) - before.sum(name))) / seconds : 0;
  }

  /** Mean and 95th percentile of a histogram since `before`; nulls if nothing was measured. */
  spread(name, before) {
    const count = this.sum(`${name}_count`) - before.sum(`${name}_count`);
    if (count <= 0) return { mean: null, high: null };
    const mean = (this.sum(`${name}_sum`) - before.sum(`${name}_sum`)) / count;
    const buckets = this.buckets(name);
    const earlier = before.buckets(name);
    const within = ([bound, value]) => [bound, value - (earlier.get(bound) ?? 0)];
    const sorted = [...buckets].map(within).sort(([a], [b]) => a - b);
    const reached = sorted.find(([, value]) => value >= 0.95 * count);
    const largest = sorted.filter(([bound]) => Number.isFinite(bound)).at(-1);
    return { mean, high: Number.isFinite(reached?.[0]) ? reached[0] : (largest?.[0] ?? null) };
  }

  buckets(name) {
    const counts = new Map();
    for (const row of this.rows.get(`${name}_bucket`) ?? []) {
      const bound = row.le === "+Inf" ? Infinity : Number(row.le);
      counts.set(bound, (counts.get(bound) ?? 0) + row.value);
    }
    return counts;
  }
}
