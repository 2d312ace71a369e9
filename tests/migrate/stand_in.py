"""PaddleHub 1.8 as far as its strategies and RunConfig go: what their arguments meant, and nothing else.

Written from what is documented and known of 1.8: defaults, how the dicts are filled, which optimizers it knew.
"""

import copy
import time
import types
from unittest.mock import MagicMock

OPTIMIZERS = ("sgd", "adagrad", "adamax", "decayedadagrad", "ftrl", "larsmomentum", "momentum", "rmsprop", "adam")
PARAMS_LAYER = {"embedding.weight": 0, "head.weight": 1}
made = []


class DefaultStrategy:
    def __init__(self, learning_rate=1e-4, optimizer_name="adam", **kwargs):
        self.learning_rate = learning_rate
        known = optimizer_name.lower() in OPTIMIZERS
        self.optimizer_name = optimizer_name.lower() if known else "adam"
        self.options = kwargs
        made.append(self)


class CombinedStrategy(DefaultStrategy):
    def __init__(
        self,
        optimizer_name="adam",
        learning_rate=1e-4,
        scheduler=None,
        regularization=None,
        clip=None,
        **kwargs,
    ):
        super().__init__(learning_rate, optimizer_name, **kwargs)
        self.scheduler = {
            "warmup": 0.0,
            "linear_decay": {"start_point": 1.0, "end_learning_rate": 0.0},
            "noam_decay": False,
            "discriminative": {"blocks": 0, "params_layer": None, "factor": 2.6},
            "gradual_unfreeze": {"blocks": 0, "params_layer": None},
            "slanted_triangle": {"cut_fraction": 0.0, "ratio": 32},
        }
        self.regularization = {"L2": 0.0, "L2SP": 0.0, "weight_decay": 0.0}
        self.clip = {"GlobalNorm": 0.0, "Norm": 0.0}
        for filled, given in (
            (self.scheduler, scheduler),
            (self.regularization, regularization),
            (self.clip, clip),
        ):
            fill(filled, given or {})

    def add_scheduler(self, name="warmup", value=0, **values):
        fill(self.scheduler, {name: values or value})

    def add_regularization(self, name="L2", value=1e-3, **values):
        fill(self.regularization, {name: values or value})

    def add_clip(self, name="GlobalNorm", value=1.0, **values):
        fill(self.clip, {name: values or value})


def fill(filled, given):
    for key, value in given.items():
        if isinstance(filled[key], dict):
            fill(filled[key], value)
        else:
            filled[key] = copy.deepcopy(value)


class AdamWeightDecayStrategy(CombinedStrategy):
    def __init__(
        self,
        learning_rate=1e-4,
        lr_scheduler="linear_decay",
        warmup_proportion=0.1,
        weight_decay=0.01,
        optimizer_name="adam",
        **kwargs,
    ):
        scheduler = {"warmup": warmup_proportion, "noam_decay": lr_scheduler == "noam_decay"}
        if lr_scheduler == "linear_decay":
            scheduler["linear_decay"] = {"start_point": warmup_proportion, "end_learning_rate": 0}
        decay, clip = {"weight_decay": weight_decay}, {"GlobalNorm": 1.0}
        super().__init__(optimizer_name, learning_rate, scheduler, decay, clip, **kwargs)


class DefaultFinetuneStrategy(CombinedStrategy):
    def __init__(self, learning_rate=1e-4, optimizer_name="adam", regularization_coeff=1e-3, **kwargs):
        super().__init__(optimizer_name, learning_rate, regularization={"L2": regularization_coeff}, **kwargs)


class L2SPFinetuneStrategy(CombinedStrategy):
    def __init__(self, learning_rate=1e-4, optimizer_name="adam", regularization_coeff=1e-3, **kwargs):
        super().__init__(optimizer_name, learning_rate, regularization={"L2SP": regularization_coeff}, **kwargs)


class ULMFiTStrategy(CombinedStrategy):
    def __init__(
        self,
        learning_rate=1e-4,
        optimizer_name="adam",
        cut_fraction=0.1,
        ratio=32,
        dis_blocks=3,
        factor=2.6,
        dis_params_layer=None,
        frz_blocks=3,
        frz_params_layer=None,
        **kwargs,
    ):
        # With params_layer PaddleHub ends up with blocks of 0.
        dis_blocks, frz_blocks = (0 if dis_params_layer else dis_blocks), (0 if frz_params_layer else frz_blocks)
        scheduler = {
            "slanted_triangle": {"cut_fraction": cut_fraction, "ratio": ratio},
            "gradual_unfreeze": {"blocks": frz_blocks, "params_layer": frz_params_layer},
            "discriminative": {"blocks": dis_blocks, "factor": factor, "params_layer": dis_params_layer},
        }
        super().__init__(optimizer_name, learning_rate, scheduler, **kwargs)


class RunConfig:
    def __init__(
        self,
        log_interval=10,
        eval_interval=100,
        use_pyreader=True,
        use_data_parallel=True,
        save_ckpt_interval=None,
        use_cuda=True,
        checkpoint_dir=None,
        num_epoch=1,
        batch_size=32,
        enable_memory_optim=False,
        strategy=None,
    ):
        self.log_interval = log_interval
        self.eval_interval = eval_interval
        self.use_data_parallel = use_data_parallel
        self.save_ckpt_interval = save_ckpt_interval
        self.use_cuda = use_cuda
        self.checkpoint_dir = checkpoint_dir or f"ckpt_{time.strftime('%Y%m%d%H%M%S')}"
        self.num_epoch = num_epoch
        self.batch_size = batch_size
        self.strategy = DefaultStrategy() if strategy is None else strategy
        made.append(self)


class Module:
    """A PaddleHub module: everything that it is asked for is there."""

    def __init__(self, name=None):
        self.name = name

    def __getattr__(self, name):
        return MagicMock()

    def context(self, **kwargs):
        return MagicMock(), MagicMock(), MagicMock()

    def get_params_layer(self):
        return dict(PARAMS_LAYER)


class Anything(types.ModuleType):
    """A module in which every name exists."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


def modules():
    """`sys.modules` entries of PaddleHub 1.8 and fluid."""
    own = {name: thing for name, thing in globals().items() if isinstance(thing, type) and name != "Anything"}
    names = ["", ".finetune", ".finetune.strategy", ".finetune.config", ".finetune.task", ".dataset", ".reader"]
    names += [".finetune.task.classifier_task", ".common", ".common.logger"]
    found = {f"paddlehub{name}": Anything(f"paddlehub{name}") for name in names}
    for name, module in found.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(found[parent], last, module)
        if name in ("paddlehub", "paddlehub.finetune.strategy", "paddlehub.finetune.config"):
            vars(module).update(own)
    return found
