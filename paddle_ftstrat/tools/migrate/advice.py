"""What to write in place of what no rule can rewrite, and the parts of fluid for which another name is all."""

from __future__ import annotations

import re
from collections.abc import Iterable

import libcst as cst
import paddle

from paddle_ftstrat.tools.migrate import arguments, paddlenlp
from paddle_ftstrat.tools.migrate.paddlenlp import MODELS
from paddle_ftstrat.tools.migrate.site import Site

CONTEXT = "delete: a Paddle 2/3 model is called directly, it has no context(), programs or input and output variables"
DERIVED = "delete: the task takes model and data set, not variables of a static graph"
INSTALL = "delete: PaddleHub is not needed, its modules do not load here; pip install paddle_ftstrat"
_SEQUENCE = "ForSequenceClassification"
_HEADS = {
    "SequenceLabelTask": "ForTokenClassification",
    "ReadingComprehensionTask": "ForQuestionAnswering",
    "TextGenerationTask": "Model",
}
# By the name without its package, or by the beginning of it.
_HUB = {
    "Module.context": CONTEXT,
    "reader": (
        "delete: the paddle.io.Dataset returns what the model takes; text through a tokenizer "
        "(paddlenlp.transformers.AutoTokenizer.from_pretrained), images through paddle.vision.transforms"
    ),
    "BertTokenizer": "tokenizer = paddlenlp.transformers.AutoTokenizer.from_pretrained(the model's name)",
    "ErnieTinyTokenizer": "tokenizer = paddlenlp.transformers.ErnieTinyTokenizer.from_pretrained('ernie-tiny')",
    "CustomTokenizer": "tokenizer = paddlenlp.data.JiebaTokenizer(paddlenlp.data.Vocab.load_vocabulary(path))",
    "common.logger": "import logging; logger = logging.getLogger('paddle_ftstrat')",
    "logger": "logging.getLogger('paddle_ftstrat'), after `import logging`",
    "finetune_and_eval": "task.finetune_and_eval(), with the RunConfig given to the task",
    "report_final_result": "delete: the hyper-parameter search of PaddleHub is gone; return or print the score",
    "create_": "build a task: hub.ClassifierTask(model, dataset, config)",
    "connect_program": "delete: there are no programs to connect; call one model on the other's output",
    "io": "delete: there are no data types of variables to declare",
}
_WITH = "dygraph is the normal mode and has no programs: delete this `with` and dedent its body"
_STATIC = "delete: dygraph runs layer by layer, there is no program, and nothing is declared or fed"
_LOADER = "paddle.io.DataLoader(dataset, batch_size=…)"
_FLUID = {
    **dict.fromkeys(("program_guard", "unique_name.guard", "name_scope", "dygraph.guard"), _WITH),
    **dict.fromkeys(("Program", "default_main_program", "default_startup_program", "data", "layers.data"), _STATIC),
    **dict.fromkeys(("DataFeeder", "io.DataLoader", "io.PyReader"), _LOADER),
    "Executor": "delete: call the model; exe.run(program, feed, fetch_list) becomes outputs = model(inputs)",
    "io.load": "model.set_state_dict(paddle.load(path)), or hub.load_pretrained(model, path)",
    "io.save": "paddle.save(model.state_dict(), path)",
    "dygraph.to_variable": "paddle.to_tensor(data)",
    "dygraph": "the class of that name in paddle.nn, with dygraph's arguments of today",
    "layers": "a layer of the model (paddle.nn), or a function of paddle or paddle.nn.functional in its forward",
    "layers.mean": "paddle.mean(x)",
    "clip": "give the optimizer grad_clip=paddle.nn.ClipGradByGlobalNorm(…), ClipGradByNorm or ClipGradByValue",
    "optimizer": (
        "the class of that name in paddle.optimizer (Ftrl, DecayedAdagrad, LarsMomentum: paddle_ftstrat.optim), with "
        "parameters=model.parameters() and weight_decay= for regularization=; in place of minimize(loss), after the "
        "forward of each batch: loss.backward(); optimizer.step(); optimizer.clear_grad()"
    ),
    "initializer": "one of paddle.nn.initializer",
}
_SCHEDULE = (
    "one of paddle.optimizer.lr, given to the optimizer as learning_rate=; call its .step() after every "
    "optimizer.step(): fluid's schedules counted the updates by themselves"
)
# What is called otherwise today: the name under fluid → today's, and fluid's parameters in order.
_INIT = "paddle.nn.initializer"
_TODAY = {
    "ParamAttr": "paddle.ParamAttr name initializer learning_rate regularizer trainable do_model_average",
    "regularizer.L1Decay": "paddle.regularizer.L1Decay regularization_coeff",
    "regularizer.L2Decay": "paddle.regularizer.L2Decay regularization_coeff",
    "initializer.NumpyArray": f"{_INIT}.Assign value",
    "initializer.Bilinear": f"{_INIT}.Bilinear",
    "initializer.Constant": f"{_INIT}.Constant value force_cpu",
    "initializer.Uniform": f"{_INIT}.Uniform low high seed",
    "initializer.Normal": f"{_INIT}.Normal loc scale seed",
    "initializer.TruncatedNormal": f"{_INIT}.TruncatedNormal loc scale seed",
    "initializer.Xavier": f"{_INIT}.XavierUniform uniform fan_in fan_out seed",
    "initializer.MSRA": f"{_INIT}.KaimingUniform uniform fan_in seed",
    "initializer.set_global_initializer": f"{_INIT}.set_global_initializer weight_init bias_init",
    "CPUPlace": "paddle.CPUPlace",
    "CUDAPlace": "paddle.CUDAPlace id",
    "is_compiled_with_cuda": "paddle.is_compiled_with_cuda",
}
_RENAMED = {"loc": "mean", "scale": "std", "regularization_coeff": "coeff"}
_DROPPED = {
    "seed": "paddle.seed() is for all of a program",
    "force_cpu": "it has no meaning in dygraph",
    "gradient_clip": "clipping belongs to the optimizer: grad_clip=, or need_clip=False here",
    "uniform": "",
}


