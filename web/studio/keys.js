// The keyboard: one table of what each key does, from which both the keys and their list come.

import { make } from "../dom.js";

/** `[keys, what it does, action]`; a key is written as its `event.key`, with `Shift+` and `Ctrl+` before it. */
export class Keys {
  constructor(table, { dialog, list, button }) {
    this.actions = new Map(table.flatMap(([keys, , action]) => keys.map((key) => [key, action])));
    this.dialog = dialog;
    list.append(
      ...table.flatMap(([keys, what]) => [
        make("dt", {}, ...keys.slice(0, 2).flatMap((key, n) => [n ? " or " : "", make("kbd", {}, shown(key))])),
        make("dd", {}, what),
      ]),
    );
    button.addEventListener("click", () => this.help());
    document.addEventListener("keydown", (event) => this.press(event));
  }

  help() {
    if (this.dialog.open) this.dialog.close();
    else this.dialog.showModal();
  }

  press(event) {
    if (event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    const { target } = event;
    const writes = target.closest("textarea, select") || (target.tagName === "INPUT" && target.type !== "range");
    if (writes && event.key === "Escape") return void target.blur();
    if (writes) return;
    // What a button or a slider does with a key is its own.
    if ((event.key === " " || event.key === "Enter") && target.closest("button, summary, a")) return;
    if (event.key.startsWith("Arrow") && target.closest("input, [role=tab], .tree")) return;
    const letter = /^[a-z]$/i.test(event.key) ? event.key.toLowerCase() : event.key;
    const shift = event.shiftKey && (letter.length > 1 || /[a-z]/.test(letter)) ? "Shift+" : "";
    const action = this.actions.get(`${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift}${letter}`);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || event.key.startsWith("Arrow") || event.key === "+" || event.key === "-") action();
  }
}

const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", "-": "−" };
const shown = (key) =>
  key
    .split(/\+(?=.)/)
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join(" ");
