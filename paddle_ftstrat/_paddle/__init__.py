"""Every use of something private in Paddle: layers and optimizers here, other subjects in files of their own.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn
from paddle.base.layer_helper import LayerHelper
from paddle.jit.dy2static.program_translator import StaticFunction
from paddle.nn.layer.norm import _BatchNormBase, _InstanceNormBase
from paddle.nn.layer.rnn import RNNBase
from paddle.regularizer import L2Decay

Pairs = list[tuple[Any, Any]]

_NORMS = (_BatchNormBase, _InstanceNormBase, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
_STATISTICS = ("_mean", "_variance")


def check_layer(model: Any, what: str = "model") -> None:
    """TypeError for what is no `paddle.nn.Layer`."""
    if not isinstance(model, nn.Layer):
        raise TypeError(f"{what} must be a paddle.nn.Layer, not {type(model).__name__}")


def unwrap(model: nn.Layer) -> nn.Layer:
    """The user's model inside `paddle.DataParallel`, or the model itself."""
    while isinstance(model, paddle.DataParallel):
        model = model._layers
    return model


def on_cpu(tensors: Iterable[Any]) -> bool:
    """Whether all tensors lie in the memory of the CPU."""
    return all(tensor.place.is_cpu_place() for tensor in tensors)


def is_wrapped(model: nn.Layer) -> bool:
    """Whether the model or a layer in it is wrapped in `paddle.DataParallel`."""
    return any(isinstance(layer, paddle.DataParallel) for layer in model.sublayers(include_self=True))


def is_norm(layer: nn.Layer) -> bool:
    """Whether a layer normalises: Paddle's classes, or one of another library called …Norm."""
    return isinstance(layer, _NORMS) or type(layer).__name__.endswith("Norm")


def is_batch_norm(layer: nn.Layer) -> bool:
    """Whether a layer keeps running statistics in the parameters `_mean` and `_variance`."""
    return isinstance(layer, (_BatchNormBase, nn.BatchNorm))


def statistic_names(layer: nn.Layer) -> tuple[str, ...]:
    """Names of the layer's parameters that are statistics and not weights."""
    return tuple(name for name in _STATISTICS if name in layer._parameters) if is_batch_norm(layer) else ()


def is_container(layer: nn.Layer) -> bool:
    """Whether a layer only holds others: LayerList, Sequential, LayerDict. RNNs are LayerLists by accident."""
    containers = (nn.LayerList, nn.Sequential, getattr(nn, "LayerDict", nn.Sequential))
    return isinstance(layer, containers) and not isinstance(layer, RNNBase)


def is_sparse_embedding(layer: nn.Layer) -> bool:
    """Whether a layer is an Embedding whose gradient is sparse."""
    return isinstance(layer, nn.Embedding) and bool(getattr(layer, "_sparse", False))


