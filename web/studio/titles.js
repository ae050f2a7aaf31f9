// What clips and their states are called.

const VERBS = {
  upload: "Sound",
  crop: "Cropped",
  generate: "New piece",
  bang: "New piece",
  continue: "Continued",
  retry: "Retried",
  transform: "Transformed",
  loop: "Loop",
};

/** What a clip is called as long as nobody gives it a name. */
export function given(clip) {
  const verb = VERBS[clip.verb] ?? clip.verb;
  if (clip.verb === "transform") {
    const preset = clip.settings?.transform?.variation;
    if (preset && preset !== "custom") return `${verb} · ${preset.replaceAll("_", " ")}`;
  }
  const words = clip.prompt ? clip.prompt.split(/\s+/).slice(0, 6).join(" ") : "";
  return words ? `${verb} · ${words}` : verb;
}

export const title = (clip) => clip.name ?? given(clip);

export const isBeingMade = (clip) => ["queued", "starting", "running"].includes(clip.status);

/** How far a clip is, in words. */
export function progress(clip) {
  if (clip.status === "queued") {
    const { position, seconds } = clip.queue ?? {};
    const wait = seconds >= 1 ? `, in about ${duration(seconds)}` : "";
    return position > 1 ? `${ordinal(position)} in line${wait}` : position === 1 ? `Next in line${wait}` : "In line";
  }
  if (clip.status === "starting") return "Getting ready";
  return `${clip.progress} %`;
}

const ordinal = (n) => `${n}${n % 100 >= 11 && n % 100 <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th")}`;

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** `1:02.3` */
export function clock(seconds, digits = 1) {
  const tenths = Math.max(0, seconds).toFixed(digits);
  const minutes = Math.floor(Number(tenths) / 60);
  return `${minutes}:${(Number(tenths) - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

/** How long ago something was, `created` in unix seconds. */
export function ago(created) {
  const seconds = Math.max(0, Date.now() / 1000 - created);
  return seconds < 45 ? "just now" : `${duration(seconds)} ago`;
}

/** A title as a file's name. */
export function fileName(text) {
  const words = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48).replace(/^-+|-+$/g, "");
  return words || "continuo";
}
