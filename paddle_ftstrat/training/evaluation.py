"""Running a model over data without training it: evaluation with its metrics, and prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paddle
from paddle.metric import Metric

from paddle_ftstrat import _paddle
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.param_attr.depth import call, only_inputs, split_batch
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.training import data, distributed
from paddle_ftstrat.training import metrics as named
from paddle_ftstrat.training.losses import IGNORED, array, loss_of, main_output
from paddle_ftstrat.training.recorder import summary
from paddle_ftstrat.training.state import Training

__all__ = ["IGNORED", "Evaluation", "array", "better", "evaluate", "find", "main_output", "predict", "summary"]


def find(
    metrics: Any, kind: str | None = None, label_list: Sequence[str] | None = None, ignore_index: int = IGNORED
) -> dict[str, Any]:
    """Name → metric, for a list of names, functions and `paddle.metric.Metric` objects (or a single one).

    Args:
        metrics: names (see `metrics.names`); functions f(predictions, labels) → number, called once with the
            tensors of the whole evaluation; Metric objects, updated batch by batch.
        kind: what the outputs are: "classes", "labels", "values" or "tokens" (see `metrics.make`); None: what
            the first kind in this order means by a name.
        label_list: names of the classes, for chunks of tokens.
        ignore_index: the label of tokens that do not count.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
        ImportError: the metric needs a package that is not installed.

    Example:
        >>> list(find(["acc", "matthews"])), list(find(["mse", "spearman"]))
        (['acc', 'matthews'], ['mse', 'spearman'])
    """
    if metrics is None:
        return {}
    if isinstance(metrics, (str, Metric)) or callable(metrics):
        metrics = [metrics]
    found: dict[str, Any] = {}
    for metric in metrics:
        if isinstance(metric, str):
            found[metric] = named.make(metric, kind, label_list, ignore_index)
        elif isinstance(metric, Metric):
            name = metric.name()
            found[name if isinstance(name, str) else name[0]] = metric
        elif callable(metric):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        else:
            raise TypeError(f"a metric must be a name, a function or a paddle.metric.Metric, not {metric!r}")
    return found


def better(name: str, value: float, best: float) -> bool:
    """Whether a score beats the best so far: lower or higher, as `mode_of` has it; NaN beats nothing.

    Args:
        name: the score's name.
        value: the new score.
        best: the best so far, NaN for none.

    Example:
        >>> better("acc", 0.9, 0.8), better("mse", 0.9, 0.8), better("acc", 0.1, float("nan"))
        (True, False, True)
    """
    if best != best:
        return value == value
    return value < best if mode_of(name) == "min" else value > best


class Evaluation:
    """Metrics over the batches of one evaluation; the mean loss is weighted by batch size."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        self._metrics = metrics
        self._keep = any(not isinstance(metric, Metric) for metric in metrics.values())
        self._outputs: list[Any] = []
        self._labels: list[Any] = []
        self._loss, self.samples = 0.0, 0
        for metric in metrics.values():
            if isinstance(metric, Metric):
                metric.reset()

    def add(self, output: Any, label: Any, loss: float | None, samples: int) -> None:
        """Count one batch."""
        if loss is not None:
            self._loss += loss * samples
            self.samples += samples
        if label is None:
            return
        output = main_output(output) if self._metrics else output
        for metric in self._metrics.values():
            if isinstance(metric, Metric):
                computed = metric.compute(output, label)
                metric.update(*(computed if isinstance(computed, (list, tuple)) else [computed]))
        if self._keep:
            self._outputs.append(output)
            self._labels.append(label)

    def values(self) -> dict[str, float]:
        """`loss` and each metric by name; NaN without a sample."""
        result = {"loss": self._loss / self.samples if self.samples else float("nan")}
        outputs = paddle.concat(self._outputs) if self._outputs else None
        labels = paddle.concat(self._labels) if self._labels else None
        for name, metric in self._metrics.items():
            if isinstance(metric, Metric):
                value = metric.accumulate()
                result[name] = float(value[0] if isinstance(value, (list, tuple)) else value)
            else:
                result[name] = float(metric(outputs, labels)) if outputs is not None else float("nan")
        return result


def evaluate(learner: Training, loader: Any) -> dict[str, float]:
    """Loss and metrics over a loader in eval mode, over all processes' shares of it together."""
    found = Evaluation(learner.metrics)
    sampler = data.own_sampler(loader)
    # A user's loader that is not shared out gives each process everything.
    dist = learner.ranks if data.is_shared(loader) else distributed.ONE
    with _running(learner):
        for number, batch in enumerate(data.read(loader)):
            inputs, label = split_batch(batch)
            with learner.precision.forward():
                output = call(learner.model, inputs)
                loss = float(loss_of(learner.loss, output, label).item())
            learner.call_event("after_loss", batch, output, loss)
            count = data.batch_size_of(batch) if sampler is None else sampler.count(number)
            if dist.is_distributed:
                loss, count, output, label = _together(loss, count, output, label, dist)
            found.add(output, label, loss, count)
    if not found.samples:
        raise ValueError("there is no batch to evaluate: the loader gave none")
    return found.values()


def predict(learner: Training, loader: Any) -> Any:
    """The model's outputs over a loader in eval mode, joined along the first axis."""
    with _running(learner), learner.precision.forward():
        return data.concatenated([call(learner.model, only_inputs(batch)) for batch in data.read(loader)])


@contextmanager
def _running(learner: Training) -> Iterator[None]:
    with _paddle.evaluating(learner.model), paddle.no_grad(), threads.cpu_threads(learner.num_threads):
        yield


def _together(loss: float, count: int, output: Any, label: Any, dist: distributed.Ranks) -> tuple[float, int, Any, Any]:
    """One batch of all processes as if it had been one process's."""
    weighted, samples = distributed.added([loss * count, count], dist)
    joined = distributed.joined_rows((output, label), count, dist) if label is not None else (None, None)
    return weighted / samples, int(samples), *joined
