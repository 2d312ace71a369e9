"""Fits without a strategy of the user's: one optimizer for all of a Learner's, its layer groups, policies on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.plan import Phase, Plan, Top
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.training import data, fit, layer_groups
from paddle_ftstrat.training.checkpoint import fingerprint
from paddle_ftstrat.training.state import Span

if TYPE_CHECKING:
    from paddle_ftstrat.training.learner import Learner


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
            plan = Plan({"lr": curves.constant(1.0)}, optimizer=learner.opt, weight_decay=learner.wd)
            self.binding = Binding(plan, learner.model, steps_per_epoch=learner.updates, **options)
            if self.frozen:
                self.binding.follow(replace(plan, phases=self._phases()))
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
        self.binding.follow(replace(self.binding.plan, phases=self._phases(), starts=(0,)))

    def momentum(self, moms: Sequence[float] | None) -> Sequence[float] | None:
        """The momentum values of a policy: the given ones, else the Learner's where the optimizer has momentum."""
        return self._learner.moms if moms is None and self.run().has_hyper("mom") else moms

    def fit(
        self, method: str, epochs: tuple[int, int], strategy: Any, wd: float | None, cbs: list[Any]
    ) -> list[dict[str, float]]:
        """Train by a policy on the optimizer that is there.

        Args:
            method: the name of the fitting method.
            epochs: number of epochs, and how many of them were done before.
            strategy: the policy, whose optimizer does not matter.
            wd: decoupled decay; None: the Learner's.
            cbs: callbacks of the fit.
        """
        learner, run = self._learner, self.run()
        wd = learner.wd if wd is None else wd
        given = {**fingerprint.of_strategy(strategy), **fingerprint.of_optimizer(run.plan)}
        given.update({"decay": wd, "frozen groups": self.frozen})

        def followed(span: Span) -> Binding:
            plan = fit.planned(learner, strategy, span, cbs)
            plan = plan if plan.thaws else replace(plan, phases=self._phases())
            if wd is not None:
                run.set_hyper("wd", wd)
            run.follow(plan, learner.updates)
            return run

        return fit.train(learner, method, epochs, given, followed, cbs)

    def _layers(self) -> dict[str, Any]:
        if self._groups is None:
            return {"sample_input": data.first_inputs(self._learner.train)}
        return {"layers": layer_groups.as_selectors(self._learner.model, self._groups)}

    def _phases(self) -> tuple[Phase, ...]:
        return (Phase(Top(len(self.binding.blocks) - self.frozen)) if self.frozen else Phase(),)
