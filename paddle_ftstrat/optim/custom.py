"""Optimizers written in Python: one update rule, and everything else that a Paddle optimizer does for free."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Union

import numpy as np
import paddle
from paddle.optimizer import Optimizer

from paddle_ftstrat import _errors
from paddle_ftstrat.optim.masters import is_half
from paddle_ftstrat.param_attr import rows


@dataclass(frozen=True)
class Accumulator:
    """One piece of state per parameter: `fill` is its first value; it has the parameter's shape.

    `scalar` makes it [1] instead, `shape` what that says.

    Example:
        >>> Accumulator(fill=0.1), Accumulator(scalar=True)
        (Accumulator(fill=0.1, scalar=False, shape=None), Accumulator(fill=0.0, scalar=True, shape=None))
    """

    fill: float = 0.0
    scalar: bool = False
    shape: tuple[int, ...] | None = None


class State(dict[str, Any]):
    """The state of one parameter: name → tensor, to be changed in place.

    Attributes:
        dtype: name of the dtype that it has and that the update runs in.
        half: whether the parameter itself is narrower.
        group: number of the parameter group, for optimizers that have any.
        numbers: state that is a plain number.
    """

    def __init__(self, tensors: Mapping[str, Any], dtype: str, half: bool) -> None:
        super().__init__(tensors)
        self.dtype = dtype
        self.half = half
        self.group = 0
        self.numbers: dict[str, float] = {}


Accumulators = Union[Iterable[str], Mapping[str, Union[float, Accumulator]]]


class CustomOptimizer(Optimizer):
    """Base of optimizers written in Python: say what state there is, and how one parameter is updated.

    A subclass names its state in `accumulators` and writes `update`; or it writes `_append_optimize_op(self, block,
    param_and_grad)` as for any `paddle.optimizer.Optimizer`, with `weight_of`, `lr_of`, `state_of` and `write_back`
    to help. It then has LR multipliers and schedulers, ParamAttr's regularisers, clipping, freezing, checkpoints,
    sparse gradients (made dense) and half-precision parameters, whose update runs in float32.

    Args:
        learning_rate: a number ≥ 0 or a `paddle.optimizer.lr.LRScheduler`.
        parameters: the parameters to update, a list or iterator.
        weight_decay: a coefficient λ or a Paddle regulariser. With `decoupled = False`: gradient += λw; with
            `decoupled = True` (a number only): w ← w·(1 − lr·λ) before the update. A parameter's own regulariser
            beats it.
        grad_clip: a `paddle.nn.ClipGradBy…` object.
        multi_precision: keep a float32 copy of each float16 or bfloat16 parameter; `paddle.amp.decorate` sets it.
        apply_decay_param_fun: with `decoupled`, parameter name → whether it decays.
        name: prefix of the state's names.

    Raises:
        ValueError: a negative learning rate or decoupled decay.
        TypeError: a learning rate or decay of a wrong type, or `apply_decay_param_fun` without `decoupled`.

    Example:
        >>> class SignSGD(CustomOptimizer):
        ...     accumulators = ("mean",)
        ...     def update(self, param, grad, lr, state):
        ...         state["mean"].scale_(0.9).add_(grad * 0.1)
        ...         param.subtract_(paddle.sign(state["mean"]) * lr)
        >>> layer = paddle.nn.Linear(1, 1, weight_attr=paddle.nn.initializer.Constant(1.0))
        >>> optimizer = SignSGD(0.25, parameters=layer.parameters())
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight.item()
        0.75
    """

    accumulators: ClassVar[Accumulators] = ()
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        learning_rate: Any = 0.001,
        parameters: Iterable[Any] | None = None,
        weight_decay: Any = None,
        grad_clip: Any = None,
        multi_precision: bool = False,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        name: str | None = None,
    ) -> None:
        if self.decoupled:
            self._weight_decay = _errors.check_number("weight_decay", weight_decay or 0.0, minimum=0)
            weight_decay = None
        elif apply_decay_param_fun is not None:
            raise TypeError(f"{type(self).__name__} has no decoupled decay that apply_decay_param_fun could restrict")
        if isinstance(weight_decay, int):
            weight_decay = float(weight_decay)
        if not isinstance(learning_rate, paddle.optimizer.lr.LRScheduler):
            learning_rate = _errors.check_number("learning_rate", learning_rate, minimum=0)
        super().__init__(learning_rate, parameters, weight_decay, grad_clip, name)
        self._multi_precision = multi_precision
        self._apply_decay_param_fun = apply_decay_param_fun
        self._states: dict[str, State] = {}
        self._already_create_accumulator: set[str] = set()

    def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
        """Change `param` and `state` in place. Written by the subclass.

        Args:
            param: the parameter, float32 or float64; the float32 copy of a half-precision one.
            grad: its dense gradient in the same dtype, clipped and regularised.
            lr: the LR of this parameter and update, multiplier included.
            state: name → tensor, as named in `accumulators`.

        Raises:
            NotImplementedError: the subclass has neither `update` nor `_append_optimize_op`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs update(self, param, grad, lr, state)")

    def accumulators_of(self, param: Any) -> Accumulators:
        """The state that one parameter has: by default `accumulators`. For optimizers that keep less of some."""
        return self.accumulators

    def describe(self) -> str:
        """A line for `run.describe()`, where there is more to say than the optimizer's name."""
        return ""

    def lr_of(self, param: Any) -> float:
        """The LR of the coming update of one parameter: the scheduler's, times ParamAttr's multiplier."""
        return self.get_lr() * multiplier(param)

    def state_of(self, param: Any) -> State:
        """The state of one parameter: name → tensor, to be changed in place."""
        return self._states[param.name]

    def weight_of(self, param: Any) -> Any:
        """What an update changes: the parameter, or for a half-precision one a float32 stand-in."""
        state = self._states.get(param.name)
        if not (is_half(param) if state is None else state.half):
            return param
        return self._create_master_weight(param) if self._multi_precision else param.astype("float32")

    def write_back(self, param: Any, weight: Any) -> None:
        """Give the parameter the value of its updated stand-in from `weight_of`."""
        if weight is not param:
            paddle.assign(weight.astype(param.dtype), output=param)

    def decay_of(self, param: Any) -> float:
        """The decoupled decay of one parameter: 0.0 where it has a regulariser of its own or is left out."""
        if not self.decoupled:
            return 0.0
        if self._apply_decay_param_fun is not None:
            return self._weight_decay if self._apply_decay_param_fun(param.name) else 0.0
        return self._weight_decay if getattr(param, "regularizer", None) is None else 0.0

    def _create_accumulators(self, block: Any, parameters: Iterable[Any]) -> None:
        for param in parameters:
            if param.name not in self._already_create_accumulator:
                self._already_create_accumulator.add(param.name)
                self._states[param.name] = self._add_state(param, named_accumulators(self.accumulators_of(param)))

    def _add_state(self, param: Any, kinds: Mapping[str, Accumulator]) -> State:
        half = is_half(param)
        target = self._create_master_weight(param) if self._multi_precision and half else param
        dtype = "float64" if param.dtype == paddle.float64 else "float32"
        tensors = {
            name: self._add_accumulator(
                name, target, dtype=dtype, fill_value=kind.fill, shape=[1] if kind.scalar else kind.shape
            )
            for name, kind in kinds.items()
        }
        return State(tensors, dtype, half)

    def _apply_optimize(self, loss: Any, startup_program: Any, params_grads: Any, param_group_idx: int = 0) -> Any:
        held = rows.silence(params_grads["params"] if isinstance(params_grads, dict) else params_grads)
        done = super()._apply_optimize(loss, startup_program, params_grads, param_group_idx)
        rows.put_back(held)
        return done

    def _append_optimize_op(self, block: Any, param_and_grad: tuple[Any, Any]) -> None:
        param, grad = param_and_grad
        weight = self.weight_of(param)
        self._move(param, weight, dense(grad, weight, cast=weight is not param))
        self.write_back(param, weight)

    def _move(self, param: Any, weight: Any, grad: Any) -> None:
        """The update of `weight`, which is the parameter or its stand-in, decay included."""
        lr, decay = self.lr_of(param), self.decay_of(param)
        if decay:
            weight.scale_(1.0 - lr * decay)
        self.update(weight, grad, lr, self.state_of(param))


