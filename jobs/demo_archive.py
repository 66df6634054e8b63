"""Builds the demo's archive: photos, or textures with planted defects, as loose PNG, WebDataset tar and Parquet."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NIGHTS = ("2026-11-20", "2026-11-21")


@dataclass(frozen=True)
class Photo:
    """One image of the archive: its name, its PNG bytes, and whether it is known to be defective."""

    name: str
    png: bytes
    defective: bool


def build_archive(root: Path, photos_of: Callable[[str, int], Sequence[Photo]], products: Sequence[str]) -> pa.Table:
    """Write two nights of every product below ``root``, each in another format.

    Returns:
        The known labels: image_id, defective. They stay outside the archive.
    """
    writers = (_write_files, _write_tar, _write_parquet)
    ids, labels = [], []
    for night_index, night in enumerate(NIGHTS):
        for product_index, product in enumerate(products):
            photos = photos_of(product, night_index)
            folder = root / f"night={night}" / f"product={product}"
            folder.mkdir(parents=True)
            write = writers[(night_index * len(products) + product_index) % len(writers)]
            ids += [f"{folder.relative_to(root).as_posix()}/{name}" for name in write(folder, photos)]
            labels += [photo.defective for photo in photos]
    return pa.table({"image_id": ids, "defective": labels})


def _write_files(folder: Path, photos: Sequence[Photo]) -> Iterator[str]:
    for photo in photos:
        (folder / f"{photo.name}.png").write_bytes(photo.png)
        yield f"{photo.name}.png"


def _write_tar(folder: Path, photos: Sequence[Photo]) -> Iterator[str]:
    with tarfile.open(folder / "shard-000.tar", "w") as shard:
        for photo in photos:
            member = tarfile.TarInfo(f"{photo.name}.png")
            member.size = len(photo.png)
            shard.addfile(member, io.BytesIO(photo.png))
            yield f"shard-000.tar#{member.name}"


def _write_parquet(folder: Path, photos: Sequence[Photo]) -> Iterator[str]:
    columns = {"image_id": [photo.name for photo in photos], "image": [photo.png for photo in photos]}
    pq.write_table(pa.table(columns), folder / "part-000.parquet", row_group_size=32)
    yield from (f"part-000.parquet#{photo.name}" for photo in photos)


@lru_cache
def elpv_folder() -> Path:
    """Where the elpv-dataset package keeps its photos and labels.

    Raises:
        SystemExit: it is not installed.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise SystemExit("this needs the elpv-dataset package: pip install 'patchead[demo]'")
    return Path(spec.origin).parent / "data"


@lru_cache
def elpv_cells(product: str, probability: float) -> tuple[str, ...]:
    """File names of a product's cells, in file order; the probability of a defect is 0 (good) or 1 (defective)."""
    rows = [line.split() for line in (elpv_folder() / "labels.csv").read_text().splitlines()]
    return tuple(name for name, p, kind in rows if kind == product and float(p) == probability)


def elpv_photos(good: int, bad: int) -> Callable[[str, int], list[Photo]]:
    """Solar cells of the elpv-dataset package: per night a contiguous block of good and one of defective cells.

    Neighbours in file order are near-twins, so nights never share a block. Good: defect probability 0, defective: 1.
    """
    data = elpv_folder()

    def photos_of(product: str, night: int) -> list[Photo]:
        chosen = dict.fromkeys(elpv_cells(product, 0.0)[night * good : (night + 1) * good], False)
        chosen |= dict.fromkeys(elpv_cells(product, 1.0)[night * bad : (night + 1) * bad], True)
        return [Photo(Path(p).stem, (data / p).read_bytes(), chosen[p]) for p in sorted(chosen)]

    return photos_of


def texture_photos(good: int, bad: int, size: int = 224) -> Callable[[str, int], list[Photo]]:
    """Crops of scikit-image's CC0 textures; in the defective ones a scratch, a stain or a smear is planted."""
    from skimage import data

    def photos_of(product: str, night: int) -> list[Photo]:
        texture = getattr(data, product)()
        rng = np.random.default_rng([night, *product.encode()])
        photos = []
        for index in range(good + bad):
            top, left = (int(rng.integers(0, side - size)) for side in texture.shape[:2])
            crop = np.ascontiguousarray(texture[top : top + size, left : left + size])
            defective = index % ((good + bad) // bad) == 0 and index // ((good + bad) // bad) < bad
            crop = _plant(crop, rng) if defective else crop
            photos.append(Photo(f"crop{index:04d}", _png(crop), defective))
        return photos

    return photos_of


def _plant(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One defect of random kind, place and angle, between a twelfth and a quarter of the side."""
    side = image.shape[0]
    x, y = (int(v) for v in rng.integers(side // 5, side - side // 5, 2))
    reach = int(rng.integers(side // 12, side // 5))
    angle = float(rng.uniform(0, 180))
    mask = np.zeros_like(image)
    kind = rng.choice(["scratch", "stain", "smear"])
    if kind == "scratch":
        dx, dy = int(reach * np.cos(np.radians(angle))), int(reach * np.sin(np.radians(angle)))
        cv2.line(mask, (x - dx, y - dy), (x + dx, y + dy), 255, 3, cv2.LINE_AA)
        change = np.full_like(image, 245)
    elif kind == "stain":
        cv2.ellipse(mask, (x, y), (reach // 2, reach // 3), angle, 0, 360, 255, -1, cv2.LINE_AA)
        change = (image * 0.35).astype(np.uint8)
    else:
        cv2.ellipse(mask, (x, y), (reach, reach // 2), angle, 0, 360, 255, -1, cv2.LINE_AA)
        change = cv2.GaussianBlur(image, (0, 0), 6)
    alpha = cv2.GaussianBlur(mask, (0, 0), 1).astype(np.float32) / 255
    return (image * (1 - alpha) + change * alpha).astype(np.uint8)


def _png(image: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()
