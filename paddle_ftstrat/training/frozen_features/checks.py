"""Whether what frozen layers give a sample is the same each time, and all that the rest of the model uses of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.utils import flatten, pack_sequence_as

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle.layers import has_values
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.training import rng
from paddle_ftstrat.training.frozen_features.calls import (
    Call,
    Frozen,
    Refusal,
    Replay,
    Route,
    find_route,
    record,
    stored_rows,
    trace,
)
from paddle_ftstrat.training.frozen_features.layout import close, same_output

_FETCHED_TWICE = 8


def first_call(model: nn.Layer, frozen: Frozen, inputs: Any, batch: int) -> tuple[Replay, Any, list[np.ndarray]]:
    """Run a model on a batch after every check: what replays it, its output, the rows to be stored.

    The frozen layers run on the batch and on a part of it in another order and number, the rest of the model on what
    the frozen layers gave; all this leaves no trace in the model's buffers, its statistics or the generators. Then
    comes the forward that counts, whose output has to be the same.

    Raises:
        ValueError: the frozen layers' output cannot be reused; the message says why.
    """
    last = _last_called(model, frozen, inputs)
    whole = _without_randomness(model, frozen, inputs, last)
    part = np.arange(batch)[::-2] if batch > 2 else np.zeros(batch + 1, int)
    other = _on_part(model, frozen, inputs, batch, part, last)
    route = find_route(frozen, whole, other, batch, len(part))
    rows = stored_rows(route, whole[-1].output, batch)
    rows_of_part = stored_rows(route, other[-1].output, len(part))
    if not close(route.layout, [values[part] for values in rows], rows_of_part):
        raise Refusal(
            f"what {route.boundary} returns for a sample depends on the other samples of the batch, or changes "
            f"from call to call{_named(_training_norms(frozen))}"
        )
    replay = Replay(model, route)
    expected = _replayed(model, replay, inputs, rows)
    output, recorded = record(model, route, inputs, batch)
    if not (close(route.layout, rows, recorded) and same_output(output, expected)):
        raise Refusal(
            f"the model's output depends on more than what {route.boundary}, the topmost frozen layer, returns: "
            "on a skip connection over it, on hidden states of layers below, or on chance"
        )
    return replay, output, recorded


def check_rows(model: nn.Layer, route: Route, inputs: Any, batch: int, rows: Sequence[np.ndarray]) -> None:
    """Compute the first two samples' frozen features anew and compare them with the stored ones.

    Raises:
        ValueError: they differ.
    """
    part = np.arange(min(batch, 2))
    with unnoticed(model):
        calls = trace(model, route.frozen, _taken(inputs, batch, part), route.layers[-1])
    if tuple(each.layer for each in calls) != route.layers:
        raise Refusal("which frozen layers are called, and in which order, changes from epoch to epoch")
    now = stored_rows(route, calls[-1].output, len(part))
    if not close(route.layout, [values[part] for values in rows], now):
        raise Refusal(f"{route.boundary} returns something else for a sample than in an earlier epoch")


def sample_keys(inputs: Any, batch: int) -> np.ndarray:
    """A number for each sample that follows from all its inputs.

    Args:
        inputs: what the model is called with.
        batch: how many samples that are; tensors with that many rows hold one row per sample.

    Returns:
        uint64 of shape [batch].

    Raises:
        ValueError: no input has `batch` rows.

    Example:
        >>> keys = sample_keys({"ids": paddle.to_tensor([[1, 2], [3, 4], [1, 2]])}, 3)
        >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
        (True, False)
    """
    digests = [hashlib.blake2b(digest_size=8) for _ in range(batch)]
    by_sample = False
    for value in flatten(inputs):
        array = np.ascontiguousarray(value.numpy()) if isinstance(value, paddle.Tensor) else np.asarray(value)
        common = f"{array.dtype}{array.shape[1:]}".encode()
        if _is_by_sample(value, batch):
            by_sample = True
            rows = array.reshape(batch, -1).view(np.uint8)
        else:
            common += array.tobytes() if array.dtype != object else repr(value).encode()
            rows = [b""] * batch
        for digest, row in zip(digests, rows):
            digest.update(common)
            digest.update(row)
    if not by_sample:
        raise ValueError(f"indices names {batch} samples, but no input of the model has {batch} rows")
    return np.array([int.from_bytes(digest.digest(), "little") for digest in digests], np.uint64)


def refuse_random_samples(dataset: Any) -> None:
    """Raise ValueError where a data set gives a sample that is another when fetched again."""
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), _FETCHED_TWICE)).astype(int).tolist():
        with rng.preserved():
            first, second = _digest(dataset[index]), _digest(dataset[index])
        if first != second:
            raise Refusal(f"sample {index} of the data is another each time it is fetched (augmentation)")


@contextmanager
def unnoticed(model: nn.Layer) -> Iterator[Callable[[], list[str]]]:
    """Whatever runs inside leaves buffers, running statistics and generators as they were; yields what moved so far."""
    tensors = {**dict(model.named_buffers()), **select.statistics(model)}
    tensors = {name: tensor for name, tensor in tensors.items() if has_values(tensor)}
    with paddle.no_grad():
        before = {name: tensor.clone() for name, tensor in tensors.items()}

    def moved() -> list[str]:
        return [name for name, tensor in tensors.items() if not same_output(before[name], tensor)]

    with rng.preserved():
        try:
            yield moved
        finally:
            for name in moved():
                tensors[name].set_value(before[name])


def _last_called(model: nn.Layer, frozen: Frozen, inputs: Any) -> int:
    """The topmost of the frozen layers that the model calls: others' weights it uses without calling them."""
    with unnoticed(model):
        calls = trace(model, frozen, inputs, len(frozen.layers) - 1)
    if not calls:
        raise Refusal(f"the model does not call its frozen layers: {_errors.listing(frozen.names)}")
    return calls[-1].layer