@contextmanager
def kept(model: nn.Layer) -> Iterator[None]:
    """Whatever mode the layers are put in inside, afterwards each is in the one it had."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextmanager
def evaluating(model: nn.Layer) -> Iterator[None]:
    """The model in eval mode inside."""
    with kept(model):
        model.eval()
        yield


def compiled_layers(model: nn.Layer) -> list[str]:
    """Paths of the layers whose forward `paddle.jit.to_static` compiled, or that `paddle.jit.load` made."""
    return [
        path or "the model"
        for path, layer in model.named_sublayers(include_self=True)
        if isinstance(layer.__dict__.get("forward"), StaticFunction) or isinstance(layer, paddle.jit.TranslatedLayer)
    ]


def forget_traces(model: nn.Layer) -> None:
    """Drop what `paddle.jit.to_static` has compiled: it keeps the trainable set of its first call.

    Without this a layer thawed after the first call never gets a gradient (2.6.2; 3.3.1 with full_graph=True).
    """
    for layer in model.sublayers(include_self=True):
        cache = getattr(layer.__dict__.get("forward"), "_program_cache", None)
        if cache is not None:
            cache.clear()
    # full_graph=False, the default, compiles per code object into two process-wide caches.
    for module, name in (
        ("paddle.jit.sot.opcode_translator.executor.executor_cache", "OpcodeExecutorCache"),
        ("paddle.jit.sot.symbolic.compile_cache", "CompileSIRCache"),
    ):
        if module in sys.modules:
            getattr(sys.modules[module], name)().clear()


def values_of(grad: Any) -> Any:
    """The values of a gradient as a dense tensor: of a sparse one, those of its rows, in the order they came in."""
    return grad._get_tensor_from_selected_rows() if grad.is_selected_rows() else grad


def stand_in(optimizer: Any, stage: str, call: Any, act: Any) -> None:
    """Put `call` in place of a stage of the update so that `act` is called; `update_listeners` sees through it."""
    call.act, call.inner = act, getattr(optimizer, stage)
    setattr(optimizer, stage, call)


def before_update(optimizer: Any, act: Callable[[Pairs], None]) -> None:
    """Have `act([(parameter, gradient), …])` called before an update by Paddle's operations changes anything.

    It is not called for an update that mixed precision skips, nor for one that becomes part of a static graph.
    """
    apply = optimizer._apply_optimize

    def watched(loss: Any, startup_program: Any, params_grads: Any, param_group_idx: int = 0) -> Any:
        if paddle.in_dynamic_mode() and not mixed_precision_skips(optimizer):
            act(params_grads)
        return apply(loss, startup_program, params_grads, param_group_idx)

    stand_in(optimizer, "_apply_optimize", watched, act)


def list_anew(optimizer: Any) -> None:
    """Have updates of many tensors at once (`use_multi_tensor`) list their parameters and state at each of them.

    Paddle lists those that train at the first update, and for good: one that thaws later is not among them, nor is a
    state that was loaded or reset since.
    """

    def empty(pairs: Pairs) -> None:
        for name, by_dtype in vars(optimizer).items():
            # {"FP32_…": [list of each group], "FP16_…": …}, where float32 has no master weights.
            if name.endswith("_dict") and isinstance(by_dtype, dict) and any(k.startswith("FP32_") for k in by_dtype):
                by_dtype.update({dtype: groups and [[] for _ in groups] for dtype, groups in by_dtype.items()})

    if getattr(optimizer, "_use_multi_tensor", False):
        before_update(optimizer, empty)


def before_each_update(optimizer: Any, act: Callable[[Any], None]) -> None:
    """Have `act(parameter)` called right before the optimizer updates each parameter."""
    update = optimizer._append_optimize_op

    def updated(block: Any, param_and_grad: Any) -> Any:
        act(param_and_grad[0])
        return update(block, param_and_grad)

    stand_in(optimizer, "_append_optimize_op", updated, act)


def after_update(optimizer: Any, act: Callable[[Pairs], None]) -> None:
    """Have `act([(parameter, gradient), …])` called at the end of each real update of this optimizer.

    Paddle calls `_finish_update` also for a step that mixed precision skips, and says so in `found_inf`. Adamax does
    work of its own there.
    """
    finish = optimizer._finish_update

    def finished(block: Any, params_grads: Any) -> None:
        finish(block, params_grads)
        if not optimizer._get_auxiliary_var("found_inf"):
            act(params_grads)

    stand_in(optimizer, "_finish_update", finished, act)


def update_through(optimizer: Any, enter: Callable[[Pairs], Pairs], leave: Callable[[Pairs, Pairs], None]) -> None:
    """Have every update, and all optimizer state, be of the parameters that `enter` names in place of the given ones.

    Gradient clip, regularizers, update rule and everything after it see `enter([(parameter, gradient), …])`;
    `leave(given, entered)` is called afterwards, also where a scaler skipped the update. The optimizer must have a flat
    list of parameters.
    """
    apply, create = optimizer._apply_optimize, optimizer._create_accumulators

    def create_entered(block: Any, parameters: Iterable[Any]) -> Any:
        return create(block, [param for param, _ in enter([(param, None) for param in parameters])])

    def apply_entered(loss: Any, startup_program: Any, params_grads: Pairs, param_group_idx: int = 0) -> Any:
        entered = enter(params_grads)
        done = apply(loss, startup_program, entered, param_group_idx)
        leave(params_grads, entered)
        return done

    optimizer._create_accumulators = create_entered
    stand_in(optimizer, "_apply_optimize", apply_entered, enter)


def master_weight(optimizer: Any, param: Any) -> Any | None:
    """The float32 copy that the optimizer updates in place of a half-precision parameter, if it keeps one."""
    return getattr(optimizer, "_master_weights", {}).get(param.name)


def accumulators(optimizer: Any) -> Mapping[str, Mapping[str, Any]]:
    """Optimizer state, live: accumulator name → parameter's `.name` → tensor; empty before the first step."""
    return optimizer._accumulators


