"""Cost: processor time and memory until a fine-tuning is as good as one of everything at a constant LR.

A transformer has learnt the ten digits, and learns from 100 labels to tell digits apart by their remainder modulo 5.
Seconds are those of training, not of looking whether the goal is reached; memory is the peak of Paddle's allocator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

import paddle_ftstrat as hub
from benchmarks.evidence.core import Experiment, Options, Row, Score
from benchmarks.evidence.digits import SOURCE, Digits, accuracy, pretrained, splits
from benchmarks.evidence.docs import Shown
from benchmarks.evidence.stability import Transformer

WIDTH, EPOCHS, GOAL = 96, 8, 0.9
RATES = (3e-4, 1e-3, 3e-3)
SEARCHED = (1e-4, 1e-3, 1e-2)
SEARCHES = ("best of three LRs", "uniform soup", "greedy soup", "LR finder")
BATCH = 50
TOP = ["layers.3.*", "head.*"]
# How much Paddle's allocator has handed out; checked on paddlepaddle 3.3.1. On 2.6.2 a peak cannot be begun anew.
MEMORY = paddle.base.core
BEGIN_PEAK = getattr(MEMORY, "host_memory_stat_reset_peak_value", None)


def network() -> Transformer:
    """The network before it has learnt anything."""
    return Transformer(10, WIDTH)


def task(digits: Digits) -> Digits:
    """The digits under their remainder modulo 5."""
    return Digits(digits.pictures, digits.labels % 5)


class Stopwatch(hub.Callback):
    """Seconds of the training until a goal is reached on the data to score on, and its peak memory, epoch by epoch."""

    def __init__(self, scored: Digits) -> None:
        self.scored, self.seconds, self.reached, self.megabytes = scored, 0.0, None, 0.0
        self.before = MEMORY.host_memory_stat_current_value("Allocated", 0)

    def on_epoch_begin(self, learner: Any) -> None:
        """Go on."""
        if BEGIN_PEAK is not None:
            BEGIN_PEAK("Allocated", 0)
        self.began = time.process_time()

    def on_epoch_end(self, learner: Any) -> None:
        """Stop, and look."""
        self.seconds += time.process_time() - self.began
        peak = MEMORY.host_memory_stat_peak_value("Allocated", 0) - self.before
        self.megabytes = max(self.megabytes, peak / 2**20)
        if self.reached is None and accuracy(learner.model, self.scored) >= GOAL:
            self.reached = learner.state.epoch, self.seconds


@dataclass(frozen=True)
class Way:
    """One way to fine-tune; `options` go to the Learner, `binding` to `bind`."""

    name: str
    strategy: Callable[[float], hub.DefaultStrategy]
    options: Mapping[str, Any]
    binding: Mapping[str, Any]

    def row(self, weights: Path, epochs: int) -> Row:
        """The row of the first part."""
        return Row(self.name, lambda *given: self.run(weights, epochs, *given), {"lr": RATES})

    def run(self, weights: Path, epochs: int, setting: Mapping[str, Any], seed: int, split: str) -> dict[str, float]:
        """Fine-tune, and tell when the goal was reached."""
        learner = learner_of(weights, seed, **self.options)
        watch = Stopwatch(task(splits()[split]))
        learner.fit(epochs, strategy=self.strategy(setting["lr"]), cbs=[watch], **self.binding)
        at, seconds = watch.reached or (epochs, watch.seconds)
        return {
            "accuracy": accuracy(learner.model, watch.scored),
            "reached": float(watch.reached is not None),
            "epochs": at,
            "until": seconds,
            "seconds": watch.seconds,
            **({} if BEGIN_PEAK is None else {"megabytes": watch.megabytes}),
        }


def learner_of(weights: Path, seed: int, **options: Any) -> hub.Learner:
    """A Learner with the pretrained network, a new head, and the labels of a seed."""
    model = Transformer(5, WIDTH)
    hub.load_pretrained(model, weights, exclude="head.*")
    data = task(splits()["train"].few(10, seed)).dataset()
    return hub.Learner(model, data, batch_size=BATCH, progress=False, num_threads=1, **options)


def phased(*phases: hub.Phase) -> Callable[[float], hub.DefaultStrategy]:
    """A strategy of phases, of a learning rate."""
    return lambda lr: hub.PhasedStrategy(phases, learning_rate=lr)


def probing(lr: float) -> hub.DefaultStrategy:
    """Two thirds of the epochs for the head at ten times the LR, the rest for everything."""
    return hub.PhasedStrategy(
        [hub.Phase("head", share=2 / 3, learning_rate=10 * lr), hub.Phase("all", learning_rate=lr)]
    )


WAYS = (
    Way("constant LR", hub.DefaultStrategy, {}, {}),
    Way("constant LR, plain Paddle", hub.DefaultStrategy, {}, {"accelerate": False, "fused": False}),
    Way("top layer and head", phased(hub.Phase(TOP)), {}, {}),
    Way("top layer and head, cached", phased(hub.Phase(TOP)), {"cache_frozen": True}, {}),
    Way("head alone, cached", phased(hub.Phase("head")), {"cache_frozen": True}, {}),
    Way("LP-FT", probing, {}, {}),
    Way("LP-FT, cached", probing, {"cache_frozen": True}, {}),
    Way("gradual unfreezing", lambda lr: hub.CombinedStrategy("adam", lr, scheduler={"gradual_unfreeze": 4}), {}, {}),
)


def searched(name: str, weights: Path, epochs: int) -> Row:
    """What is made of one fine-tuning at each of three learning rates."""

    def run(setting: Mapping[str, Any], seed: int, split: str) -> dict[str, float]:
        started, states, dev = time.process_time(), [], task(splits()["dev"].few(10, seed))
        if name == "LR finder":
            learner = learner_of(weights, seed)
            rates = [learner.lr_find(num_it=40, suggest_funcs=hub.valley).valley]
        else:
            rates = SEARCHED
        for lr in rates:
            learner = learner_of(weights, seed)
            learner.fit(epochs, strategy=hub.DefaultStrategy(lr))
            states.append({key: value.numpy().copy() for key, value in learner.model.state_dict().items()})
        model = learner.model

        def score(state: Mapping[str, Any]) -> float:
            model.set_state_dict(state)
            return accuracy(model, dev)

        if name == "uniform soup":
            model.set_state_dict(hub.soup(states))
        elif name == "greedy soup":
            model.set_state_dict(hub.soup(states, score=score))
        else:
            model.set_state_dict(max(states, key=score))
        seconds = time.process_time() - started
        return {"accuracy": accuracy(model, task(splits()[split])), "seconds": seconds}

    return Row(name, run, {})


def make(options: Options) -> Experiment:
    """Ways to the same accuracy, and what to do instead of a search."""
    quick = options.quick
    path = options.folder / f"digits-transformer-{WIDTH}{'-quick' if quick else ''}.safetensors"
    weights = pretrained(path, network, splits()["source"], 1 if quick else 15, 1e-3)
    epochs = 4 if quick else EPOCHS
    parts = {
        "until the goal": [way.row(weights, epochs) for way in WAYS],
        "instead of a search": [searched(name, weights, epochs) for name in SEARCHES],
    }
    facts = {
        "pretrained on": SOURCE, "labels": 100, "batch": BATCH, "epochs": epochs, "optimizer": "adam", "goal": GOAL,
        "width": WIDTH, "searched": SEARCHED,
    }  # fmt: skip
    return Experiment(parts, "accuracy", *((1, 2) if quick else (3, 10)), facts)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Seconds until the goal and peak memory of each way, as a share of the first one's; medians over seeds."""
    from paddle_ftstrat.pictures import finished, pyplot

    lines = results["parts"]["until the goal"]
    figure, panels = pyplot().subplots(1, 2, figsize=(9, 3.6), sharey=True, constrained_layout=True)
    for axes, (key, title) in zip(panels, (("until", "seconds until the goal"), ("megabytes", "peak memory"))):
        first = np.array(lines[0]["scores"][key])
        shares = [np.median(np.array(line["scores"][key]) / first) for line in lines]
        heights = np.arange(len(lines))[::-1]
        axes.barh(heights, shares, color=["C7", *["C0"] * (len(lines) - 1)])
        for height, share in zip(heights, shares):
            axes.annotate(f" {share:.2f}", (share, height), va="center", fontsize=8)
        axes.set_xlim(0, 1.15 * max(shares))
        axes.axvline(1, color="0.5", lw=1)
        axes.set_yticks(heights, [line["name"] for line in lines])
        axes.set_title(f"{title}, × that of constant LR", fontsize=10)
    finished(figure, path)


SHOWN = Shown(
    (
        Score("accuracy", "accuracy", "准确率"),
        Score("reached", "runs that reach the goal", "达到目标的运行", digits=0),
        Score("until", "seconds until the goal", "达到目标的秒数", percent=False, digits=2),
        Score("epochs", "epochs until then", "到那时的轮数", percent=False),
        Score("megabytes", "peak memory, MB", "内存峰值（MB）", percent=False),
    ),
    {
        "constant LR": "恒定学习率",
        "constant LR, plain Paddle": "恒定学习率，原生 Paddle",
        "top layer and head": "只训练顶层与输出层",
        "top layer and head, cached": "只训练顶层与输出层，缓存",
        "head alone, cached": "只训练输出层，缓存",
        "LP-FT, cached": "LP-FT，缓存",
        "gradual unfreezing": "逐层解冻",
        "best of three LRs": "三个学习率中最好的",
        "uniform soup": "均匀 soup",
        "greedy soup": "贪心 soup",
        "LR finder": "学习率探测",
    },
    draw,
)
