// A session's clips as a graph: rows in the order in which they were made, the newest first, and for each a column, so
// that what goes on from a clip stands above it and branches stand beside.

/** `clips`, the oldest first, as `{ clip, row, column, parent: { row, column } | null }`, the newest first. */
export function graph(clips) {
  const rows = new Map(clips.map((clip, index) => [clip.id, clips.length - 1 - index]));
  const chains = [];
  const chainOf = new Map();
  for (const clip of clips) {
    const before = chainOf.get(clip.parent);
    // A chain goes on at its end; whatever else comes of a clip is a branch.
    const goesOn = before?.at(-1).id === clip.parent;
    const chain = goesOn ? before : [];
    if (!goesOn) chains.push(chain);
    chain.push(clip);
    chainOf.set(clip.id, chain);
  }
  const taken = []; // per column, the spans of rows that chains take in it
  const columns = new Map();
  for (const chain of chains) {
    const bottom = rows.get(chain[0].parent) ?? rows.get(chain[0].id);
    const top = rows.get(chain.at(-1).id);
    let column = taken.findIndex((spans) => spans.every((span) => span.top > bottom || span.bottom < top));
    if (column < 0) column = taken.push([]) - 1;
    taken[column].push({ top, bottom });
    for (const clip of chain) columns.set(clip.id, column);
  }
  const place = (id) => (rows.has(id) ? { row: rows.get(id), column: columns.get(id) } : null);
  return clips.toReversed().map((clip) => ({ clip, ...place(clip.id), parent: place(clip.parent) }));
}