def head_for(used: Iterable[str]) -> str:
    """What paddlenlp calls the head that a script's task put on a text model; `Model` where a decoder came behind it.

    Args:
        used: the (shortened) PaddleHub names in the script.

    Example:
        >>> head_for(["SequenceLabelTask", "Module"]), head_for(["TextClassifierTask"])
        ('ForTokenClassification', 'ForSequenceClassification')
    """
    return next((_HEADS[name] for name in used if name in _HEADS), _SEQUENCE)


def of_hub(name: str, call: cst.Call | None = None, head: str = _SEQUENCE) -> str:
    """The replacement to write for a (shortened) PaddleHub name that has no rule.

    Args:
        name: the name without `paddlehub.`.
        call: the call of it, if it is one.
        head: the head of a text model (see `head_for`).

    Example:
        >>> of_hub("dataset.GLUE", cst.parse_expression("hub.dataset.GLUE('STS-B')")).partition("; ")[2][:58]
        "GLUE is paddlenlp.datasets.load_dataset('glue', 'sts-b', s"
    """
    if name == "Module":
        return f"build the model itself: model = {_model(_argument(call, 'name', '') or '', head)}"
    if name.startswith("dataset."):
        return _dataset(name.partition(".")[2], call)
    what = f"hub.{name}" if name else "paddlehub"
    none = f"{what} has no counterpart here: replace it, or run this part with PaddleHub on its own"
    return _by_beginning(_HUB, name) or none


def of_import(name: str) -> str:
    """What to do about the import of a PaddleHub name (in full) that has no counterpart here."""
    return f"delete this import when the uses of {name} below are replaced"


def of_fluid(name: str) -> str:
    """The replacement to write for something under fluid that has no rule.

    Args:
        name: its dotted name, `paddle.fluid.…`.

    Example:
        >>> of_fluid("paddle.fluid.layers.mean")
        'fluid.layers.mean is gone: paddle.mean(x)'
    """
    inner = name[len("paddle.fluid.") :]
    is_schedule = inner.startswith("layers.") and inner.endswith(("_decay", "_lr_warmup"))
    text = _SCHEDULE if is_schedule else _by_beginning(_FLUID, inner)
    return f"fluid.{inner} is gone" + (f": {text}" if text else " from Paddle ≥ 2.5: write its dygraph counterpart")


def _by_beginning(table: dict[str, str], name: str) -> str | None:
    """The entry of the longest key that a name is, lies under, or (`io.load…`, `create_…`) begins with."""
    loose = ("create_", "io.load", "io.save")
    fitting = [key for key in table if f"{name}.".startswith(f"{key}.") or (key in loose and name.startswith(key))]
    return table[max(fitting, key=len)] if fitting else None


