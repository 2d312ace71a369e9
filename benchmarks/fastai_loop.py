"""fastai's Learner over a bare torch loop: ResNet-18, batch 32, 3×32×32. Run by bench_loop.py in a Python with fastai.

Arguments: BATCHES ROUNDS
"""

import json
import statistics
import sys
import time

import fastai
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn
from torchvision.models import resnet18


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

    def of_learner():
        # Training only, as the loop by hand.
        with learner.no_bar(), learner.no_logging():
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
