"""A model's forward with its frozen layers replaced by what they gave before, and whether that gives the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.utils import flatten, pack_sequence_as

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle.layers import has_values
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.depth import call
from paddle_ftstrat.training import rng
from paddle_ftstrat.training.frozen_features.rows import Layout, close, content, find_layout, is_by_sample, same_output

_FETCHED_TWICE = 8
# The frozen layers of a model, bottom first, each with what to call it in an error.
Frozen = Sequence[tuple[str, nn.Layer]]
# A call of the frozen layer of this number, and what its forward returned.
Call = tuple[int, Any]


class Refusal(ValueError):
    """The frozen features of a model cannot be reused, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"cache_frozen=True cannot be used: {reason}. Without it the frozen layers are computed in every epoch"
        )


class _Reached(BaseException):
    """Ends a forward at the boundary. No Exception, so that no model catches it."""


@dataclass(frozen=True)
class Route:
    """The calls of a model's frozen layers in a forward, with the form of each one's output.

    `layers` are the numbers of those that are called, in order; the boundary, the topmost of them, is the last.
    """

    model: nn.Layer
    frozen: Frozen
    layers: tuple[int, ...]
    layouts: tuple[Layout, ...]
    _poison: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @property
    def boundary(self) -> str:
        """The path of the topmost frozen layer."""
        return self.frozen[self.layers[-1]][0]

    def record(self, inputs: Any, batch: int) -> tuple[Any, list[np.ndarray]]:
        """The model's output, and the rows of its boundary's output.

        Raises:
            ValueError: the forward takes another route, or the boundary's output has another form or needs a gradient.
        """
        rows: list[np.ndarray] = []

        def served(place: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if place == len(self.layers) - 1:
                # Not later: what comes next may write into it.
                rows.extend(self.rows(output, batch))
            return output

        return self._served(inputs, served), rows

    def rows(self, output: Any, batch: int) -> list[np.ndarray]:
        """What is to be stored of the boundary's output.

        Raises:
            ValueError: it has another form than before, or needs a gradient.
        """
        if any(isinstance(value, paddle.Tensor) and not value.stop_gradient for value in flatten(output)):
            raise Refusal(f"something that trains, or an input that needs a gradient, reaches {self.boundary}")
        try:
            return self.layouts[-1].rows(output, batch)
        except ValueError as error:
            raise Refusal(f"{self.boundary} {error}") from None

    def replay(self, inputs: Any, rows: Sequence[np.ndarray]) -> Any:
        """The model's output, its boundary returning what these rows were taken from.

        Layers below the boundary return NaN, so that whatever else uses their output shows.

        Raises:
            ValueError: the forward takes another route than before.
        """

        def served(place: int, *_: Any, **__: Any) -> Any:
            if place == len(self.layers) - 1:
                return self.layouts[-1].output(rows)
            return self.layouts[place].poison(len(rows[0]), self._poison)

        return self._served(inputs, served)

    def _served(self, inputs: Any, served: Callable[..., Any]) -> Any:
        """The model's output where `served(place on the route, forward, …)` answers for each call of a frozen layer."""
        coming = enumerate(self.layers)

        def act(layer: int, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            name, (place, expected) = self.frozen[layer][0], next(coming, (0, None))
            if expected is None:
                raise Refusal(f"{name} is called above the topmost frozen layer, {self.boundary}, too")
            if layer != expected:
                raise Refusal(f"the order in which frozen layers are called changes at {name}")
            return served(place, forward, *args, **kwargs)

        with _in_place_of_forwards(self.frozen, act):
            output = call(self.model, inputs)
        for _, missing in coming:
            raise Refusal(f"{self.frozen[missing][0]} was called in the first batch, but not in this one")
        return output


def _trace(model: nn.Layer, frozen: Frozen, inputs: Any, last: int) -> list[Call]:
    """The calls of frozen layers up to the first call of layer `last`, where the forward ends."""
    calls: list[Call] = []

    def act(layer: int, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        calls.append((layer, output))
        if layer == last:
            raise _Reached
        return output

    with _in_place_of_forwards(frozen, act), suppress(_Reached):
        call(model, inputs)
    return calls


@contextmanager
def _in_place_of_forwards(frozen: Frozen, act: Callable[..., Any]) -> Iterator[None]:
    """Have `act(number, forward, …)` called where a frozen layer's forward would be; hooks go on working."""
    before = [(layer.__dict__, layer.__dict__.get("forward"), layer.forward) for _, layer in frozen]
    for number, (attributes, _, forward) in enumerate(before):
        attributes["forward"] = partial(act, number, forward)
    try:
        yield
    finally:
        for attributes, own, _ in before:
            del attributes["forward"]
            if own is not None:
                attributes["forward"] = own


def first_call(model: nn.Layer, frozen: Frozen, inputs: Any, batch: int) -> tuple[Route, Any, list[np.ndarray]]:
    """Run a model on a batch after every check: the route to replay, the output, the rows to be stored.

    The frozen layers run on the batch and on a part of it in another order and number, the rest of the model on what
    the frozen layers gave; all this leaves no trace in the model's buffers, its statistics or the generators. Then
    comes the forward that counts, whose output has to be the same.

    Raises:
        ValueError: the frozen layers' output cannot be reused; the message says why.
    """
    with _unnoticed(model):
        calls = _trace(model, frozen, inputs, len(frozen) - 1)
    if not calls:
        raise Refusal(f"the model does not call its frozen layers: {_errors.listing(name for name, _ in frozen)}")
    # The topmost that the model calls: others' weights it uses without calling them.
    last = calls[-1][0]
    whole = _without_randomness(model, frozen, inputs, last)
    part = np.arange(batch)[::-2] if batch > 2 else np.zeros(batch + 1, int)
    with _unnoticed(model), _refused(f"the frozen layers fail on {len(part)} samples of a batch of {batch}"):
        paddle.rand([8])
        other = _trace(model, frozen, _taken(inputs, batch, part), last)
    route = _find_route(model, frozen, whole, other, batch, len(part))
    rows, rows_of_part = route.rows(whole[-1][1], batch), route.rows(other[-1][1], len(part))
    if not close(route.layouts[-1], [values[part] for values in rows], rows_of_part):
        norms = [name for name, layer in _parts(frozen) if "BatchNorm" in type(layer).__name__ and layer.training]
        raise Refusal(
            f"what {route.boundary} returns for a sample depends on the other samples of the batch, or changes "
            f"from call to call{_named(norms)}"
        )
    what = f"the model fails where only {route.boundary} gives it something of what is frozen"
    with _unnoticed(model), _refused(what):
        expected = route.replay(inputs, rows)
    output, recorded = route.record(inputs, batch)
    if not (close(route.layouts[-1], rows, recorded) and same_output(output, expected)):
        raise Refusal(
            f"the model's output depends on more than what {route.boundary}, the topmost frozen layer, returns: "
            "on a skip connection over it, on hidden states of layers below, or on chance"
        )
    return route, output, recorded


def check_rows(route: Route, inputs: Any, batch: int, rows: Sequence[np.ndarray]) -> None:
    """Compute the first two samples' frozen features anew and compare them with the stored ones.

    Raises:
        ValueError: they differ.
    """
    part = np.arange(min(batch, 2))
    with _unnoticed(route.model):
        calls = _trace(route.model, route.frozen, _taken(inputs, batch, part), route.layers[-1])
    if tuple(layer for layer, _ in calls) != route.layers:
        raise Refusal("which frozen layers are called, and in which order, changes from epoch to epoch")
    if not close(route.layouts[-1], [values[part] for values in rows], route.rows(calls[-1][1], len(part))):
        raise Refusal(f"{route.boundary} returns something else for a sample than in an earlier epoch")


def refuse_random_samples(dataset: Any) -> None:
    """Raise ValueError where a data set gives a sample that is another when fetched again."""
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), _FETCHED_TWICE)).astype(int).tolist():
        with rng.preserved():
            first, second = ([content(value) for value in flatten(dataset[index])] for _ in range(2))
        if first != second:
            raise Refusal(f"sample {index} of the data is another each time it is fetched (augmentation)")


