"""PaddleHub 1.x's strategies; the four presets are CombinedStrategy with other defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.finetune.combined import CombinedStrategy, DefaultStrategy

__all__ = [
    "AdamWeightDecayStrategy",
    "CombinedStrategy",
    "DefaultFinetuneStrategy",
    "DefaultStrategy",
    "L2SPFinetuneStrategy",
    "ULMFiTStrategy",
]


class AdamWeightDecayStrategy(CombinedStrategy):
    """BERT's recipe: warmup, linear or noam decay, decoupled weight decay, clip by global norm 1.

    Args:
        learning_rate: η > 0.
        lr_scheduler: "linear_decay" or "noam_decay".
        warmup_proportion: w in [0, 1].
        weight_decay: decoupled decay, ≥ 0; biases and normalisation layers are left out.
        optimizer_name: a name of the optimizer table or an Optimizer class.
        **kwargs: options of the optimizer.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> AdamWeightDecayStrategy(learning_rate=5e-5, warmup_proportion=0.1).scheduler["linear_decay"]["start_point"]
        0.1

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        lr_scheduler: str = "linear_decay",
        warmup_proportion: float = 0.0,
        weight_decay: float = 0.01,
        optimizer_name: str | type = "adam",
        **kwargs: Any,
    ) -> None:
        scheduler: dict[str, Any] = {"warmup": warmup_proportion}
        if lr_scheduler == "linear_decay":
            scheduler["linear_decay"] = {"start_point": warmup_proportion, "end_learning_rate": 0.0}
        elif lr_scheduler == "noam_decay":
            scheduler["noam_decay"] = True
        else:
            raise ValueError(_errors.unknown("lr_scheduler", lr_scheduler, ["linear_decay", "noam_decay"]))
        super().__init__(
            optimizer_name,
            learning_rate,
            scheduler=scheduler,
            regularization={"weight_decay": weight_decay},
            clip={"GlobalNorm": 1.0},
            **kwargs,
        )


class DefaultFinetuneStrategy(CombinedStrategy):
    """Constant learning rate with L2: gradient += λw.

    Args:
        learning_rate: η > 0.
        optimizer_name: a name of the optimizer table or an Optimizer class.
        regularization_coeff: λ ≥ 0.
        **kwargs: options of the optimizer.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> DefaultFinetuneStrategy(regularization_coeff=0.01).regularization["L2"]
        0.01

    Source: PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        regularization_coeff: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer_name, learning_rate, regularization={"L2": regularization_coeff}, **kwargs)


class L2SPFinetuneStrategy(CombinedStrategy):
    """Constant learning rate with L2 towards the pretrained values: gradient += λ(w − w⁰).

    Args:
        learning_rate: η > 0.
        optimizer_name: a name of the optimizer table or an Optimizer class.
        regularization_coeff: λ ≥ 0.
        **kwargs: options of the optimizer.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> L2SPFinetuneStrategy(regularization_coeff=0.01).regularization["L2SP"]
        0.01

    Source: Li, Grandvalet & Davoine (arXiv:1802.01483); PaddleHub 1.8 `finetune/strategy.py`.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        regularization_coeff: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer_name, learning_rate, regularization={"L2SP": regularization_coeff}, **kwargs)


class ULMFiTStrategy(CombinedStrategy):
    """ULMFiT: slanted triangular LR, discriminative LR and gradual unfreezing.

    Args:
        learning_rate: η > 0, the peak of the top block.
        optimizer_name: a name of the optimizer table or an Optimizer class.
        cut_fraction: share of updates in which the LR rises; 0 switches the triangle off.
        ratio: η/ratio is the lowest LR.
        dis_blocks: number of blocks with LRs of their own, None: every layer; 0 switches discriminative LRs off.
        factor: each block's LR over that of the block below.
        dis_params_layer: parameter name → layer number, instead of blocks.
        frz_blocks: number of epochs over which the model thaws from the top; 0 switches unfreezing off.
        frz_params_layer: parameter name → layer number, instead of blocks.
        **kwargs: options of the optimizer.

    Raises:
        ValueError, TypeError: as for CombinedStrategy.

    Example:
        >>> ULMFiTStrategy(learning_rate=1e-3, frz_blocks=0).scheduler["gradual_unfreeze"]["blocks"]
        0

    Source: Howard & Ruder (arXiv:1801.06146, section 3); PaddleHub 1.8 `finetune/strategy.py`, where unfreezing
    toggled `stop_gradient` too late to freeze anything.
    """

    def __init__(
        self,
        learning_rate: float = 1e-4,
        optimizer_name: str | type = "adam",
        cut_fraction: float = 0.1,
        ratio: float = 32,
        dis_blocks: int | None = 3,
        factor: float = 2.6,
        dis_params_layer: Mapping[str, int] | None = None,
        frz_blocks: int = 3,
        frz_params_layer: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        # The default number of blocks is no wish of the user's, so params_layer replaces it without a warning.
        dis_blocks = 0 if dis_params_layer and dis_blocks == 3 else dis_blocks
        frz_blocks = 0 if frz_params_layer and frz_blocks == 3 else frz_blocks
        scheduler = {
            "slanted_triangle": {"cut_fraction": cut_fraction, "ratio": ratio},
            "discriminative": {"blocks": dis_blocks, "factor": factor, "params_layer": dis_params_layer},
            "gradual_unfreeze": {"blocks": frz_blocks, "params_layer": frz_params_layer},
        }
        super().__init__(optimizer_name, learning_rate, scheduler=scheduler, **kwargs)
