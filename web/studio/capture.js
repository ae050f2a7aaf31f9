// The audio worklet of `microphone.js`: hands over what comes in, block by block, with the time of its first sample.

registerProcessor(
  "capture",
  class extends AudioWorkletProcessor {
    process([input]) {
      if (input.length) this.port.postMessage({ time: currentTime, channels: input.map((channel) => channel.slice()) });
      return true;
    }
  },
);