@contextmanager
def _unnoticed(model: nn.Layer) -> Iterator[Callable[[], list[str]]]:
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


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What goes wrong inside, whatever it is, is why the features cannot be reused."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(f"{what}: {error}") from error


def _without_randomness(model: nn.Layer, frozen: Frozen, inputs: Any, last: int) -> list[Call]:
    with _unnoticed(model) as moved:
        before, host = paddle.get_rng_state(), rng.host_state()
        calls = _trace(model, frozen, inputs, last)
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


def _find_route(
    model: nn.Layer, frozen: Frozen, whole: Sequence[Call], part: Sequence[Call], batch: int, part_batch: int
) -> Route:
    """The route that a batch and a part of it both take."""
    layers = tuple(layer for layer, _ in whole)
    if layers != tuple(layer for layer, _ in part):
        raise Refusal("which frozen layers are called, and in which order, depends on the batch")
    layouts = []
    for (layer, one), (_, other) in zip(whole, part):
        try:
            layouts.append(find_layout(one, other, batch, part_batch))
        except ValueError as error:
            raise Refusal(f"{frozen[layer][0]} {error}") from None
    if not layouts[-1].leaves:
        raise Refusal(f"{frozen[layers[-1]][0]} returns nothing that has a row per sample")
    return Route(model, frozen, layers, tuple(layouts))


def _taken(inputs: Any, batch: int, part: np.ndarray) -> Any:
    """The inputs of some of the samples."""

    def of(value: Any) -> Any:
        if not is_by_sample(value, batch):
            return value
        if isinstance(value, np.ndarray):
            return value[part]
        return paddle.to_tensor(value.numpy()[part], dtype=value.dtype, place=value.place)

    return pack_sequence_as(inputs, [of(value) for value in flatten(inputs)])


def _dropouts(frozen: Frozen) -> list[str]:
    """The layers that drop something in train mode: dropout layers, and attention or RNNs that do it themselves."""
    found = []
    for name, layer in _parts(frozen):
        is_dropout = "Dropout" in type(layer).__name__
        share = getattr(layer, "p" if is_dropout else "dropout", None)
        if isinstance(share, (int, float)) and share > 0 and layer.training:
            found.append(f"{name}: p = {share:g}")
    return found


def _parts(frozen: Frozen) -> Iterator[tuple[str, nn.Layer]]:
    for path, layer in frozen:
        for inner, part in layer.named_sublayers(include_self=True):
            yield select.join(path, inner) if inner else path, part


def _named(names: Sequence[str]) -> str:
    return f" ({_errors.listing(names)})" if names else ""
