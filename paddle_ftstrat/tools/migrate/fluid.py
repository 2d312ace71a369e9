"""fluid's optimizers, ParamAttr, clips, regularizers and initializers under their names of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import libcst as cst

from paddle_ftstrat.tools.migrate import arguments
from paddle_ftstrat.tools.migrate.site import Site

PARAMETERS_TODO = "`model` is the paddle.nn.Layer to train: dygraph optimizers are told their parameters"
MINIMIZE_TODO = (
    "in dygraph one update is, after the forward of each batch: loss.backward(); {name}.step(); {name}.clear_grad()"
)
_CLIP_TODO = "give the clip to the optimizer: grad_clip={clip}"


@dataclass(frozen=True)
class Spec:
    """How a fluid call is written today.

    Attributes:
        target: the dotted name of today.
        parameters: fluid's parameters, in order.
        renamed: parameter → its name of today.
        dropped: parameter → why there is none today.
        order: today's parameters, in order; None: fluid's, renamed, without the dropped ones.
    """

    target: str
    parameters: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)  # "" where there is nothing to say
    order: tuple[str, ...] | None = None

    def position_kept(self, index: int) -> bool:
        """Whether the parameter at a position is at the same one today."""
        today = self.order or [self.renamed.get(name, name) for name in self.parameters if name not in self.dropped]
        name = self.parameters[index]
        return name not in self.dropped and index < len(today) and today[index] == self.renamed.get(name, name)


_OPTIMIZER = {"parameter_list": "parameters", "regularization": "weight_decay"}
_TAIL = ("parameter_list", "regularization", "grad_clip", "name")
_SEED = {"seed": "paddle.seed() is for all of a program"}


def _optimizer(target: str, *parameters: str, **more: Any) -> Spec:
    # Whatever comes after the parameters list moved around between the versions: given by name.
    order = tuple(_OPTIMIZER.get(name, name) for name in parameters)
    return Spec(target, parameters, _OPTIMIZER, order=order[: parameters.index("parameter_list") + 1], **more)


_ADAM = ("learning_rate", "beta1", "beta2", "epsilon")
OPTIMIZERS = {
    "SGD": _optimizer("paddle.optimizer.SGD", "learning_rate", *_TAIL),
    "Momentum": _optimizer(
        "paddle.optimizer.Momentum",
        "learning_rate",
        "momentum",
        "parameter_list",
        "use_nesterov",
        "regularization",
        "grad_clip",
        "name",
    ),
    "Adagrad": _optimizer("paddle.optimizer.Adagrad", "learning_rate", "epsilon", *_TAIL, "initial_accumulator_value"),
    "Adam": _optimizer("paddle.optimizer.Adam", *_ADAM, *_TAIL, "lazy_mode"),
    "Adamax": _optimizer("paddle.optimizer.Adamax", *_ADAM, *_TAIL),
    "Adadelta": _optimizer("paddle.optimizer.Adadelta", "learning_rate", "epsilon", "rho", *_TAIL),
    "RMSProp": _optimizer(
        "paddle.optimizer.RMSProp", "learning_rate", "rho", "epsilon", "momentum", "centered", *_TAIL
    ),
    "Lamb": _optimizer(
        "paddle.optimizer.Lamb",
        "learning_rate",
        "lamb_weight_decay",
        "beta1",
        "beta2",
        "epsilon",
        *_TAIL[:3],
        "exclude_from_weight_decay_fn",
        "name",
        dropped={"regularization": "Lamb has its own decay, lamb_weight_decay"},
    ),
    "DecayedAdagrad": _optimizer("paddle_ftstrat.optim.DecayedAdagrad", "learning_rate", "decay", "epsilon", *_TAIL),
    "Ftrl": _optimizer("paddle_ftstrat.optim.Ftrl", "learning_rate", "l1", "l2", "lr_power", *_TAIL),
    "LarsMomentum": _optimizer(
        "paddle_ftstrat.optim.LarsMomentum",
        "learning_rate",
        "momentum",
        "lars_coeff",
        "lars_weight_decay",
        *_TAIL,
        "exclude_from_weight_decay",
        "epsilon",
        dropped={"exclude_from_weight_decay": "it is a function now: exclude_from_weight_decay_fn=lambda p: …"},
    ),
}
_COEFF = {"regularization_coeff": "coeff"}
_NORMAL = {"loc": "mean", "scale": "std"}
PLAIN = {
    "ParamAttr": Spec(
        "paddle.ParamAttr",
        ("name", "initializer", "learning_rate", "regularizer", "trainable", "do_model_average"),
        dropped={"gradient_clip": "clipping belongs to the optimizer: grad_clip=, or need_clip=False here"},
    ),
    "clip.GradientClipByGlobalNorm": Spec("paddle.nn.ClipGradByGlobalNorm", ("clip_norm", "group_name")),
    "clip.GradientClipByNorm": Spec("paddle.nn.ClipGradByNorm", ("clip_norm",)),
    "clip.GradientClipByValue": Spec("paddle.nn.ClipGradByValue", ("max", "min")),
    "regularizer.L1Decay": Spec("paddle.regularizer.L1Decay", ("regularization_coeff",), _COEFF),
    "regularizer.L2Decay": Spec("paddle.regularizer.L2Decay", ("regularization_coeff",), _COEFF),
    "initializer.NumpyArray": Spec("paddle.nn.initializer.Assign", ("value",)),
    "initializer.Constant": Spec(
        "paddle.nn.initializer.Constant", ("value", "force_cpu"), dropped={"force_cpu": "it has no meaning in dygraph"}
    ),
    "initializer.Uniform": Spec("paddle.nn.initializer.Uniform", ("low", "high", "seed"), dropped=_SEED),
    "initializer.Normal": Spec("paddle.nn.initializer.Normal", ("loc", "scale", "seed"), _NORMAL, _SEED),
    "initializer.TruncatedNormal": Spec(
        "paddle.nn.initializer.TruncatedNormal", ("loc", "scale", "seed"), _NORMAL, _SEED
    ),
    "initializer.Bilinear": Spec("paddle.nn.initializer.Bilinear", ()),
    "initializer.set_global_initializer": Spec(
        "paddle.nn.initializer.set_global_initializer", ("weight_init", "bias_init")
    ),
    "dygraph.to_variable": Spec(
        "paddle.to_tensor", ("value", "name"), {"value": "data"}, {"name": "tensors are not named"}
    ),
    "CPUPlace": Spec("paddle.CPUPlace", ()),
    "CUDAPlace": Spec("paddle.CUDAPlace", ("id",)),
    "is_compiled_with_cuda": Spec("paddle.is_compiled_with_cuda", ()),
}
# fluid initializer with a switch `uniform` → the two classes of today, and their parameters.
_SWITCHED = {
    "initializer.Xavier": ("Xavier", ("uniform", "fan_in", "fan_out", "seed")),
    "initializer.MSRA": ("Kaiming", ("uniform", "fan_in", "seed")),
}


def key_of(name: str) -> str:
    """The name under fluid that the tables know: `optimizer.AdamOptimizer` is `optimizer.Adam`.

    Example:
        >>> key_of("paddle.fluid.initializer.ConstantInitializer"), key_of("paddle.fluid.param_attr.ParamAttr")
        ('initializer.Constant', 'ParamAttr')
    """
    inner = name[len("paddle.fluid.") :]
    inner = {"param_attr.ParamAttr": "ParamAttr", "dygraph.base.to_variable": "dygraph.to_variable"}.get(inner, inner)
    group, _, last = inner.rpartition(".")
    for suffix in {"optimizer": ("Optimizer",), "initializer": ("Initializer",), "regularizer": ("Regularizer",)}.get(
        group, ()
    ):
        last = last[: -len(suffix)] if last.endswith(suffix) else last
    return f"{group}.{last}" if group else last


def target_of(name: str) -> str | None:
    """Today's name of something under fluid, where a name is all there is to it."""
    key = key_of(name)
    spec = OPTIMIZERS.get(key.partition(".")[2]) if key.startswith("optimizer.") else PLAIN.get(key)
    return None if spec is None else spec.target


