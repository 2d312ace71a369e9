"""Every use of something private in Paddle: layers and optimizers here, other subjects in files of their own.

Checked on paddlepaddle 2.6.2 and 3.3.1.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import paddle
from paddle import nn
from paddle.base.layer_helper import LayerHelper
from paddle.nn.layer.norm import _BatchNormBase, _InstanceNormBase
from paddle.nn.layer.rnn import RNNBase

_NORMS = (_BatchNormBase, _InstanceNormBase, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
_STATISTICS = ("_mean", "_variance")


def unwrap(model: nn.Layer) -> nn.Layer:
    """The user's model inside `paddle.DataParallel`, or the model itself."""
    while isinstance(model, paddle.DataParallel):
        model = model._layers
    return model


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


def values_of(grad: Any) -> Any:
    """The values of a gradient as a dense tensor: of a sparse one, those of its rows, in the order they came in."""
    return grad._get_tensor_from_selected_rows() if grad.is_selected_rows() else grad


def after_update(optimizer: Any, act: Callable[[list[tuple[Any, Any]]], None]) -> None:
    """Have `act([(parameter, gradient), …])` called at the end of each real update of this optimizer.

    Paddle calls `_finish_update` also for a step that mixed precision skips, and says so in `found_inf`. Adamax does
    work of its own there.
    """
    finish_of_class = optimizer._finish_update

    def finish(block: Any, params_grads: Any) -> None:
        finish_of_class(block, params_grads)
        if not optimizer._get_auxiliary_var("found_inf"):
            act(params_grads)

    finish.act, finish.inner = act, finish_of_class
    optimizer._finish_update = finish


def master_weight(optimizer: Any, param: Any) -> Any | None:
    """The float32 copy that the optimizer updates in place of a half-precision parameter, if it keeps one."""
    return getattr(optimizer, "_master_weights", {}).get(param.name)


def accumulators(optimizer: Any) -> dict[str, dict[str, Any]]:
    """Optimizer state: accumulator name → parameter's `.name` → tensor. Empty before the first step."""
    return {name: dict(by_param) for name, by_param in optimizer._accumulators.items() if by_param}


def create_accumulators(optimizer: Any, params: Iterable[Any]) -> None:
    """Make the optimizer state of these parameters now instead of at their first step."""
    if optimizer.helper is None:
        optimizer.helper = LayerHelper(type(optimizer).__name__)
    with paddle.no_grad():
        optimizer._create_accumulators(paddle.static.default_main_program().global_block(), list(params))


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


def before_each_update(optimizer: Any, act: Callable[[Any], None]) -> None:
    """Have `act(parameter)` called right before the optimizer updates each parameter."""
    update = optimizer._append_optimize_op

    def updated(block: Any, param_and_grad: Any) -> Any:
        act(param_and_grad[0])
        return update(block, param_and_grad)

    updated.act, updated.inner = act, update
    optimizer._append_optimize_op = updated


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
