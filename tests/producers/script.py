"""The same day with python-socketio: bang, continue, retry, undo, crop, a mistake, a reconnect. `script.py URL TRANSPORT URL_WITHOUT_MODELS`"""

import base64
import io
import json
import math
import queue
import struct
import sys
import wave

import socketio

url, transport, _ = sys.argv[1:]
events: queue.Queue = queue.Queue()


def wav(seconds, rate=48000, channels=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, rate, 0, "NONE", ""))
        frames = (struct.pack("<h", int(8000 * math.sin(0.03 * n))) * channels for n in range(int(seconds * rate)))
        out.writeframes(b"".join(frames))
    return base64.b64encode(file.getvalue()).decode()


def look(text):
    with wave.open(io.BytesIO(base64.b64decode(text, validate=True))) as file:
        return file.getnframes(), file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())


def connected():
    client = socketio.Client(reconnection=False)
    client.on("*", lambda name, data=None: events.put((name, data)))
    client.connect(url, transports=[transport])
    return client


def until(*names):
    while True:
        name, data = events.get(timeout=120)
        if name in names:
            return data
        assert name != "error", data


client = connected()
audio = wav(8)
client.emit("process_audio_request", {"audio_data": audio, "model_name": "standin", "prompt_duration": 6})
bang = until("audio_processed")
assert look(bang["audio_data"])[:3] == (30 * 48000, 1, 48000)

request = {"session_id": bang["session_id"], "prompt_duration": 15}
client.emit("continue_music_request", json.dumps(request))
longer = until("music_continued")
frames, channels, rate, _ = look(longer["audio_data"])
assert (frames, channels, rate) == (45 * 48000, 2, 48000)

client.emit("retry_music_request", request)
again = until("music_retried")
head = 15 * 48000 * 4
assert look(again["audio_data"])[3][:head] == look(longer["audio_data"])[3][:head]

client.emit("undo_transform_request", {"session_id": bang["session_id"]})
assert until("transform_undone")["audio_data"] == bang["audio_data"]

client.emit("transform_audio_request", {"audio_data": audio, "variation": "lofi_chill", "flowstep": 0.1})
changed = until("audio_transformed")
assert look(changed["audio_data"])[:3] == (8 * 48000, 2, 48000)
client.emit("undo_transform_request", json.dumps({"session_id": changed["session_id"]}))
assert until("transform_undone")["audio_data"] == audio

client.emit("update_cropped_audio", {"audio_data": audio})
cropped = until("update_cropped_audio_complete")
assert cropped["auto_created"] and cropped["session_id"] != bang["session_id"]

client.emit("update_cropped_audio", {"audio_data": "abcde"})
assert "base64" in until("error")["message"]

client.emit("continue_music_request", {"session_id": cropped["session_id"], "prompt_duration": 6})
until("continue_music_received")
client.disconnect()
client = connected()
client.emit("verify_session", {"session_id": cropped["session_id"]})
assert look(until("music_continued")["audio_data"])[0] == (8 - 6 + 30) * 48000
client.disconnect()
print("all of it")
