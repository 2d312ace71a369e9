"""Hyper-parameters that change between updates, on an optimizer that stays the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from paddle_ftstrat import _errors, _paddle

NAMES = ("mom", "sqr_mom", "wd", "eps")
_BOUNDS = {
    "mom": {"minimum": 0, "maximum": 1},
    "sqr_mom": {"minimum": 0, "maximum": 1},
    "wd": {"minimum": 0},
    "eps": {"minimum": 0},
}


class HyperParameters:
    """Momentum, second-moment decay, epsilon and weight decay of an optimizer, settable at any time.

    `mom` is the momentum, or Adam's β₁; `sqr_mom` Adam's β₂ or RMSProp's and Adadelta's ρ; `eps` what keeps the
    denominator from 0; `wd` the decoupled decay. Each is one number, or one per parameter.

    Args:
        optimizer: the Paddle optimizer.
        decoupled: what carries out decoupled decay in the optimizer's place; None: the optimizer does it.

    Example:
        >>> import paddle
        >>> adam = paddle.optimizer.Adam(parameters=paddle.nn.Linear(1, 1).parameters())
        >>> hypers = HyperParameters(adam, None)
        >>> hypers.set("mom", 0.85)
        >>> hypers.get("mom")
        0.85
    """

    def __init__(self, optimizer: Any, decoupled: Any | None) -> None:
        self._optimizer = optimizer
        self._decoupled = decoupled
        self._varied: dict[str, dict[str, float]] = {}
        self._hooked = False

    def has(self, name: str) -> bool:
        """Whether this optimizer has the hyper-parameter."""
        _errors.check_keys("hyper-parameter", [name], NAMES)
        by_us = name == "wd" and self._decoupled is not None
        return by_us or _paddle.hyper_attribute(self._optimizer, name) is not None

    def get(self, name: str) -> Any:
        """The number in force, or a dict parameter `.name` → number where they differ."""
        self._check(name)
        if name == "wd" and self._decoupled is not None:
            return self._decoupled.get()
        attribute = _paddle.hyper_attribute(self._optimizer, name)
        return dict(self._varied[attribute]) if attribute in self._varied else getattr(self._optimizer, attribute)

    def check(self, names: Iterable[str]) -> None:
        """Refuse hyper-parameters, beside `lr`, that the optimizer lacks.

        Raises:
            ValueError: there is one.
        """
        for name in names:
            if name != "lr":
                self._check(name)

    @property
    def varied(self) -> Mapping[str, Mapping[str, float]]:
        """What differs between parameters: the optimizer's attribute → parameter `.name` → number."""
        return self._varied

    def set(self, name: str, value: Any) -> None:
        """Use another number from the next update on, or a dict parameter `.name` → number.

        Raises:
            ValueError: an unknown name, one that the optimizer lacks, or a number out of range.
        """
        self._check(name)
        each = value if isinstance(value, Mapping) else {None: value}
        each = {key: _errors.check_number(name, number, **_BOUNDS[name]) for key, number in each.items()}
        if name == "wd" and self._decoupled is not None:
            self._decoupled.set(each if isinstance(value, Mapping) else each[None])
            return
        attribute = _paddle.hyper_attribute(self._optimizer, name)
        if not isinstance(value, Mapping):
            self._varied.pop(attribute, None)
            setattr(self._optimizer, attribute, each[None])
            return
        self._varied[attribute] = each
        if not self._hooked:
            _paddle.before_each_update(self._optimizer, self._put)
            self._hooked = True

    def _put(self, param: Any) -> None:
        for attribute, by_param in self._varied.items():
            if param.name in by_param:
                setattr(self._optimizer, attribute, by_param[param.name])

    def _check(self, name: str) -> None:
        if not self.has(name):
            have = [known for known in NAMES if self.has(known)]
            raise ValueError(
                f"optimizer {type(self._optimizer).__name__} has no hyper-parameter {name!r}; "
                f"it has {_errors.listing(['lr', *have])}"
            )
