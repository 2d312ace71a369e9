"""PaddleHub's RunConfig: same names here, two of them without a meaning."""

from __future__ import annotations

import libcst as cst

from paddle_ftstrat import _errors
from paddle_ftstrat.tools.migrate import arguments
from paddle_ftstrat.tools.migrate.site import Site

PARAMETERS = (
    "log_interval",
    "eval_interval",
    "use_pyreader",
    "use_data_parallel",
    "save_ckpt_interval",
    "use_cuda",
    "checkpoint_dir",
    "num_epoch",
    "batch_size",
    "enable_memory_optim",
    "strategy",
)
DROPPED = {
    "use_pyreader": "fed the static graph; a paddle.io.DataLoader does that now (num_workers=)",
    "enable_memory_optim": "rewrote the static graph; dygraph frees memory by itself",
}


def rewrite(call: cst.Call, site: Site) -> cst.BaseExpression:
    """A call of RunConfig without the arguments that mean nothing in dygraph."""
    # Beyond use_pyreader positions shift when it is dropped.
    call = arguments.by_name(call, PARAMETERS, beyond=2)
    for name, why in DROPPED.items():
        if arguments.find(call, name) is not None:
            site.note(f"RunConfig: {name} dropped: it {why}")
    call = arguments.without(call, tuple(DROPPED))
    parallel = arguments.find(call, "use_data_parallel")
    if parallel is not None and getattr(parallel.value, "value", "") != "False":
        site.note("RunConfig: use_data_parallel now means several processes, started by paddle.distributed.launch")
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value not in PARAMETERS:
            site.todo("RunConfig: " + _errors.unknown("argument", arg.keyword.value, PARAMETERS))
    return call
