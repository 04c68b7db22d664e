"""Modules of PyTorch that a build makes by name: `torch_factory:small_cnn`."""

from __future__ import annotations

import torch
from torch import nn


class SmallCnn(nn.Module):
    """[N, 3, 16, 16] to 5 probabilities: convolutions, one of them depthwise, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.last = nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flow = torch.relu(self.norm(self.first(image)))
        flow = flow + torch.relu(self.deep(flow))
        flow = torch.relu(self.down(flow))
        return torch.softmax(8 * self.last(flow.mean((2, 3))), -1)


class TwoInputs(nn.Module):
    """A picture's features and a sensor's values to one number."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 4)
        self.right = nn.Linear(3, 4)
        self.last = nn.Linear(4, 1)

    def forward(self, features: torch.Tensor, sensor: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.left(features) + self.right(sensor)))


def small_cnn() -> nn.Module:
    """With weights from a fixed seed."""
    torch.manual_seed(0)
    return SmallCnn().eval()


def two_inputs() -> nn.Module:
    """With weights from a fixed seed."""
    torch.manual_seed(0)
    return TwoInputs().eval()


def fixes_the_batch() -> nn.Module:
    """A module that takes two examples and no other number."""

    class Fixed(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.reshape(2, -1)

    return Fixed()


def depends_on_values() -> nn.Module:
    """A module that goes another way for bright pictures: no graph says that."""

    class Choosing(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            flat = image.mean((2, 3))
            return flat * 2 if image.sum() > 0 else flat

    return Choosing()