def create_accumulators(optimizer: Any, params: Iterable[Any]) -> None:
    """Make the optimizer state of these parameters now instead of at their first step."""
    if optimizer.helper is None:
        optimizer.helper = LayerHelper(type(optimizer).__name__)
    with paddle.no_grad():
        optimizer._create_accumulators(paddle.static.default_main_program().global_block(), list(params))


def settle(optimizer: Any, params: Iterable[Any]) -> None:
    """Give these parameters the state that `optimizer.set_state_dict` left for them; all others begin without one.

    Paddle keeps a loaded state until a parameter's first update, and from then on asserts that it holds one for each:
    a state that was saved while layers were frozen fails at the update after they thaw.
    """
    waiting = getattr(optimizer, "_accumulators_holder", None)
    if not waiting:
        return
    # The entries are called <parameter>_<accumulator>_<number>.
    loaded = [param for param in params if any(key.startswith(param.name + "_") for key in waiting)]
    if loaded:
        create_accumulators(optimizer, loaded)
    optimizer._accumulators_holder = {}


def settle_when_loaded(optimizer: Any, params: Iterable[Any]) -> None:
    """Have `settle` follow each `optimizer.set_state_dict(...)`."""
    load, params = optimizer.set_state_dict, list(params)

    def loaded(state_dict: Mapping[str, Any]) -> None:
        load(state_dict)
        settle(optimizer, params)

    optimizer.set_state_dict = optimizer.load_state_dict = loaded


# Hyper-parameter → the attribute that each Paddle optimizer reads at every step, the first that it has.
_HYPER = {
    "mom": ("_beta1", "_momentum"),
    "sqr_mom": ("_beta2", "_rho"),
    "eps": ("_epsilon",),
    "wd": ("_weight_decay", "_lamb_weight_decay"),
}


def hyper_attribute(optimizer: Any, name: str) -> str | None:
    """The attribute in which this optimizer keeps a hyper-parameter (mom, sqr_mom, eps, wd), None if it has none."""
    found = (attribute for attribute in _HYPER[name] if isinstance(getattr(optimizer, attribute, None), float))
    return next(found, None)


def drop_accumulators(optimizer: Any, param: Any) -> None:
    """Forget the optimizer state of one parameter, as if it had never been updated."""
    master = getattr(optimizer, "_master_weights", {}).pop(param.name, None)
    names = {param.name, *(() if master is None else (master.name,))}
    for by_param in optimizer._accumulators.values():
        for name in names:
            by_param.pop(name, None)
    # The second spelling is that of 2.6.
    for made in ("_already_create_accumulator", "_already_create_accumulater"):
        getattr(optimizer, made, set()).difference_update(names)


# Attribute → the value with which an update is the plain one. An optimizer may lack any of them.
_PLAIN = {
    "_amsgrad": False,
    "_lazy_mode": False,
    "_lr_ratio": None,
    "_use_multi_tensor": False,
    "_rescale_grad": 1.0,
    "_master_grad": False,
    "enable_tensor_fusion": False,
}
# What an update runs through; the last listens.
_STAGES = ("_apply_optimize", "_create_optimization_pass", "_append_optimize_op", "_finish_update")


