// What plays, on what and where, as tables.

import { $, make } from "../dom.js";

const words = (stream) => stream.prompts.map((prompt) => prompt.text).filter(Boolean).join(" + ") || "no description";

const isHeard = (stream) => ["playing", "buffering"].includes(stream.state);

function row(stream) {
  const name = make("td", {}, stream.name ?? stream.id.slice(0, 8), make("small", { textContent: words(stream) }),
    ...(stream.node ? [make("small", { textContent: `at ${stream.node}` })] : []));
  const waits = stream.waiting?.reason ?? stream.reason ?? "";
  const state = make("td", {}, stream.state, make("small", { textContent: waits }));
  const figure = (text, low = false) => make("td", { class: "figure" }, make("span", { class: low ? "low" : "", textContent: text }));
  const plays = isHeard(stream);
  return make(
    "tr", {}, name, state,
    figure(stream.listeners),
    figure(plays ? `${stream.buffered.toFixed(1)} s` : "–", plays && stream.buffered < 0.2),
    figure(plays ? `${stream.realtime_factor.toFixed(1)}×` : "–", plays && stream.realtime_factor < 1),
    figure(stream.underruns, stream.underruns > 0),
    figure(stream.freezes),
  );
}

export function paintStreams(streams) {
  // Those that play come first, each group in the server's order.
  const sorted = [...streams].sort((a, b) => isHeard(b) - isHeard(a));
  $("streams").replaceChildren(...sorted.map(row));
  $("none").hidden = streams.length > 0;
  const heard = streams.reduce((sum, stream) => sum + stream.listeners, 0);
  $("streams-sum").textContent = streams.length ? `${streams.length}, heard by ${heard}` : "";
}

const takenOver = ({ takeovers, takeover_seconds: took }) =>
  took == null ? String(takeovers) : `${takeovers}, ${Math.round(took * 1000)} ms`;

/** The nodes of a cluster; a server by itself has none. */
export function paintNodes({ cluster, node: here, nodes }) {
  $("cluster").hidden = !cluster;
  const figure = (text, low = false) => make("td", { class: "figure" }, make("span", { class: low ? "low" : "", textContent: text }));
  $("nodes").replaceChildren(...nodes.map((node) => make(
    "tr", {},
    make("td", {}, node.name, make("small", { textContent: [node.role === "edge" ? "edge" : "", node.name === here ? "this page" : ""].filter(Boolean).join(", ") })),
    make("td", { textContent: node.version }),
    figure(node.streams), figure(node.room, node.room === 0), figure(node.listeners), figure(takenOver(node)),
  )));
  $("nodes-sum").textContent = cluster ? `${nodes.length} of ${cluster}` : "";
}

export function paintModels(models) {
  $("models").replaceChildren(...models.map((model) => {
    const facts = [
      model.description, `${model.sample_rate / 1000} kHz`, model.channels === 2 ? "stereo" : "mono",
      `${Math.round(model.window_seconds)} s of memory`, `${(model.realtime_factor ?? 0).toFixed(1)}× real time`,
    ];
    return make("li", {}, model.id, make("small", { textContent: ` ${facts.join(" · ")}` }));
  }));
}
