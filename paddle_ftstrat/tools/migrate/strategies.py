"""PaddleHub's strategies: same names here; what differs are a default, unknown optimizers and numbers as switches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import libcst as cst
from libcst.helpers import parse_template_expression

from paddle_ftstrat.tools.migrate import arguments, names
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
_OFF_NOTE = "discriminative: blocks=0 written out: without blocks it was off in PaddleHub, here it is for every layer"
_POSITIONS = {"CombinedStrategy": 0, "AdamWeightDecayStrategy": 4}


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of a strategy class, with PaddleHub's meaning kept."""
    name = names.short(site.name)
    call = _optimizer_name(call, name, site)
    call = _optimizer_options(call, name, site)
    if name == "AdamWeightDecayStrategy":
        call = _warmup(call, site)
    regularization = arguments.find(call, "regularization", 3)
    pulls = name == "L2SPFinetuneStrategy" or (
        regularization is not None and "L2SP" in (_keys(regularization.value) or ())
    )
    if pulls and site.text is None:
        site.todo(L2SP_TODO)
    if arguments.find(call, "params_layer"):
        site.todo(_OLD_LAYERS_TODO)
    if any(arguments.find(call, key) for key in ("params_layer", "dis_params_layer", "frz_params_layer")):
        site.todo(LAYERS_TODO)
    return call


def scheduler_entry(element: cst.DictElement, note: Callable[[str], None]) -> cst.DictElement:
    """An entry of a scheduler dict: a boolean where PaddleHub took a number, and what it left off is off."""
    value = element.value
    if _key(element) == "noam_decay" and isinstance(value, cst.Integer):
        return element.with_changes(value=cst.Name(str(bool(value.evaluated_value))))
    if (
        not isinstance(value, (cst.Call, cst.Dict))
        or _key(element) != "discriminative"
        or not _leaves_off(_keys(value))
    ):
        return element
    note(_OFF_NOTE)
    if isinstance(value, cst.Call):
        return element.with_changes(value=arguments.added(value, "blocks", "0"))
    blocks = cst.DictElement(_quoted("blocks", element.key), cst.Integer("0"))
    return element.with_changes(value=value.with_changes(elements=[blocks, *value.elements]))


def add_scheduler(call: cst.Call, note: Callable[[str], None]) -> cst.Call:
    """`strategy.add_scheduler(...)`, where what PaddleHub left off is off."""
    is_discriminative = arguments.text_of(arguments.find(call, "name", 0)) == "discriminative"
    given = [arg.keyword.value if arg.keyword else None for arg in call.args[1:]]
    if not is_discriminative or not _leaves_off(given) or arguments.find(call, "value", 1):
        return call
    note(_OFF_NOTE)
    return arguments.added(call, "blocks", "0")


def _warmup(call: cst.Call, site: Site) -> cst.Call:
    if arguments.find(call, "warmup_proportion", 2) is not None:
        return call
    stars = [arg for arg in call.args if arg.star == "**"]
    if arguments.has_star(call) or len(stars) > 1:
        site.todo(WARMUP_TODO)
        return call
    site.note("AdamWeightDecayStrategy: warmup_proportion=0.1 written out, PaddleHub's default (here it is 0.0)")
    if not stars:
        return arguments.added(call, "warmup_proportion", "0.1")
    given = parse_template_expression('{"warmup_proportion": 0.1, **{more}}', more=stars[0].value)
    return arguments.replaced(call, stars[0], given)


def _optimizer_name(call: cst.Call, name: str, site: Site) -> cst.Call:
    found = arguments.find(call, "optimizer_name", _POSITIONS.get(name, 1))
    given = arguments.text_of(found)
    if found is None or given is None or given.lower() in _OPTIMIZERS:
        return call
    site.note(f"{name}: optimizer_name {given!r} was unknown to PaddleHub, which used Adam then; 'adam' written out")
    return arguments.replaced(call, found, _quoted("adam", found.value))


def _optimizer_options(call: cst.Call, name: str, site: Site) -> cst.Call:
    """fluid's names of optimizer options; a regularizer of all parameters is called weight_decay today."""
    decay = arguments.find(call, "regularization") if name == "DefaultStrategy" else None
    if decay is not None:
        site.note("DefaultStrategy: regularization= is called weight_decay= today")
        call = call.with_changes(
            args=[arguments.named(arg, "weight_decay") if arg is decay else arg for arg in call.args]
        )
    if arguments.find(call, "parameter_list") is not None:
        site.note("parameter_list= dropped: a strategy takes the parameters of the model that it is bound to")
    return arguments.without(call, ("parameter_list",))


def _leaves_off(keys: Sequence[str | None] | None) -> bool:
    """Whether a `discriminative` with these keys was off; None stands for one that cannot be read."""
    return keys is not None and not {"blocks", "params_layer", None} & set(keys)


def _keys(node: cst.BaseExpression) -> list[str | None] | None:
    """The keys of `{...}` or `dict(...)`, None for anything else."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "dict":
        return [arg.keyword.value if arg.keyword else None for arg in node.args]
    return [_key(element) for element in node.elements] if isinstance(node, cst.Dict) else None


def _key(element: cst.BaseDictElement) -> str | None:
    key = getattr(element, "key", None)
    return arguments.string_of(key)


def _quoted(text: str, like: cst.BaseExpression) -> cst.SimpleString:
    """A string in the quotes of another one: inside an f-string others would end it."""
    quote = like.quote[0] if isinstance(like, cst.SimpleString) else '"'
    return cst.SimpleString(f"{quote}{text}{quote}")
