"""What a model's outputs are worth: losses by the kind of label, R-Drop's of two passes, evaluation; and prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.metric import Metric
from paddle.nn import functional

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.optim.masters import wide
from paddle_ftstrat.param_attr.depth import call, only_inputs, split_batch
from paddle_ftstrat.training import data, distributed
from paddle_ftstrat.training import metrics as named
from paddle_ftstrat.training.metrics import IGNORED, array
from paddle_ftstrat.training.recorder import summary
from paddle_ftstrat.training.state import Training

__all__ = ["IGNORED", "Evaluation", "RDrop", "array", "evaluate", "find", "main_output", "outputs", "summary"]

_WHOLE = (paddle.int64, paddle.int32, paddle.int16, paddle.int8, paddle.uint8)
_NUMBERS = "make them int64 for classes, float32 for numbers, e.g. labels.astype('int64')"
# Paddle's losses of two tensors of the same shape, which broadcast others without a word.
_ELEMENTWISE = (functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss)
_ELEMENTWISE_LAYERS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss)


def find(
    metrics: Any, kind: str | None = None, label_list: Sequence[str] | None = None, ignore_index: int = IGNORED
) -> dict[str, Metric]:
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
    found = {}
    for metric in metrics:
        if isinstance(metric, str):
            metric = named.make(metric, kind, label_list, ignore_index)
        elif not isinstance(metric, Metric) and callable(metric):
            metric = named.of_function(metric)
        elif not isinstance(metric, Metric):
            raise TypeError(f"a metric must be a name, a function or a paddle.metric.Metric, not {metric!r}")
        name = metric.name()
        found[name if isinstance(name, str) else name[0]] = metric
    return found


class Evaluation:
    """Metrics over the batches of one evaluation; the mean loss is weighted by batch size."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._loss, self.samples = 0.0, 0
        for metric in metrics.values():
            metric.reset()

    def add(self, output: Any, label: Any, loss: float, samples: int) -> None:
        """Count one batch."""
        self._loss += loss * samples
        self.samples += samples
        for metric in self._metrics.values() if label is not None else ():
            computed = metric.compute(main_output(output), label)
            metric.update(*(computed if isinstance(computed, (list, tuple)) else [computed]))

    def values(self) -> dict[str, float]:
        """`loss` and each metric by name; NaN without a sample."""
        result = {"loss": self._loss / self.samples if self.samples else float("nan")}
        for name, metric in self._metrics.items():
            value = metric.accumulate()
            result[name] = float(value[0] if isinstance(value, (list, tuple)) else value)
        return result


def evaluate(learner: Training, loader: Any) -> dict[str, float]:
    """Loss and metrics over a loader in eval mode, over all processes' shares of it together."""
    found = Evaluation(learner.metrics)
    sampler = data.own_sampler(loader)
    # A user's loader that is not shared out gives each process everything.
    dist = learner.ranks if data.is_shared(loader) else distributed.ONE
    with _paddle.evaluating(learner.model), paddle.no_grad(), threads.cpu_threads(learner.num_threads):
        for number, batch in enumerate(data.read(loader)):
            inputs, label = split_batch(batch)
            with learner.precision.forward():
                output = call(learner.model, inputs)
                loss = float(loss_of(learner.loss, output, label).item())
            learner.call_event("after_loss", batch, output, loss)
            count = data.batch_size_of(batch) if sampler is None else sampler.count(number)
            if dist.is_distributed:
                # One batch of all processes as if it had been one process's.
                loss, samples = distributed.added([loss * count, count], dist)
                output, label = (None, None) if label is None else distributed.joined_rows((output, label), count, dist)
                loss, count = loss / samples, int(samples)
            found.add(output, label, loss, count)
    if not found.samples:
        raise ValueError("there is no batch to evaluate: the loader gave none")
    return found.values()


