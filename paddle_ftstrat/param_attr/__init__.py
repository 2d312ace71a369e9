"""Parameters: which there are, with which settings and values, shared or frozen."""

from paddle_ftstrat.param_attr import depth as _depth  # noqa: F401 -- its words for blocks are selectors
from paddle_ftstrat.param_attr.configure import configure
from paddle_ftstrat.param_attr.description import describe
from paddle_ftstrat.param_attr.freezing import freeze, freeze_stage, unfreeze, verify_frozen
from paddle_ftstrat.param_attr.initialize import embedding_attr, export_parameters, set_parameters
from paddle_ftstrat.param_attr.rows import freeze_rows, unfreeze_rows
from paddle_ftstrat.param_attr.select import kinds
from paddle_ftstrat.param_attr.sharing import shared_parameters

__all__ = [
    "configure",
    "describe",
    "embedding_attr",
    "export_parameters",
    "freeze",
    "freeze_rows",
    "freeze_stage",
    "kinds",
    "set_parameters",
    "shared_parameters",
    "unfreeze",
    "unfreeze_rows",
    "verify_frozen",
]
