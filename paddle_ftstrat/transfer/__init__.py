"""Weights in and out of models: partial loading from Paddle, torch and safetensors files, ways to tune, saving."""

from paddle_ftstrat.transfer.load import load_pretrained
from paddle_ftstrat.transfer.merge import interpolate, soup, update_statistics
from paddle_ftstrat.transfer.reinit import reinitialize
from paddle_ftstrat.transfer.report import LoadError, LoadReport, loaded_names
from paddle_ftstrat.transfer.save import export_inference, save_pretrained
from paddle_ftstrat.transfer.tune import find_head, tune, tune_all, tune_differential, tune_head

__all__ = [
    "LoadError",
    "LoadReport",
    "export_inference",
    "find_head",
    "interpolate",
    "load_pretrained",
    "loaded_names",
    "reinitialize",
    "save_pretrained",
    "soup",
    "tune",
    "tune_all",
    "tune_differential",
    "tune_head",
    "update_statistics",
]
