"""A training step on the CPU with other kernels than Paddle's where these are slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import MethodType

from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.acceleration import forwards

__all__ = ["Acceleration", "accelerate"]


@dataclass(frozen=True)
class Acceleration:
    """What is accelerated in a model.

    Attributes:
        replaced: path of each layer whose forward is replaced → name of the class of layers that it is.
        kept: path of each layer that might be → why it is not.
        reason: why nothing is replaced, or only what needs no kernels; "" where all can be.
    """

    replaced: dict[str, str]
    kept: dict[str, str]
    reason: str = ""
    _layers: Sequence[tuple[nn.Layer, forwards.Stand]] = field(default=(), repr=False)

    def apply(self) -> None:
        """Replace the forwards."""
        for layer, stand in self._layers:
            layer.__dict__["forward"] = MethodType(stand.forward, layer)

    def __str__(self) -> str:
        if not self.replaced:
            return f"layers run by Paddle's own operations: {self.reason or 'none of them has a faster forward'}"
        text = "accelerated: " + ", ".join(f"{count} {name}" for name, count in Counter(self.replaced.values()).items())
        kept = ", ".join(f"{path} ({why})" for path, why in self.kept.items())
        others = f"other layers{self.reason and f' ({self.reason})'}, functions called in a forward"
        return f"{text}; as they are: {others}{kept and ', '}{kept}"


def accelerate(model: nn.Layer, undo: bool = False) -> Acceleration:
    """Replace the forwards of a model's layers by faster ones with the same results, layer by layer; CPU, float32.

    `bind` does it, so that Learner and tasks have it too. Linear, LayerNorm, BatchNorm1D to 3D, GELU, ReLU, ReLU6,
    Dropout, Embedding, Conv2D, CrossEntropyLoss, MultiHeadAttention and TransformerEncoderLayer have one. Classes,
    parameters, names, hooks and `state_dict` stay; a copy of the model is accelerated too, a pickled one is not. Where
    an input is of another dtype or device, cast by `auto_cast`, traced by `to_static` or small, the layer's own
    forward runs. Functions that a forward calls itself (`functional.gelu(…)`) cannot be replaced. Without numba,
    Linear and LayerNorm alone have one, of Paddle's operations.

    Args:
        model: the model.
        undo: give the layers their own forwards back.

    Returns:
        What is replaced and what not; as text, in a line.

    Raises:
        TypeError: `model` is no `paddle.nn.Layer`.

    Example:
        >>> import paddle, paddle_ftstrat as hub
        >>> model = paddle.nn.Sequential(paddle.nn.Linear(4, 8), paddle.nn.GELU(), paddle.nn.Linear(8, 2))
        >>> hub.accelerate(model).replaced
        {'0': 'Linear', '1': 'GELU', '2': 'Linear'}
        >>> hub.accelerate(model, undo=True).replaced
        {}
    """
    done = survey(model, False if undo else None)
    if undo:
        for _, layer in _layers(model):
            if _is_ours(layer):
                del layer.__dict__["forward"]
    done.apply()
    return done


def survey(model: nn.Layer, wanted: bool | None) -> Acceleration:
    """What could be accelerated in a model, before anything is done.

    `wanted` is None for whatever can be, True where nothing is not enough (then ValueError), False for nothing.
    """
    _paddle.check_layer(model)
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"accelerate must be None, True or False, not {_errors.shown(wanted)}")
    reason = "accelerate=False" if wanted is False else _objection(model)
    replaced, kept, found = {}, {}, []
    for path, layer in () if reason else _layers(model):
        stand = forwards.stand_of(layer)
        if stand is None:
            continue
        own = "forward" in layer.__dict__ and not _is_ours(layer)
        if why := "has a forward of its own" if own else stand.objection(layer):
            kept[path] = why
        else:
            replaced[path] = stand.name
            found.append((layer, stand))
    reason = reason or forwards.why_none()
    if wanted and not found:
        raise ValueError(f"accelerate=True, but {reason or 'no layer has a faster forward'}")
    return Acceleration(replaced, kept, reason, found)


def maker(model: nn.Layer) -> str:
    """What computes the layers of a model wherever it fits, on which their rounding and dropout depend."""
    if not any(_is_ours(layer) for _, layer in _layers(model)):
        return "Paddle"
    return "Paddle, sums as products" if forwards.why_none() else f"numba {_paddle.numba_version()}"


def _layers(model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
    return _paddle.unwrap(model).named_sublayers(include_self=True)


def _is_ours(layer: nn.Layer) -> bool:
    function = getattr(layer.__dict__.get("forward"), "__func__", None)
    return any(stand.forward is function for stand in forwards.STANDS.values())


def _objection(model: nn.Layer) -> str:
    if not _paddle.on_cpu(model.parameters()):
        return "the model is not on the CPU"
    if _paddle.compiled_layers(model):
        return "compiled by paddle.jit.to_static"
    return ""
