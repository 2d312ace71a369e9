"""PaddleHub's strategies: same names here; what differs are defaults, unknown optimizers and half-given dicts."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst.helpers import parse_template_expression

from paddle_ftstrat.tools.migrate import arguments, hub_names
from paddle_ftstrat.tools.migrate.site import Site

WARMUP_TODO = (
    "pass warmup_proportion=0.1 wherever this class is called without one: that is PaddleHub's default, here it is 0.0"
)
L2SP_TODO = (
    "L2SP pulls back to its value what hub.load_pretrained(model, path) filled; where the weights come another way, "
    "name them, pretrained='backbone.*' or a state dict, where the task is built or the strategy bound"
)
LAYERS_TODO = (
    "params_layer maps names of the new model's parameters (model.named_parameters()) to layer numbers, 0 the lowest: "
    "{name: layer}; or leave it out and say how many blocks"
)
_OLD_LAYERS_TODO = (
    "ULMFiTStrategy has dis_params_layer= (learning rates) and frz_params_layer= (unfreezing) in place of params_layer="
)
# What PaddleHub's DefaultStrategy looks for; any other name got Adam without a word.
_OPTIMIZERS = frozenset(
    ("sgd", "adagrad", "adamax", "decayedadagrad", "ftrl", "larsmomentum", "momentum", "rmsprop", "adam")
)
_POSITIONS = {"CombinedStrategy": 0, "AdamWeightDecayStrategy": 4}
# Dicts that PaddleHub left switched off where this entry was missing. So does this library, with a warning, but for
# `discriminative`, which is then for every layer.
_OFF = {
    "linear_decay": ("start_point", "1.0"),
    "slanted_triangle": ("cut_fraction", "0.0"),
    "discriminative": ("blocks", "0"),
}


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of a strategy class, with PaddleHub's meaning kept."""
    name = hub_names.short(site.name)
    call = _optimizer_name(call, name, site)
    call = _optimizer_options(call, site)
    if name == "AdamWeightDecayStrategy":
        call = _warmup(call, site)
    if name == "CombinedStrategy":
        call = _scheduler_argument(call, site)
    if name == "L2SPFinetuneStrategy" or _regularizes_l2sp(call):
        site.todo(L2SP_TODO)
    if arguments.find(call, "params_layer"):
        site.todo(_OLD_LAYERS_TODO)
    if any(arguments.find(call, key) for key in ("params_layer", "dis_params_layer", "frz_params_layer")):
        site.todo(LAYERS_TODO)
    return call


def rewrite_dict(node: cst.Dict, site: Site) -> cst.Dict:
    """A dict given as `scheduler=`: what PaddleHub left off stays off, numbers for a switch become booleans."""
    return node.with_changes(elements=[_entry(element, site) for element in node.elements])


def add_scheduler(call: cst.Call, site: Site) -> cst.Call:
    """`strategy.add_scheduler(...)`: say where PaddleHub left off what it seems to ask for."""
    key = arguments.text_of(arguments.find(call, "name", 0))
    if key in _OFF and not arguments.has_star(call, "**") and arguments.find(call, "value", 1) is None:
        entry, _ = _OFF[key]
        if arguments.find(call, entry) is None and arguments.find(call, "params_layer") is None:
            site.todo(
                f"PaddleHub left {key} off as long as {entry} was not given"
                + (": give it, or delete the line" if key != "discriminative" else ", here it is then for every layer")
            )
    return call


def _warmup(call: cst.Call, site: Site) -> cst.Call:
    if arguments.find(call, "warmup_proportion", 2) is not None:
        return call
    if arguments.has_star(call):
        site.todo(WARMUP_TODO)
        return call
    stars = [arg for arg in call.args if arg.star == "**"]
    if len(stars) > 1:
        site.todo(WARMUP_TODO)
        return call
    site.note("AdamWeightDecayStrategy: warmup_proportion=0.1 written out, PaddleHub's default (here it is 0.0)")
    if not stars:
        return arguments.added(call, "warmup_proportion", "0.1")
    given = parse_template_expression('{"warmup_proportion": 0.1, **{more}}', more=stars[0].value)
    args = [arg.with_changes(value=given) if arg is stars[0] else arg for arg in call.args]
    return call.with_changes(args=args)


def _optimizer_name(call: cst.Call, name: str, site: Site) -> cst.Call:
    found = arguments.find(call, "optimizer_name", _POSITIONS.get(name, 1))
    given = arguments.text_of(found)
    if given is None or given.lower() in _OPTIMIZERS:
        return call
    site.note(f"{name}: optimizer_name {given!r} was unknown to PaddleHub, which used Adam then; 'adam' written out")
    adam = _quoted("adam", found.value)
    args = [arg.with_changes(value=adam) if arg is found else arg for arg in call.args]
    return call.with_changes(args=args)


def _optimizer_options(call: cst.Call, site: Site) -> cst.Call:
    """fluid's names of optimizer options; a regularizer of all parameters is called weight_decay today."""
    if hub_names.short(site.name) == "DefaultStrategy":
        args = []
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value == "regularization":
                site.note("DefaultStrategy: regularization= is called weight_decay= today")
                arg = arguments.named(arg, "weight_decay")
            args.append(arg)
        call = call.with_changes(args=args)
    if arguments.find(call, "parameter_list") is not None:
        site.note("parameter_list= dropped: a strategy takes the parameters of the model that it is bound to")
    return arguments.without(call, ("parameter_list",))


def _scheduler_argument(call: cst.Call, site: Site) -> cst.Call:
    found = arguments.find(call, "scheduler", 2)
    if found is None or not isinstance(found.value, cst.Dict):
        return call
    value = rewrite_dict(found.value, site)
    return call.with_changes(args=[arg.with_changes(value=value) if arg is found else arg for arg in call.args])


def _regularizes_l2sp(call: cst.Call) -> bool:
    found = arguments.find(call, "regularization", 3)
    if found is None or not isinstance(found.value, cst.Dict):
        return False
    return any(_key(element) == "L2SP" for element in found.value.elements)


def _entry(element: cst.BaseDictElement, site: Site) -> cst.BaseDictElement:
    key = _key(element)
    if key == "noam_decay" and isinstance(element.value, cst.Integer):
        return element.with_changes(value=cst.Name(str(bool(element.value.evaluated_value))))
    if key not in _OFF or not isinstance(element.value, cst.Dict):
        return element
    inner, (entry, off) = element.value.elements, _OFF[key]
    if any(_key(part) in (entry, "params_layer", None) for part in inner):
        return element
    site.note(f"scheduler {key!r}: {entry!r} was not given, which left it off in PaddleHub; {off} written out")
    return element.with_changes(
        value=element.value.with_changes(elements=_prepended(inner, _quoted(entry, element.key), off))
    )


def _quoted(text: str, like: cst.SimpleString) -> cst.SimpleString:
    """A string in the quotes of another one: inside an f-string others would end it."""
    return cst.SimpleString(f"{like.quote[0]}{text}{like.quote[0]}")


def _prepended(elements: Sequence[cst.BaseDictElement], key: cst.SimpleString, value: str) -> list[cst.BaseDictElement]:
    new = cst.DictElement(key, cst.parse_expression(value))
    if elements:
        new = new.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
    return [new, *elements]


def _key(element: cst.BaseDictElement) -> str | None:
    key = getattr(element, "key", None)
    return key.evaluated_value if isinstance(key, cst.SimpleString) else None
