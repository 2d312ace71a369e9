"""The plan: what a strategy wants, as plain data. Front ends write plans, `binding.bind` carries them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CLIP_KINDS = ("GlobalNorm", "Norm", "Value")


@dataclass(frozen=True)
class Clip:
    """Gradient clipping: `kind` is one of CLIP_KINDS, `value` > 0 its bound."""

    kind: str
    value: float


@dataclass(frozen=True)
class Discriminative:
    """LR factors by depth: ×1 at the top, ×1/factor for each block (or layer of `params_layer`) below.

    `blocks` counts contiguous blocks, None: every layer is one; `params_layer` (parameter name → layer number) beats it
    where given.
    """

    factor: float
    blocks: int | None = None
    params_layer: Mapping[str, int] | None = None


@dataclass(frozen=True)
class GradualUnfreeze:
    """Thawing from the top, a share per epoch over `blocks` epochs, or by the layer numbers of `params_layer`."""

    blocks: int = 0
    params_layer: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that decides an update, independent of any model.

    `curve` maps the update index t to the LR before multipliers; `max_train_steps` is T, or None where the curve has
    no length. `optimizer` is a name of the optimizer table or an Optimizer class, `optimizer_options` its keyword
    arguments. `weight_decay` None means "not asked for", which leaves an optimizer with a decay of its own alone;
    0.0 switches that off.
    """

    curve: Callable[[Any], Any]
    max_train_steps: int | None = None
    optimizer: str | type = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    l2: float = 0.0
    l2sp: float = 0.0
    weight_decay: float | None = None
    clip: Clip | None = None
    discriminative: Discriminative | None = None
    gradual_unfreeze: GradualUnfreeze | None = None
