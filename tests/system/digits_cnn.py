"""A small convolutional network on real handwritten digits: what a user of `prune-channels` brings.

The images are scikit-learn's (UCI, 8 by 8), made 16 by 16. Imported in the toolchain, which has
PyTorch; `channels.py` copies it into a folder with the images, `digits.npz`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WEIGHTS = "digits_cnn.pt"


class DigitsCnn(nn.Module):
    """[N, 1, 16, 16] pixels 0 to 16 -> [N, 10] scores; with a residual connection."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.second = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.third = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(2 * width * 4 * 4, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax."""
        x = self.pool(self.first(pixels / 16))
        x = self.second(x)
        x = self.pool(x + self.third(x))
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


def trained() -> nn.Module:
    """The trained network: what `prune-channels` starts from."""
    model = DigitsCnn()
    model.load_state_dict(torch.load(_beside(WEIGHTS), weights_only=True))
    return model


def finetune(model: nn.Module) -> None:
    """A few epochs after each cut."""
    train(model, epochs=3, rate=1e-3)


def train(model: nn.Module, *, epochs: int, rate: float) -> None:
    """Adam on the training images, in batches of 64."""
    torch.set_num_threads(1)  # more of them wait for each other on a busy machine
    torch.manual_seed(1)
    with np.load(_beside("digits.npz")) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    loss = nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()


def _beside(name: str) -> str:
    return str(Path(__file__).parent / name)


def main() -> None:
    """Train it from the start."""
    model: Any = DigitsCnn()
    train(model, epochs=8, rate=2e-3)
    torch.save(model.state_dict(), _beside(WEIGHTS))


if __name__ == "__main__":
    main()
