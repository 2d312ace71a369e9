import argparse
import os
import sys

__dir__ = os.path.dirname(os.path.abspath(__file__))
sys.path.append(__dir__)
sys.path.insert(0, os.path.abspath(os.path.join(__dir__, "..")))

import paddle
import program
import yaml
from ppocr.optimizer import build_optimizer
from ppocr.utils.save_load import load_model


class Recognizer(paddle.nn.Layer):
    def __init__(self, characters):
        super().__init__()
        linear = paddle.nn.Linear
        self.backbone = paddle.nn.Sequential(linear(4, 8), paddle.nn.ReLU(), linear(8, 8), paddle.nn.ReLU())
        self.neck = paddle.nn.Sequential(linear(8, 6), paddle.nn.ReLU())
        self.head = linear(6, characters)

    def forward(self, x):
        return self.head(self.neck(self.backbone(x)))


def main(config):
    train_dataloader = program.build_dataloader(config, seed=1)
    model = Recognizer(config["Architecture"]["characters"])

    def loss_class(preds, batch):
        return {"loss": paddle.nn.functional.cross_entropy(preds, batch[1])}

    optimizer, lr_scheduler = build_optimizer(
        config["Optimizer"],
        epochs=config["Global"]["epoch_num"],
        step_each_epoch=len(train_dataloader),
        model=model,
    )
    pre_best_model_dict = load_model(config, model, optimizer)
    program.train(config, model, loss_class, optimizer, lr_scheduler, pre_best_model_dict)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", "--config")
    parser.add_argument("-o", "--opt", nargs="*", default=[])
    arguments = parser.parse_args()
    with open(arguments.config, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    for option in arguments.opt:
        keys, value = option.split("=")
        section, key = keys.split(".")
        config[section][key] = yaml.safe_load(value)
    main(config)