def from_function(
    function: Callable[..., None], accumulators: Accumulators = (), decoupled: bool = False, name: str | None = None
) -> type[CustomOptimizer]:
    """The optimizer class of a function `(param, grad, lr, state, …) → None`.

    Args:
        function: changes `param` and `state` in place, as `CustomOptimizer.update` does. Its further arguments, all
            with defaults, become options of the optimizer.
        accumulators: the names of its state, or name → first value (or `Accumulator`).
        decoupled: whether the optimizer's `weight_decay` is decoupled.
        name: the class's name; by default the function's, capitalised.

    Raises:
        TypeError: the function has other first arguments, or a further one without a default.
        ValueError: a further argument that every optimizer has already.

    Example:
        >>> def momentum(param, grad, lr, state, beta=0.9):
        ...     state["velocity"].scale_(beta).add_(grad)
        ...     param.subtract_(state["velocity"] * lr)
        >>> Momentum = from_function(momentum, ["velocity"])
        >>> layer = paddle.nn.Linear(1, 1)
        >>> Momentum(0.1, layer.parameters(), beta=0.8).options
        {'beta': 0.8}
    """
    defaults = _options_of(function)
    signature = inspect.signature(CustomOptimizer.__init__)
    options = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in defaults.items()]

    class FromFunction(CustomOptimizer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given = {key: kwargs.pop(key) for key in defaults if key in kwargs}
            super().__init__(*args, **kwargs)
            self.options = {**defaults, **given}

        def update(self, param: Any, grad: Any, lr: float, state: dict[str, Any]) -> None:
            function(param, grad, lr, state, **self.options)

    FromFunction.__name__ = FromFunction.__qualname__ = name or function.__name__.title().replace("_", "")
    FromFunction.__doc__, FromFunction.__module__ = function.__doc__, function.__module__
    FromFunction.accumulators, FromFunction.decoupled = named_accumulators(accumulators), decoupled
    vars(FromFunction.__init__)["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), *options]
    )
    return FromFunction


def multiplier(param: Any) -> float:
    """ParamAttr's LR multiplier of a parameter; 1.0 for a plain tensor."""
    attr = getattr(param, "optimize_attr", None)
    return attr["learning_rate"] if attr else 1.0


def dense(grad: Any, weight: Any, cast: bool = False) -> Any:
    """The gradient as a dense tensor, with `cast` in the weight's dtype."""
    if grad.is_selected_rows():
        # Paddle has no conversion of its own; its sum of a sparse and a dense tensor is dense.
        grad = paddle.add_n([grad, paddle.zeros(weight.shape, grad.dtype)])
    return grad.astype(weight.dtype) if cast else grad


def plus(tensor: Any, number: float) -> Any:
    """tensor + number, in float64 exactly too: Paddle 2's own sum with a number rounds it to float32."""
    return paddle.add(tensor, paddle.full([1], number, tensor.dtype))


def times(tensor: Any, factor: Any) -> Any:
    """tensor·factor in place, for a factor [1]: the quick way of a CPU, and one that no GPU has to wait for."""
    return tensor.scale_(factor) if tensor.place.is_cpu_place() else tensor.multiply_(factor)


def bias_correction(beta: float, count: Any) -> Any:
    """1 − β^count, [1], to all digits where β is near 1."""
    return -paddle.expm1(count.scale(math.log(beta))) if beta else paddle.ones_like(count)


def adam_denominator(moment: Any, grad: Any, beta: float, count: Any, epsilon: float) -> Any:
    """√(v/(1 − β^count)) + ε, a new tensor, after v ← βv + (1 − β)g² in place of `moment`."""
    if moment.dtype == paddle.float32:
        # As the fused update and Paddle's kernels have it: β and 1 − β from one float32 number.
        beta = float(np.float32(beta))
    root = paddle.square(grad).scale_(1.0 - beta)
    moment.scale_(beta).add_(root)
    paddle.assign(moment, output=root)
    return times(root.sqrt_(), paddle.rsqrt(bias_correction(beta, count))).scale_(1.0, bias=epsilon)


def named_accumulators(given: Accumulators) -> dict[str, Accumulator]:
    """A state declaration, names or a mapping, as name → Accumulator."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Mapping):
        given = dict.fromkeys(given, 0.0)
    return {
        name: kind
        if isinstance(kind, Accumulator)
        else Accumulator(_errors.check_number(f"accumulator {name!r}", kind))
        for name, kind in given.items()
    }


def _options_of(function: Callable[..., None]) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    if [p.name for p in parameters[:4]] != ["param", "grad", "lr", "state"]:
        raise TypeError(
            f"the function's first arguments must be (param, grad, lr, state), not {inspect.signature(function)}"
        )
    taken = inspect.signature(CustomOptimizer.__init__).parameters
    for p in parameters[4:]:
        if p.default is inspect.Parameter.empty:
            raise TypeError(f"argument {p.name!r} of {function.__name__} needs a default: it becomes an option")
        if p.name in taken:
            raise ValueError(f"argument {p.name!r} of {function.__name__}: every optimizer has one already, rename it")
    return {p.name: p.default for p in parameters[4:]}
