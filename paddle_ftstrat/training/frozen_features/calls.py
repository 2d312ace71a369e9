"""One call of a model whose frozen layers are watched, or served from what they gave before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat.param_attr.depth import call
from paddle_ftstrat.training.frozen_features.layout import Layout, find_layout, not_a_number

Act = Callable[..., Any]


@dataclass(frozen=True)
class Frozen:
    """The frozen layers of a model, bottom first, and what to call them in an error."""

    layers: tuple[nn.Layer, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A call of the frozen layer of this number, and what its forward returned."""

    layer: int
    output: Any


@dataclass(frozen=True)
class Route:
    """The calls of frozen layers in one forward: those below the boundary, whose outputs only have a form, and it."""

    frozen: Frozen
    layers: tuple[int, ...]
    layouts: tuple[Layout, ...]

    @property
    def boundary(self) -> str:
        """The path of the topmost frozen layer."""
        return self.frozen.names[self.layers[-1]]

    @property
    def layout(self) -> Layout:
        """The form of the boundary's output."""
        return self.layouts[-1]


class Refusal(ValueError):
    """The frozen features of a model cannot be reused, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"cache_frozen=True cannot be used: {reason}. Without it the frozen layers are computed in every epoch"
        )


class _Reached(BaseException):
    """Ends a forward at the boundary. No Exception, so that no model catches it."""


def trace(model: nn.Layer, frozen: Frozen, inputs: Any, last: int) -> list[Call]:
    """The calls of frozen layers up to the first call of layer `last`, where the forward ends."""
    calls: list[Call] = []

    def act(layer: int, forward: Act, *args: Any, **kwargs: Any) -> Any:
        calls.append(Call(layer, forward(*args, **kwargs)))
        if layer == last:
            raise _Reached
        return calls[-1].output

    with _in_place_of_forwards(frozen, act), suppress(_Reached):
        call(model, inputs)
    return calls


def find_route(frozen: Frozen, whole: Sequence[Call], part: Sequence[Call], batch: int, part_batch: int) -> Route:
    """The route that a batch and a part of it both take.

    Raises:
        ValueError: they take different ones, or a layer's output cannot be stored by sample.
    """
    layers = tuple(each.layer for each in whole)
    if layers != tuple(each.layer for each in part):
        raise Refusal("which frozen layers are called, and in which order, depends on the batch")
    layouts = []
    for one, other in zip(whole, part):
        try:
            layouts.append(find_layout(one.output, other.output, batch, part_batch))
        except ValueError as error:
            raise Refusal(f"{frozen.names[one.layer]} {error}") from None
    if not layouts[-1].leaves:
        raise Refusal(f"{frozen.names[layers[-1]]} returns nothing that has a row per sample")
    return Route(frozen, layers, tuple(layouts))


def record(model: nn.Layer, route: Route, inputs: Any, batch: int) -> tuple[Any, list[np.ndarray]]:
    """The model's output, and the rows of its boundary's output.

    Raises:
        ValueError: the forward takes another route, or the boundary's output has another form or needs a gradient.
    """
    rows: list[np.ndarray] = []

    def served(place: int, forward: Act, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if place == len(route.layers) - 1:
            # Not later: what comes next may write into it.
            rows.extend(stored_rows(route, output, batch))
        return output

    return _along(model, route, inputs, served), rows


def stored_rows(route: Route, output: Any, batch: int) -> list[np.ndarray]:
    """What is to be stored of the boundary's output.

    Raises:
        ValueError: it has another form than before, or needs a gradient.
    """
    if any(isinstance(value, paddle.Tensor) and not value.stop_gradient for value in paddle.utils.flatten(output)):
        raise Refusal(f"something that trains, or an input that needs a gradient, reaches {route.boundary}")
    try:
        return route.layout.rows(output, batch)
    except ValueError as error:
        raise Refusal(f"{route.boundary} {error}") from None


class Replay:
    """Calls of a model with rows in place of what its frozen layers would compute.

    Layers below the boundary return NaN, so that whatever else uses their output shows.
    """

    def __init__(self, model: nn.Layer, route: Route) -> None:
        self.route = route
        self._model = model
        self._poison: dict[tuple[Any, ...], Any] = {}

    def __call__(self, inputs: Any, rows: Sequence[np.ndarray]) -> Any:
        """The model's output, its boundary returning what these rows were taken from.

        Raises:
            ValueError: the forward takes another route than before.
        """
        layouts, batch = self.route.layouts, len(rows[0])

        def served(place: int, *_: Any, **__: Any) -> Any:
            below = place < len(layouts) - 1
            return layouts[place].poison(batch, self._filled) if below else layouts[place].output(rows)

        return _along(self._model, self.route, inputs, served)

    def _filled(self, shape: list[int], dtype: Any) -> Any:
        key = (*shape, dtype)
        if key not in self._poison:
            self._poison[key] = not_a_number(shape, dtype)
        # The model may reshape what it gets in place.
        return self._poison[key].detach()


def _along(model: nn.Layer, route: Route, inputs: Any, served: Act) -> Any:
    """The model's output where `served(place on the route, forward, …)` answers for each call of a frozen layer."""
    done = 0

    def act(layer: int, forward: Act, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done == len(route.layers):
            raise Refusal(
                f"{route.frozen.names[layer]} is called above the topmost frozen layer, {route.boundary}, too"
            )
        if layer != route.layers[done]:
            raise Refusal(f"the order in which frozen layers are called changes at {route.frozen.names[layer]}")
        done += 1
        return served(done - 1, forward, *args, **kwargs)

    with _in_place_of_forwards(route.frozen, act):
        output = call(model, inputs)
    if done < len(route.layers):
        missing = route.frozen.names[route.layers[done]]
        raise Refusal(f"{missing} was called in the first batch, but not in this one")
    return output


@contextmanager
def _in_place_of_forwards(frozen: Frozen, act: Act) -> Iterator[None]:
    """Have `act(number, forward, …)` called where a frozen layer's forward would be; hooks go on working."""
    replaced = []
    try:
        for number, layer in enumerate(frozen.layers):
            replaced.append((layer, layer.__dict__.get("forward")))
            layer.__dict__["forward"] = _Instead(act, number, layer.forward)
        yield
    finally:
        for layer, own in reversed(replaced):
            del layer.__dict__["forward"]
            if own is not None:
                layer.__dict__["forward"] = own


class _Instead:
    """A layer's forward for the time being."""

    def __init__(self, act: Act, number: int, forward: Act) -> None:
        self._act = act
        self._number = number
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._act(self._number, self._forward, *args, **kwargs)
