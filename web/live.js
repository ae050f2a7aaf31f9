// Sound with little delay: Opus pages come over the stream's WebSocket, a worker decodes them, an audio worklet plays
// them. A change is heard within a second, where the audio element alone keeps more than two seconds in store.
//
// Events: `playing` (sound is heard), `waiting` (the buffer ran dry), `lost` (the socket closed or decoding failed).

/** Decoders and worklets exist only on secure pages (https, or this machine itself). */
const possible = () => isSecureContext && "AudioDecoder" in globalThis && "AudioWorkletNode" in globalThis;

export class Live extends EventTarget {
  /** The player within `context` (which must run at 48 kHz), or null where this browser cannot. */
  static async within(context) {
    if (!possible() || context.sampleRate !== 48_000) return null;
    try {
      const config = { codec: "opus", sampleRate: 48_000, numberOfChannels: 2 };
      if (!(await AudioDecoder.isConfigSupported(config)).supported) return null;
      await context.audioWorklet.addModule(new URL("live-player.js", import.meta.url));
      return new Live(context);
    } catch {
      return null;
    }
  }

  constructor(context) {
    super();
    this.node = new AudioWorkletNode(context, "live-player", { numberOfInputs: 0, outputChannelCount: [2] });
    this.node.port.onmessage = ({ data }) => this.hear(data);
    this.held = 0; // seconds in store
    this.played = 0; // seconds
    this.failures = 0; // in a row, without any sound between
    this.worker = null;
  }

  /** Plays the stream behind the address of a WebSocket, until `stop`. */
  play(address) {
    this.stop();
    const { port1, port2 } = new MessageChannel();
    this.worker = new Worker(new URL("live-worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = () => this.fail();
    this.worker.onerror = () => this.fail();
    this.node.port.postMessage({ source: port2 }, [port2]);
    this.worker.postMessage({ address, sink: port1 }, [port1]);
  }

  fail() {
    if (!this.worker) return;
    this.failures += 1;
    this.stop();
    this.dispatchEvent(new Event("lost"));
  }

  stop() {
    this.worker?.terminate();
    this.worker = null;
    this.held = 0;
    this.node.port.postMessage({ source: null });
  }

  hear({ held, played, state }) {
    if (!this.worker) return;
    this.held = held;
    this.played = played;
    if (state === "playing") this.failures = 0;
    if (state) this.dispatchEvent(new Event(state));
  }
}
