"""From a plan and resolved parameters to the Paddle optimizer, with decay that skips what it should skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle import nn

from paddle_ftstrat import _errors, _paddle
from paddle_ftstrat.optim import clip, decay, finite, fused, masters, table
from paddle_ftstrat.optim.decay import Decay
from paddle_ftstrat.optim.hyper import HyperParameters
from paddle_ftstrat.plan import Plan


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
    table.check_options(row, plan.optimizer_options)
    options = table.checked_values(row, plan.optimizer_options)
    _check_multipliers(row, plan, rows)
    _check_sparse(row, model, rows, plan)
    in_force, native = decay.choose(row, plan, options, rows)
    given_clip = options.pop("grad_clip", None)
    if given_clip is not None and plan.clip is not None:
        raise ValueError(f"two gradient clips: clip {plan.clip.kind} and the optimizer option grad_clip={given_clip}")
    # An optimizer that ignores multipliers (Rprop) takes no scheduler either; that the LR is constant was checked.
    learning_rate = lr_scheduler if row.multiplier else lr_scheduler()
    arguments = {**options, **native, "learning_rate": learning_rate, "parameters": [r.param for r in rows]}
    if plan.clip is not None or given_clip is not None:
        arguments["grad_clip"] = clip.grad_clip(plan.clip) or given_clip
    try:
        optimizer = row.cls(**arguments)
    except (AssertionError, RuntimeError, OverflowError) as error:
        raise ValueError(f"optimizer {row.name!r} refuses its options {_errors.shown(options)}: {error}") from error
    names = {r.param.name: r.name for r in rows}
    check = finite.FiniteGradients(names, lr_scheduler)
    # Inside what turns half precision into float32, where all sums have the range.
    _paddle.before_update(optimizer, check)
    masters.install(optimizer, arguments["parameters"], lasting=options.get("multi_precision") is not False)
    decoupled = None
    if not in_force.by_optimizer:
        decayed = {r.param.name for r in rows if r.decayed}
        decoupled = decay.Decoupled(optimizer, lr_scheduler, decayed, in_force.coefficient)
    hypers = HyperParameters(optimizer, decoupled)
    fused.attach(optimizer, names, decoupled, hypers, check, fused_update)
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
