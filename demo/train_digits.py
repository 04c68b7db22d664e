"""Train a small classifier of handwritten digits on real images, in seconds.

    python demo/train_digits.py OUT_DIR [--seed N] [--hidden N]

Writes `digits.skops` (pixels 0..16, float32 [N, 64]), `calibration.npy` (training images),
`held_out.npz` (x float32 [N, 64], y int64 [N]) and `labels.txt`. The split is the same for every
seed, so that accuracies of versions compare; the seed and the width change the network.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import skops.io
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

SPLIT_SEED = 7
LEAST_ACCURACY = 0.96


def main() -> int:
    """Train, check, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the files")
    parser.add_argument("--seed", type=int, default=1, help="of the network (default: 1)")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units (default: 64)")
    given = parser.parse_args()

    digits = load_digits()
    train_x, held_x, train_y, held_y = train_test_split(
        digits.data.astype(np.float32),
        digits.target.astype(np.int64),
        test_size=0.3,
        random_state=SPLIT_SEED,
        stratify=digits.target,
    )
    model = make_pipeline(
        MinMaxScaler(),
        MLPClassifier(
            (given.hidden,),
            alpha=0.01,
            learning_rate_init=0.005,
            max_iter=120,
            random_state=given.seed,
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # held-out accuracy decides below
        model.fit(train_x, train_y)
    accuracy = float(model.score(held_x, held_y))
    if accuracy < LEAST_ACCURACY:
        print(
            f"train_digits: error: accuracy {accuracy:.4f} with --seed {given.seed}",
            file=sys.stderr,
        )
        print("train_digits: hint: take another seed, or more hidden units", file=sys.stderr)
        return 1

    given.out.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, given.out / "digits.skops")
    np.save(given.out / "calibration.npy", train_x[:256])
    np.savez(given.out / "held_out.npz", x=held_x, y=held_y)
    (given.out / "labels.txt").write_text("".join(f"{n}\n" for n in digits.target_names))
    print(f"accuracy {accuracy:.4f} on {len(held_y)} held-out images: {given.out / 'digits.skops'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
