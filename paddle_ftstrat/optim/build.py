"""From a plan and resolved parameters to the Paddle optimizer, its clip, and decay that skips what it should skip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddle import nn
from paddle.nn import ClipGradByGlobalNorm, ClipGradByNorm, ClipGradByValue
from paddle.regularizer import L2Decay

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import fused, masters, table
from paddle_ftstrat.optim.hyper import HyperParameters
from paddle_ftstrat.param_attr import select, settings
from paddle_ftstrat.plan import Plan

# GlobalNorm: g·v/max(‖all g‖, v); Norm: the same for each parameter by itself; Value: g limited to [−v, v].
_CLIPS = {"GlobalNorm": ClipGradByGlobalNorm, "Norm": ClipGradByNorm, "Value": ClipGradByValue}


@dataclass(frozen=True)
class Decay:
    """The decay in force."""

    coefficient: float  # of the decoupled one
    names: frozenset[str]  # the parameters that it reaches
    source: str = "strategy"  # whose wish it is, or "optimizer"
    by_optimizer: bool = False  # whether the optimizer carries it out itself
    coupled: Any = None  # the optimizer's regularizer, which acts on parameters that have none

    def of(self, name: str) -> float:
        """The decoupled decay of one parameter, 0.0 for none."""
        return self.coefficient if name in self.names else 0.0


def build_optimizer(
    plan: Plan, model: nn.Layer, rows: Sequence[Any], lr_scheduler: Any, fused_update: bool | None = None
) -> tuple[Any, Decay, HyperParameters]:
    """The optimizer over a flat list of all weights, the decay that holds, and its hyper-parameters.

    Args:
        plan: the plan.
        model: the model, for the check of its embeddings.
        rows: the resolved parameters.
        lr_scheduler: the scheduler that the optimizer follows.
        fused_update: whether its step is the fused one, where there is one (see `optim.fused`); None: yes.

    Raises:
        ValueError: the optimizer is unknown, has no such option, does not honour multipliers that are asked for,
            is wrong on sparse gradients of the model, two decays or clips are given, or a fused update is
            asked for that there is not.
    """
    row = table.find(plan.optimizer)
    assert row.cls is not None  # `find` refuses what this Paddle lacks
    table.check_options(row, plan.optimizer_options)
    options = table.checked_values(row, plan.optimizer_options)
    _check_multipliers(row, plan, rows)
    _check_sparse(row, model, rows, plan)
    in_force, native = _choose_decay(row, plan, options, rows)
    if row.chooses:
        option, rule = row.chooses
        given = options.get(option)
        chosen = rule(model) if given is None else select.select_all(model, given, option) if given else set()
        options[option] = {r.param.name for r in rows if r.name in chosen}.__contains__
    given_clip = options.pop("grad_clip", None)
    if given_clip is not None and plan.clip is not None:
        raise ValueError(f"two gradient clips: clip {plan.clip.kind} and the optimizer option grad_clip={given_clip}")
    # An optimizer that ignores multipliers (Rprop) takes no scheduler either; that the LR is constant was checked.
    learning_rate = lr_scheduler if row.multiplier else lr_scheduler()
    arguments = {**options, **native, "learning_rate": learning_rate, "parameters": [r.param for r in rows]}
    if plan.clip is not None:
        arguments["grad_clip"] = _CLIPS[plan.clip.kind](plan.clip.value)
    elif given_clip is not None:
        arguments["grad_clip"] = given_clip
    try:
        optimizer = row.cls(**arguments)
    except (AssertionError, RuntimeError, OverflowError) as error:
        raise ValueError(f"optimizer {row.name!r} refuses its options {_errors.shown(options)}: {error}") from error
    names = {r.param.name: r.name for r in rows}
    check = masters.FiniteGradients(names, lr_scheduler)
    # Inside what turns half precision into float32, where all sums have the range.
    _paddle.before_update(optimizer, check)
    _paddle.list_anew(optimizer)
    restore = masters.install(optimizer, arguments["parameters"], lasting=options.get("multi_precision") is not False)
    decayed = None if in_force.by_optimizer else {r.param.name for r in rows if r.decayed}
    hypers = HyperParameters(optimizer, lr_scheduler, decayed, in_force.coefficient)
    hypers.check(plan.schedules)
    _paddle.after_update(optimizer, restore)
    fused.attach(optimizer, names, restore, hypers, check, fused_update)
    return optimizer, in_force, hypers


def _check_multipliers(row: table.OptimizerRow, plan: Plan, rows: Sequence[Any]) -> None:
    if row.multiplier:
        return
    scaled = [r.name for r in rows if r.settings.learning_rate != 1.0]
    if scaled:
        raise ValueError(
            f"optimizer {row.name!r} ignores LR multipliers, but these parameters have one: {scaled[:5]}; "
            "use another optimizer, or no discriminative LR and no ParamAttr(learning_rate=)"
        )
    steps = plan.max_train_steps or 2
    if any(plan.lr(t) != plan.lr(0) for t in {1, steps // 2, steps - 1}):
        raise ValueError(f"optimizer {row.name!r} ignores the LR after its first step: it cannot follow a schedule")


def _check_sparse(row: table.OptimizerRow, model: nn.Layer, rows: Sequence[Any], plan: Plan) -> None:
    """Refuse sparse embeddings where Paddle would abort the process (AdamW, Value clip) or miscalculate (Adam)."""
    trained = {id(r.param) for r in rows if r.own.trainable}
    sparse = [
        name
        for name, layer in model.named_sublayers(include_self=True)
        if _paddle.is_sparse_embedding(layer) and id(layer.weight) in trained
    ]
    if not sparse:
        return
    remedy = f"build {sparse} with sparse=False"
    if any(masters.is_half(r.param) for r in rows):
        raise ValueError(f"Paddle aborts on sparse gradients in half precision, of Embedding(sparse=True): {remedy}")
    if any(settings.frozen_rows(r.param) for r in rows if r.name.rpartition(".")[0] in sparse):
        raise ValueError(f"freeze_rows needs dense gradients: {remedy}")
    if not row.sparse:
        fit = [name for name in table.names() if table.ROWS[name].sparse]
        raise ValueError(
            f"optimizer {row.name!r} is wrong or aborts on the sparse gradients of Embedding(sparse=True) layers "
            f"{sparse}: {remedy}, or use one of {', '.join(fit)}"
        )
    if plan.clip is not None and plan.clip.kind == "Value":
        raise ValueError(
            f"clip Value aborts on the sparse gradients of Embedding(sparse=True) layers {sparse}: {remedy}, "
            "or clip by GlobalNorm or Norm"
        )


def _choose_decay(
    row: table.OptimizerRow, plan: Plan, options: Mapping[str, Any], rows: Sequence[Any]
) -> tuple[Decay, dict[str, Any]]:
    """The decay in force, and the optimizer's arguments for a decay of its own; refuses two decays."""
    names = frozenset(r.name for r in rows if r.decayed)
    if row.decay != "native":
        coupled = options.get("weight_decay") if row.decay == "coupled" else None
        if isinstance(coupled, (int, float)):
            coupled = L2Decay(float(coupled))
        return Decay(plan.weight_decay or 0.0, names, coupled=coupled), {}
    argument, exclusion = row.native
    if plan.weight_decay is not None and argument in options:
        raise ValueError(
            f"two decays for optimizer {row.name!r}: weight_decay={plan.weight_decay} of the strategy and the "
            f"optimizer option {argument}={options[argument]}"
        )
    if plan.weight_decay is not None and not row.replaces_decay:
        return Decay(plan.weight_decay, names), {argument: row.no_decay, exclusion: _exclusion(row, rows)}
    coefficient, source = plan.weight_decay, "strategy"
    if coefficient is None:
        coefficient, source = options.get(argument, row.defaults[argument]), "optimizer"
    # A registered optimizer may say None for none.
    native = {argument: float(coefficient or 0.0), exclusion: _exclusion(row, rows)}
    return Decay(float(coefficient or 0.0), names, source, by_optimizer=True), native


def _exclusion(row: table.OptimizerRow, rows: Sequence[Any]) -> Callable[[Any], bool]:
    """What tells the optimizer which parameters it decays, in the form that this one asks for."""
    decayed = {r.param.name for r in rows if r.decayed}
    return decayed.__contains__ if row.excludes == "include" else lambda param: param.name not in decayed
