"""How large the models of bench_whole.py are, for Paddle and torch alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

CLASSES = 4


@dataclass(frozen=True)
class Size:
    """How much is computed, how often, and what a step may take over torch's.

    Args:
        limit: step over torch's step.
        batch: shape of the inputs.
        vocabulary: number of tokens, 0 for images.
        width, heads, layers, activation, dropout: of the encoder or the LSTM.
        steps, rounds: steps that are timed in a turn, and turns.
    """

    limit: float
    batch: tuple[int, ...]
    vocabulary: int = 0
    width: int = 0
    heads: int = 0
    layers: int = 0
    activation: str = "relu"
    dropout: float = 0.0
    steps: int = 3
    rounds: int = 3


SIZES = {
    "transformer_relu": Size(1.0, (32, 64), 8000, 256, 8, 4),
    "transformer_gelu": Size(1.1, (32, 64), 8000, 256, 8, 4, "gelu", 0.1),
    "bert_base": Size(1.1, (8, 128), 30522, 768, 12, 12, "gelu", 0.1, steps=1, rounds=2),
    "lstm": Size(1.1, (32, 64), 8000, 256, layers=2),
    "resnet18": Size(1.5, (16, 3, 64, 64)),
    "mobilenet_v2": Size(2.0, (16, 3, 64, 64)),
}


def _small(size: Size) -> Size:
    if not size.vocabulary:
        return replace(size, batch=(2, 3, 32, 32), steps=1, rounds=1)
    heads = min(size.heads, 2)
    return replace(size, batch=(2, 16), vocabulary=50, width=32, heads=heads, layers=2, steps=1, rounds=1)


QUICK = {name: _small(size) for name, size in SIZES.items()}
