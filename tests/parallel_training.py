"""A training for one or several processes. Usage: parallel_training.py OUT JSON-options."""

import contextlib
import json
import os
import sys

import numpy as np

import paddle_ftstrat as hub  # isort: skip - before Paddle
import paddle
from paddle import nn
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from paddle_ftstrat.training.callbacks import Callback

SAMPLES = 25


class Interrupted(Exception):
    pass


class Watch(Callback):
    """Notes the weights after each update; ends the training, or this process, where it is told to."""

    def __init__(self, stop=None, die=None):
        self.trace, self._stop, self._die = [], stop, die

    def on_after_update(self, learner):
        values = [value.numpy().ravel() for value in learner.model.state_dict().values()]
        self.trace.append(np.concatenate(values))

    def on_batch_end(self, learner):
        done = len(learner.recorder.losses)
        if self._die is not None and done == self._die and learner.ranks.rank == 1:
            print("update 3 was the last", flush=True)
            os._exit(17)

    def on_batch_begin(self, learner):
        if self._stop is not None and len(learner.recorder.losses) == self._stop:
            raise Interrupted


def net(norm):
    layers = [nn.Linear(6, 16), norm(16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


# The second evaluation is no improvement on the first by so much: the phase ends there.
SOON = hub.Plateau("valid_loss", patience=1, min_delta=1e9, max_epochs=3)
PHASES = {
    "LPFT": hub.LPFTStrategy(0.05, 0.01, clip={"GlobalNorm": 0.5}),
    "Plateau": hub.PhasedStrategy(
        [hub.Phase("head", until=SOON, restore="best", learning_rate=0.05), hub.Phase(reset_optimizer=True)],
        learning_rate=0.01,
    ),
    "inside an epoch": hub.PhasedStrategy([hub.Phase("head", updates=6), hub.Phase()], learning_rate=0.02),
}


def train(
    batch,
    accumulate=1,
    folder=None,
    norm="LayerNorm",
    epochs=3,
    stop=None,
    die=None,
    lr=0.05,
    differ=False,
    phases=None,
    rows=False,
):
    paddle.set_device("cpu")
    rank = paddle.distributed.get_rank()
    # Other weights in each process, which the first one's replace; but the same data order in all.
    paddle.seed(5 + rank)
    np.random.seed(5)
    generator = np.random.default_rng(1)
    x = generator.normal(size=[SAMPLES, 6]).astype("float32")
    pairs = [(row, np.int64(abs(row.sum()) % 3)) for row in x]
    watch, model = Watch(stop, die), net(getattr(nn, norm))
    if rows:
        hub.param_attr.freeze_rows(model[-1], [0, 2])
    learner = hub.Learner(
        model, pairs, pairs, metrics=["acc", "f1"], batch_size=batch, progress=False,
        cbs=[watch, hub.AutoRGN(2)] if rows else [watch],
        accumulate=accumulate, checkpoints=hub.Checkpoints(folder, every=1) if folder else None,
    )  # fmt: skip
    strategy = hub.CombinedStrategy(
        "momentum" if differ and rank else "adam",
        lr,
        scheduler={"slanted_triangle": {"cut_fraction": 0.3}, "gradual_unfreeze": 3, "discriminative": {"blocks": 3}},
        regularization={"L2SP": 0.05},
        clip={"GlobalNorm": 0.5},
    )
    with contextlib.suppress(Interrupted):
        if phases:
            learner.fit(epochs, strategy=PHASES[phases])
        else:
            learner.fit(epochs, strategy=strategy, pretrained="*")
    return learner, watch


def task(batch, folder):
    """PaddleHub's way: a task under a RunConfig, with the best model at the end."""
    paddle.set_device("cpu")
    paddle.seed(5 + paddle.distributed.get_rank())
    np.random.seed(5)
    x = np.random.default_rng(1).normal(size=[SAMPLES, 6]).astype("float32")
    pairs = [(row, np.int64(abs(row.sum()) % 3)) for row in x]
    config = hub.RunConfig(
        num_epoch=3, batch_size=batch, eval_interval=2, log_interval=2, save_ckpt_interval=3, checkpoint_dir=folder,
        strategy=hub.DefaultFinetuneStrategy(0.05),
    )  # fmt: skip
    whole = hub.ClassifierTask(net(nn.LayerNorm), {"train": pairs, "dev": pairs, "test": pairs[:13]}, config)
    found = whole.finetune_and_eval()
    weights = np.concatenate([value.numpy().ravel() for value in whole.model.parameters()])
    return whole.learner, np.append(weights, [whole.best_score, found["loss"], found["acc"]])


MEMBERS = {
    "EMA": {"averaging": {"EMA": 0.7}},
    "SWA": {"averaging": {"SWA": 0.5}},
    "FGM": {"perturbation": {"FGM": {"epsilon": 0.3, "where": "0.weight"}}},
    "PGD": {"perturbation": {"PGD": {"steps": 2, "where": "*.weight"}}},
    "SAM": {"perturbation": {"SAM": 0.1}},
}


def members(batch):
    """Weights at the end of a fit with each average and perturbation, and the average."""
    paddle.set_device("cpu")
    x = np.random.default_rng(1).normal(size=[SAMPLES, 6]).astype("float32")
    pairs, found = [(row, np.int64(abs(row.sum()) % 3)) for row in x], {}
    for name, options in MEMBERS.items():
        paddle.seed(5)
        np.random.seed(5)
        learner = hub.Learner(net(nn.LayerNorm), pairs, batch_size=batch, progress=False)
        learner.fit(3, strategy=hub.CombinedStrategy("momentum", 0.05, clip={"GlobalNorm": 0.5}, **options))
        found[name] = np.concatenate([value.numpy().ravel() for value in learner.model.parameters()])
        if learner.run.average is not None:
            average = learner.run.average.values.values()
            found[f"{name} average"] = np.concatenate([value.numpy().ravel() for value in average])
    return {**found, **own_loop(x, batch)}


def own_loop(x, batch):
    """SAM in a loop that reduces the gradients by itself, on the first 24 samples."""
    rank, world = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    paddle.seed(5)
    model = net(nn.LayerNorm)
    run = hub.DefaultStrategy(0.1, "momentum", perturbation={"SAM": 0.1}).bind(model)
    for first in [*range(0, 24, batch * world)] * 3:
        rows = paddle.to_tensor(x[first + batch * rank : first + batch * (rank + 1)])
        for loss in run.losses(lambda rows=rows: model(rows).square().mean()):
            loss.backward()
            if world > 1:
                fused_allreduce_gradients(list(model.parameters()), None)
        run.step()
    return {"own loop": np.concatenate([value.numpy().ravel() for value in model.parameters()])}


def unequal(lengths, what):
    """Loaders of another length in each process, for training or for validation."""
    paddle.set_device("cpu")
    rank = paddle.distributed.get_rank()

    def loader(length):
        samples = [(np.ones(6, "float32"), np.int64(0))] * (2 * length)
        sampler = paddle.io.DistributedBatchSampler(samples, batch_size=2, num_replicas=1, rank=0)
        return paddle.io.DataLoader(samples, batch_sampler=sampler)

    given = {"train": loader(3), "valid": loader(3), what: loader(lengths[rank])}
    hub.Learner(net(nn.LayerNorm), progress=False, **given).fit(1)


if __name__ == "__main__":
    out, options = sys.argv[1], json.loads(sys.argv[2])
    if "lengths" in options:
        unequal(**options)
        sys.exit()
    if "members" in options:
        np.savez(f"{out}.{paddle.distributed.get_rank()}.npz", **members(options["members"]))
        sys.exit()
    if "task" in options:
        learner, found = task(options["batch"], options["task"])
        np.savez(f"{out}.{learner.ranks.rank}.npz", found=found)
        sys.exit()
    learner, watch = train(**options)
    np.savez(
        f"{out}.{learner.ranks.rank}.npz",
        trace=np.stack(watch.trace) if watch.trace else np.zeros(0),
        losses=np.array(learner.recorder.losses),
        results=np.array([list(row.values()) for row in learner.recorder.values]),
    )