def _without_randomness(model: nn.Layer, frozen: Frozen, inputs: Any, last: int) -> list[Call]:
    with unnoticed(model) as moved:
        before, host = paddle.get_rng_state(), rng.host_state()
        calls = trace(model, frozen, inputs, last)
        changed, same_host = moved(), host == rng.host_state()
        after = paddle.rand([4]).numpy()
        paddle.set_rng_state(before)
        drew = not (same_host and np.array_equal(paddle.rand([4]).numpy(), after))
    if changed:
        raise Refusal(
            f"the frozen layers move {_errors.listing(changed)} in train mode; for BatchNorm, "
            'param_attr.freeze(..., batch_norm="freeze") stops that'
        )
    if drew:
        where = _named(_dropouts(frozen)) or " (dropout or noise, in or between them)"
        raise Refusal(f"the frozen layers draw random numbers{where}; set its p to 0, or call eval() on it")
    return calls


def _on_part(model: nn.Layer, frozen: Frozen, inputs: Any, batch: int, part: np.ndarray, last: int) -> list[Call]:
    with unnoticed(model):
        paddle.rand([8])
        try:
            return trace(model, frozen, _taken(inputs, batch, part), last)
        except Exception as error:
            reason = f"the frozen layers fail on {len(part)} samples of a batch of {batch}: {error}"
            raise Refusal(reason) from error


def _replayed(model: nn.Layer, replay: Replay, inputs: Any, rows: Sequence[np.ndarray]) -> Any:
    with unnoticed(model):
        try:
            return replay(inputs, rows)
        except Refusal:
            raise
        except Exception as error:
            reason = f"the model fails where only {replay.route.boundary} gives it something of what is frozen: {error}"
            raise Refusal(reason) from error


def _is_by_sample(value: Any, batch: int) -> bool:
    shape = getattr(value, "shape", ())
    return isinstance(value, (paddle.Tensor, np.ndarray)) and len(shape) > 0 and int(shape[0]) == batch


def _taken(inputs: Any, batch: int, part: np.ndarray) -> Any:
    """The inputs of some of the samples."""

    def of(value: Any) -> Any:
        if not _is_by_sample(value, batch):
            return value
        if isinstance(value, np.ndarray):
            return value[part]
        return paddle.to_tensor(value.numpy()[part], dtype=value.dtype, place=value.place)

    return pack_sequence_as(inputs, [of(value) for value in flatten(inputs)])


def _digest(sample: Any) -> bytes:
    digest = hashlib.blake2b()
    for value in flatten(sample):
        array = np.ascontiguousarray(value.numpy() if isinstance(value, paddle.Tensor) else value)
        digest.update(repr(value).encode() if array.dtype == object else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array.dtype == object else array.tobytes())
    return digest.digest()


def _dropouts(frozen: Frozen) -> list[str]:
    """The layers that drop something in train mode: dropout layers, and attention or RNNs that do it themselves."""
    found = []
    for name, layer in _parts(frozen):
        is_dropout = "Dropout" in type(layer).__name__
        share = getattr(layer, "p" if is_dropout else "dropout", None)
        if isinstance(share, (int, float)) and share > 0 and layer.training:
            found.append(f"{name}: p = {share:g}")
    return found


def _training_norms(frozen: Frozen) -> list[str]:
    return [name for name, layer in _parts(frozen) if "BatchNorm" in type(layer).__name__ and layer.training]


def _parts(frozen: Frozen) -> Iterator[tuple[str, nn.Layer]]:
    for path, layer in zip(frozen.names, frozen.layers):
        for inner, part in layer.named_sublayers(include_self=True):
            yield select.join(path, inner) if inner else path, part


def _named(names: Sequence[str]) -> str:
    return f" ({_errors.listing(names)})" if names else ""
