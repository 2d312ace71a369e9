"""The optimizer base of OneFlow's and torch's conventions: parameter groups over Paddle tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import paddle

from paddle_ftstrat import _compat
from paddle_ftstrat.optim import group_state, groups
from paddle_ftstrat.optim.custom import CustomOptimizer, State, dense, multiplier, named_accumulators

Update = Callable[[Any, Any, float, float, State], None]


@dataclass(frozen=True)
class _Rule:
    """What holds for the parameters of one group during one update."""

    update: Update
    lr: float
    decay: float


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
        self._rules: list[_Rule] = []
        self._scalars: dict[tuple[float, str], Any] = {}
        self._kept: dict[int, dict[str, float]] = {}

    def rule(self, options: Mapping[str, Any]) -> Update:
        """The update of the parameters of a group: a function (param, grad, lr, decay, state), made for each update.

        It changes `param` and `state` in place. `lr` is the group's times ParamAttr's multiplier; `decay` is the
        group's weight_decay, or 0.0 for a parameter with a regulariser of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} needs rule(self, options)")

    def state_names(self, options: Mapping[str, Any]) -> dict[str, float]:
        """Name → first value of the state that the parameters of a group need."""
        return {}

    def check_groups(self, added: Iterable[groups.ParamGroup]) -> None:
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
        clipped = [group for group in self.param_groups if groups.MAX_NORM in group.options]
        if not clipped:
            warnings.warn(f"clip_grad does nothing: no parameter group has {groups.MAX_NORM}", stacklevel=3)
        for group in clipped:
            groups.clip_group(group)

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
        return group_state.packed(self.param_groups, self._states, self._master_weights, self._steps)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, here or in another process, options included.

        Raises:
            ValueError: another number of groups or parameters, an unknown option, state of another kind or shape;
                the optimizer is unchanged then.
        """
        loaded = group_state.checked(self, state_dict, self._options)
        self.check_groups(loaded.groups)
        for param in loaded.stateless:
            self._forget(param)
        for group, new in zip(self.param_groups, loaded.groups):
            group.options = new.options
        self._steps = loaded.steps
        _compat.create_accumulators(self, [param for param, _ in loaded.states])
        with paddle.no_grad():
            for param, kinds in loaded.states:
                group_state.write(self._states[param.name], self._master_weights.get(param.name), kinds)

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
            _Rule(self.rule(group.options), group["lr"], group.options.get("weight_decay", 0.0))
            for group in self.param_groups
        ]

    def _append_optimize_op(self, block: Any, param_and_grad: tuple[Any, Any]) -> None:
        param, grad = param_and_grad
        state = self._states[param.name]
        rule = self._rules[state.group]
        decay = rule.decay if getattr(param, "regularizer", None) is None else 0.0
        lr = rule.lr * multiplier(param)
        if state.half:
            weight = self.weight_of(param)
            rule.update(weight, dense(grad, weight, cast=True), lr, decay, state)
            self.write_back(param, weight)
            return
        if not self.sparse_kernel and grad.is_selected_rows():
            grad = dense(grad, param)
        rule.update(param, grad, lr, decay, state)

    def _finish_update(self, block: Any, parameters_and_grads: Any) -> None:
        # Paddle's GradScaler skips an update whose gradients overflowed.
        if not self._get_auxiliary_var("found_inf"):
            self._steps += 1

    def _forget(self, param: Any) -> None:
        state = self._states.get(param.name)
        if state is not None:
            state.numbers.clear()
            for name, tensor in state.items():
                tensor.fill_(self._kept[self._group_of[param.name]][name])


def with_l2(grad: Any, weight: Any, decay: float) -> Any:
    """g + decay·w."""
    return paddle.add_n([grad, paddle.scale(weight, decay)])
