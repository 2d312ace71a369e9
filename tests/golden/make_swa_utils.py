"""Numbers of torch's `swa_utils` for `torch_averages.json`: python tests/golden/make_swa_utils.py, with torch.

A net of a Linear, a BatchNorm and a Linear layer trains by SGD for 24 updates; beside it run torch's averages. What
Paddle's layers need to repeat it is in the file, with Linear's weights transposed.
"""

import json
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

UPDATES, LR = 24, 0.1


def values(model):
    """Weights and running statistics under Paddle's names and in its layout."""
    found = {}
    for name, value in model.state_dict().items():
        name = name.removeprefix("module.").replace("running_mean", "_mean").replace("running_var", "_variance")
        if "n_averaged" not in name and "num_batches" not in name:
            found[name] = (value.T if name in ("0.weight", "2.weight") else value).tolist()
    return found


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(UPDATES, 6, 3)
    golden = {"torch": torch.__version__, "lr": LR, "x": x.tolist(), "start": values(model)}
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    # Torch copies the weights at the first call; w⁰ is what this library's average begins with.
    ema.update_parameters(model)
    swa = AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for update in range(UPDATES):
        optimizer.zero_grad()
        model(x[update]).square().mean().backward()
        optimizer.step()
        ema.update_parameters(model)
        if update >= UPDATES // 2 and (update - UPDATES // 2) % 3 == 2:
            swa.update_parameters(model)
    golden.update(end=values(model), ema=values(ema), swa=values(swa))
    update_bn(list(x), swa)
    golden["swa with update_bn"] = values(swa)
    path = Path(__file__).with_name("torch_averages.json")
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