def _argument(call: cst.Call | None, name: str, default: str) -> str | None:
    """The text of a call's first argument, the default where it has none, None where it is not written out."""
    given = arguments.find(call, name, 0) if call is not None else None
    return default if given is None else arguments.text_of(given)


def _model(name: str | None, head: str) -> str:
    plain = re.sub(r"(_vd)?_imagenet(_ssld)?$", "", name or "").replace("resnet_v2_", "resnet")
    plain = {"shufflenet_v2": "shufflenet_v2_x1_0"}.get(plain, plain)
    if plain != name and hasattr(paddle.vision.models, plain):
        return f"paddle.vision.models.{plain}(pretrained=True, num_classes=…)"
    known = MODELS.get(name or "")
    if known is None:
        whose = f" of {name!r}" if name else ""
        return f"a paddle.nn.Layer with a head; hub.load_pretrained(model, path) fills it with the weights{whose}"
    built = (
        f"paddlenlp.transformers.Auto{head if head == 'Model' else f'Model{head}'}.from_pretrained({known.weights!r}"
    )
    if head == "Model":
        return f"{built}), which encodes, with a decoder of your own behind it (PaddleHub's was an LSTM with attention)"
    return built + (", num_classes=…)" if head.endswith("Classification") else ")")


def _dataset(name: str, call: cst.Call | None) -> str:
    base = (
        "dataset = {'train': …, 'dev': …, 'test': …}, each a paddle.io.Dataset of (input, label) samples, "
        "inputs as numpy arrays"
    )
    if name == "Flowers":
        return (
            f"{base}; Flowers was flower_photos, 5 classes: paddle.vision.datasets.DatasetFolder(path of it), which "
            "has a folder per class (paddle.vision.datasets.Flowers is another one: 102 classes, labels 1 to 102)"
        )
    argument = _argument(call, {"GLUE": "sub_dataset", "XNLI": "language"}.get(name, ""), "")
    data = paddlenlp.data_of(name, argument)
    if data is not None:
        given = f"{', '.join(map(repr, data.given))}, splits={list(data.splits.values())}"
        more = "" if "test" in data.splits else ", whose test split has no labels"
        return f"{base}; {name} is paddlenlp.datasets.load_dataset({given}){more}"
    if name in ("GLUE", "XNLI"):
        which = "task in lower case" if name == "GLUE" else "language"
        return f"{base}; {name} is paddlenlp.datasets.load_dataset({name.lower()!r}, its {which}, splits=…)"
    return base


def today_of(name: str) -> list[str]:
    """Today's name of fluid's ParamAttr, an initializer, a regularizer or a place, and fluid's parameters; else [].

    Example:
        >>> today_of("paddle.fluid.initializer.ConstantInitializer"), today_of("paddle.fluid.layers.fc")
        (['paddle.nn.initializer.Constant', 'value', 'force_cpu'], [])
    """
    inner = name[len("paddle.fluid.") :].replace("param_attr.", "")
    plain = re.sub(r"^((initializer|regularizer)\.\w+?)(Initializer|Regularizer)$", r"\1", inner)
    return _TODAY.get(plain, "").split()


def rename(call: cst.Call, site: Site) -> cst.Call:
    """A call of one of those, under the names of today."""
    target, *parameters = today_of(site.name)
    beyond = next((index for index, name in enumerate(parameters) if name in _DROPPED), len(parameters))
    named = arguments.by_name(call, parameters, beyond)
    given = {arg.keyword.value: arg.value for arg in named.args if arg.keyword is not None}
    uniform = getattr(given.get("uniform"), "value", "True")
    if uniform not in ("True", "False") or arguments.has_star(call):
        other = target.rpartition(".")[2].replace("Uniform", "Normal")
        site.todo(f"write it as {target}" + (f" or {other}, as uniform= says" if "uniform" in parameters else ""))
        return call
    target = target.replace("Uniform", "Normal") if uniform == "False" else target
    for name in filter(_DROPPED.get, given):
        site.note(f"{site.name.rpartition('.')[2]}: {name} dropped: {_DROPPED[name]}")
    args = [
        arguments.named(arg, _RENAMED[arg.keyword.value]) if arg.keyword and arg.keyword.value in _RENAMED else arg
        for arg in named.args
    ]
    site.note(f"{site.name[len('paddle.') :]} → {target}")
    call = arguments.without(named.with_changes(args=args), tuple(_DROPPED))
    if site.facts.through_alias(site.original.func):
        return call
    site.require(target.partition(".")[0])
    return call.with_changes(func=cst.parse_expression(target))
