"""Every step, by the name that a node says: all that a program can do beside running models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet_processing import (
    audio,
    boxes,
    decisions,
    hashing,
    images,
    resize,
    scaling,
    shapes,
    text,
)
from edgefleet_processing.step import MANY, File, Step, plain

_TWO: Final = range(1, 3)

STEPS: Final[Mapping[str, Step]] = MappingProxyType(
    {
        "resize": plain(resize.Resize, resize.resize),
        "centre_crop": plain(images.CentreCrop, images.centre_crop),
        "pad": plain(images.Pad, images.pad),
        "letterbox": Step(images.Letterbox, images.prepare_letterbox, gives=_TWO),
        "layout": plain(images.Layout, images.layout),
        "swap_colours": plain(images.SwapColours, images.swap_colours),
        "grey": plain(images.Grey, images.grey),
        "normalise": Step(scaling.Normalise, scaling.prepare_normalise),
        "scale": Step(scaling.Scale, scaling.prepare_scale),
        "clip": Step(scaling.Clip, scaling.prepare_clip),
        "cast": plain(scaling.Cast, scaling.cast),
        "quantize": Step(scaling.Quantize, scaling.prepare_quantize),
        "dequantize": Step(scaling.Dequantize, scaling.prepare_dequantize),
        "frames": plain(audio.Frames, audio.frames),
        "mel_spectrogram": Step(audio.MelSpectrogram, audio.prepare_mel_spectrogram),
        "normalise_text": plain(text.NormaliseText, text.normalise_text),
        "words": Step(text.Words, text.prepare_words, gives=_TWO, file=File.MUST),
        "wordpiece": Step(text.WordPiece, text.prepare_wordpiece, gives=_TWO, file=File.MUST),
        "hash_words": Step(hashing.HashWords, hashing.prepare_hash_words),
        "softmax": plain(decisions.Softmax, decisions.softmax),
        "sigmoid": plain(decisions.Sigmoid, decisions.sigmoid),
        "argmax": plain(decisions.Argmax, decisions.argmax),
        "top_k": Step(decisions.TopK, decisions.prepare_top_k, gives=range(1, 4), file=File.MAY),
        "labels": Step(decisions.Labels, decisions.prepare_labels, file=File.MUST),
        "threshold": Step(decisions.Threshold, decisions.prepare_threshold),
        "weighted_mean": Step(decisions.WeightedMean, decisions.prepare_weighted_mean, takes=MANY),
        "convert_boxes": plain(boxes.ConvertBoxes, boxes.convert_boxes),
        "suppress": Step(
            boxes.Suppress, boxes.prepare_suppress, takes=range(2, 3), gives=range(1, 5)
        ),
        "unletterbox": Step(boxes.Unletterbox, boxes.prepare_unletterbox, takes=range(2, 3)),
        "concat": Step(shapes.Concat, shapes.prepare_concat, takes=MANY),
        "split": Step(shapes.Split, shapes.prepare_split, gives=MANY),
        "reshape": plain(shapes.Reshape, shapes.reshape),
        "squeeze": plain(shapes.Squeeze, shapes.squeeze),
        "expand": plain(shapes.Expand, shapes.expand),
    }
)
"""One tensor in and one out, where nothing else is said."""
