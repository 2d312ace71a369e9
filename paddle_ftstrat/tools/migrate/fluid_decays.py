"""fluid's learning-rate schedules as paddle.optimizer.lr classes that give the same LR at every update."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst
from libcst.helpers import parse_template_expression

from paddle_ftstrat.tools.migrate import arguments, fluid
from paddle_ftstrat.tools.migrate.fluid import Spec
from paddle_ftstrat.tools.migrate.site import Site

STEP_TODO = (
    "call .step() of this scheduler after every optimizer.step(): fluid's schedules counted the updates by themselves"
)
_INNER_TODO = (
    "LinearWarmup starts the inner schedule after the warmup, fluid counted it from update 0: subtract warmup_steps "
    "from its boundaries and lengths"
)
_LR = "paddle.optimizer.lr"
_GROUPS = ("layers", "layers.learning_rate_scheduler")


@dataclass(frozen=True)
class Formula:
    """A schedule that is written as another expression, with another one where `staircase=True`."""

    parameters: tuple[str, ...]
    now: str
    staircase: str = ""


DIRECT = {
    "polynomial_decay": Spec(
        f"{_LR}.PolynomialDecay",
        ("learning_rate", "decay_steps", "end_learning_rate", "power", "cycle"),
        {"end_learning_rate": "end_lr"},
    ),
    "piecewise_decay": Spec(f"{_LR}.PiecewiseDecay", ("boundaries", "values")),
    "noam_decay": Spec(f"{_LR}.NoamDecay", ("d_model", "warmup_steps", "learning_rate")),
    "linear_lr_warmup": Spec(f"{_LR}.LinearWarmup", ("learning_rate", "warmup_steps", "start_lr", "end_lr")),
}
_STEPPED = ("learning_rate", "decay_steps", "decay_rate", "staircase")
FORMULAS = {
    "exponential_decay": Formula(
        _STEPPED,
        f"{_LR}.ExponentialDecay({{learning_rate}}, gamma={{decay_rate}} ** (1 / {{decay_steps}}))",
        f"{_LR}.StepDecay({{learning_rate}}, step_size={{decay_steps}}, gamma={{decay_rate}})",
    ),
    "natural_exp_decay": Formula(
        _STEPPED,
        f"{_LR}.NaturalExpDecay({{learning_rate}}, gamma={{decay_rate}} / {{decay_steps}})",
        f"{_LR}.LambdaDecay({{learning_rate}}, lambda t: math.exp(-{{decay_rate}} * (t // {{decay_steps}})))",
    ),
    "inverse_time_decay": Formula(
        _STEPPED,
        f"{_LR}.InverseTimeDecay({{learning_rate}}, gamma={{decay_rate}} / {{decay_steps}})",
        f"{_LR}.LambdaDecay({{learning_rate}}, lambda t: 1 / (1 + {{decay_rate}} * (t // {{decay_steps}})))",
    ),
    "cosine_decay": Formula(
        ("learning_rate", "step_each_epoch", "epochs"),
        f"{_LR}.LambdaDecay({{learning_rate}}, "
        "lambda t: 0.5 * (math.cos(t // {step_each_epoch} * math.pi / {epochs}) + 1))",
    ),
}


def key_of(name: str) -> str | None:
    """The schedule that a dotted name under fluid stands for, None for anything else.

    Example:
        >>> key_of("paddle.fluid.layers.cosine_decay"), key_of("paddle.fluid.layers.mean")
        ('cosine_decay', None)
    """
    group, _, last = name[len("paddle.fluid.") :].rpartition(".")
    return last if group in _GROUPS and (last in DIRECT or last in FORMULAS) else None


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of a fluid schedule."""
    key = key_of(site.name)
    site.todo(STEP_TODO)
    if key in FORMULAS:
        return _by_formula(call, FORMULAS[key], site)
    if key == "linear_lr_warmup" and _warms_a_schedule(site):
        site.todo(_INNER_TODO)
    call = fluid.apply(call, DIRECT[key], site)
    # fluid counts Noam's updates from 1, which is what last_epoch=0 makes Paddle do.
    return arguments.added(call, "last_epoch", "0") if key == "noam_decay" else call


def _by_formula(call: cst.Call, formula: Formula, site: Site) -> cst.BaseExpression:
    values = _values(call, formula)
    stairs = getattr(values.pop("staircase", None), "value", "False")
    needed = [name for name in formula.parameters if name != "staircase"]
    if site.through_alias or sorted(values) != sorted(needed) or stairs not in ("True", "False"):
        now = formula.now + (f", or with staircase=True {formula.staircase}" if formula.staircase else "")
        site.todo(f"write {now}")
        return call
    template = formula.staircase if stairs == "True" else formula.now
    for module in ("paddle", *(["math"] if "math." in template else [])):
        site.require(module)
    site.note(f"fluid.{site.name.partition('fluid.')[2]} → {template.partition('(')[0]}")
    return parse_template_expression(template, **{k: _fitting(v, k, template) for k, v in values.items()})


def _values(call: cst.Call, formula: Formula) -> dict[str, cst.BaseExpression]:
    named = arguments.by_name(call, formula.parameters).args
    return {arg.keyword.value if arg.keyword is not None else "*": arg.value for arg in named}


def _fitting(value: cst.BaseExpression, name: str, template: str) -> cst.BaseExpression:
    """The value, in parentheses where the template calculates with it."""
    alone = re.search(rf"(?:[(=]|, )\{{{name}\}}(?=[,)])", template)
    return value if alone else arguments.atom(value)


def _warms_a_schedule(site: Site) -> bool:
    first = arguments.find(site.original, "learning_rate", 0)
    return first is not None and site.facts.kind_of(first.value) == "schedule"
