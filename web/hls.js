// Sound by HLS, for phones that play nothing else that has no end: an element that plays the stream's playlists by itself.
//
// Web Audio hears nothing of it there, so this stands beside the graph: there is no meter, and the volume is the
// element's, where it has one. What plays is told with the sound, and the past is within reach as far as the playlist goes.
//
// Events: `playing`, `waiting`, `lost`, `title` (detail: what begins to play).

const TYPE = "application/vnd.apple.mpegurl";
const TITLE = "TIT2"; // of ID3, as Safari names it

export class Hls extends EventTarget {
  /** Whether the browser says that it plays playlists. */
  static get possible() {
    return document.createElement("audio").canPlayType(TYPE) !== "";
  }

  /** Phones that play them have no MediaSource; other browsers do better without. */
  static get preferred() {
    return Hls.possible && !("MediaSource" in globalThis);
  }

  constructor(audio) {
    super();
    this.audio = audio;
    this.told = false; // titles come with the sound
    this.behind = 0; // seconds before the newest sound that are wanted
    this.origin = 0;
    for (const name of ["playing", "waiting"]) audio.addEventListener(name, () => this.dispatchEvent(new Event(name)));
    for (const name of ["error", "ended"]) audio.addEventListener(name, () => this.dispatchEvent(new Event("lost")));
    for (const name of ["loadedmetadata", "canplay"]) audio.addEventListener(name, () => this.goBack());
    audio.textTracks.addEventListener("addtrack", ({ track }) => this.read(track));
    const before = audio.volume;
    audio.volume = before === 0.5 ? 0.25 : 0.5;
    this.adjustable = audio.volume !== before; // on iPhones only the buttons of the phone change it
    audio.volume = before;
  }

  /** Plays a playlist, so many seconds before its end. */
  play(address, behind) {
    this.told = false;
    this.behind = behind;
    this.audio.src = address;
    return this.audio.play();
  }

  stop() {
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.audio.load();
  }

  /** Once it is known how far the playlist goes. */
  goBack() {
    const { audio } = this;
    if (!audio.seekable.length) return;
    if (this.behind > 0) audio.currentTime = Math.max(audio.seekable.start(0), this.end - this.behind);
    if (this.behind !== null) this.origin = audio.currentTime;
    this.behind = null;
  }

  read(track) {
    if (track.kind !== "metadata") return;
    track.mode = "hidden";
    track.addEventListener("cuechange", () => {
      for (const { value } of track.activeCues) {
        if (value?.key !== TITLE) continue;
        this.told = true;
        this.dispatchEvent(new CustomEvent("title", { detail: value.data }));
      }
    });
  }

  get end() {
    const { seekable } = this.audio;
    return seekable.length ? seekable.end(seekable.length - 1) : this.audio.currentTime;
  }

  /** Seconds played since it began. */
  get position() {
    return this.audio.currentTime - this.origin;
  }

  /** Seconds of sound that are made and not played. */
  get ahead() {
    return Math.max(0, this.end - this.audio.currentTime);
  }
}
