"""Tensors as addresses: what an update that works on memory itself has to know, read quickly for thousands of them.

Checked on paddlepaddle 2.6.2 and 3.3.1. With thousands of tensors the time goes where one is looked at that has left
the processor's cache meanwhile. So each thing is asked of all tensors in a row by functions in C (`map`, `attrgetter`),
over which the processor waits for several of them at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from operator import attrgetter, eq, is_, itemgetter
from typing import Any, NamedTuple

import paddle
from paddle.base import core

# So many tensors stay in the processor's cache from one question to the next.
BLOCK = 256
_Tensor = core.eager.Tensor
_shape = attrgetter("shape")
_frozen = attrgetter("stop_gradient")
_settings = attrgetter("optimize_attr")
_rate = itemgetter("learning_rate")
_clip = attrgetter("need_clip")
_regularizer = attrgetter("regularizer")


class Seen(NamedTuple):
    """The parameters that train and have a gradient, and what an update has to know of each."""

    params: list[Any]
    grads: list[Any]
    places: list[int]
    rates: list[float]
    clipped: list[bool]
    regularizers: list[Any]
    noted: list[Any]


def glance(params: Sequence[Any], note: str) -> Seen:
    """What an update has to know of the parameters that train and have a gradient; `note` is a key in their settings.

    Its values are in `noted`.
    """
    seen = Seen([], [], [], [], [], [], [])
    for first in range(0, len(params), BLOCK):
        part = params[first : first + BLOCK]
        frozen = list(map(_frozen, part))
        grads = list(map(_Tensor._grad_ivar, part))
        if any(frozen) or any(map(is_, grads, repeat(None))):
            kept = [i for i, grad in enumerate(grads) if grad is not None and not frozen[i]]
            part, grads = [part[i] for i in kept], [grads[i] for i in kept]
        seen.params.extend(part)
        seen.grads.extend(grads)
        seen.places.extend(map(_Tensor.data_ptr, part))
        settings = list(map(_settings, part))
        seen.rates.extend(map(_rate, settings))
        seen.noted.extend(map(dict.get, settings, repeat(note)))
        seen.clipped.extend(map(_clip, part))
        seen.regularizers.extend(map(_regularizer, part))
    return seen


def addresses(tensors: Iterable[Any]) -> list[int]:
    """Where each tensor's first value lies now; 0 for one that holds no memory of its own."""
    return [place or 0 for place in map(_Tensor.data_ptr, tensors)]


def gradient_addresses(grads: Sequence[Any], shapes: Sequence[list[int]]) -> list[int]:
    """Where the first value of each gradient lies, 0 for one that is not plain (see `oddity`) or of another shape.

    Four bytes are float32 here, because no other dtype of that size can come out of a backward; a sparse gradient has
    no address.
    """
    found: list[int] = []
    for first in range(0, len(grads), BLOCK):
        part, wanted = grads[first : first + BLOCK], shapes[first : first + BLOCK]
        if _plain(part, wanted):
            found.extend(map(_Tensor.data_ptr, part))
        else:
            found.extend(grad.data_ptr() if _plain([grad], [shape]) else 0 for grad, shape in zip(part, wanted))
    return found


def _plain(grads: Sequence[Any], shapes: Sequence[list[int]]) -> bool:
    return (
        all(map(_Tensor.is_contiguous, grads))
        and all(map(eq, map(_Tensor.element_size, grads), repeat(4)))
        and all(map(eq, map(_shape, grads), shapes))
    )


def hold_memory(tensors: Iterable[Any]) -> list[Any]:
    """Handles that keep the memory in which these tensors lie now, whatever becomes of the tensors."""
    handles = []
    for tensor in tensors:
        handles.append(paddle.empty([0], "float32"))
        handles[-1].get_tensor()._share_data_with(tensor.get_tensor())
    return handles


def oddity(tensor: Any) -> str:
    """Why a tensor is not plain (dense, contiguous, float32, with memory of its own), in words; "" where it is."""
    if not tensor.is_dense():
        return "is sparse"
    if not tensor._is_initialized():
        return "holds no memory"
    if not tensor.is_contiguous():
        return "is not contiguous"
    return "" if tensor.dtype == paddle.float32 else f"is {str(tensor.dtype).rpartition('.')[2].lower()}"


def same(here: Collection[Any], there: Collection[Any]) -> bool:
    """Whether two collections hold the same objects; `==` would compare tensors value by value."""
    return len(here) == len(there) and all(map(is_, here, there))


def mark_changed(params: Iterable[Any]) -> None:
    """Tell autograd that parameters were changed in place: a graph that still needs the old values raises then."""
    for _ in map(_Tensor._bump_inplace_version, params):
        pass


def only_cpu() -> bool:
    """Whether this process has no device but the CPU, so that every tensor lies in its memory."""
    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        return False
    return not paddle.is_compiled_with_xpu() and not paddle.device.get_all_custom_device_type()
