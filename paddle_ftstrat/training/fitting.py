"""Fits by strategies, and fastai's: policies on layer groups and on one optimizer, which stay from fit to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import paddle

from paddle_ftstrat import _errors
from paddle_ftstrat._paddle import threads
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr.depth import find_units
from paddle_ftstrat.plan import Phase, Plan, Top, spread
from paddle_ftstrat.schedules import curves
from paddle_ftstrat.schedules.schedule import ParamScheduler
from paddle_ftstrat.strategies import (
    DefaultStrategy,
    FineTuneStrategy,
    FlatCosStrategy,
    OneCycleStrategy,
    SGDRStrategy,
    strategy_from_dict,
)
from paddle_ftstrat.strategies.policies import Policy
from paddle_ftstrat.training import data, distributed, lr_find, rng
from paddle_ftstrat.training.callbacks import ProgressCallback, as_list
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.loop import Loop
from paddle_ftstrat.training.state import Span, TrainState


class PolicyLoop(Loop):
    """A loop with layer groups and an optimizer of its own, and fastai's policies on them: `fit` by their strategies.

    Args: as for `Learner`; `loop` are those of `Loop`.
    """

    def __init__(self, opt: Any, lr: Any, wd: float | None, moms: Sequence[float], groups: Any, *loop: Any) -> None:
        super().__init__(*loop)
        spread(lr, 1)
        self.opt, self.lr, self.moms = opt, lr, moms
        self.wd = None if wd is None else _errors.check_number("wd", wd, minimum=0)
        self._groups = groups
        self._own_run: Binding | None = None
        self._frozen = 0

    def fit_one_cycle(
        self,
        n_epoch: int,
        lr_max: Any = None,
        div: float = 25.0,
        div_final: float = 1e5,
        pct_start: float = 0.25,
        wd: float | None = None,
        moms: Sequence[float] | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """The 1cycle policy: LR from lr_max/div up to lr_max and down to lr_max/div_final, momentum the other way.

        Args: as `fit` and `strategies.OneCycleStrategy`; `moms` None: the Learner's, where the optimizer has momentum.

        Source: Smith & Topin (arXiv:1708.07120); fastai `fit_one_cycle`.
        """
        epochs = self._begin(n_epoch, start_epoch, reset_opt)
        lr, moms = self.lr if lr_max is None else lr_max, self._momentum(moms)
        policy = OneCycleStrategy(lr, div, div_final, pct_start, moms, self.opt)
        return self._fit("fit_one_cycle", epochs, policy, wd, cbs)

    def fit_flat_cos(
        self,
        n_epoch: int,
        lr: Any = None,
        div_final: float = 1e5,
        pct_start: float = 0.75,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """A flat LR for `pct_start` of the fit, then a cosine down to lr/div_final.

        Args: as `fit` and `strategies.FlatCosStrategy`.

        Source: fastai `fit_flat_cos`, which forgets `start_epoch`.
        """
        epochs = self._begin(n_epoch, start_epoch, reset_opt)
        policy = FlatCosStrategy(self.lr if lr is None else lr, div_final, pct_start, self.opt)
        return self._fit("fit_flat_cos", epochs, policy, wd, cbs)

    def fit_sgdr(
        self,
        n_cycles: int,
        cycle_len: int,
        lr_max: Any = None,
        cycle_mult: int = 2,
        wd: float | None = None,
        cbs: Any = (),
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """Warm restarts: `n_cycles` cosines from lr_max to 0, each `cycle_mult` times as long as the one before.

        Args: as `fit` and `strategies.SGDRStrategy`.

        Source: Loshchilov & Hutter, SGDR (arXiv:1608.03983); fastai `fit_sgdr`, which divides by 0 at cycle_mult=1.
        """
        policy = SGDRStrategy(self.lr if lr_max is None else lr_max, n_cycles, cycle_len, cycle_mult, self.opt)
        return self._fit("fit_sgdr", self._begin(policy.num_epoch, start_epoch, reset_opt), policy, wd, cbs)

    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100.0,
        pct_start: float = 0.3,
        div: float = 5.0,
        div_final: float = 1e5,
        moms: Sequence[float] | None = None,
        wd: float | None = None,
        cbs: Any = (),
        start_epoch: int = 0,
    ) -> list[dict[str, float]]:
        """One cycle with all but the top group frozen, then one with everything and discriminative LRs.

        Args: as `fit` and `strategies.FineTuneStrategy`; `start_epoch` counts the epochs of both phases.

        Raises:
            ValueError, TypeError: as for `fit` and `strategies.FineTuneStrategy`.

        Source: fastai `fine_tune`.
        """
        self.check_idle()
        moms = self._momentum(moms)
        policy = FineTuneStrategy(base_lr, freeze_epochs, lr_mult, pct_start, div, div_final, moms, self.opt)
        n_epoch = _errors.check_whole("epochs", epochs) + freeze_epochs
        if not n_epoch:
            return []
        self.unfreeze()
        return self._fit("fine_tune", self._begin(n_epoch, start_epoch), policy, wd, cbs)

    def lr_find(
        self,
        start_lr: float = 1e-7,
        end_lr: float = 10.0,
        num_it: int = 100,
        stop_div: bool = True,
        show_plot: bool = False,
        suggest_funcs: Any = lr_find.valley,
    ) -> Any:
        """Try rising LRs for `num_it` updates and suggest one; afterwards everything is as it was before.

        Args:
            start_lr: the first LR.
            end_lr: the last LR.
            num_it: number of updates, ≥ 6.
            stop_div: stop when the loss diverges.
            show_plot: draw `recorder.plot_lr_find()`.
            suggest_funcs: `valley`, `slide`, `minimum`, `steep`, partials of them, or your own function
                (lrs, losses, num_it) → (lr, (lr, loss)); one or a list.

        Returns:
            A named tuple with an LR for each function.

        Raises:
            ValueError: numbers out of range, or too few updates before divergence.

        Source: fastai `lr_find`.
        """
        finder = lr_find.LRFinder(start_lr, end_lr, num_it, stop_div)
        kept = self._own_run
        usable = kept if kept is not None and kept.in_force else None

        def bound() -> Binding:
            # What the phases of an earlier fit froze at its beginning is no matter of the sweep.
            self.freeze_to(self._frozen)
            return self.bind_own()

        try:
            found, self.recorder.sweep = lr_find.sweep(self, bound, usable, finder, as_list(suggest_funcs))
        finally:
            self._own_run = kept
        if show_plot:
            self.recorder.plot_lr_find()
        return found

    def fit_strategy(
        self,
        strategy: DefaultStrategy,
        method: str,
        epochs: tuple[int, int],
        given: Callable[[], Mapping[str, Any]],
        bound: Callable[[Plan], Binding],
        cbs: Iterable[Any],
    ) -> list[dict[str, float]]:
        """Carry out a fit by a strategy, or what is left of it; the results of each epoch, of earlier processes' too.

        `given` tells what decides the fit besides the strategy (see `contents.of_fit`), `bound` makes the binding
        for a plan.
        """
        n_epoch, start_epoch = epochs
        about: dict[str, Any] = {contents.LENGTH: n_epoch}
        if self.journal.settings is not None or self.ranks.is_distributed:
            # Somebody will compare it: a later run, or the other processes.
            about = contents.of_fit(self, strategy, method, epochs, given(), cbs)
        distributed.same_everywhere(about, self.ranks)
        self.prepare()
        heard = self.calling([*cbs, ProgressCallback(self.quiet)])
        with heard, threads.cpu_threads(self.num_threads), self.journal.writing():
            start = self.journal.begin(self, about, start_epoch, self.updates, strategy)
            if start.strategy is not None:
                strategy = strategy_from_dict(start.strategy)
            self.run = run = bound(self._planned(strategy, start.span))
            run.lr_scheduler.step(start.position.step - start.span.begin)
            self.state = state = TrainState(n_epoch, len(self.train), self.updates, start.span, start.seed)
            state.finished = start.finished is not None
            try:
                if not state.finished:
                    with self._features():
                        self.train_from(start)
                    self.journal.finish(self, run)
                elif start.resumed is not None:
                    self.train_from(start)
            finally:
                self.journal.wait()
            if start.finished is not None:
                # What callbacks have drawn just now was drawn before, too.
                paddle.seed(rng.fold(state.seed, 0))
                rng.set_host_state(start.finished)
        return self.journal.results(self)

    def _planned(self, strategy: DefaultStrategy, span: Span) -> Plan:
        """A strategy's plan over the fit's length, with what ParamSchedulers among the callbacks schedule.

        Raises:
            ValueError: a phase waits for a value that epochs do not have, or would begin anew in the middle of the fit.
        """
        steps = max(span.length, 1)
        plan = strategy.plan(steps, self.updates)
        monitored = [phase.until.monitor for phase in plan.phases if phase.until is not None]
        _errors.check_keys("value to monitor", monitored, self.value_names())
        if span.begin and any(not isinstance(phase.train, Top) for phase in plan.phases[:-1]):
            # Unfreezing goes by the epochs that are done; phases with schedules go by the curve.
            raise ValueError(
                f'on_length_change="restart" begins a new curve, and so does on_lr_change="restart", but '
                f'{type(strategy).__name__} has phases that are over: go on with "extend", "new" or "keep"'
            )
        by_hand = [callback.over(steps) for callback in self.callbacks if isinstance(callback, ParamScheduler)]
        return replace(plan, schedules={k: v for scheds in [plan.schedules, *by_hand] for k, v in scheds.items()})

    def freeze_to(self, n: int) -> None:
        """Freeze the first `n` layer groups (negative: all but the last −n) in fits without strategy.

        Raises:
            ValueError: there are not so many groups.
        """
        run = self.bind_own()
        groups = len(run.blocks)
        number = n if n >= 0 else groups + n
        if not 0 <= number <= groups:
            raise ValueError(f"freeze_to({n}): there are {groups} layer groups")
        self._frozen = number
        run.follow(replace(run.plan, phases=self._phases(run), starts=(0,)))

    def freeze(self) -> None:
        """Freeze all layer groups but the top one."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Let all layer groups train again (but for what the user froze)."""
        self.freeze_to(0)

    @property
    def layer_groups(self) -> list[list[str]]:
        """The names of each layer group's weights, bottom first, as fits without a strategy have them."""
        if self._own_run is not None and self._own_run.in_force:
            return self._own_run.blocks
        return [list(unit.parameters) for unit in find_units(self.model, **self._layers())]

    def bind_own(self, reset: bool = False) -> Binding:
        """The binding of fits without a strategy, made anew where there is none, it was superseded, or on `reset`."""
        if self._own_run is None or reset or not self._own_run.in_force:
            options = self._layers()
            self.prepare()
            plan = Plan({"lr": curves.constant(1.0)}, optimizer=self.opt, weight_decay=self.wd)
            self._own_run = run = Binding(plan, self.model, steps_per_epoch=self.updates, **options)
            if self._frozen:
                run.follow(replace(plan, phases=self._phases(run)))
        return self._own_run

    def _fit(
        self, method: str, epochs: tuple[int, int], policy: Policy, wd: float | None, cbs: Any
    ) -> list[dict[str, float]]:
        """Train by a policy on the optimizer that is there."""
        run, wd = self.bind_own(), self.wd if wd is None else wd

        def given() -> dict[str, Any]:
            return {**contents.of_optimizer(run.plan), "decay": wd, "frozen groups": self._frozen}

        def followed(plan: Plan) -> Binding:
            if wd is not None:
                run.set_hyper("wd", wd)
            run.follow(plan if plan.thaws else replace(plan, phases=self._phases(run)), self.updates)
            return run

        return self.fit_strategy(policy, method, epochs, given, followed, as_list(cbs))

    def _begin(self, n_epoch: Any, start_epoch: Any, reset_opt: bool = False) -> tuple[int, int]:
        epochs = self._check_epochs(n_epoch, start_epoch)
        self.bind_own(reset_opt)
        return epochs

    def _check_epochs(self, n_epoch: Any, start_epoch: Any) -> tuple[int, int]:
        self.check_idle()
        n_epoch = _errors.check_whole("n_epoch", n_epoch, minimum=1)
        start_epoch = _errors.check_whole("start_epoch", start_epoch)
        if start_epoch >= n_epoch:
            raise ValueError(f"start_epoch = {start_epoch} is beyond the end: the fit has {n_epoch} epochs")
        return n_epoch, start_epoch

    def _momentum(self, moms: Sequence[float] | None) -> Sequence[float] | None:
        return self.moms if moms is None and self.bind_own().has_hyper("mom") else moms

    def _phases(self, run: Binding) -> tuple[Phase, ...]:
        return (Phase(Top(len(run.blocks) - self._frozen)) if self._frozen else Phase(),)

    def _layers(self) -> dict[str, Any]:
        """The layer groups for `find_units`: lists of parameters, as fastai's splitters give them, become names."""
        if self._groups is None:
            return {"sample_input": data.first_inputs(self.train)}
        names = {id(param): name for name, param in self.model.named_parameters()}
        # `layer.parameters()` has the running statistics of BatchNorm layers in it, too.
        statistics = names.keys() - {id(weight) for weight in self.weights.values()}
        groups = []
        for group in self._groups(self.model) if callable(self._groups) else self._groups:
            if isinstance(group, (list, tuple)):
                foreign = [one.name for one in group if isinstance(one, paddle.Tensor) and id(one) not in names]
                if foreign:
                    raise ValueError(f"layer_groups: {foreign[0]!r} is no parameter of the model")
                group = [names.get(id(one), one) for one in group if id(one) not in statistics]
            groups.append(group)
        return {"layers": groups}
