"""musicnn: embeddings of clips, the style that a clip is nearest to, and a distance between sets."""
import contextlib
import io
import sys
import tempfile
import warnings
from functools import lru_cache

import numpy as np
import soundfile

from .hearing import mono


@lru_cache(maxsize=None)
def _extractor():
    """musicnn was written for TensorFlow 1."""
    import tensorflow.compat.v1 as tensorflow
    tensorflow.disable_v2_behavior()
    sys.modules["tensorflow"] = tensorflow
    from musicnn.extractor import extractor
    return extractor


def embedding(audio, rate):
    """Unit vector [200]: the last hidden layer, mean over windows of three seconds."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as f:
        soundfile.write(f.name, mono(audio, rate, 16000), 16000)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, _, layers = _extractor()(f.name, model="MSD_musicnn", input_length=3, input_overlap=False, extract_features=True)
    mean = layers["penultimate"].mean(0)
    return mean / (np.linalg.norm(mean) + 1e-9)


def nearest_style(vector, of_style):
    """`of_style`: vectors of renders by style. The style whose five nearest are nearest."""
    score = {style: np.sort(np.stack(rows) @ vector)[-5:].mean() for style, rows in of_style.items()}
    return max(score, key=score.get)


def distance(a, b):
    """Unbiased kernel distance (MMD, cubic kernel) between two sets of vectors, times 1000."""
    kernel = lambda x, y: (x @ y.T + 1) ** 3
    off = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    a, b = np.stack(a), np.stack(b)
    return float(1000 * (off(kernel(a, a)) + off(kernel(b, b)) - 2 * kernel(a, b).mean()))
