"""A training that the resume tests start, kill and start again. Usage: resumable.py FOLDER RESULT [EVERY]."""

import os
import sys
import time
from pathlib import Path

import numpy as np

import paddle_ftstrat as hub  # isort: skip - before Paddle
import paddle
from paddle import nn

from paddle_ftstrat.param_attr import configure
from paddle_ftstrat.training.callbacks import Callback

EPOCHS, SAMPLES, BATCH = 4, 50, 5


class Noisy(paddle.io.Dataset):
    """Samples with random augmentation from numpy's generator."""

    def __init__(self, samples):
        self.x = np.random.default_rng(0).normal(size=[samples, 6]).astype("float32")
        self.y = (self.x.sum(-1) > 0).astype("int64")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + np.random.normal(scale=0.1, size=6).astype("float32"), self.y[index]


class Pace(Callback):
    """Gives the killer time, and tells how far the training is."""

    def __init__(self, result):
        self._file = Path(result + ".progress")

    def on_batch_end(self, learner):
        self._file.write_text(str(len(learner.recorder.losses)))
        time.sleep(float(os.environ.get("PACE", "0")))


def net(width):
    return nn.Sequential(
        nn.Linear(6, width), nn.BatchNorm1D(width), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 2),
    )  # fmt: skip


def strategy(optimizer, lr):
    return hub.CombinedStrategy(
        optimizer,
        lr,
        scheduler={"slanted_triangle": {"cut_fraction": 0.3}, "gradual_unfreeze": 3, "discriminative": {"blocks": 3}},
        regularization={"L2SP": 0.05, "weight_decay": 0.01},
        clip={"GlobalNorm": 1.0},
    )


def build(
    folder, result, every=3, optimizer="adam", lr=0.02, noisy=True, epochs=EPOCHS, batch=BATCH, samples=SAMPLES,
    width=16, multiplier=1.0, ema=True, accumulate=1, workers=0, **options,
):  # fmt: skip
    """A Learner on made-up data; what `run` needs lies in its `plans`."""
    paddle.seed(11)
    np.random.seed(11)
    noise = Noisy(samples)
    data = noise if noisy else [(noise.x[i], noise.y[i]) for i in range(samples)]
    valid = [(noise.x[i], noise.y[i]) for i in range(20)]
    if workers:
        data = paddle.io.DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers)
    model = net(width)
    if multiplier != 1.0:
        configure(model, [("6.weight", paddle.ParamAttr(learning_rate=multiplier))])
    cbs = [Pace(result), *([hub.EMA(decay=0.9)] if ema else [])]
    checkpoints = hub.Checkpoints(folder, every=every, **options) if folder else None
    learner = hub.Learner(
        model, data, valid, metrics="acc", batch_size=batch, cbs=cbs, progress=False, checkpoints=checkpoints,
        accumulate=accumulate,
    )  # fmt: skip
    learner.plans = epochs, strategy(optimizer, lr)
    return learner


def run(learner):
    """Two fits, one after the other; the results of both."""
    epochs, plan = learner.plans
    return learner.fit(epochs, strategy=plan, pretrained="*") + learner.fit_one_cycle(2, 0.01)


def outcome(learner, results):
    """Everything that has to come out equal, as a flat dict of arrays."""
    found = {f"model/{name}": value.numpy() for name, value in learner.model.state_dict().items()}
    state = learner.bind_own().state_dict()
    for name, kinds in state["optimizer"].items():
        found.update({f"optimizer/{name}/{kind}": value.numpy() for kind, value in kinds.items()})
    recorder = learner.recorder
    found.update(lrs=np.array(recorder.lrs), losses=np.array(recorder.losses), smooth=np.array(recorder.smooth_losses))
    found.update({f"hps/{name}": np.array(values) for name, values in recorder.hps.items()})
    for number, row in enumerate(results):
        found.update({f"results/{number}/{name}": np.array(value) for name, value in row.items()})
    found["drawn after"] = np.concatenate([paddle.rand([3]).numpy(), np.random.rand(3)])
    return found


if __name__ == "__main__":
    where, out, *rest = sys.argv[1:]
    learner = build(where, out, int(rest[0]) if rest else 3)
    np.savez(out, **outcome(learner, run(learner)))
