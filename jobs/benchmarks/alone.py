"""The bare kernel in a process of its own, without Ray and without a lake: FILE.npy PRECISION MEMORY_BYTES THREADS.

Prints the seconds that scoring took; whoever runs it can time the whole process.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from patchead.scoring.leave_one_out import Aggregation, score_group


def main(file: str, precision: str, memory_bytes: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    embeddings = np.load(file)
    began = time.perf_counter()
    score_group(
        embeddings,
        np.arange(len(embeddings)),
        aggregation=Aggregation(),
        precision=precision,
        memory_bytes=int(memory_bytes),
    )
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
