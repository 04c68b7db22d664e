"""Writes what other libraries give, for the tests to compare with.

    python -m venv refs && refs/bin/pip install librosa tokenizers
    refs/bin/python tests/processing/vectors/make.py

They are committed, so that nobody needs these libraries to run the tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from tokenizers import BertWordPieceTokenizer

HERE = Path(__file__).parent
SAMPLES = 400
RATE = 8000

TEXTS = (
    "Unaffable, the RUNNER runs.",
    "don't stop-believing!  (1984)",
    "naïve Crème brûlée — 50% off…",
    "東京タワー is in 東京, 한국어 too",
    "tab\there\nnew\u00a0line \u200bzero\u00adsoft",
    "xyzzyxyzzy " + "a" * 101 + " " + "a" * 100,
    "",
    "   ",
    "$5 + £3 = €x; #tag @me _under_score",
    "the " * 40,
)
TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "un", "##aff", "##able", "run"),
    *("##ner", "##s", "don", "'", "t", "stop", "-", "believing", "!", "(", ")", "1984", "naive"),
    *("creme", "br", "##ule", "##e", "—", "50", "%", "off", "…", "東", "京", "is", "in", ",", "."),
    *("tab", "here", "new", "line", "zero", "##soft", "a", "##a", "$", "5", "+", "3", "=", "x"),
    *(
        "#",
        "tag",
        "@",
        "me",
        "_",
        "under",
        "score",
        ";",
        "##タ",
        "タ",
        "##ワ",
        "##ー",
        "too",
        "zerosoft",
    ),
)


def chirp() -> Any:
    t = np.arange(SAMPLES) / RATE
    return np.sin(2 * np.pi * (200 * t + 3000 * t * t)).astype(np.float32)


def mel(name: str, **settings: Any) -> dict[str, Any]:
    ours = {"rate": RATE, "fft": 128, "hop": 50, "mels": 8, **settings}
    padding = ours.get("padding", "none")
    found = librosa.feature.melspectrogram(
        y=chirp(),
        sr=RATE,
        n_fft=ours["fft"],
        hop_length=ours["hop"],
        win_length=ours.get("window") or None,
        center=padding != "none",
        pad_mode={"zeros": "constant"}.get(padding, "reflect"),
        power=ours.get("power", 2),
        n_mels=ours["mels"],
        fmin=ours.get("low", 0),
        fmax=ours.get("high") or RATE / 2,
        htk=ours.get("scale") == "htk",
        norm=None if ours.get("norm") == "none" else "slaney",
        dtype=np.float64,
    )
    if ours.get("log") == "decibel":
        found = librosa.power_to_db(found, amin=1e-10, top_db=None)
    values = [[float(f"{value:.8g}") for value in row] for row in found.T]
    return {"name": name, "settings": ours, "values": values}


def main() -> None:
    cases = [
        mel("slaney"),
        mel("htk", scale="htk", norm="none"),
        mel("htk, one area", scale="htk"),
        mel("magnitudes", power=1, low=100, high=3000),
        mel("short window, zeros around", window=100, padding="zeros"),
        mel("mirrored around, decibel", padding="reflect", log="decibel"),
    ]
    told = {"librosa": librosa.__version__, "samples": SAMPLES, "cases": cases}
    (HERE / "mel.json").write_text(json.dumps(told, indent=1) + "\n")

    vocabulary = HERE / "vocabulary.txt"
    vocabulary.write_text("\n".join(TOKENS) + "\n")
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True, strip_accents=True)
    vocabulary.unlink()
    length = 24
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
    encoded = [tokenizer.encode(text) for text in TEXTS]
    told = {
        "texts": TEXTS,
        "vocabulary": TOKENS,
        "length": length,
        "ids": [e.ids for e in encoded],
        "mask": [e.attention_mask for e in encoded],
    }
    (HERE / "wordpiece.json").write_text(json.dumps(told, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
