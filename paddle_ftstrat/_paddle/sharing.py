"""Private Paddle for the names and the creation of parameters. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paddle.base import unique_name
from paddle.base.layer_helper_base import LayerHelperBase

Create = Callable[[Callable[[], Any], str, Any, Any, Any], Any]


class _Route:
    """Counts who needs parameter creation routed, so that overlapping users in several threads share one patch."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.original: Any = None
        self.routed: Any = None


_ROUTE = _Route()


@contextmanager
def parameter_creation_through(create: Create) -> Iterator[None]:
    """Inside it, every parameter is made by `create(make, layer, attr, shape, dtype)`, `make()` being Paddle's own way.

    Every layer and `paddle.create_parameter` end in `LayerHelperBase.create_parameter`, which has no hook. All users
    have to pass the same `create`, which sees the calls of every thread and has to tell its own from others'.
    Checked on 2.6.2 and 3.3.1.
    """
    _acquire(create)
    try:
        yield
    finally:
        _release()


def _acquire(create: Create) -> None:
    with _ROUTE.lock:
        _ROUTE.users += 1
        if _ROUTE.users > 1:
            return
        original = LayerHelperBase.create_parameter

        def create_parameter(self: Any, attr: Any, shape: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
            def make() -> Any:
                return original(self, attr, shape, dtype, *args, **kwargs)

            return create(make, self.name, attr, shape, dtype)

        _ROUTE.original, _ROUTE.routed = original, create_parameter
        LayerHelperBase.create_parameter = create_parameter


def _release() -> None:
    with _ROUTE.lock:
        _ROUTE.users -= 1
        # Someone who patched over ours keeps what they did; ours then only passes calls on.
        if _ROUTE.users == 0 and LayerHelperBase.create_parameter is _ROUTE.routed:
            LayerHelperBase.create_parameter = _ROUTE.original


def name_is_used(name: str) -> bool:
    """Whether Paddle would refuse a new parameter of this name: it remembers names for ever. 2.6.2 and 3.3.1."""
    return name in unique_name.dygraph_parameter_name_checker._name_set


def forget_name(name: str) -> None:
    """Free the name of a parameter whose creation failed; Paddle takes it before it runs the initializer.

    Without this, correcting the mistake and building the layer again fails with "name have be been used".
    Checked on 2.6.2 and 3.3.1.
    """
    unique_name.dygraph_parameter_name_checker._name_set.discard(name)
