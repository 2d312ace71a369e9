"""Fits without a strategy: one optimizer for all of a Learner's, its layer groups, and policies run on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddle_ftstrat.binding import Binding, bind
from paddle_ftstrat.finetune import layer_groups
from paddle_ftstrat.finetune.checkpoint import fingerprint
from paddle_ftstrat.finetune.training import data, fit
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.plan import Plan
from paddle_ftstrat.schedules import curves, policies
from paddle_ftstrat.schedules.annealing import SchedNo
from paddle_ftstrat.schedules.param_scheduler import ParamScheduler

if TYPE_CHECKING:
    from paddle_ftstrat.finetune.learner import Learner


class OwnFits:
    """What a Learner's fits without a strategy share.

    Args:
        learner: the Learner.
        groups: its layer groups, as its user gave them.

    Attributes:
        binding: the binding of the last of them, None before the first.
        frozen: number of layer groups, from the bottom, that are frozen in them.
    """

    def __init__(self, learner: Learner, groups: Any) -> None:
        self._learner, self._groups = learner, groups
        self.binding: Binding | None = None
        self.frozen = 0

    def run(self, reset: bool = False) -> Binding:
        """The binding, made anew where there is none, it was superseded, or `reset` asks for it."""
        learner = self._learner
        if self.binding is None or reset or not self.binding.in_force:
            options = self._layers()
            fit.prepare(learner)
            plan = Plan(curves.constant(1.0), optimizer=learner.opt, weight_decay=learner.wd)
            self.binding = bind(plan, learner.model, steps_per_epoch=learner.updates, **options)
            self._hold()
        return self.binding

    def groups(self) -> list[list[str]]:
        """The names of each layer group's weights, bottom first."""
        if self.binding is not None and self.binding.in_force:
            return [list(block) for block in self.binding.blocks]
        return [list(unit.parameters) for unit in find_units(self._learner.model, **self._layers())]

    def freeze_to(self, n: int) -> None:
        """Freeze the first `n` groups, or all but the last −n.

        Raises:
            ValueError: there are not so many groups.
        """
        groups = len(self.run().blocks)
        number = n if n >= 0 else groups + n
        if not 0 <= number <= groups:
            raise ValueError(f"freeze_to({n}): there are {groups} layer groups")
        self.frozen = number
        self._hold()

    def lrs(self, lr: Any) -> Any:
        """The learning rate of the top group, or one per layer group where they differ."""
        lrs = policies.spread(self._learner.lr if lr is None else lr, len(self.run().blocks))
        return lrs[-1] if len(set(lrs)) == 1 else lrs

    def constant(self, lr: Any) -> dict[str, Any]:
        """The policy of a constant LR."""
        lrs = self.lrs(lr)
        return {"lr": SchedNo(lrs, lrs)}

    def momentum(self, moms: Sequence[float] | None) -> Sequence[float] | None:
        """The momentum values of a policy: the given ones, else the Learner's where the optimizer has momentum."""
        return self._learner.moms if moms is None and self.run().has_hyper("mom") else moms

    def fit(
        self, method: str, epochs: tuple[int, int], policy: Mapping[str, Any], wd: float | None, cbs: list[Any]
    ) -> list[dict[str, float]]:
        """Train by a policy.

        Args:
            method: the name of the fitting method.
            epochs: number of epochs, and how many of them were done before.
            policy: hyper-parameter → schedule on [0, 1].
            wd: decoupled decay; None: the Learner's.
            cbs: callbacks; what a ParamScheduler among them schedules takes the place of the policy's.
        """
        learner, run = self._learner, self.run()
        wd = learner.wd if wd is None else wd
        if wd is not None:
            run.set_hyper("wd", wd)
        by_hand: dict[str, Any] = {}
        for callback in [*learner.cbs, *cbs]:
            by_hand.update(callback.scheds if isinstance(callback, ParamScheduler) else {})
        rest = ParamScheduler({name: schedule for name, schedule in policy.items() if name not in by_hand})
        given = {**fingerprint.of_policy({**policy, **by_hand}), **fingerprint.of_optimizer(run.plan)}
        given.update({"decay": wd, "frozen groups": self.frozen})
        return fit.train(learner, method, epochs, given, lambda span: run, [rest, *cbs])

    def _layers(self) -> dict[str, Any]:
        if self._groups is None:
            return {"sample_input": data.first_inputs(self._learner.train)}
        return {"layers": layer_groups.as_selectors(self._learner.model, self._groups)}

    def _hold(self) -> None:
        self.binding.hold([name for block in self.binding.blocks[: self.frozen] for name in block])
