"""The same names by many ways: aliases, local imports, classes in variables, keyword dicts, a subclass."""
import functools

import paddlehub
import paddlehub as ph
import paddlehub.finetune.strategy as strategies
from paddlehub.finetune.strategy import AdamWeightDecayStrategy as AWD, DefaultStrategy
from paddlehub.finetune.task.classifier_task import ClassifierTask as Task

first = paddlehub.AdamWeightDecayStrategy(1e-4, "linear_decay")
second = strategies.AdamWeightDecayStrategy(learning_rate=2e-4, warmup_proportion=0.0)
third = AWD(
    3e-4)

Strategy = ph.AdamWeightDecayStrategy
fourth = Strategy(4e-4, weight_decay=0.1)
settings = {"learning_rate": 5e-4}
fifth = AWD(**settings)
settings["warmup_proportion"] = 0.3
sixth = AWD(**settings)


def build():
    import paddlehub as hub
    return hub.L2SPFinetuneStrategy(optimizer_name="adagrad")


class Mine(strategies.CombinedStrategy):
    """Of one's own."""

    def __init__(self, warm, **kwargs):
        super().__init__(scheduler={"warmup": warm}, **kwargs)


class Trainer(object):
    def __init__(self, model_name):
        self.module = ph.Module(name=model_name)
        self.config = ph.RunConfig(strategy=build(), num_epoch=7, use_cuda=False, checkpoint_dir="ckpt_aliases")

    def hub(self, hub):
        return hub.RunConfig(num_epoch="not PaddleHub's")


seventh = Mine(0.4, learning_rate=7e-4)
trainer = Trainer("resnet_v2_18_imagenet")
plain = DefaultStrategy()
half = functools.partial(ph.DefaultFinetuneStrategy, regularization_coeff=0.5)
eighth = half(learning_rate=8e-4)
