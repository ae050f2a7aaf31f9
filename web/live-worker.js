// Receives a stream's Ogg Opus pages over a WebSocket, decodes them, and hands the samples to the audio worklet. It
// works beside the page, so that a busy page does not interrupt the sound. One message to the page: it is over.

const LAST_PAGE = 4;

onmessage = ({ data: { address, sink } }) => {
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const over = () => {
    socket.onclose = socket.onmessage = null;
    socket.close();
    postMessage("over");
  };
  const decoder = new Decoder(sink, over);
  socket.onclose = over;
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") return; // events: the page has them from elsewhere
    try {
      for (const page of pages(new Uint8Array(data))) decoder.take(page);
    } catch {
      over();
    }
  };
};

/** Whole Ogg pages (RFC 3533), each with the packets that it holds. The server never breaks a packet over pages. */
function* pages(bytes) {
  for (let at = 0; at < bytes.length; ) {
    if (String.fromCharCode(...bytes.subarray(at, at + 4)) !== "OggS") throw new Error("no page");
    const sizes = bytes.subarray(at + 27, at + 27 + bytes[at + 26]);
    const packets = [];
    let from = at + 27 + sizes.length;
    let size = 0;
    for (const part of sizes) {
      size += part;
      if (part === 255) continue;
      packets.push(bytes.subarray(from, from + size));
      from += size;
      size = 0;
    }
    yield { packets, last: (bytes[at + 5] & LAST_PAGE) !== 0 };
    at = from;
  }
}

class Decoder {
  constructor(sink, over) {
    this.sink = sink;
    this.over = over;
    this.skip = 0; // frames that a decoder needs to converge and nobody shall hear
    this.time = 0;
    this.decoder = new AudioDecoder({ output: (sound) => this.give(sound), error: over });
  }

  take({ packets, last }) {
    for (const packet of packets) {
      const kind = String.fromCharCode(...packet.subarray(0, 8));
      if (kind === "OpusHead") this.begin(packet);
      else if (kind !== "OpusTags") this.decode(packet);
    }
    if (last) this.decoder.flush().then(this.over, this.over);
  }

  begin(head) {
    this.skip = head[10] | (head[11] << 8);
    this.decoder.configure({ codec: "opus", sampleRate: 48_000, numberOfChannels: head[9] });
  }

  decode(packet) {
    this.decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: this.time, data: packet }));
    this.time += 20_000; // only the order matters
  }

  give(sound) {
    const skipped = Math.min(this.skip, sound.numberOfFrames);
    this.skip -= skipped;
    const frameCount = sound.numberOfFrames - skipped;
    if (frameCount > 0) {
      const planes = Array.from({ length: Math.min(2, sound.numberOfChannels) }, (_, planeIndex) => {
        const plane = new Float32Array(frameCount);
        sound.copyTo(plane, { planeIndex, frameOffset: skipped, format: "f32-planar" });
        return plane;
      });
      this.sink.postMessage(planes, planes.map((plane) => plane.buffer));
    }
    sound.close();
  }
}