def outputs(learner: Training, loader: Any) -> Iterator[tuple[Any, Any]]:
    """Each batch of a loader, and what the model returns for it in eval mode."""
    with _paddle.evaluating(learner.model), threads.cpu_threads(learner.num_threads):
        for batch in data.read(loader):
            with paddle.no_grad(), learner.precision.forward():
                output = call(learner.model, only_inputs(batch))
            yield batch, output


def loss_of(given: Any, output: Any, label: Any, *again: Any) -> Any:
    """The loss by the given function, by the label's type, or from a model that returns its loss.

    Args:
        given: function (output, label) → scalar tensor, called as it is, but for Paddle's elementwise losses, whose
            label gets the output's shape; None: cross entropy for whole numbers, else mean squared error.
        output: what the model returned.
        label: the batch's label, or None.
        again: what a second pass returned, for R-Drop.

    Raises:
        ValueError, TypeError: label and output do not go together.

    Example:
        >>> float(loss_of(None, paddle.to_tensor([[1.0], [2.0]]), paddle.to_tensor([1.0, 4.0])))
        2.0
    """
    if label is None:
        loss = output[0] if isinstance(output, (list, tuple)) else output
        if getattr(loss, "size", 0) != 1:
            raise ValueError(
                "a batch without label needs a model that returns its loss, not "
                f"{'an output of shape ' + str(list(loss.shape)) if hasattr(loss, 'shape') else type(loss).__name__}; "
                "batches are (input, …, label) or dicts with 'labels'"
            )
        return loss
    if type(given) in _ELEMENTWISE_LAYERS or given in _ELEMENTWISE:
        return elementwise(given, output, label)
    if given is not None:
        return given(output, label, *again)
    if not isinstance(label, paddle.Tensor):
        raise TypeError(f"a label of type {type(label).__name__} needs a loss function of its own: give loss=")
    if label.dtype == paddle.bool:
        raise TypeError(f"the labels are bool, which may mean classes or numbers: {_NUMBERS}, or give loss=")
    return cross_entropy(output, label) if label.dtype in _WHOLE else elementwise(functional.mse_loss, output, label)


class RDrop:
    """R-Drop: a loss over two forward passes of a batch, whose dropout differs, and how far their outputs are apart.

    ½(L(output) + L(output')) + α·½(KL(p‖p') + KL(p'‖p)), with p = softmax of the logits, the mean over all samples
    whose label is not −100. A Learner or task that has it as its loss makes the second pass by itself; evaluations take
    L alone.

    Args:
        loss: L, as for a Learner; None: cross entropy.
        alpha: α ≥ 0. The paper sums L where this takes the mean, so that its α is twice this one.

    Raises:
        ValueError: α < 0; outputs that are no logits of classes.
        TypeError: α is no number.

    Example:
        >>> loss, logits = RDrop(alpha=0.5), paddle.to_tensor([[1.0, 2.0]])
        >>> label = paddle.to_tensor([1])
        >>> (loss(logits, label, logits) == loss(logits, label)).item()  # in a loop of one's own: the model twice
        True

    Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks" (arXiv:2106.14448, eq. 2 and 3).
    """

    def __init__(self, loss: Any = None, alpha: float = 1.0) -> None:
        self.loss, self.alpha = loss, _errors.check_number("alpha", alpha, minimum=0)

    def __call__(self, output: Any, label: Any, again: Any = None) -> Any:
        """The loss of an output, with that of a second pass that of both."""
        if again is None:
            return loss_of(self.loss, output, label)
        loss = (loss_of(self.loss, output, label) + loss_of(self.loss, again, label)) / 2
        return loss + self.alpha * _apart(main_output(output), main_output(again), label)


