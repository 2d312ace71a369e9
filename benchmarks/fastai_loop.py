"""fastai's Learner over a bare torch loop: ResNet-18, batch 32, 3×32×32. Run by bench_loop.py in a Python with fastai.

Arguments: BATCHES ROUNDS
"""

import json
import statistics
import sys
import time

import fastai
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions beside a way past them (He et al. 2015)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.way = nn.Sequential(*convolution(inputs, outputs, 3, stride), nn.ReLU(), *convolution(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.past = nn.Identity() if same else nn.Sequential(*convolution(inputs, outputs, 1, stride))

    def forward(self, x):
        """[batch, inputs, height, width] → [batch, outputs, height / stride, width / stride]."""
        return torch.relu(self.way(x) + self.past(x))


def convolution(inputs, outputs, size, stride=1):
    """A convolution without bias and its normalisation."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet18(num_classes):
    """ResNet-18 as Paddle and torchvision have it; written out, since fastai runs without torchvision."""
    widths = [64, 64, 128, 256, 512]
    stages = [
        nn.Sequential(Block(inputs, outputs, 1 + (inputs != outputs)), Block(outputs, outputs, 1))
        for inputs, outputs in zip(widths, widths[1:])
    ]
    stem = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))


def main(batches, rounds):
    torch.manual_seed(0)
    pairs = torch.utils.data.TensorDataset(torch.randn(32 * batches, 3, 32, 32), torch.randint(0, 4, (32 * batches,)))
    loader = torch.utils.data.DataLoader(pairs, batch_size=32)
    model, loss = resnet18(num_classes=4), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def by_hand():
        model.train()
        for inputs, labels in loader:
            value = loss(model(inputs), labels)
            value.item()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

    learner = Learner(
        DataLoaders(loader, loader), resnet18(num_classes=4), loss_func=loss, opt_func=fastai.optimizer.Adam
    )
    learner.remove_cb(ProgressCallback)

    def of_learner():
        # Training only, as the loop by hand.
        with learner.no_logging():
            learner.fit(1, 1e-4, cbs=NoValidation())

    times = {"by_hand": [], "learner": []}
    for index in range(rounds + 1):
        for name, run in (("by_hand", by_hand), ("learner", of_learner)):
            started = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - started)
    ratio = statistics.median(after / before for before, after in zip(*times.values()))
    row = {f"{name}_ms": round(1e3 * statistics.median(values) / batches, 2) for name, values in times.items()}
    print(json.dumps({"fastai": fastai.__version__, "torch": torch.__version__, **row, "ratio": round(ratio, 4)}))


class NoValidation(fastai.callback.core.Callback):
    """Skips the validation that a fit ends each epoch with."""

    def before_validate(self):
        """Leave it before its first batch."""
        raise fastai.callback.core.CancelValidException


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
