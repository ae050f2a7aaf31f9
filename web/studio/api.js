// The server's clips and sessions, as far as the studio needs them.

import { address, list, parsed, Problem, problem, request } from "../api.js";

export { address, Problem };

const session = (id) => `v1/sessions/${encodeURIComponent(id)}`;
const clip = (id) => `v1/clips/${encodeURIComponent(id)}`;
/** Work is taken on once it is on disk and a sound that comes with it is read: that may take a while. */
const SLOW = { timeout: 120_000 };

export const showSession = (id) => request("GET", session(id));
export const listClips = async (id) => list(await request("GET", `v1/clips?session=${encodeURIComponent(id)}`), "clips");
export const choose = (id, clip) => request("PATCH", session(id), { clip });
export const crop = (id, from, to) => request("POST", `${session(id)}/crop`, { from, to }, SLOW);
export const goOn = (id, wish) => request("POST", `${session(id)}/continue`, wish, SLOW);
export const retry = (id, wish) => request("POST", `${session(id)}/retry`, wish, SLOW);
export const generate = (wish) => request("POST", "v1/clips", { verb: "generate", ...wish }, SLOW);
export const makeLoop = (wish) => request("POST", "v1/loops", wish, SLOW);
export const sessionEvents = (id) => address(`${session(id)}/events`);

export function transform(wish) {
  const query = new URLSearchParams(Object.entries(wish).filter(([, value]) => value !== undefined && value !== ""));
  return request("POST", `v1/transforms?${query}`, undefined, SLOW);
}

export const giveUp = (id) => request("DELETE", clip(id));
export const rename = (id, name) => request("PATCH", clip(id), { name });
export const streamOf = (id) => request("POST", `${clip(id)}/stream`, undefined, SLOW);
/** The last seconds of a stream, into a session (a new one without `session`). */
export const cutOut = (stream, seconds, session) =>
  request("POST", `v1/streams/${encodeURIComponent(stream)}/clip`, { from: -seconds, to: "-0", ...(session ? { session } : {}) }, SLOW);
export const presets = async () => list(await request("GET", "v1/transforms"), "presets");

/** Where a sound is: that of a clip, or, of sessions that older programs made, the session's own. */
export const soundOf = (place, file) => address(`${place.clip ? clip(place.clip) : session(place.session)}/${file}`);
export const drawingOf = (place) =>
  request("GET", place.clip ? `${clip(place.clip)}/peaks` : `${session(place.session)}/peaks`, undefined, {
    ...SLOW,
    cache: "default",
  });

/** The bytes of a sound. */
export const bytesOf = (place) => bytesAt(soundOf(place, "audio.wav"));

export async function bytesAt(url) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Problem("The server cannot be reached.", { retryAfter: 3 });
  }
  if (!response.ok) throw problem(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After"));
  return response.arrayBuffer();
}

/** Sends a file as a session's sound (a new session's without `id`). `told(part)` hears how much has gone. */
export function upload(file, id, told, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", address(id ? `v1/sessions?session=${encodeURIComponent(id)}` : "v1/sessions"));
    sending.setRequestHeader("Content-Type", file.type.startsWith("audio/") ? file.type : "application/octet-stream");
    sending.upload.onprogress = ({ loaded, total }) => told(total ? loaded / total : 0);
    sending.onload = () => {
      const { status, responseText } = sending;
      if (status >= 200 && status < 300) resolve(parsed(responseText));
      else reject(problem(status, responseText, sending.getResponseHeader("Retry-After")));
    };
    sending.onerror = () => reject(new Problem("The server cannot be reached.", { retryAfter: 3 }));
    sending.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}
