"""A training under fleet's sharding stage 1, in each process: python sharded_training.py OUT UPDATES [FROM]."""

import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.distributed import fleet

import paddle_ftstrat as hub


def main():
    out, updates, begun = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    rank, count = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    if count > 1:
        configured = fleet.DistributedStrategy()
        configured.hybrid_configs = {"dp_degree": 1, "mp_degree": 1, "pp_degree": 1, "sharding_degree": count}
        fleet.init(is_collective=True, strategy=configured)
    paddle.seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    strategy = hub.CombinedStrategy(
        "momentum",
        0.1,
        scheduler={
            "warmup": 0.2,
            "linear_decay": {"start_point": 0.2},
            "discriminative": {"blocks": 3, "factor": 2.0},
            "gradual_unfreeze": {"blocks": 3},
        },
        regularization={"L2SP": 0.1, "weight_decay": 0.1},
        clip={"GlobalNorm": 0.5},
    )
    run = strategy.bind(model, num_epoch=3, steps_per_epoch=2, pretrained="*", fused=False)
    optimizer, trained = run.optimizer, model
    if count > 1:
        trained = fleet.distributed_model(model)
        optimizer = fleet.distributed_optimizer(run.optimizer)
        run.attach(optimizer)
    else:
        run.attach()
    if begun:
        # Of however many processes: each saved the state of its own parameters, and the schedule.
        start = Path(begun[0])
        states = [paddle.load(str(path)) for path in sorted(start.parent.glob(f"{start.name}.*.pdopt"))]
        masters = {name: value for state in states for name, value in state.get("master_weights", {}).items()}
        model.set_state_dict(paddle.load(f"{begun[0]}.0.pdparams"))
        merged = {name: value for state in states for name, value in state.items()}
        optimizer.set_state_dict({**merged, "master_weights": masters} if masters else merged)
    data = np.random.RandomState(0).randn(6, 4, 4).astype("float32")
    trace = []
    for update in range(run.lr_scheduler.last_epoch, updates):
        x = data[update][rank::count]
        trained(paddle.to_tensor(x)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        run.lr_scheduler.step()
        trace.append(np.concatenate([param.numpy().ravel() for param in model.parameters()]))
    paddle.save(model.state_dict(), f"{out}.{rank}.pdparams")
    paddle.save(optimizer.state_dict(), f"{out}.{rank}.pdopt")
    np.save(f"{out}.{rank}.npy", np.stack(trace))


if __name__ == "__main__":
    main()
