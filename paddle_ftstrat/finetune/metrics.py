"""Metrics of a whole evaluation: names, functions of (predictions, labels), or `paddle.metric.Metric` objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle.metric import Accuracy, Metric

from paddle_ftstrat import _errors

_SKLEARN = {
    "f1": ("f1_score", {"average": "macro"}),
    "precision": ("precision_score", {"average": "macro", "zero_division": 0}),
    "recall": ("recall_score", {"average": "macro", "zero_division": 0}),
    "matthews": ("matthews_corrcoef", {}),
}
NAMES = ("acc", *_SKLEARN)


def find(metrics: Any) -> dict[str, Any]:
    """Name → metric, for a list of names, functions and `paddle.metric.Metric` objects (or a single one).

    Args:
        metrics: names of `NAMES`; functions f(predictions, labels) → number, called once with the tensors of the
            whole evaluation; Metric objects, updated batch by batch.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
        ImportError: the metric needs scikit-learn, which is not installed.

    Example:
        >>> list(find(["acc", "matthews"]))
        ['acc', 'matthews']
    """
    if metrics is None:
        return {}
    if isinstance(metrics, (str, Metric)) or callable(metrics):
        metrics = [metrics]
    found: dict[str, Any] = {}
    for metric in metrics:
        if isinstance(metric, str):
            found[metric] = _named(metric)
        elif isinstance(metric, Metric):
            name = metric.name()
            found[name if isinstance(name, str) else name[0]] = metric
        elif callable(metric):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        else:
            raise TypeError(f"a metric must be a name, a function or a paddle.metric.Metric, not {metric!r}")
    return found


class Evaluation:
    """Metrics over the batches of one evaluation; the mean loss is weighted by batch size."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        self._metrics = metrics
        self._keep = any(not isinstance(metric, Metric) for metric in metrics.values())
        self._outputs: list[Any] = []
        self._labels: list[Any] = []
        self._loss, self._samples = 0.0, 0
        for metric in metrics.values():
            if isinstance(metric, Metric):
                metric.reset()

    def add(self, output: Any, label: Any, loss: float | None, samples: int) -> None:
        """Count one batch."""
        if loss is not None:
            self._loss += loss * samples
            self._samples += samples
        if label is None:
            return
        output = output[0] if isinstance(output, (list, tuple)) else output
        for metric in self._metrics.values():
            if isinstance(metric, Metric):
                computed = metric.compute(output, label)
                metric.update(*(computed if isinstance(computed, (list, tuple)) else [computed]))
        if self._keep:
            self._outputs.append(output)
            self._labels.append(label)

    def values(self) -> dict[str, float]:
        """`loss` and each metric by name; NaN without a sample."""
        result = {"loss": self._loss / self._samples if self._samples else float("nan")}
        outputs = paddle.concat(self._outputs) if self._outputs else None
        labels = paddle.concat(self._labels) if self._labels else None
        for name, metric in self._metrics.items():
            if isinstance(metric, Metric):
                value = metric.accumulate()
                result[name] = float(value[0] if isinstance(value, (list, tuple)) else value)
            else:
                result[name] = float(metric(outputs, labels)) if outputs is not None else float("nan")
        return result


def class_numbers(output: Any) -> np.ndarray:
    """Predicted classes of logits or probabilities of shape [..., classes]."""
    return output.numpy().argmax(-1)


def _named(name: str) -> Metric | Callable[[Any, Any], float]:
    if name == "acc":
        return Accuracy(name="acc")
    if name not in _SKLEARN:
        raise ValueError(_errors.unknown("metric", name, NAMES))
    try:
        from sklearn import metrics as sklearn_metrics
    except ImportError as error:
        raise ImportError(f"metric {name!r} needs scikit-learn: pip install 'paddle_ftstrat[metrics]'") from error
    function, options = _SKLEARN[name]

    def score(output: Any, label: Any) -> float:
        labels = label.numpy().reshape(-1)
        return getattr(sklearn_metrics, function)(labels, class_numbers(output).reshape(-1), **options)

    return score


def summary(values: dict[str, float]) -> str:
    """`loss=0.3010 acc=0.9000`, for log lines."""
    return " ".join(f"{name}={value:.4f}" for name, value in values.items())
