// Small things that every part of a page needs of its document.

export const $ = (id) => document.getElementById(id);

/** Sets a text only when it is another one, so that screen readers hear of changes alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An element with properties and children; `dataset` and `class` are taken as they are written. */
export function make(tag, { class: classes, dataset, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (classes) element.className = classes;
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** Tells the style sheet how much of a slider's track is filled. */
export function fill(range) {
  const low = Number(range.min);
  range.style.setProperty("--fill", `${(100 * (range.valueAsNumber - low)) / (Number(range.max) - low)}%`);
}

/** Saves a file under a name. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
