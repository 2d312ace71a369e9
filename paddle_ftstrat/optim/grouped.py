"""Optimizers with parameter groups by OneFlow's and torch's conventions, over Paddle tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import paddle

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import groups
from paddle_ftstrat.optim.custom import CustomOptimizer, State, dense, multiplier, named_accumulators
from paddle_ftstrat.optim.groups import ParamGroup
from paddle_ftstrat.optim.masters import is_half
from paddle_ftstrat.optim.state import MASTER, fitting

Update = Callable[[Any, Any, float, float, State], None]

_STEP = "step"


class Optimizer(CustomOptimizer):
    """Base of `SGD`, `Adam`, …: groups with an absolute `lr`, as OneFlow's and torch's optimizers have them.

    A subclass says in `state_names` what state there is and in `rule` how a parameter is updated. It is a
    `paddle.optimizer.Optimizer` too, so `paddle.amp` works with it. ParamAttr keeps its say: `learning_rate`
    multiplies the group's lr, a `regularizer` takes the place of the group's weight_decay.

    Args:
        params: parameters, or dicts {"params": parameters, option: value, …}; any option can be set per group, and
            `clip_grad_max_norm` (with `clip_grad_norm_type`, default 2.0) for `clip_grad`.
        options: name → default of every option; "lr" must be one.

    Raises:
        ValueError: no parameters, one twice, an unknown option, or an option out of range.
        TypeError: `params` is no ordered collection of parameters or dicts.

    Attributes:
        param_groups: the groups; their options may be changed between updates: `group["lr"] = 0.01`.

    Example:
        >>> class SignSGD(Optimizer):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, {"lr": lr})
        ...     def rule(self, options):
        ...         def update(param, grad, lr, decay, state):
        ...             param.subtract_(paddle.sign(grad) * lr)
        ...         return update
        >>> layer = paddle.nn.Linear(1, 1)
        >>> optimizer = SignSGD([{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.25}])
        >>> layer(paddle.ones([1, 1])).sum().backward()
        >>> optimizer.step()
        >>> layer.bias.item()
        -0.25

    Source: OneFlow's `oneflow.optim.Optimizer`; torch's `torch.optim.Optimizer`.
    """

    # Kernels that take sparse gradients as they are; the others get them dense.
    sparse_kernel = False
    # Names of state that is a plain number per parameter.
    state_numbers: tuple[str, ...] = ()

    def __init__(self, params: Any, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self.param_groups = groups.read_groups(params, self._options)
        self.check_groups(self.param_groups)
        super().__init__(1.0, [param for group in self.param_groups for param in group.parameters])
        self._group_of = {p.name: n for n, group in enumerate(self.param_groups) for p in group.parameters}
        self._steps = 0
        self._rules: list[tuple[Update, float, float]] = []
        self._scalars: dict[tuple[float, str], Any] = {}
        self._kept: dict[int, dict[str, float]] = {}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """The update of the parameters of a group: a function (param, grad, lr, decay, state), made for each update.

        It changes `param` and `state` in place. `lr` is the group's times ParamAttr's multiplier; `decay` is the
        group's weight_decay, or 0.0 for a parameter with a regulariser of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} needs rule(self, options)")

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """Name → first value of the state that the parameters of a group need: by default `accumulators`."""
        return {name: kind.fill for name, kind in named_accumulators(self.accumulators).items()}

    def check_groups(self, added: Iterable[ParamGroup]) -> None:
        """Refuse groups whose options do not go together; each alone is in range already."""

    @property
    def support_sparse(self) -> bool:
        """Whether sparse gradients, of `Embedding(sparse=True)`, are updated rightly: the same as dense ones."""
        return True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the parameters' gradients.

        Args:
            closure: called first, with gradients enabled; computes the loss, may call `backward`, returns the loss.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with paddle.enable_grad():
                loss = closure()
        super().step()
        return loss

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients to zero, or drop them.

        A zero gradient is still a gradient: momentum and decay go on. Without a gradient a parameter is left alone.
        """
        for param in self._parameter_list:
            param.clear_gradient(not set_to_none)

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Paddle's name for `zero_grad`."""
        self.zero_grad(set_to_none=not set_to_zero)

    @paddle.no_grad()
    def clip_grad(self) -> None:
        """Scale each group's gradients in place by min(1, max_norm/(norm + 1e-6)), norm over the whole group.

        Groups without `clip_grad_max_norm` are left alone; so are parameters with `ParamAttr(need_clip=False)`.

        Raises:
            RuntimeError: a norm is not finite.
            ValueError: a gradient is sparse.

        Source: OneFlow's `Optimizer.clip_grad`, `torch.nn.utils.clip_grad_norm_`.
        """
        clipped = [group for group in self.param_groups if groups.MAX_NORM in group]
        if not clipped:
            _errors.warn(f"clip_grad does nothing: no parameter group has {groups.MAX_NORM}")
        for group in clipped:
            groups.clip(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group {"params": parameters, option: value, …}; options left out have the optimizer's defaults.

        Raises:
            ValueError, TypeError: as for the constructor; nothing is added.
        """
        if not isinstance(param_group, Mapping):
            raise TypeError(f"a parameter group is a dict with 'params', not {type(param_group).__name__}")
        number = len(self.param_groups)
        added = groups.read_groups([param_group], self._options, self._parameter_list, number)
        self.check_groups(added)
        self.param_groups += added
        self._parameter_list.extend(added[0].parameters)
        self._group_of.update({p.name: number for p in added[0].parameters})

    def get_lr(self) -> float:
        """The lr of the first group."""
        return self.param_groups[0]["lr"]

    def set_lr(self, value: float) -> None:
        """Write the lr of all groups."""
        for group in self.param_groups:
            group["lr"] = value

    def set_lr_scheduler(self, scheduler: Any) -> None:
        """Refused: here a scheduler takes the optimizer, not the other way round.

        Raises:
            TypeError: always.
        """
        raise TypeError("parameter groups have an lr each: use a scheduler of paddle_ftstrat.optim.lr_scheduler")

    def state_dict(self) -> dict[str, Any]:
        """{"state": {"step": updates done, number: {name: value}}, "param_groups": [options and numbers]}.

        A parameter's number is its place over all groups. The tensors are the live ones, not copies.
        """
        numbers = {param.name: number for number, param in enumerate(self._parameter_list)}
        state: dict[Any, Any] = {_STEP: self._steps}
        for name, number in numbers.items():
            known = self._states.get(name)
            kinds = {} if known is None else {**known, **known.numbers}
            if name in self._master_weights:
                kinds[MASTER] = self._master_weights[name]
            if kinds:
                state[number] = kinds
        described = [
            {**group.options, "params": [numbers[param.name] for param in group.parameters]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": described}

    @paddle.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, here or in another process, options included.

        Raises:
            ValueError: another number of groups or parameters, an unknown option, state of another kind or shape;
                the optimizer is unchanged then.
        """
        loaded = self._checked_groups(state_dict)
        states = self._checked_states(state_dict["state"], loaded)
        steps = _errors.check_whole("state['step']", state_dict["state"].get(_STEP, 0))
        for number, param in enumerate(self._parameter_list):
            state = self._states.get(param.name)
            if number not in states and state is not None:
                state.numbers.clear()
                for name, tensor in state.items():
                    tensor.fill_(self._kept[state.group][name])
        for group, new in zip(self.param_groups, loaded):
            group.options = new.options
        self._steps = steps
        params = {number: self._parameter_list[number] for number in states}
        _paddle.create_accumulators(self, list(params.values()))
        for number, param in params.items():
            state, values = self._states[param.name], states[number]
            state.numbers = {name: value for name, value in values.items() if name in self.state_numbers}
            for name in values.keys() - state.numbers.keys():
                target = self._master_weights.get(param.name) if name == MASTER else state[name]
                if target is not None:
                    paddle.assign(values[name], output=target)

    set_state_dict = load_state_dict

    def scalar(self, value: float, state: State) -> Any:
        """A number as the [1] tensor that Paddle's kernels take, in the state's dtype; kept for this update."""
        key = (value, state.dtype)
        found = self._scalars.get(key)
        if found is None:
            found = self._scalars[key] = paddle.full([1], value, state.dtype)
        return found

    @property
    def coming(self) -> int:
        """The number of the coming update, from 1; updates in which a parameter has no gradient count too."""
        return self._steps + 1

    def _create_accumulators(self, block: Any, parameters: Iterable[Any]) -> None:
        # The first thing Paddle calls in each update, however that was started.
        self._scalars.clear()
        names = [self.state_names(group.options) for group in self.param_groups]
        for number, wanted in enumerate(names):
            if self._kept.get(number) != wanted:
                self._kept[number] = wanted
                for param in self.param_groups[number].parameters:
                    self._states.pop(param.name, None)
        for param in parameters:
            if param.name not in self._states:
                number = self._group_of[param.name]
                state = self._add_state(param, named_accumulators(names[number]))
                state.group = number
                self._states[param.name] = state
        self._rules = [
            (self.rule(group.options), group["lr"], group.get("weight_decay", 0.0)) for group in self.param_groups
        ]

    def _append_optimize_op(self, block: Any, param_and_grad: tuple[Any, Any]) -> None:
        param, grad = param_and_grad
        state = self._states[param.name]
        update, lr, decay = self._rules[state.group]
        lr *= multiplier(param)
        decay = decay if getattr(param, "regularizer", None) is None else 0.0
        if state.half:
            weight = self.weight_of(param)
            update(weight, dense(grad, weight, cast=True), lr, decay, state)
            self.write_back(param, weight)
            return
        if not self.sparse_kernel and grad.is_selected_rows():
            grad = dense(grad, param)
        update(param, grad, lr, decay, state)

    def _finish_update(self, block: Any, parameters_and_grads: Any) -> None:
        # Paddle's GradScaler skips an update whose gradients overflowed.
        if not self._get_auxiliary_var("found_inf"):
            self._steps += 1

    def _checked_groups(self, state_dict: Mapping[str, Any]) -> list[ParamGroup]:
        """The groups as they are to be, with a saved state's options."""
        missing = [key for key in ("state", "param_groups") if key not in state_dict]
        if missing:
            raise ValueError(f"not the state of an optimizer with parameter groups: {missing} missing")
        saved = state_dict["param_groups"]
        sizes, here = [len(group["params"]) for group in saved], [len(group.parameters) for group in self.param_groups]
        if sizes != here:
            raise ValueError(f"the state has parameter groups of {sizes} parameters, this optimizer of {here}")
        loaded = []
        for number, (given, group) in enumerate(zip(saved, self.param_groups)):
            where = f"parameter group {number}"
            options = {key: value for key, value in given.items() if key != "params"}
            groups.check_options(f"option of {where} of the state", options, (*self._options, *groups.COMMON))
            absent = [key for key in self._options if key not in options]
            if absent:
                raise ValueError(f"{where} of the state lacks {absent}: it was saved with another optimizer")
            loaded.append(ParamGroup(group.parameters, options, where))
        self.check_groups(loaded)
        return loaded

    def _checked_states(self, state: Mapping[Any, Any], loaded: Sequence[ParamGroup]) -> dict[int, dict[str, Any]]:
        """Parameter's number → its saved state, with arrays as tensors."""
        params, states = self._parameter_list, {}
        entries = {int(key): kinds for key, kinds in state.items() if key != _STEP}
        strange = sorted(number for number in entries if not 0 <= number < len(params))
        if strange:
            raise ValueError(f"the state has entries for parameters {strange}, this optimizer has {len(params)}")
        for number, kinds in entries.items():
            names = self.state_names(loaded[self._group_of[params[number].name]].options)
            if set(kinds) - {MASTER, *self.state_numbers} != set(names):
                raise ValueError(
                    f"the state of parameter {number} is {sorted(kinds)}, but this optimizer keeps {sorted(names)}: it "
                    "was saved with another optimizer or other options"
                )
            dtype = paddle.float32 if is_half(params[number]) else params[number].dtype
            states[number] = {
                name: _errors.check_number(what, value)
                if name in self.state_numbers
                else fitting(f"{what} ({params[number].name}) in the state", value, params[number].shape, dtype)
                for name, value in kinds.items()
                for what in [f"{name!r} of parameter {number}"]
            }
        return states


def with_l2(grad: Any, weight: Any, decay: float) -> Any:
    """g + decay·w."""
    return paddle.add_n([grad, paddle.scale(weight, decay)]) if decay else grad
