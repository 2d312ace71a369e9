import copy

import paddle

__all__ = ["build_optimizer"]


def build_optimizer(config, epochs, step_each_epoch, model):
    config = copy.deepcopy(config)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(config.pop("lr")["learning_rate"], epochs * step_each_epoch)
    made = getattr(paddle.optimizer, config.pop("name"))
    return made(learning_rate=rate, parameters=model.parameters(), **config), rate
