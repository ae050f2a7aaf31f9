// The blend: a list of prompts with weights, and the form that edits it.
//
// Calls `changed(kind)` with `text` while a prompt is typed, `weight` while a slider moves, `shape` when a prompt came or went
// or an edit was finished.

import { fill } from "./dom.js";

export const MOST = 8;

/** Prompts in one line. */
export const words = (prompts) =>
  prompts
    .map(({ text }) => text)
    .filter(Boolean)
    .join("  +  ") || "Free improvisation";

export class Mix {
  constructor(list, addButton, changed) {
    this.list = list;
    this.addButton = addButton;
    this.changed = changed;
    this.rows = [];
    addButton.addEventListener("click", () => {
      this.append({ text: "", weight: 0.5 });
      this.refresh();
      this.rows.at(-1).text.focus();
    });
  }

  /** Prompts as the server wants them: empty ones are left out, unless nothing else is there. */
  get prompts() {
    const all = this.rows.map((row) => ({ text: row.text.value.trim(), weight: row.weight.valueAsNumber / 100 }));
    const said = all.filter((prompt) => prompt.text !== "");
    if (said.length === 1 && said[0].weight === 0) said[0].weight = 1;
    return said.length ? said : [{ text: "", weight: 1 }];
  }

  /** True when every prompt's slider is at zero: there is nothing to play. */
  get silent() {
    return this.prompts.every((prompt) => prompt.weight === 0);
  }

  set prompts(prompts) {
    this.list.replaceChildren();
    this.rows = [];
    const top = Math.max(...prompts.map((prompt) => prompt.weight ?? 1), 1e-6);
    for (const prompt of prompts) this.append({ text: prompt.text, weight: (prompt.weight ?? 1) / top });
    this.refresh();
  }

  append({ text, weight }) {
    const item = document.createElement("li");
    item.innerHTML = `<textarea rows="2" maxlength="1000" spellcheck="false" enterkeyhint="done"
        placeholder="Say what you want to hear: style, instruments, mood, tempo"></textarea>
      <div class="share"><input type="range" min="0" max="100" step="1"><output></output>
      <button type="button" class="quiet remove" title="Remove">✕</button></div>`;
    const row = {
      item,
      text: item.querySelector("textarea"),
      weight: item.querySelector("input"),
      output: item.querySelector("output"),
      remove: item.querySelector("button"),
    };
    row.text.value = text;
    row.weight.value = Math.round(weight * 100);
    row.text.addEventListener("input", () => {
      grow(row.text);
      this.changed("text");
    });
    row.text.addEventListener("change", () => this.changed("shape"));
    row.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.changed("shape");
    });
    row.weight.addEventListener("input", () => {
      this.refresh();
      this.changed("weight");
    });
    row.remove.addEventListener("click", () => {
      const place = this.rows.indexOf(row);
      this.rows.splice(place, 1);
      item.remove();
      this.refresh();
      this.rows[Math.min(place, this.rows.length - 1)].text.focus();
      this.changed("shape");
    });
    this.rows.push(row);
    this.list.append(item);
    grow(row.text);
  }

  refresh() {
    const total = this.rows.reduce((sum, row) => sum + row.weight.valueAsNumber, 0);
    this.list.classList.toggle("one", this.rows.length === 1);
    this.addButton.disabled = this.rows.length >= MOST;
    this.rows.forEach((row, index) => {
      const share = total > 0 ? Math.round((100 * row.weight.valueAsNumber) / total) : 0;
      row.text.setAttribute("aria-label", this.rows.length === 1 ? "Prompt" : `Prompt ${index + 1}`);
      row.weight.id = `share-${index + 1}`;
      row.weight.setAttribute("aria-label", `Share of prompt ${index + 1}`);
      row.weight.setAttribute("aria-valuetext", `${share} percent of the blend`);
      row.remove.setAttribute("aria-label", `Remove prompt ${index + 1}`);
      row.output.textContent = `${share} %`;
      fill(row.weight);
    });
  }
}

/** As tall as its text, in browsers whose style sheets cannot say that. */
function grow(field) {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}