def special_setting(optimizer: Any) -> str:
    """The first setting that makes the update another than the plain one, in words, "" without any."""
    which = f"the optimizer {type(optimizer).__name__} has"
    if not isinstance(optimizer._param_groups, list) or isinstance(optimizer._param_groups[0], dict):
        return f"{which} parameter groups"
    for attribute, plain in _PLAIN.items():
        value = getattr(optimizer, attribute, plain)
        if value != plain and not (plain is False and value is None):
            return f"{which} {attribute.lstrip('_')}={value!r}"
    across = getattr(optimizer._grad_clip, "should_comm_on_shard_dim", False)
    return "the gradient clip's norm is a sum over processes" if across else ""


def update_listeners(optimizer: Any) -> list[Any] | None:
    """What `after_update` has to call, in order; None where a stage of the update is not Paddle's or this package's."""
    acts: list[Any] = []
    for name in _STAGES:
        stage, acts = vars(optimizer).get(name), []
        while hasattr(stage, "inner"):
            acts.insert(0, stage.act)
            stage = stage.inner
        if stage is not None and getattr(stage, "__func__", None) is not getattr(type(optimizer), name):
            return None
    return acts


def mixed_precision_skips(optimizer: Any) -> bool:
    """Whether a GradScaler has found an infinite gradient, so that this update is not to be; noted as in Paddle."""
    found = optimizer._get_auxiliary_var("found_inf")
    if isinstance(found, paddle.Tensor):
        found = bool(found)
        optimizer._set_auxiliary_var("found_inf", found)
    return bool(found)


def rule_numbers(optimizer: Any) -> list[tuple[str, Any]]:
    """β₁ or the momentum, β₂ (or whether the momentum is Nesterov's), ε, behind their attributes; 0.0 for none."""
    momentum = hasattr(optimizer, "_momentum")
    attributes = ("_momentum", "_use_nesterov", "") if momentum else ("_beta1", "_beta2", "_epsilon")
    return [(attribute, getattr(optimizer, attribute, 0.0)) for attribute in attributes]


def coupled_regularizer(optimizer: Any) -> Any | None:
    """What is added to the gradient of a parameter without a regularizer of its own."""
    if getattr(optimizer, "_regularization_method", "") == "l2_decay":
        return L2Decay(optimizer._regularization_coeff)
    return optimizer.regularization


def own_decay(optimizer: Any) -> tuple[float, Any | None]:
    """The decoupled decay of AdamW, or of one of this package, and its function parameter `.name` → whether it decays.

    (0.0, None) for the others.
    """
    own = type(optimizer) is paddle.optimizer.AdamW or getattr(optimizer, "decoupled", False)
    decay = getattr(optimizer, "_weight_decay", 0.0) if own else 0.0
    return decay, getattr(optimizer, "_apply_decay_param_fun", None)


def gradient_clip(optimizer: Any) -> Any | None:
    """The optimizer's gradient clip."""
    return optimizer._grad_clip


def coefficient(regularizer: Any) -> float:
    """The coefficient of an L1Decay or L2Decay."""
    return regularizer._coeff


def parameter_list(optimizer: Any) -> list[Any]:
    """The parameters of an optimizer without groups."""
    return optimizer._parameter_list


@functools.cache
def numba_version() -> str:
    """numba's, which is read from a file."""
    return importlib.metadata.version("numba")


@functools.cache
def compression_works() -> bool:
    """Whether this process can compress (PNG files, gzip) without crashing.

    libpaddle of 2.6.2 exports a zlib of its own. Where it is loaded before the system's libz (a Python whose zlib is a
    module, as pyenv builds it, and `import paddle` before `import numpy`), every compression ends in a segmentation
    fault, which only another process can find out. 3.3.1 does not export it.
    """
    loaded = list(sys.modules)
    before = loaded[: loaded.index("paddle.base.libpaddle")]
    if "zlib" in sys.builtin_module_names or "zlib" in before:
        return True
    if not sys.platform.startswith("linux") or not paddle.__version__.startswith("2."):
        return True
    # binascii is linked with zlib in some builds of Python, and numpy imports it.
    first = "import binascii; " if "binascii" in before else ""
    probe = first + "import paddle, zlib; zlib.compress(bytes(10000))"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0
