"""Whether products are faster in bf16 here. They are on a GPU and on a CPU with AMX; other CPUs take up to twice as
long for them as in f32, whatever instructions they name."""
import time
from functools import lru_cache

import torch

SIZE, TURNS = 1024, 3


def seconds(kind):
    """The fastest of a few products [SIZE, SIZE]."""
    x, times = torch.ones(SIZE, SIZE, dtype=kind), []
    for _ in range(TURNS + 1):
        begin = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - begin)
    return min(times[1:])


@lru_cache(maxsize=None)
def bf16_is_faster(device="cpu"):
    return device != "cpu" or seconds(torch.bfloat16) < 0.9 * seconds(torch.float32)
