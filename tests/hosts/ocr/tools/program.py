import os

import numpy as np
import paddle
from ppocr.utils.save_load import save_model


def build_dataloader(config, seed):
    rng = np.random.RandomState(seed)
    x = rng.randn(config["Train"]["samples"], 4).astype("float32")
    pairs = paddle.io.TensorDataset([paddle.to_tensor(x), paddle.to_tensor((x.sum(-1) > 0).astype("int64"))])
    return paddle.io.DataLoader(pairs, batch_size=config["Train"]["batch_size"])


def train(config, model, loss_class, optimizer, lr_scheduler, pre_best_model_dict):
    settings, best_model_dict = config["Global"], {"acc": 0, **pre_best_model_dict}
    os.makedirs(settings["save_model_dir"], exist_ok=True)
    model.train()
    for epoch in range(best_model_dict.get("start_epoch", 1), settings["epoch_num"] + 1):
        train_dataloader = build_dataloader(config, seed=epoch)
        for batch in train_dataloader:
            optimizer.get_lr()
            preds = model(batch[0])
            avg_loss = loss_class(preds, batch)["loss"]
            avg_loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            if not isinstance(lr_scheduler, float):
                lr_scheduler.step()
        for prefix in ("latest", f"iter_epoch_{epoch}"):
            save_model(
                model,
                optimizer,
                settings["save_model_dir"],
                prefix,
                best_model_dict=best_model_dict,
                epoch=epoch,
                global_step=epoch * len(train_dataloader),
            )
        if epoch == settings.get("power_cut"):
            raise KeyboardInterrupt
