"""Train a network on images by PyTorch and export it: run by the Python of a toolchain, on its own.

    python _train_images.py {mobilenet,cnn} IMAGES.npz OUT.pt2 [--epochs N]

`mobilenet` has the parts of MobileNetV3-small (inverted residuals, depthwise convolutions, squeeze
and excitation, hard-swish, batch normalization) for small grey images; `cnn` three convolutions.
The file holds `x` [N, 1, H, W] float32 of 0 to 1 and `y` [N]. Seeds are fixed; nothing but
what is in the file is learnt from.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

BATCH = 64
# kernel, expanded, out, squeeze and excitation, hard-swish, stride
BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 120, 40, True, True, 1),
    (5, 144, 48, True, True, 1),
)


class Squeeze(nn.Module):
    """Channels are weighed by what the whole image has of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, max(8, channels // 4), 1)
        self.up = nn.Conv2d(max(8, channels // 4), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(mean))))


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, a: int, kernel: int, wide: int, b: int, se: bool, hs: bool, s: int) -> None:
        super().__init__()
        act = nn.Hardswish if hs else nn.ReLU
        parts: list[nn.Module] = [nn.Conv2d(a, wide, 1, bias=False), nn.BatchNorm2d(wide), act()]
        deep = nn.Conv2d(wide, wide, kernel, s, kernel // 2, groups=wide, bias=False)
        parts += [deep, nn.BatchNorm2d(wide), act()]
        parts += [Squeeze(wide)] if se else []
        parts += [nn.Conv2d(wide, b, 1, bias=False), nn.BatchNorm2d(b)]
        self.body = nn.Sequential(*parts)
        self.is_residual = a == b and s == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return x + y if self.is_residual else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        parts: list[nn.Module] = [stem, nn.BatchNorm2d(16), nn.Hardswish()]
        a = 16
        for kernel, wide, b, se, hs, stride in BLOCKS:
            parts.append(Block(a, kernel, wide, b, se, hs, stride))
            a = b
        parts += [nn.Conv2d(a, 144, 1, bias=False), nn.BatchNorm2d(144), nn.Hardswish()]
        self.body = nn.Sequential(*parts)
        self.head = nn.Sequential(nn.Linear(144, 128), nn.Hardswish(), nn.Linear(128, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def cnn() -> nn.Module:
    """Convolutions with batch normalization, maxima, one dense layer."""
    parts: list[nn.Module] = []
    for a, b in ((1, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(576, 10))


class Sure(nn.Module):
    """Probabilities of the network's scores."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(x), -1)


def moved(x: torch.Tensor, by: torch.Generator) -> torch.Tensor:
    """Images turned by up to 0.2 rad, scaled by a tenth and shifted by up to 2 pixels."""
    n, side = len(x), x.shape[-1]
    turn, scale = ((torch.rand(n, generator=by) * 2 - 1) * most for most in (0.2, 0.1))
    shift = (torch.rand(n, 2, generator=by) * 2 - 1) * (4 / side)
    cos, sin = torch.cos(turn) * (1 + scale), torch.sin(turn) * (1 + scale)
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False)


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    by = torch.Generator().manual_seed(1)
    steps = epochs * (len(x) // BATCH)
    adam = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        begun, right = time.monotonic(), 0
        net.train()
        order = torch.randperm(len(x), generator=by)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            scores = net(moved(x[rows], by))
            loss = nn.functional.cross_entropy(scores, y[rows], label_smoothing=0.05)
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
            right += int((scores.argmax(1) == y[rows]).sum())
        share = right / len(x)
        print(f"epoch {epoch}: {share:.4f}, {time.monotonic() - begun:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=("mobilenet", "cnn"))
    parser.add_argument("images")
    parser.add_argument("out")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for one another lose more on a busy machine
    with np.load(options.images) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"].astype(np.int64))
    net = MobileNet() if options.network == "mobilenet" else cnn()
    train(net, x, y, options.epochs)
    sure = Sure(net).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(sure, (x[:2],), dynamic_shapes=({0: batch},))
    torch.export.save(exported, options.out)


if __name__ == "__main__":
    main()
