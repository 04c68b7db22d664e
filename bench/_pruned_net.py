"""A residual network of 2.8 million weights on real handwritten digits: what `bench prune` prunes.

Runs in the toolchain, which has PyTorch, from a folder with `digits.npz` (`x` [N, 1, 28, 28] pixels
0 to 1, `y` [N]); `python pruned_net.py` trains it there. Batch normalisation, four stages with two
residual blocks each: ResNet-18 with half its channels and a first stage at half the resolution.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

WEIGHTS = "weights.pt"
THREADS = 1  # more of them wait for each other on a busy machine


class Block(nn.Module):
    """Two convolutions and what went in; halves the picture where `stride` is 2."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(taken, given, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(given)
        self.second = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(given)
        self.side: nn.Module = nn.Identity()
        if stride != 1 or taken != given:
            self.side = nn.Sequential(
                nn.Conv2d(taken, given, 1, stride=stride, bias=False), nn.BatchNorm2d(given)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flow = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(flow)) + self.side(x))


class ResNet(nn.Module):
    """[N, 1, 28, 28] pixels -> [N, 10] scores."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        blocks: list[nn.Module] = []
        for stage, (taken, given) in enumerate(pairwise(widths)):
            blocks += [Block(taken, given, 1 if stage == 0 else 2), Block(given, given, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(widths[-1], 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        flow = torch.relu(self.stem_norm(self.stem(pixels - 0.13)))
        return self.last(self.blocks(flow).mean((2, 3)))


def trained() -> nn.Module:
    """The network with the weights that training left: what `prune-channels` starts from."""
    model = ResNet()
    model.load_state_dict(torch.load(_beside(WEIGHTS), weights_only=True))
    return model.eval()


def finetune(model: nn.Module) -> None:
    """One epoch after each cut."""
    train(model, epochs=1, rate=0.02)


def train(model: nn.Module, *, epochs: int, rate: float) -> None:
    """SGD with one cycle of the rate, on pictures moved by up to two pixels."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    with np.load(_beside("digits.npz")) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    batches = len(x) // 64
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * batches, pct_start=0.25
    )
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    for epoch in range(epochs):
        started, told = time.monotonic(), 0.0
        for rows in torch.randperm(len(x))[: batches * 64].split(64):
            optimizer.zero_grad()
            lost = loss(model(_moved(x[rows])), y[rows])
            lost.backward()
            optimizer.step()
            cycle.step()
            told += lost.item() / batches
        print(
            f"epoch {epoch}: loss {told:.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr
        )
    model.eval()


def _moved(x: torch.Tensor) -> torch.Tensor:
    down, right = (int(one) for one in torch.randint(-2, 3, (2,)))
    return torch.roll(x, (down, right), (2, 3))


def _beside(name: str) -> str:
    return str(Path(__file__).parent / name)


def main() -> None:
    """Train it from the start."""
    model = ResNet()
    train(model, epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 8, rate=0.05)
    torch.save(model.state_dict(), _beside(WEIGHTS))


if __name__ == "__main__":
    main()
