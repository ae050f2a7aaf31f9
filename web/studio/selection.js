// The selection: dragged over the wave form, by its edges, or written as seconds. It keeps to bars while that is wanted
// (hold Alt for once). A click without a drag moves the play head.
//
// Events: `change`, `seek` (detail: the second).

const FAR = 4; // pixels that make a drag
const LEAST = 0.05; // seconds

export class Selection extends EventTarget {
  constructor(wave, snap) {
    super();
    this.wave = wave;
    this.snap = snap; // (second) => second
    this.range = null;
    const part = (name) => Object.assign(document.createElement("div"), { hidden: true, part: name });
    this.area = document.createElement("div");
    this.area.setAttribute("part", "area");
    this.mark = document.createElement("div");
    this.mark.setAttribute("part", "selection");
    this.edges = ["from", "to"].map((name) => {
      const edge = part("edge");
      edge.setAttribute("part", `edge ${name}`);
      edge.addEventListener("pointerdown", (event) => this.drag(event, name));
      return edge;
    });
    this.area.append(this.mark, ...this.edges);
    this.area.addEventListener("pointerdown", (event) => event.target === this.area && this.drag(event, null));
    wave.addEventListener("change", () => this.place());
  }

  set(range) {
    const { seconds } = this.wave;
    let [from, to] = range ? [Math.max(0, range.from), Math.min(seconds, range.to)] : [0, 0];
    if (from > to) [from, to] = [to, from];
    this.range = to - from >= LEAST ? { from, to } : null;
    this.place();
    this.dispatchEvent(new Event("change"));
  }

  /** Lies on the wave form, and moves and grows with it. */
  place() {
    const { wave, area, mark, range } = this;
    if (wave.wrapper && area.parentNode !== wave.wrapper) wave.wrapper.append(area);
    // A finger scrolls what is zoomed, and selects what is not.
    area.style.touchAction = wave.zoom ? "pan-x pan-y" : "pan-y";
    mark.hidden = !range;
    for (const edge of this.edges) edge.hidden = !range;
    if (!range) return;
    const percent = (second) => `${(100 * second) / wave.seconds}%`;
    mark.style.left = percent(range.from);
    mark.style.width = percent(range.to - range.from);
    this.edges[0].style.left = percent(range.from);
    this.edges[1].style.left = percent(range.to);
  }

  /** Follows a pointer: `edge` is what it holds, null for a new selection. */
  drag(event, edge) {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    const { wave, area } = this;
    const began = event.clientX;
    const second = (at) => (at.altKey ? wave.secondAt(at.clientX) : this.snap(wave.secondAt(at.clientX)));
    const origin = wave.secondAt(began);
    const before = this.range;
    const fixed = edge === "from" ? before.to : edge === "to" ? before.from : null;
    let dragged = edge !== null;
    area.setPointerCapture(event.pointerId);
    const move = (at) => {
      dragged ||= Math.abs(at.clientX - began) > FAR;
      if (!dragged) return;
      // From the pressed place on; what snaps is never less than the bar that the pointer is in.
      const start = fixed ?? (at.altKey ? origin : this.snap(origin));
      this.set({ from: start, to: second(at) });
    };
    const up = (at) => {
      area.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) area.removeEventListener(name, up);
      if (dragged || at.type === "pointercancel") return;
      this.dispatchEvent(new CustomEvent("seek", { detail: origin }));
    };
    area.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) area.addEventListener(name, up);
  }
}
