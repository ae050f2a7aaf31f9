#!/usr/bin/env python3
"""Makes a stream, records it, and changes its prompt while it plays. Standard library only.

    continuo serve &
    python3 examples/steer.py http://localhost:8765 steered.ogg
"""
import json
import sys
import threading
import time
import urllib.request


def ask(method, url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else {}


def record(url, path):
    with urllib.request.urlopen(url) as sound, open(path, "wb") as file:
        while block := sound.read1(65536):
            file.write(block)


server, path = sys.argv[1].rstrip("/"), sys.argv[2]
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 4  # before and after the change
stream = ask("POST", f"{server}/v1/streams", {"prompts": ["lofi piano"]})
address = f"{server}/v1/streams/{stream['id']}"
recorder = threading.Thread(target=record, args=(f"{address}/audio.ogg", path))
recorder.start()
time.sleep(seconds)
answer = ask("PATCH", address, {"prompts": ["techno", {"text": "lofi piano", "weight": 0.3}], "ramp": 2})
print(f"heard from second {answer['at']:.1f}")
time.sleep(seconds)
ask("DELETE", address)
recorder.join()
