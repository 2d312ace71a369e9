"""Which optimizers the fused update knows, and when one of them has a setting that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paddle.nn import ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue
from paddle.optimizer import SGD, Adam, AdamW, Momentum
from paddle.regularizer import L1Decay, L2Decay

from paddle_ftstrat._paddle import updates
from paddle_ftstrat.optim.regularizer import L2SPDecay


class Unfit(Exception):
    """This update, or every one, is not one for the fused pass; the message says why."""


@dataclass(frozen=True)
class Rule:
    """An optimizer's rule: the pass that carries it out, and the names of its accumulators of full and of one value."""

    name: str
    moments: tuple[str, ...] = ()
    powers: tuple[str, ...] = ()


_ADAM = Rule("adam", ("moment1", "moment2"), ("beta1_pow_acc", "beta2_pow_acc"))
_RULES = {SGD: Rule("sgd"), Momentum: Rule("momentum", ("velocity",)), Adam: _ADAM, AdamW: _ADAM}

_CLIPS = (type(None), ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue)
_REGULARIZERS = (type(None), L1Decay, L2Decay, L2SPDecay)


def rule_of(optimizer: Any) -> Rule:
    """The rule of an optimizer; a subclass may have changed it, so only the classes themselves have one.

    Raises:
        Unfit: the optimizer is of another class or has a setting that the fused update does not know.

    Example:
        >>> import paddle
        >>> rule_of(SGD(0.1, parameters=paddle.nn.Linear(1, 1).parameters())).name
        'sgd'
    """
    rule = _RULES.get(type(optimizer))
    name = type(optimizer).__name__
    if rule is None:
        raise Unfit(f"the optimizer is {name}, and only {', '.join(cls.__name__ for cls in _RULES)} are fused")
    special = updates.special_setting(optimizer)
    if special:
        raise Unfit(f"the optimizer {name} {special}")
    return rule


def check_numbers(numbers: tuple[Any, ...]) -> None:
    """Refuse hyper-parameters that are tensors.

    Raises:
        Unfit: one is no number.
    """
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise Unfit("a hyper-parameter of the optimizer is a tensor")


def check_clip(clip: Any) -> None:
    """Refuse clips that are none of Paddle's three.

    Raises:
        Unfit: another class, or a norm over several processes.
    """
    if type(clip) not in _CLIPS:
        raise Unfit(f"the gradient clip is {type(clip).__name__}")
    if updates.clips_across_processes(clip):
        raise Unfit("the gradient clip's norm is a sum over processes")


def check_regularizer(name: str, regularizer: Any) -> None:
    """Refuse regularizers but L1Decay, L2Decay and L2SPDecay.

    Raises:
        Unfit: another class.
    """
    if type(regularizer) not in _REGULARIZERS:
        raise Unfit(f"the regularizer of {name!r} is {type(regularizer).__name__}")
