"""How good a trained model is, in the numbers of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat.tools.runs import Outcome


def score(learner: Any, seconds: float, dev: tuple[Any, np.ndarray], test: tuple[Any, np.ndarray] | None) -> Outcome:
    """Accuracy (and loss) of a Learner's model.

    Args:
        learner: after its fit.
        seconds: processor time of the fit.
        dev: data set and classes [n].
        test: likewise; None in runs that only choose.
    """
    right, loss = _measure(learner, *dev)
    tested = _measure(learner, *test)[0] if test else None
    return Outcome(right, loss, tested, learner.recorder.values[-1]["train_loss"], round(seconds, 2))


def _measure(learner: Any, data: Any, labels: np.ndarray) -> tuple[float, float]:
    logits = learner.predict(data)
    loss = float(nn.functional.cross_entropy(logits, paddle.to_tensor(labels.astype("int64"))))
    return float((logits.argmax(1).numpy() == labels).mean()), loss
