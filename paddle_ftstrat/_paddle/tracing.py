"""What `paddle.jit` has compiled. Checked on paddlepaddle 2.6.2 and 3.3.1."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import StaticFunction


def compiled_layers(model: nn.Layer) -> list[str]:
    """Paths of the layers whose forward `paddle.jit.to_static` compiled, or that `paddle.jit.load` made."""
    return [
        path or "the model"
        for path, layer in model.named_sublayers(include_self=True)
        if isinstance(layer.__dict__.get("forward"), StaticFunction) or isinstance(layer, paddle.jit.TranslatedLayer)
    ]
