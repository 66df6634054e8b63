"""Speed of the scoring kernel, as ratios measured side by side in one run: `make bench`, or with sizes of your own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from patchead.numerics.leave_one_out import Rule, score_group

console = Console()


def scoring(
    images: Annotated[int, typer.Option(help="N, images of the group.")] = 16,
    patches: Annotated[int, typer.Option(help="P, patches of an image.")] = 256,
    dim: Annotated[int, typer.Option(help="D, dimensions of an embedding.")] = 384,
    repeats: Annotated[int, typer.Option(min=3, help="Interleaved repeats; medians are printed.")] = 5,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("benchmarks.json"),
) -> None:
    """Leave-one-out scores of one group: patchead, a textbook cdist loop, and the bare matrix product."""
    torch.set_num_threads(os.cpu_count() or 1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((images, patches, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    stored = vectors.astype(np.float16)
    floats = torch.from_numpy(stored.astype(np.float32))

    def ours() -> None:
        score_group(stored, np.arange(images), rule=Rule(), memory_bytes=4 * 10**9)

    seconds = _interleaved({"patchead": ours, "cdist": lambda: cdist_loop(floats), "gemm": _product(floats)}, repeats)
    work = 2 * images**2 * patches**2 * dim  # both directions of every pair, as the definition has it
    gemm_rate = 2 * floats[:4].flatten(0, 1).shape[0] ** 2 * dim / seconds["gemm"]
    records = [
        ("speed over the cdist loop", seconds["cdist"] / seconds["patchead"], "x"),
        ("FLOP/s of the full work over the fp32 GEMM rate", work / seconds["patchead"] / gemm_rate, "x"),
        ("seconds", seconds["patchead"], "s"),
        ("images per second", images / seconds["patchead"], "1/s"),
    ]
    case = f"N={images} P={patches} D={dim}"
    title = f"scoring, {case}, fp32, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    table = Table("metric", "value", title=title, title_justify="left")
    for metric, value, unit in records:
        table.add_row(metric, f"{value:.2f} {unit}")
    console.print(table)
    rows = [
        {"benchmark": "scoring", "case": case, "precision": "fp32", "metric": metric, "value": value, "unit": unit}
        for metric, value, unit in records
    ]
    output.write_text(json.dumps(rows, indent=2) + "\n")
    console.print(f"figures: {output}", highlight=False)


def cdist_loop(embeddings: torch.Tensor, fraction: float = 0.3, top: float = 0.01) -> torch.Tensor:
    """The baseline: per image, all distances to all references by ``torch.cdist``. (N, P, D) to image scores (N,)."""
    n, p, _ = embeddings.shape
    k, m = max(1, int(fraction * (n - 1))), max(1, int(top * p))
    scores = []
    for i in range(n):
        references = torch.cat([embeddings[:i], embeddings[i + 1 :]]).flatten(0, 1)
        nearest = torch.cdist(embeddings[i], references).view(p, n - 1, p).min(dim=2).values ** 2 / 4
        patches = nearest.topk(k, dim=1, largest=False).values.mean(dim=1)
        scores.append(patches.topk(m).values.mean())
    return torch.stack(scores)


def _product(embeddings: torch.Tensor) -> Callable[[], torch.Tensor]:
    block = embeddings[:4].flatten(0, 1)
    out = torch.empty(len(block), len(block))
    return lambda: torch.mm(block, block.T, out=out)


def _interleaved(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each case, the cases taking turns so that a slow minute hits all of them."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    typer.run(scoring)
