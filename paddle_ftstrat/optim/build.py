"""From a plan and resolved parameters to the Paddle optimizer, with decay that skips what it should skip."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle import nn
from paddle.regularizer import L2Decay

from paddle_ftstrat import _compat
from paddle_ftstrat.optim import clip, table
from paddle_ftstrat.plan import Plan


@dataclass(frozen=True)
class Decay:
    """Decay in force: the coefficient of each decayed parameter, whose wish it is, who carries it out.

    `by_optimizer`: Paddle's optimizer decays by itself; else the binding does, after the update. `coupled` is the
    optimizer's own regulariser, which acts where a parameter has none.
    """

    coefficients: dict[str, float] = field(default_factory=dict)
    source: str = ""
    by_optimizer: bool = False
    coupled: Any = None

    def coefficient(self, name: str) -> float:
        """The decoupled decay of one parameter, 0.0 for none."""
        return self.coefficients.get(name, 0.0)


def build_optimizer(
    plan: Plan, model: nn.Layer, rows: Sequence[Any], lr_scheduler: Any, skipped: Collection[str]
) -> tuple[Any, Decay]:
    """The optimizer over a flat list of all weights, and the decay that holds.

    Args:
        plan: the plan.
        model: the model, for the check of its embeddings.
        rows: the resolved parameters.
        lr_scheduler: the scheduler that the optimizer follows.
        skipped: names that decay skips.

    Raises:
        ValueError: the optimizer is unknown, has no such option, does not honour multipliers that are asked for,
            is wrong on sparse gradients of the model, or two decays or clips are given.
    """
    row = table.find(plan.optimizer)
    options = dict(plan.optimizer_options)
    table.check_options(row, options)
    _check_multipliers(row, plan, rows)
    _check_sparse(row, model, rows, plan)
    decay, native = _decay(row, plan, options, rows, skipped)
    given_clip = options.pop("grad_clip", None)
    if given_clip is not None and plan.clip is not None:
        raise ValueError(f"two gradient clips: clip {plan.clip.kind} and the optimizer option grad_clip={given_clip}")
    # An optimizer that ignores multipliers (Rprop) takes no scheduler either; that the LR is constant was checked.
    learning_rate = lr_scheduler if row.multiplier else lr_scheduler()
    arguments = {**options, **native, "learning_rate": learning_rate, "parameters": [r.param for r in rows]}
    if plan.clip is not None or given_clip is not None:
        arguments["grad_clip"] = clip.grad_clip(plan.clip) or given_clip
    optimizer = row.cls(**arguments)
    if decay.coefficients and not decay.by_optimizer:
        by_param = {r.param.name: decay.coefficients[r.name] for r in rows if r.name in decay.coefficients}
        _compat.after_update(optimizer, _Decoupled(lr_scheduler, by_param, optimizer))
    return optimizer, decay


class _Decoupled:
    """p ← p·(1 − lr·wd) after each update, with lr the one the update used, multiplier included."""

    def __init__(self, lr_scheduler: Any, coefficients: dict[str, float], optimizer: Any) -> None:
        self._lr = lr_scheduler
        self._coefficients = coefficients
        self._optimizer = optimizer

    def __call__(self, params_grads: Sequence[tuple[Any, Any]]) -> None:
        lr = self._lr.last_lr
        coefficients = self._coefficients
        for param, grad in params_grads:
            coefficient = coefficients.get(param.name)
            if coefficient is None or grad is None:
                continue
            keep = 1.0 - lr * param.optimize_attr["learning_rate"] * coefficient
            master = _compat.master_weight(self._optimizer, param)
            if master is None:
                param.scale_(keep)
            else:
                master.scale_(keep)
                param.set_value(master.astype(param.dtype))


def _decay(
    row: table.OptimizerRow, plan: Plan, options: dict[str, Any], rows: Sequence[Any], skipped: Collection[str]
) -> tuple[Decay, dict[str, Any]]:
    """The decay in force, and the optimizer's arguments for a decay of its own."""
    if row.decay != "native":
        coupled = options.get("weight_decay") if row.decay == "coupled" else None
        if isinstance(coupled, (int, float)):
            coupled = L2Decay(float(coupled))
        named = {r.name: r.decay for r in rows if r.decay}
        return Decay(named, "strategy", coupled=coupled), {}
    argument, exclusion = row.native
    if plan.weight_decay is not None and argument in options:
        raise ValueError(
            f"two decays for optimizer {row.name!r}: weight_decay={plan.weight_decay} of the strategy and the "
            f"optimizer option {argument}={options[argument]}"
        )
    if plan.weight_decay is not None and not row.replaces_decay:
        return Decay({r.name: r.decay for r in rows if r.decay}, "strategy"), {argument: 0.0}
    coefficient, source = plan.weight_decay, "strategy"
    if coefficient is None:
        default = inspect.signature(row.cls.__init__).parameters[argument].default
        coefficient, source = options.get(argument, default), "optimizer"
    named = {r.name: float(coefficient) for r in rows if r.own.regularizer is None and r.name not in skipped}
    decayed = {r.param.name for r in rows if r.name in named}
    if row.excludes == "include":
        native = {argument: float(coefficient), exclusion: decayed.__contains__}
    else:
        native = {argument: float(coefficient), exclusion: lambda param: param.name not in decayed}
    return Decay(named if coefficient else {}, source, by_optimizer=True), native


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
    if any(plan.curve(t) != plan.curve(0) for t in {1, steps // 2, steps - 1}):
        raise ValueError(f"optimizer {row.name!r} ignores the LR after its first step: it cannot follow a schedule")


def _check_sparse(row: table.OptimizerRow, model: nn.Layer, rows: Sequence[Any], plan: Plan) -> None:
    """Refuse sparse embeddings where Paddle would abort the process (AdamW, Value clip) or miscalculate (Adam)."""
    trained = {id(r.param) for r in rows if r.own.trainable}
    sparse = [
        name
        for name, layer in model.named_sublayers(include_self=True)
        if _compat.is_sparse_embedding(layer) and id(layer.weight) in trained
    ]
    if not sparse:
        return
    remedy = f"build {sparse} with sparse=False"
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
