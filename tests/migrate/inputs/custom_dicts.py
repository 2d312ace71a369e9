"""Every way to fill the dicts of CombinedStrategy."""
import paddlehub as hub

scheduler = {
    "warmup": 0.1,
    "linear_decay": {"start_point": 0.3, "end_learning_rate": 1e-7},  # from 30 % on
    "noam_decay": 0,
    # without a cut_fraction PaddleHub leaves the triangle off
    "slanted_triangle": {"ratio": 16},
}
full = hub.CombinedStrategy(
    optimizer_name="rmsprop",
    learning_rate=2e-4,
    scheduler=scheduler,
    regularization={"L2": 1e-3, "weight_decay": 0.02},
    clip={"GlobalNorm": 1.0},
    rho=0.9)

inline = hub.CombinedStrategy(
    scheduler={
        "linear_decay": {"end_learning_rate": 0.0},  # off: there is no start_point
        "discriminative": {"blocks": 3, "factor": 2.6},
        "gradual_unfreeze": {"blocks": 3},
    },
    optimizer_name="AdamW",
    clip={"Norm": 2.0})

empty = hub.CombinedStrategy()

added = hub.CombinedStrategy(learning_rate=1e-3)
added.add_scheduler("warmup", 0.2)
added.add_scheduler("linear_decay", start_point=0.5, end_learning_rate=1e-6)
added.add_scheduler("discriminative", blocks=4, factor=2.0)
added.add_regularization("L2SP", 1e-2)
added.add_clip("GlobalNorm", 5.0)

triangle = hub.finetune.strategy.CombinedStrategy(
    "adagrad", 3e-3, {"slanted_triangle": {"cut_fraction": 0.2, "ratio": 10}}, {"L2": 1e-4}, {"Norm": 1.0})

noam = hub.CombinedStrategy(scheduler={"warmup": 0.05, "noam_decay": 1}, beta1=0.85)

config = hub.RunConfig(strategy=full, num_epoch=2, batch_size=64, checkpoint_dir="ckpt_custom", use_cuda=False)
