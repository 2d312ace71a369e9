"""The losses that go by the kind of label, and what to change about a batch that they cannot take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_ftstrat import _errors

_WHOLE = (paddle.int64, paddle.int32, paddle.int16, paddle.int8, paddle.uint8)
_NUMBERS = "make them int64 for classes, float32 for numbers, e.g. labels.astype('int64')"
# Paddle's losses of two tensors of the same shape, which broadcast others without a word.
_ELEMENTWISE = (functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss)
_ELEMENTWISE_LAYERS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss)
IGNORED = -100
HALVES = ("bfloat16", "float16")


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


def elementwise(loss: Any, output: Any, label: Any) -> Any:
    """A loss of two tensors whose shapes differ in axes of length 1 only; the label takes the output's shape and dtype.

    Paddle would broadcast [batch, 1] against [batch] to [batch, batch], without a word.

    Args:
        loss: function (output, label) → scalar tensor.
        output: what the model returned (see `main_output`).
        label: the batch's label.

    Raises:
        ValueError: other shapes that differ.
    """
    values = main_output(output)
    if _long_axes(values) != _long_axes(label):
        raise ValueError(
            f"the model returns outputs of shape {list(values.shape)}, but the labels have shape {list(label.shape)}: "
            "a regression needs as many of the ones as of the others, in the same order"
        )
    if _name(values.dtype) in HALVES:
        values = values.astype("float32")
    return loss(values, label.reshape(values.shape).astype(values.dtype))


def cross_entropy(output: Any, label: Any) -> Any:
    """Cross entropy of logits [..., classes] and classes [...] or [..., 1]; a label of −100 does not count.

    Args:
        output: what the model returned (see `main_output`).
        label: the batch's label.

    Raises:
        ValueError: labels of another shape, or beyond the classes.
        TypeError: labels that are no whole numbers.
    """
    logits = main_output(output)
    shape = list(logits.shape)
    if label.dtype not in _WHOLE:
        raise TypeError(f"the labels are {_name(label.dtype)}, but classes are whole numbers: {_NUMBERS}")
    if list(label.shape) not in (shape[:-1], [*shape[:-1], 1]) or not shape:
        raise ValueError(
            f"the model returns logits of shape {shape}, but the labels have shape {list(label.shape)}: cross entropy "
            "needs logits [batch, classes] and the classes' numbers [batch] or [batch, 1]; for anything else give loss="
        )
    label = label if label.dtype in _WHOLE[:2] else label.astype("int64")
    if not label.place.is_cpu_place():
        # Paddle looks on a CPU, too; on a GPU it would end the process.
        _check_classes(logits, label)
    try:
        return functional.cross_entropy(logits, label)
    except Exception as error:
        _check_classes(logits, label, error)
        raise


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


def array(tensor: Any) -> np.ndarray:
    """A tensor as a numpy array, half precision as float32."""
    return (tensor.astype("float32") if _name(tensor.dtype) in HALVES else tensor).numpy()


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


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
