"""What goes around an update: half precision becomes float32, infinite gradients are refused, frozen rows kept.

Paddle's own way (`multi_precision=True`) clips, regularises and decays in half precision, drops every regularizer when
gradients are float32 (`paddle.amp.decorate(master_grad=True)`), and exists for few optimizers on few devices. Here a
float32 stand-in with the parameter's name and settings goes through the whole update in its place, so that every
optimizer, regularizer and clip is right in half precision because it is right in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import Pairs, updates
from paddle_ftstrat.param_attr import rows, settings

_FIELD = "ftstrat_float32"
_HALF = (paddle.float16, paddle.bfloat16)


def is_half(param: Any) -> bool:
    """Whether a parameter, or a gradient, is float16 or bfloat16."""
    return param.dtype in _HALF


def wide(tensor: Any) -> Any:
    """A tensor in float32 where it is float16 or bfloat16, as it is otherwise; None is None."""
    return tensor.astype("float32") if tensor is not None and is_half(tensor) else tensor


def keep(param: Any) -> None:
    """Keep the float32 value of a parameter that is about to be cast to half precision."""
    setattr(param, _FIELD, updates.parameter_like(float32_of(param), param.name))


def forget_unused(params: Iterable[Any]) -> None:
    """Drop what `keep` kept of parameters that stayed in float32 after all."""
    for param in params:
        if not is_half(param):
            _forget(param)


def float32_of(param: Any) -> Any:
    """The value in float32, a copy: with all its digits where they are kept and still round to the parameter."""
    if not is_half(param):
        return param.detach().astype("float32").clone()
    value, kept = param.detach().astype("float32"), getattr(param, _FIELD, None)
    if kept is None:
        return value
    kept = kept.detach()
    return paddle.where(kept.astype(param.dtype).astype("float32") == value, kept, value)


def catch_up(params: Iterable[Any]) -> None:
    """Let the kept float32 values follow parameters that somebody else has changed since."""
    for param in params:
        kept = getattr(param, _FIELD, None)
        if kept is not None and is_half(param):
            with paddle.no_grad():
                paddle.assign(float32_of(param), output=kept)


def install(optimizer: Any, params: Iterable[Any], lasting: bool = True) -> Callable[[Any], None]:
    """Let an optimizer update half-precision parameters through float32, others as ever, and leave frozen rows alone.

    Args:
        optimizer: a Paddle optimizer over a flat list of parameters.
        params: its parameters; those that are not half precision now may become so.
        lasting: keep the float32 values from update to update; else each update starts from the rounded value.

    Returns:
        What puts frozen rows back, for `after_update`: behind what moves weights, ahead of what looks at them.
    """
    catch_up(params)
    held: list[tuple[Any, Any]] = []

    def enter(pairs: Pairs) -> Pairs:
        entered = [(_stand_in(optimizer, p, lasting), wide(g)) if is_half(p) else (p, g) for p, g in pairs]
        # Also asked for new optimizer state, in the middle of an update, without gradients.
        if any(grad is not None for _, grad in entered):
            # An update that was refused has left its rows here.
            held[:] = rows.silence(entered) if settings.any_frozen_rows([param for param, _ in entered]) else ()
        return entered

    def restore(pairs: Any = ()) -> None:
        if held:
            rows.put_back(held)
            held.clear()

    def leave(given: Pairs, entered: Pairs) -> None:
        restore()  # also where a scaler skipped the update
        for (param, grad), (stand_in, _) in zip(given, entered):
            if stand_in is not param and grad is not None:
                paddle.assign(stand_in.astype(param.dtype), output=param)

    _paddle.update_through(optimizer, enter, leave)
    return restore


def scaled_step(scaler: Any, optimizer: Any, params: Iterable[Any]) -> bool:
    """`scaler.step(optimizer)` and `scaler.update()`; whether the update was done, not skipped."""
    return updates.scaled_step(scaler, optimizer, [param for param in params if is_half(param)])


def capture(params: Iterable[Any]) -> list[tuple[Any, Any, Any]]:
    """The kept float32 values, for `put_back`."""
    kept = [(param, getattr(param, _FIELD, None)) for param in params]
    return [(param, held, held if held is None else held.detach().clone()) for param, held in kept]


def put_back(captured: Iterable[tuple[Any, Any, Any]]) -> None:
    """Put the kept float32 values back where `capture` found them."""
    for param, held, value in captured:
        if held is None:
            _forget(param)
        else:
            setattr(param, _FIELD, held)
            with paddle.no_grad():
                paddle.assign(value, output=held)


def _stand_in(optimizer: Any, param: Any, lasting: bool) -> Any:
    if not lasting:
        _forget(param)
    stand_in = getattr(param, _FIELD, None)
    if stand_in is None:
        stand_in = updates.parameter_like(float32_of(param), param.name)
    if lasting:
        setattr(param, _FIELD, stand_in)
        updates.put_master_weight(optimizer, param, stand_in)
    settings.put_back(stand_in, settings.capture(param))
    return stand_in


def _forget(param: Any) -> None:
    if hasattr(param, _FIELD):
        delattr(param, _FIELD)


class FiniteGradients:
    """Refuses an update whose gradients hold a NaN or an infinity, before anything is changed for good.

    Args:
        names: parameter `.name` → structured name, for the message.
        lr_scheduler: what tells the update and its LR.
    """

    def __init__(self, names: Mapping[str, str], lr_scheduler: Any) -> None:
        self._names = names
        self._lr = lr_scheduler

    def __call__(self, params_grads: Iterable[tuple[Any, Any]]) -> None:
        """Raise FloatingPointError where a gradient of an update is not finite."""
        with paddle.no_grad():
            given = [(param, _paddle.values_of(grad)) for param, grad in params_grads if grad is not None]
            # One number to wait for. Finite gradients may overflow in it, so that it only says where to look closer.
            sums = [paddle.sum(grad).astype("float32") for _, grad in given]
            if not sums or math.isfinite(paddle.add_n(sums).item()):
                return
            bad = [param.name for param, grad in given if not paddle.isfinite(grad).all().item()]
        self.refuse([self._names.get(name, name) for name in bad])

    def refuse(self, bad: Sequence[str]) -> None:
        """Raise FloatingPointError for parameters, if there are any, whose gradients are not finite."""
        if bad:
            others = f" (nor are those of {_errors.listing(bad[1:], 4)})" if bad[1:] else ""
            raise FloatingPointError(
                f"the gradient of {bad[0]!r} is not finite{others} at update {self._lr.last_epoch + 1} with learning "
                f"rate {self._lr():g}; the weights and the optimizer's state are as before the update"
            )
