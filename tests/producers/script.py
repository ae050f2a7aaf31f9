"""The same day with python-socketio: bang, continue, retry, undo, crop, restoring, mistakes, two clients, a reconnect.

`script.py URL TRANSPORT URL_WITHOUT_MODELS`
"""

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
        frames = (struct.pack("<h", int(8000 * math.sin(0.03 * n))) * channels for n in range(rate))
        out.writeframes(b"".join(frames) * seconds)
    return base64.b64encode(file.getvalue()).decode()


def look(text):
    with wave.open(io.BytesIO(base64.b64decode(text, validate=True))) as file:
        return file.getnframes(), file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())


def connected(heard=events):
    client = socketio.Client(reconnection=False)
    client.on("*", lambda name, data=None: heard.put((name, data)))
    client.connect(url, transports=[transport])
    return client


def until(*names, heard=events):
    while True:
        name, data = heard.get(timeout=120)
        if name == "queue_status":
            for field in ("message", "position", "total_queued", "estimated_seconds", "status"):
                assert data[field] is not None, data
        if name == "progress_update":
            # A transform ends with a hundred, and its first steps are less than a hundredth.
            assert 0 <= data["progress"] <= 100, data
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

brief = wav(3)
client.emit("transform_audio_request", {"audio_data": brief, "variation": "lofi_chill", "flowstep": 0.1})
changed = until("audio_transformed")
assert look(changed["audio_data"])[:3] == (3 * 48000, 2, 48000)
client.emit("undo_transform_request", json.dumps({"session_id": changed["session_id"]}))
assert until("transform_undone")["audio_data"] == brief

client.emit("update_cropped_audio", {"audio_data": audio})
cropped = until("update_cropped_audio_complete")
assert cropped["auto_created"] and cropped["session_id"] != bang["session_id"]

request = {"audio_data": audio, "model_name": "standin", "prompt_duration": 6}
for event, payload, word in [
    ("update_cropped_audio", {"audio_data": "abcde"}, "base64"),
    ("update_cropped_audio", {}, "audio_data"),
    ("process_audio_request", {"audio_data": audio}, "model_name"),
    ("process_audio_request", {**request, "prompt_duration": 30}, "prompt_duration"),
    ("process_audio_request", "{", "Invalid JSON format:"),
    ("process_audio_request", 5, "Unsupported data type:"),
    ("process_audio_request", {**request, "model_name": "nobody/has-it"}, "nobody/has-it"),
    ("continue_music_request", {}, "No session ID provided"),
    ("retry_music_request", {"session_id": "nobody"}, "nobody"),
    ("undo_transform_request", {"session_id": cropped["session_id"]}, "No previous audio"),
    ("restore_processed_audio", {"audio_data": audio}, "model_name"),
    ("audio_chunk", {"chunk": "x"}, "Missing required chunk data"),
]:
    client.emit(event, payload)
    assert word in until("error")["message"], event

restored = client.emit("restore_processed_audio", json.dumps(request)) or until("restore_complete")
assert restored["data_size"] == len(base64.b64decode(audio))

client.emit("begin_restore_audio")
ready = until("ready_for_chunks")
size = len(audio) // 3 + 1
for index in (2, 0, 1):
    piece = {"session_id": ready["session_id"], "chunk": audio[index * size : (index + 1) * size]}
    client.emit("audio_chunk", {**piece, "chunk_index": index, "total_chunks": 3, "is_last": index == 1})
    assert until("chunk_received")["chunk_index"] == index
assert until("restore_complete")["session_id"] == ready["session_id"]

# 64 MB of base64 there and back.
big = wav(64, 192000)
assert len(big) > 64e6
client.emit("restore_processed_audio", {**request, "audio_data": big})
large = until("restore_complete")
client.emit("continue_music_request", {"session_id": large["session_id"], "prompt_duration": 6})
# Results have at most 96,000 samples a second.
assert look(until("music_continued")["audio_data"])[0] == (64 - 6 + 30) * 96000

# Two clients in one session; the second cleans up, and the first is not disturbed.
others: queue.Queue = queue.Queue()
other = connected(others)
other.call("verify_session", {"session_id": ready["session_id"]})
client.emit("continue_music_request", {"session_id": ready["session_id"], "prompt_duration": 6})
both = [until("music_continued")["audio_data"], until("music_continued", heard=others)["audio_data"]]
assert both[0] == both[1]
other.emit("cleanup_session_request", {"session_id": ready["session_id"]})
until("cleanup_complete", heard=others)
other.disconnect()

client.emit("continue_music_request", {"session_id": cropped["session_id"], "prompt_duration": 6})
until("continue_music_received")
client.disconnect()
client = connected()
client.emit("verify_session", {"session_id": cropped["session_id"]})
assert look(until("music_continued")["audio_data"])[0] == (8 - 6 + 30) * 48000
client.disconnect()
print("all of it")
