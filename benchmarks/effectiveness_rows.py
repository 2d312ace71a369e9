"""The rows of the table: what each does with a Learner, a learning rate and a number of epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle_ftstrat as hub

BASELINE = "constant LR"
FROM_SCRATCH = "from scratch"
FULL = "ULMFiT"
TRIANGLE = {"cut_fraction": 0.1, "ratio": 32}
FACTOR = 2.6


@dataclass(frozen=True)
class Row:
    """One way to fine-tune.

    Attributes:
        name: in the table.
        train: (learner, peak LR, epochs) → None; takes exactly so many epochs.
        pretrained: whether it begins with pretrained weights.
    """

    name: str
    train: Callable[[Any, float, int], Any]
    pretrained: bool = True


def rows() -> dict[str, Row]:
    """All rows by name, the one that the others are compared with first."""
    made = [
        Row(BASELINE, _strategy(hub.DefaultStrategy)),
        Row("warmup + linear to 0", _scheduled(lambda lr: _linear(0.0))),
        Row("warmup + linear to lr/32", _scheduled(lambda lr: _linear(lr / TRIANGLE["ratio"]))),
        Row("slanted triangle", _scheduled(lambda lr: {"slanted_triangle": TRIANGLE})),
        Row("discriminative, 3 blocks", _scheduled(lambda lr: {"discriminative": {"blocks": 3, "factor": FACTOR}})),
        Row("discriminative, 5 blocks", _scheduled(lambda lr: {"discriminative": {"blocks": 5, "factor": FACTOR}})),
        Row("gradual unfreezing, 3 blocks", _scheduled(lambda lr: {"gradual_unfreeze": 3})),
        Row("L2SP", _strategy(hub.L2SPFinetuneStrategy)),
        Row(FULL, _strategy(hub.ULMFiTStrategy)),
        Row("one-cycle", lambda learner, lr, epochs: learner.fit_one_cycle(epochs, lr)),
        Row("fine_tune", lambda learner, lr, epochs: learner.fine_tune(epochs - 1, lr, freeze_epochs=1)),
        Row(FROM_SCRATCH, _strategy(hub.DefaultStrategy), pretrained=False),
        # Parts of ULMFiT taken together, to see which of them does what.
        Row("triangle + discriminative", _strategy(lambda lr: hub.ULMFiTStrategy(lr, frz_blocks=0))),
        Row("triangle + unfreezing", _strategy(lambda lr: hub.ULMFiTStrategy(lr, dis_blocks=0))),
        Row("from scratch, one-cycle", lambda learner, lr, epochs: learner.fit_one_cycle(epochs, lr), pretrained=False),
    ]
    return {row.name: row for row in made}


def _linear(end: float) -> dict[str, Any]:
    return {"warmup": 0.1, "linear_decay": {"start_point": 0.1, "end_learning_rate": end}}


def _strategy(make: Callable[[float], Any]) -> Callable[[Any, float, int], Any]:
    return lambda learner, lr, epochs: learner.fit(epochs, strategy=make(lr))


def _scheduled(scheduler: Callable[[float], dict[str, Any]]) -> Callable[[Any, float, int], Any]:
    return _strategy(lambda lr: hub.CombinedStrategy(learning_rate=lr, scheduler=scheduler(lr)))
