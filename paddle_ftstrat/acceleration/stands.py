"""Which forward stands in for that of which of Paddle's layers, when it may, and putting them in place and away."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, NamedTuple

import paddle
from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat._paddle import forwards
from paddle_ftstrat.acceleration import autograd

# With fewer values in its output a layer runs as it is: an operation in Python costs some 50 µs.
LEAST = 1 << 15
NO_NUMBA = "numba is not installed"
BROKEN_ZLIB = "numba unpacks what it keeps on disk, and this process's zlib is broken"


class Stand(NamedTuple):
    """A forward in place of that of a class, and what says why a layer keeps its own ("" where it need not)."""

    name: str
    forward: Callable[..., Any]
    objection: Callable[[Any], str]


STANDS: dict[type[nn.Layer], Stand] = {}
WITHOUT_KERNELS = (nn.Linear, nn.LayerNorm)


def stands_for(cls: type[nn.Layer], objection: Callable[[Any], str] = lambda layer: "") -> Callable[[Any], Any]:
    """Enter a forward for a class of layers and its subclasses that have the same forward."""

    def entered(forward: Any) -> Any:
        # Pickled, a bound method becomes the attribute of its function's name, which is then the class's own forward.
        forward.__name__ = "forward"
        STANDS[cls] = Stand(cls.__name__, paddle.jit.not_to_static(forward), objection)
        return forward

    return entered


def stand_of(layer: nn.Layer) -> Stand | None:
    """What there is for a layer's forward."""
    usable = WITHOUT_KERNELS if why_none() else STANDS
    base = next((cls for cls in usable if isinstance(layer, cls)), None)
    if base is None or type(layer).forward is not base.forward or not forwards.is_paddles_forward(base):
        return None
    return STANDS[base]


@functools.cache
def operations() -> Any:
    """The operations with their kernels, or those without; None, after a warning, where numba fails."""
    if why_none():
        return autograd
    try:
        from paddle_ftstrat.acceleration import kernels, machine, operations

        machine.run(kernels.gate, 0, 1)
    except Exception as error:
        # What numba raises where it does not get along with a processor or another package has no common class.
        _errors.warn(f"layers are not accelerated: numba fails ({error!r})")
        return None
    return operations


@functools.cache
def why_none() -> str:
    """Why no kernel can be made in this process; "" where it can."""
    if importlib.util.find_spec("numba") is None:
        return NO_NUMBA
    return "" if _paddle.compression_works() else BROKEN_ZLIB


def fits(layer: nn.Layer, x: Any, width: int | None = None, share: float = 1) -> bool:
    """Whether an input is one for the operations, and the layer's class has Paddle's forward still.

    `width` is the last axis of the output where it is another, `share` how much of LEAST the output must have.
    """
    if not forwards.plain_here(x):
        return False
    values = x.size if width is None else x.size // max(x.shape[-1], 1) * width
    large = values >= max(share * LEAST, 1)
    return large and forwards.is_paddles_forward(type(layer)) and operations() is not None


def float32(*tensors: Any) -> bool:
    """Whether all of them that are there are float32."""
    return all(tensor is None or tensor.dtype == paddle.float32 for tensor in tensors)


def only(**plain: Any) -> Callable[[Any], str]:
    """The objection to a layer of which an attribute is not the plain one."""

    def objection(layer: nn.Layer) -> str:
        special = (name for name, value in plain.items() if getattr(layer, name, value) != value)
        return next((f"{name}={getattr(layer, name)!r}" for name in special), "")

    return objection


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
    _layers: Sequence[tuple[nn.Layer, Stand]] = field(default=(), repr=False)

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
        stand = stand_of(layer)
        if stand is None:
            continue
        own = "forward" in layer.__dict__ and not _is_ours(layer)
        if why := "has a forward of its own" if own else stand.objection(layer):
            kept[path] = why
        else:
            replaced[path] = stand.name
            found.append((layer, stand))
    reason = reason or why_none()
    if wanted and not found:
        raise ValueError(f"accelerate=True, but {reason or 'no layer has a faster forward'}")
    return Acceleration(replaced, kept, reason, found)


def maker(model: nn.Layer) -> str:
    """What computes the layers of a model wherever it fits, on which their rounding and dropout depend."""
    if not any(_is_ours(layer) for _, layer in _layers(model)):
        return "Paddle"
    return "Paddle, sums as products" if why_none() else f"numba {_paddle.numba_version()}"


def _layers(model: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
    return _paddle.unwrap(model).named_sublayers(include_self=True)


def _is_ours(layer: nn.Layer) -> bool:
    function = getattr(layer.__dict__.get("forward"), "__func__", None)
    return any(stand.forward is function for stand in STANDS.values())


def _objection(model: nn.Layer) -> str:
    if not _paddle.on_cpu(model.parameters()):
        return "the model is not on the CPU"
    if _paddle.compiled_layers(model):
        return "compiled by paddle.jit.to_static"
    return ""