def knows(name: str) -> bool:
    """Whether `rewrite` has a rule for a name under fluid."""
    return target_of(name) is not None or key_of(name) in _SWITCHED


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of an optimizer, ParamAttr, clip, regularizer or initializer of fluid."""
    key = key_of(site.name)
    if key in _SWITCHED:
        return _switched(call, key, site)
    if key in PLAIN:
        return apply(call, PLAIN[key], site)
    spec = OPTIMIZERS[key.partition(".")[2]]
    call = apply(call, spec, site)
    if arguments.has_star(call) or arguments.has_star(call, "**"):
        site.todo(PARAMETERS_TODO + " as parameters=model.parameters()")
    elif arguments.find(call, "parameters", spec.parameters.index("parameter_list")) is None:
        site.todo(PARAMETERS_TODO)
        call = arguments.added(call, "parameters", "model.parameters()")
    return call


def apply(call: cst.Call, spec: Spec, site: Site) -> cst.Call:
    """The call as `spec` says, with a note of what it was, and of what is gone."""
    if arguments.has_star(call):
        site.todo(f"{spec.target} takes its arguments under other names than fluid: check what *args hold")
    beyond = next((i for i in range(len(spec.parameters)) if not spec.position_kept(i)), len(spec.parameters))
    call = arguments.by_name(call, spec.parameters, beyond)
    args = []
    for arg in call.args:
        name = arg.keyword.value if arg.keyword is not None else None
        if spec.dropped.get(name):
            site.note(f"{site.name.rpartition('.')[2]}: {name} dropped: {spec.dropped[name]}")
        args.append(
            arguments.named(arg, spec.renamed[name]) if name in spec.renamed and name not in spec.dropped else arg
        )
    call = arguments.without(call.with_changes(args=args), tuple(spec.dropped))
    site.note(f"{site.name[len('paddle.') :]} → {spec.target}")
    return site.call_of(call, spec.target)


def minimize_advice(name: str) -> str:
    """What to write in place of `optimizer.minimize(loss)`."""
    return MINIMIZE_TODO.format(name=name)


def set_gradient_clip(call: cst.Call, site: Site) -> cst.Call:
    """`fluid.clip.set_gradient_clip(clip)`: every optimizer has its own clip today."""
    clip = arguments.find(call, "clip", 0)
    text = arguments.code_of(clip.value) if clip is not None else "…"
    site.todo(_CLIP_TODO.format(clip=text) + ", and delete this line")
    return call


def _switched(call: cst.Call, key: str, site: Site) -> cst.BaseExpression:
    base, parameters = _SWITCHED[key]
    call = arguments.by_name(call, parameters)
    uniform = arguments.find(call, "uniform")
    value = "True" if uniform is None else getattr(uniform.value, "value", None)
    if value not in ("True", "False") or arguments.has_star(call):
        site.todo(f"paddle.nn.initializer.{base}Uniform or {base}Normal, as uniform= says")
        return call
    target = f"paddle.nn.initializer.{base}{'Uniform' if value == 'True' else 'Normal'}"
    spec = Spec(target, parameters, dropped={"uniform": "", **_SEED})
    return apply(call, spec, site)
