// Knobs and faders of a MIDI controller move the page's sliders.
//
// While learning, a knob that is turned belongs to the slider that has the focus. Afterwards it moves that slider, which
// then does what it does under a finger. What was learnt is remembered.

const CONTROL_CHANGE = 0xb0;

export class Midi {
  constructor(memory) {
    this.memory = memory;
    this.knobs = memory.get("midi") ?? {}; // "channel.controller" → id of a slider
    this.learning = false;
    this.access = null;
    // Once allowed, always connected: the browser asks only the first time.
    if (Object.keys(this.knobs).length && Midi.possible) this.connect().catch(() => {});
  }

  static get possible() {
    return "requestMIDIAccess" in navigator;
  }

  /** Resolves to the number of connected controllers; the browser may ask for permission, and be refused it. */
  async connect() {
    this.access ??= await navigator.requestMIDIAccess();
    const listen = () => {
      for (const input of this.access.inputs.values()) input.onmidimessage = ({ data }) => this.receive(data);
    };
    this.access.onstatechange = listen;
    listen();
    return this.access.inputs.size;
  }

  /** Takes a MIDI message; only control changes mean something here. */
  receive([status, controller, value]) {
    if ((status & 0xf0) !== CONTROL_CHANGE) return;
    const knob = `${status & 0x0f}.${controller}`;
    const focused = document.activeElement;
    if (this.learning && focused?.matches('input[type="range"]')) {
      this.knobs[knob] = focused.id;
      this.memory.set("midi", this.knobs);
    }
    const slider = document.getElementById(this.knobs[knob]);
    if (!slider) return;
    slider.value = Number(slider.min) + ((Number(slider.max) - Number(slider.min)) * value) / 127;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
