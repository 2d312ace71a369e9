"""A model's values as arrays and files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from paddle import nn
from safetensors.numpy import save

from paddle_ftstrat import _errors
from paddle_ftstrat._files import replacing
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.vectors import to_array


def export_parameters(model: nn.Layer, patterns: Any, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Copies of parameters as arrays, by structured name, and in a file if wanted: `export_parameters(model, "fc.*")`.

    Numbers are the parameter's own bits; bfloat16, which numpy lacks, widens to float32 without loss. A parameter that
    several layers share stands under its first name.

    Args:
        model: the model.
        patterns: what `select` takes, one or a list: globs, names of sublayers, compiled regexes, functions, layers.
        path: an `.npz` or `.safetensors` file to write too; its folder is made. Default: none.

    Raises:
        ValueError: a pattern that matches nothing, or a file name with another ending.
        OSError: the file cannot be written; an older one stays as it was.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> {name: array.shape for name, array in export_parameters(model, "1.*").items()}
        {'1.weight': (3, 1), '1.bias': (1,)}
    """
    target = None if path is None else Path(path)
    if target is not None and target.suffix not in _WRITERS:
        raise ValueError("path: " + _errors.unknown("file ending", target.suffix, _WRITERS))
    chosen = select.select_all(model, patterns)
    arrays = {name: to_array(p) for name, p in select.named_weights(model).items() if name in chosen}
    if target is not None:
        with replacing(target) as file:
            _WRITERS[target.suffix](file, arrays)
    return arrays


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    # numpy.savez takes the names as its keyword arguments, among which `file` is its own.
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    # Not save_file: it leaves a file that only its owner may read.
    file.write(save(dict(arrays), {"format": "pd"}))


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