def elementwise(loss: Any, output: Any, label: Any) -> Any:
    """A loss of two tensors whose shapes differ in axes of length 1 only; the label takes the output's shape and dtype.

    Paddle would broadcast [batch, 1] against [batch] to [batch, batch], without a word.

    Raises:
        ValueError: other shapes that differ.
    """
    values = main_output(output)
    if _long_axes(values) != _long_axes(label):
        needed = "a regression needs as many of the ones as of the others, in the same order"
        raise misfit("outputs", values, label, needed)
    values = wide(values)
    return loss(values, label.reshape(values.shape).astype(values.dtype))


def cross_entropy(output: Any, label: Any) -> Any:
    """Cross entropy of logits [..., classes] and classes [...] or [..., 1]; a label of −100 does not count.

    Raises:
        ValueError: labels of another shape, or beyond the classes.
        TypeError: labels that are no whole numbers.
    """
    logits = main_output(output)
    shape = list(logits.shape)
    if label.dtype not in _WHOLE:
        raise TypeError(
            f"the labels are {str(label.dtype).rpartition('.')[2]}, but classes are whole numbers: {_NUMBERS}"
        )
    if list(label.shape) not in (shape[:-1], [*shape[:-1], 1]) or not shape:
        needed = "cross entropy needs logits [batch, classes] and the classes' numbers [batch] or [batch, 1]"
        raise misfit("logits", logits, label, f"{needed}; for anything else give loss=")
    label = label if label.dtype in _WHOLE[:2] else label.astype("int64")
    if not label.place.is_cpu_place():
        # Paddle looks on a CPU, too; on a GPU it would end the process.
        _check_classes(logits, label)
    try:
        return functional.cross_entropy(logits, label)
    except Exception as error:
        _check_classes(logits, label, error)
        raise


def misfit(what: str, output: Any, label: Any, needed: str) -> ValueError:
    """The error for outputs and labels whose shapes do not go together."""
    shapes = f"{what} of shape {list(output.shape)}, but the labels have shape {list(label.shape)}"
    return ValueError(f"the model returns {shapes}: {needed}")


def main_output(output: Any) -> Any:
    """What of a model's output the loss and the metrics look at: `logits` of a mapping, the first entry of a tuple.

    Raises:
        ValueError: a mapping of several entries without `logits`.

    Example:
        >>> main_output({"hidden": 1, "logits": 2}), main_output((3, 4)), main_output(5)
        (2, 3, 5)
    """
    if not isinstance(output, Mapping):
        return output[0] if isinstance(output, (list, tuple)) else output
    if "logits" not in output and len(output) != 1:
        raise ValueError(
            f"the model returns a dict of {_errors.listing(output)}: which of them loss and metrics are to look at is "
            "not clear; call it 'logits', or give a loss function of your own"
        )
    return output.get("logits", next(iter(output.values())))


def _check_classes(output: Any, label: Any, cause: Exception | None = None) -> None:
    classes, label = output.shape[-1], label.numpy()
    strange = label[((label < 0) & (label != IGNORED)) | (label >= classes)]
    if strange.size:
        raise ValueError(
            f"label {strange.flat[0]} is none of the model's classes: its output of shape {list(output.shape)} has "
            f"{classes}, numbered 0 … {classes - 1}; build the model with more classes, or number the labels from 0"
        ) from cause


def _long_axes(tensor: Any) -> list[int]:
    return [length for length in tensor.shape if length != 1]


def _apart(logits: Any, others: Any, label: Any) -> Any:
    """½(KL(p‖q) + KL(q‖p)) of two outputs, the mean over the samples that count: ½ Σ (p − q)(log p − log q)."""
    if list(logits.shape) in (list(label.shape), [*label.shape, 1]) or logits.ndim < 2:
        raise ValueError(f"RDrop compares logits of classes, not outputs of shape {list(logits.shape)}")
    p, q = (functional.log_softmax(one.astype("float32"), axis=-1) for one in (logits, others))
    apart = ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2
    counts = (label.reshape(apart.shape) != IGNORED).astype(apart.dtype)
    return (apart * counts).sum() / counts.sum().clip(min=1.0)
