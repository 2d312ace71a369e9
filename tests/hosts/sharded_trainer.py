"""Trainings of a Trainer under sharding stage 1, in each process: python sharded_trainer.py PACKAGE FOLDER."""

import importlib
import sys
from pathlib import Path

import numpy as np
import paddle
from raw_loops import bind, new_process, values
from test_trainers import UPDATES, PowerCut, net, trainer


def main():
    host, folder = importlib.import_module(f"{sys.argv[1]}.trainer"), Path(sys.argv[2])
    rank = paddle.distributed.get_rank()

    def train(seed, resume=None, **options):
        with new_process():
            model = net(seed)
            # PaddleFormers 1.2.0 splits parameters unless told otherwise, and looks for the norm in the wrong place.
            if hasattr(host.TrainingArguments, "split_param"):
                options = {"split_param": False, "max_grad_norm": 0, **options}
            made = trainer(host, model, folder, sharding="stage1", **options)
            bind(model, UPDATES).attach(made)
            made.train(resume_from_checkpoint=resume)
        return values(model)

    np.savez(folder / f"whole.{rank}.npz", **train(5, save_strategy="no"))
    try:
        train(5, cut=14)
    except PowerCut:
        # Other weights than those that L2SP pulls towards: these come from the checkpoint.
        np.savez(folder / f"resumed.{rank}.npz", **train(8, str(folder / "checkpoint-12")))


if __name__ == "__main__":
    main()
