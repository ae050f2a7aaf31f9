// How sounds go out: saved, dragged into a DAW or a folder, played on as a stream, or the session by its address.

import { $, copy, make, save, setText } from "../dom.js";
import * as api from "./api.js";
import { fileName, title } from "./titles.js";

const FORMATS = [
  ["wav", "WAV", "audio/wav"],
  ["flac", "FLAC", "audio/flac"],
  ["ogg", "Ogg", "audio/ogg"],
  ["mp3", "MP3", "audio/mpeg"],
];

export class Out {
  constructor({ project, say }) {
    Object.assign(this, { project, say });
    this.links = FORMATS.map(([extension, name, type]) => {
      const link = make("a", { class: "quiet", draggable: true, title: `Save as ${name}, or drag it out` }, name);
      link.addEventListener("click", (event) => this.save(event));
      link.addEventListener("dragstart", (event) => this.drag(event, extension, type));
      return link;
    });
    $("files").append(...this.links);
    $("stream").addEventListener("click", () => this.stream());
    $("link").addEventListener("click", () => this.link());
  }

  paint() {
    const { place, present } = this.project;
    const name = fileName(present ? title(present) : "continuo");
    this.links.forEach((link, n) => {
      const [extension] = FORMATS[n];
      if (place) {
        link.href = api.soundOf(place, `audio.${extension}`);
        link.download = `${name}.${extension}`;
      } else {
        link.removeAttribute("href");
      }
      link.setAttribute("aria-disabled", String(!place));
    });
    $("stream").disabled = !present;
    if (present?.id !== this.streamed) {
      $("stream-link").hidden = true;
      $("out-alert").hidden = true;
    }
    $("link").disabled = !this.project.id;
  }

  /** Saves under the clip's name: browsers would take the one that the server gives the file. */
  async save(event) {
    event.preventDefault();
    const link = event.currentTarget;
    const { href, download } = link;
    if (!href || link.ariaBusy === "true") return;
    link.ariaBusy = "true";
    await this.attempt(async () => save(new Blob([await api.bytesAt(href)]), download));
    link.ariaBusy = null;
  }

  async attempt(action) {
    $("out-alert").hidden = true;
    try {
      await action();
    } catch (problem) {
      setText($("out-alert"), problem.message);
      $("out-alert").hidden = false;
    }
  }

  /** Browsers that can hand a file to other programs take it from here; others hand its address. */
  drag(event, extension, type) {
    const { href, download } = event.currentTarget;
    event.dataTransfer.effectAllowed = "copy";
    event.dataTransfer.setData("DownloadURL", `${type}:${download}:${href}`);
    event.dataTransfer.setData("text/uri-list", href);
    event.dataTransfer.setData("text/plain", href);
  }

  async stream() {
    const { present } = this.project;
    this.streamed = present.id;
    $("stream").setAttribute("aria-busy", "true");
    await this.attempt(async () => {
      const { id } = await api.streamOf(present.id);
      $("stream-link").href = api.address(`?stream=${encodeURIComponent(id)}`);
      $("stream-link").hidden = false;
      this.say("It plays on as a stream.");
    });
    $("stream").removeAttribute("aria-busy");
  }

  async link() {
    const url = new URL("studio", new URL(".", document.baseURI));
    url.searchParams.set("session", this.project.id);
    this.say((await copy(url.href)) ? "Link copied. It opens this session, also elsewhere." : url.href);
  }
}
