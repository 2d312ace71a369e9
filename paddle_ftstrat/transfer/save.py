"""Fine-tuned weights to a file, and a fine-tuned model to a program for inference that is checked before it counts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _paddle
from paddle_ftstrat._files import replacing
from paddle_ftstrat.transfer import safe_tensors
from paddle_ftstrat.transfer.contents import Entry
from paddle_ftstrat.transfer.files import FOLDER_FILES
from paddle_ftstrat.transfer.targets import find_targets


def save_pretrained(model: nn.Layer, path: str | os.PathLike[str]) -> Path:
    """Save a model's weights, running statistics and persistent buffers as safetensors.

    A weight that several layers share is written once, under its first name; `load_pretrained` fills all of them from
    it. The file is complete or not there: it is written beside, then renamed. Returns its path.

    Args:
        model: the model; plain or wrapped in `paddle.DataParallel`.
        path: the file, if it ends in `.safetensors`; else a folder (made where it does not exist) for
            `model.safetensors`.

    Raises:
        TypeError: not a layer.
        ValueError: a dtype that safetensors does not know.

    Example:
        >>> import tempfile, paddle
        >>> from paddle_ftstrat.transfer import load_pretrained
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_pretrained(paddle.nn.Linear(2, 3), folder)
        ...     path.name, load_pretrained(paddle.nn.Linear(2, 3), path, strict=True).loaded
        ('model.safetensors', ['weight', 'bias'])
    """
    targets, path = find_targets(model), Path(path)
    if path.suffix != ".safetensors":
        path = path / FOLDER_FILES[0]
    arrays = {name: Entry(target.shape, target.dtype, target.tensor.numpy) for name, target in targets.items()}
    shared = {name: target.aliases for name, target in targets.items() if len(target.aliases) > 1}
    metadata = {"format": "pd", **({"shared": json.dumps(shared)} if shared else {})}
    with replacing(path) as file:
        safe_tensors.write(file, arrays, metadata)
    return path


def export_inference(
    model: nn.Layer,
    path: str | os.PathLike[str],
    sample_input: Any,
    input_spec: Sequence[Any] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Path:
    """Save a model with `paddle.jit.save` for inference, once it is certain that it gives the same output.

    The program is saved in eval mode in a draft folder, loaded from there, run on `sample_input`, and compared with the
    model: |program − model| ≤ atol + rtol·|model|. Only then its files take their place. Returns `path`.

    Args:
        model: the model; its mode (train or eval) is kept.
        path: prefix of the files, as for `paddle.jit.save`.
        sample_input: an input: a tensor, or a tuple of them.
        input_spec: `paddle.static.InputSpec` of each input; by default those of `sample_input` with a free first axis.
        rtol: allowed relative difference.
        atol: allowed absolute difference.

    Raises:
        ValueError: the program gives another output; there are no files then, or the old ones.
        TypeError: not a layer, or an input that is no tensor.

    Example:
        >>> import tempfile, paddle
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_inference(paddle.nn.Linear(2, 3), folder + "/net", paddle.ones([4, 2]))
        ...     paddle.jit.load(str(path))(paddle.ones([1, 2])).numpy().shape
        (1, 3)
    """
    _paddle.check_layer(model)
    model, path = _paddle.unwrap(model), Path(path)
    inputs = tuple(sample_input) if isinstance(sample_input, (tuple, list)) else (sample_input,)
    if not all(isinstance(tensor, paddle.Tensor) for tensor in inputs):
        raise TypeError(f"sample_input must be a tensor or a tuple of tensors, not {sample_input!r:.80}")
    if input_spec is None:
        input_spec = [paddle.static.InputSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in inputs]
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder on the same disk, out of which a complete file is renamed.
    with _paddle.evaluating(model), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as draft:
        program = os.path.join(draft, path.name)
        expected = _outputs(model, inputs)
        paddle.jit.save(model, program, input_spec=list(input_spec))
        found = _outputs(paddle.jit.load(program), inputs)
        if len(expected) != len(found):
            raise ValueError(
                f"the saved program gives {len(found)} outputs, the model {len(expected)}: nothing was saved"
            )
        for index, (mine, its) in enumerate(zip(expected, found)):
            if mine.shape != its.shape or not np.allclose(its, mine, rtol=rtol, atol=atol, equal_nan=True):
                apart = np.abs(its - mine).max() if mine.shape == its.shape else "shape"
                raise ValueError(
                    f"output {index} of the saved program differs from the model's (by {apart}, allowed are "
                    f"rtol={rtol:g} and atol={atol:g}): nothing was saved; does forward depend on random numbers or on "
                    "Python values?"
                )
        for name in sorted(os.listdir(draft)):
            with open(os.path.join(draft, name), "rb+") as file:
                os.fsync(file.fileno())
            os.replace(file.name, path.parent / name)
    return path


def _outputs(run: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
    with paddle.no_grad():
        return [tensor.astype("float32").numpy() for tensor in paddle.utils.flatten(run(*inputs))]
