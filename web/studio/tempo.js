// Bars: where the server hears them, or where the visitor says that they are. Four beats each.

import { memory } from "../memory.js";

const KEPT = 300; // clips whose bars were set by hand

export class Tempo {
  constructor(sounds) {
    this.sounds = sounds;
    this.said = new Map(memory.get("studio.bars") ?? []);
  }

  /** The bars of a clip: what was said of it, or of what it goes on from, or what is heard; null without a pulse. */
  of(clip, clips, drawing) {
    let root = clip;
    for (let one = clip; one; one = inherits(one) ? clips.get(one.parent) : null) {
      const said = this.said.get(one.id);
      if (said) return said;
      root = one;
    }
    const heard = this.sounds.known(root?.id) ?? drawing;
    return heard?.bpm ? { bpm: heard.bpm, first: heard.first } : null;
  }

  say(clip, bars) {
    if (!clip) return;
    this.said.delete(clip.id);
    this.said.set(clip.id, bars);
    memory.set("studio.bars", [...this.said].slice(-KEPT));
  }
}

/** A clip that begins as its parent does has its bars. */
export const inherits = ({ verb }) => verb === "continue" || verb === "retry" || verb === "transform";

export const barSeconds = ({ bpm }) => 240 / bpm;

/** The nearest beginning of a bar, or the sound's beginning or end where they are nearer. */
export function snapped(seconds, bars, end) {
  if (!bars) return seconds;
  const bar = barSeconds(bars);
  const first = bars.first % bar;
  const nearest = first + Math.round((seconds - first) / bar) * bar;
  const places = [nearest, 0, end].filter((place) => place >= 0 && place <= end);
  return places.reduce((best, place) => (Math.abs(place - seconds) < Math.abs(best - seconds) ? place : best));
}

/** Bar and beat at a second, as DAWs count them: `3.1`. */
export function place(seconds, bars) {
  const beats = ((seconds - bars.first) * bars.bpm) / 60 + 1e-6;
  const bar = Math.floor(beats / 4);
  return `${bar < 0 ? bar : bar + 1}.${(((Math.floor(beats) % 4) + 4) % 4) + 1}`;
}
