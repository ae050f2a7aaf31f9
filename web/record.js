// Recording: a second listener of the same stream, kept as the server sent it and saved as a file. Nothing is encoded again.

import { save } from "./dom.js";

const MOST_BYTES = 512 * 1024 * 1024; // about twelve hours

export class Recorder extends EventTarget {
  constructor() {
    super();
    this.abort = null;
    this.error = "";
  }

  get active() {
    return this.abort !== null;
  }

  async begin(url, format, name) {
    const abort = new AbortController();
    this.abort = abort;
    this.error = "";
    this.tell();
    const parts = [];
    let size = 0;
    try {
      const response = await fetch(url, { signal: abort.signal, cache: "no-store" });
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      const reader = response.body.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done || size > MOST_BYTES) break;
        parts.push(value);
        size += value.length;
      }
    } catch (error) {
      if (error.name !== "AbortError") this.error = `The recording stopped: ${error.message}.`;
    }
    abort.abort();
    this.abort = null;
    if (size) save(new Blob(parts, { type: format === "ogg" ? "audio/ogg" : "audio/mpeg" }), fileName(name, format));
    this.tell();
  }

  finish() {
    this.abort?.abort();
  }

  tell() {
    this.dispatchEvent(new Event("change"));
  }
}

function fileName(name, format) {
  const words = name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  const time = new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-");
  return `${words || "continuo"}-${time}.${format}`;
}
