// The server's native API, as far as the page needs it. Every failure becomes a `Problem` with one plain sentence.

/** What went wrong, in words for a person. `retryAfter` is in seconds, or null when trying again is no help. */
export class Problem extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** The stream is no longer there: another one has to be made. */
  get gone() {
    return this.status === 404 || this.status === 410;
  }
}

/** A server with a token gives it to its guests in the page's address; media elements can send it only as a query. */
const token = new URLSearchParams(location.search).get("token");

/** The page may be served below a path prefix, so every address is taken relative to the page's own. */
export function address(path) {
  const url = new URL(path, new URL(".", document.baseURI));
  if (token) url.searchParams.set("token", token);
  return url.href;
}

/** One request; the answer's JSON, or null. */
export async function request(method, path, body, options = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: options.keepalive ? undefined : AbortSignal.timeout(options.timeout ?? 20_000),
      cache: "no-store",
      ...options,
    });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Problem("The server takes too long to answer.", { retryAfter: 3 });
    throw new Problem("The server cannot be reached.", { retryAfter: 3 });
  }
  if (!response.ok) throw await problemOf(response);
  return parsed(await response.text().catch(() => ""));
}

/** JSON, or null. */
export function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null; // not ours: a proxy's page, say
  }
}

async function problemOf(response) {
  return problem(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After"));
}

/** What an answer that is an error says. */
export function problem(status, text, retry) {
  if (status === 401) {
    return new Problem("This server asks for a token. Open the page with ?token=… at the end of its address.", { status });
  }
  const json = parsed(text);
  const header = Number.parseInt(retry ?? "", 10);
  const waits = status === 429 || status >= 500;
  const retryAfter = waits ? (Number.isFinite(header) ? Math.max(1, header) : 5) : null;
  return new Problem(json?.detail ?? json?.title ?? `The server answered with an error (${status}).`, { status, retryAfter });
}

/** A media element does not say why it stopped; asking for its address again does. Null when nothing is wrong. */
export async function whyNot(url) {
  const abort = new AbortController();
  try {
    const response = await fetch(url, { signal: abort.signal, cache: "no-store" });
    return response.ok ? null : await problemOf(response);
  } catch {
    return new Problem("The server cannot be reached.", { retryAfter: 3 });
  } finally {
    abort.abort();
  }
}

const stream = (id) => `v1/streams/${encodeURIComponent(id)}`;

export const createStream = (spec) => request("POST", "v1/streams", spec);
export const showStream = (id) => request("GET", stream(id));
export const steerStream = (id, change) => request("PATCH", stream(id), change);
export const resetStream = (id) => request("POST", `${stream(id)}/reset`);
export const deleteStream = (id) => request("DELETE", stream(id), undefined, { keepalive: true });
/** What was asked of it and when, as far as the server keeps what it plays. */
export const streamHistory = (id) => request("GET", `${stream(id)}/history`);
/** A new stream that goes on from a moment of this one. */
export const forkStream = (id, from) => request("POST", `${stream(id)}/fork`, from);
/** A part of it as a session of the studio. */
export const clipStream = (id, part) => request("POST", `${stream(id)}/clip`, part, { timeout: 120_000 });
export const recordingAddress = (id, { from, to, format }) => {
  const end = to === undefined ? "" : `&to=${to.toFixed(3)}`;
  return address(`${stream(id)}/recording?from=${from.toFixed(3)}${end}&format=${format}`);
};
export const studioAddress = (session) => address(`studio?session=${encodeURIComponent(session)}`);
/** A live address, from a moment in the past on. */
export const since = (url, at) => (at === null ? url : `${url}${url.includes("?") ? "&" : "?"}at=${at.toFixed(3)}`);
export const eventsAddress = (id) => address(`${stream(id)}/events`);
/** Its sound as Ogg Opus in short pages, and its events, over a WebSocket. */
export const socketAddress = (id) => address(`${stream(id)}/ws?format=ogg&latency=low`).replace(/^http/, "ws");
/** The same in pieces, for browsers that play playlists. */
export const playlistAddress = (id) => address(`${stream(id)}/hls/master.m3u8`);
export const audioAddress = (id, format) => address(`${stream(id)}/audio.${format}`);

/** What a listing lists. */
export const list = (json, key) => (Array.isArray(json) ? json : (json?.[key] ?? []));
export const listStreams = async () => list(await request("GET", "v1/streams"), "streams");
export const namedModels = () => request("GET", "v1/models");
export const listModels = async () => list(await namedModels(), "models");
export const listStarters = async () => list(await request("GET", "stations.json"), "stations");
