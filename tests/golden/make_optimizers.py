"""Makes optimizers.json: `python make_optimizers.py` with torch, transformers, schedulefree, optax and jax installed.

Made with torch 2.13.0, transformers 5.24.0, schedulefree 1.4.1, optax 0.2.8. All numbers are of float64; torch's Muon,
which orthogonalises in bfloat16, is kept from casting; optax computes β₂ in float32. Start and gradients follow from
`arrays`, which the test repeats.
"""

import json
from pathlib import Path

import numpy as np
import torch

UPDATES = 24
SHAPES = {"matrix": (6, 4), "wide": (3, 8), "bias": (5,), "conv": (2, 3, 5, 4)}
FILTERS = {"filters": (8, 6, 3, 3)}  # the two longest axes are not the last


def arrays(shapes):
    """The start of each parameter, and the gradients of each update."""
    rng = np.random.default_rng(7)
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return start, [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(UPDATES)]


def trained_by_torch(make, shapes=SHAPES, lrs=None, view=lambda name, value: value, between=None):
    """Values after UPDATES updates; `between(optimizer)` is called at the end, `view` turns arrays into torch's."""
    start, grads = arrays(shapes)
    params = {name: torch.nn.Parameter(torch.tensor(view(name, value))) for name, value in start.items()}
    optimizer = make(list(params.values()))
    for t, values in enumerate(grads):
        for group in optimizer.param_groups if lrs else ():
            group["lr"] = lrs[t]
        for name, param in params.items():
            param.grad = torch.tensor(view(name, values[name]))
        optimizer.step()
    if between:
        between(optimizer)
    return {name: param.detach().numpy().copy() for name, param in params.items()}


def adafactor(case, options, lrs, shapes=SHAPES, **reference):
    from transformers import Adafactor

    return case, options, lrs, shapes, trained_by_torch(lambda p: Adafactor(p, **reference), shapes, lrs)


def optax_adafactor(factored):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    start, grads = arrays(FILTERS)
    reference = optax.adafactor(0.02, min_dim_size_to_factor=2, factored=factored, multiply_by_parameter_scale=False)
    params = {name: jax.numpy.asarray(value) for name, value in start.items()}
    state = reference.init(params)
    for values in grads:
        updates, state = reference.update({k: jax.numpy.asarray(v) for k, v in values.items()}, state, params)
        params = optax.apply_updates(params, updates)
    values = {name: np.asarray(value) for name, value in params.items()}
    return f"adafactor, optax, factored={factored}", {"factored": factored}, [0.02] * UPDATES, FILTERS, values


def muon(case, adjust, nesterov, momentum, weight_decay):
    torch.Tensor.bfloat16 = torch.Tensor.clone  # which it changes in place
    # A linear layer's weight is [inputs, outputs] in Paddle and [outputs, inputs] in torch.
    view = {"matrix": lambda v: v.T, "wide": lambda v: v.T, "conv": lambda v: v.reshape(v.shape[0], -1)}
    lrs = warmup(0.02)
    common = {"lr": 0.02, "weight_decay": weight_decay}
    hidden = {name: shape for name, shape in SHAPES.items() if len(shape) > 1}
    # One generator makes all arrays: every parameter goes through both, and each optimizer's own are kept.
    by_muon = trained_by_torch(
        lambda p: torch.optim.Muon(
            [q for q in p if q.ndim == 2], adjust_lr_fn=adjust, nesterov=nesterov, momentum=momentum, **common
        ),
        lrs=lrs,
        view=lambda name, value: np.ascontiguousarray(view.get(name, lambda v: v)(value)),
    )
    by_adamw = trained_by_torch(lambda p: torch.optim.AdamW(p, betas=(0.9, 0.95), eps=1e-10, **common), lrs=lrs)
    back = {"matrix": lambda v: v.T, "wide": lambda v: v.T, "conv": lambda v: v.reshape(SHAPES["conv"])}
    values = {name: back[name](by_muon[name]) if name in hidden else by_adamw[name] for name in SHAPES}
    options = {"adjust": adjust, "nesterov": nesterov, "momentum": momentum, "weight_decay": weight_decay}
    return case, {**options, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-10}, lrs, SHAPES, values


def schedule_free(case, cls, ours, warmup_steps, lr, **options):
    def made(params):
        optimizer = cls(params, lr=lr, warmup_steps=warmup_steps, foreach=False, **options)
        optimizer.train()
        return optimizer

    averaged = trained_by_torch(made, between=lambda optimizer: optimizer.eval())
    lrs = warmup(lr, warmup_steps) if warmup_steps else [lr] * UPDATES
    return case, ours, lrs, SHAPES, trained_by_torch(made), averaged


def warmup(lr, steps=5):
    return [lr * min(1.0, (t + 1) / steps) for t in range(UPDATES)]


def cases():
    import schedulefree

    plain = {"relative_step": False, "scale_parameter": False, "lr": 0.01, "warmup_init": False}
    yield adafactor("adafactor, plain", {}, warmup(0.01), **plain)
    yield adafactor(
        "adafactor, momentum and decay",
        {"beta1": 0.9, "weight_decay": 0.1, "clip_threshold": 0.5, "decay_rate": -0.5},
        warmup(0.02),
        **{**plain, "beta1": 0.9, "weight_decay": 0.1, "clip_threshold": 0.5, "decay_rate": -0.5},
    )
    yield adafactor("adafactor, scaled", {"scale_parameter": True}, warmup(0.05), **{**plain, "scale_parameter": True})
    lrs = [1e-6 * (t + 1) for t in range(UPDATES)]
    case, options, _, shapes, values = adafactor(
        "adafactor, relative with warmup", {"scale_parameter": True, "relative_step": True}, None, warmup_init=True
    )
    yield case, options, lrs, shapes, values
    lr = 0.3  # over 1/√t from the twelfth update on
    options = {"scale_parameter": True, "relative_step": True, "weight_decay": 0.05}
    values = trained_by_torch(lambda p: torch.optim.Adafactor(p, lr=lr, weight_decay=0.05))
    yield "adafactor, torch", options, [lr] * UPDATES, SHAPES, values
    for factored in (True, False):
        yield optax_adafactor(factored)
    yield muon("muon, original", "original", True, 0.95, 0.1)
    yield muon("muon, as AdamW", "match_rms_adamw", True, 0.9, 0.0)
    yield muon("muon, without Nesterov", "original", False, 0.95, 0.1)
    adamw, sgd = schedulefree.AdamWScheduleFree, schedulefree.SGDScheduleFree
    betas = {"lr": 0.02, "betas": (0.9, 0.999)}
    yield schedule_free("schedule_free_adamw, plain", adamw, {}, 0, **betas)
    yield schedule_free(
        "schedule_free_adamw, warmup and decay",
        adamw,
        {"beta": 0.95, "beta2": 0.99, "weight_decay": 0.1, "r": 0.5, "weight_lr_power": 1.0},
        6,
        **{**betas, "betas": (0.95, 0.99), "weight_decay": 0.1, "r": 0.5, "weight_lr_power": 1.0},
    )
    yield schedule_free("schedule_free_sgd, plain", sgd, {}, 0, lr=0.05)
    yield schedule_free(
        "schedule_free_sgd, warmup and decay",
        sgd,
        {"beta": 0.8, "weight_decay": 0.1},
        6,
        lr=0.05,
        momentum=0.8,
        weight_decay=0.1,
    )


def main():
    """Write the file beside this script."""
    found = []
    for case, options, lrs, shapes, values, *averaged in cases():
        entry = {"case": case, "options": options, "lrs": lrs, "shapes": {k: list(v) for k, v in shapes.items()}}
        entry["values"] = {name: value.ravel().tolist() for name, value in values.items()}
        if averaged:
            entry["averaged"] = {name: value.ravel().tolist() for name, value in averaged[0].items()}
        found.append(entry)
    text = "[\n" + ",\n".join(json.dumps(entry) for entry in found) + "\n]\n"
    (Path(__file__).parent / "optimizers.json").write_text(text)


if __name__ == "__main__":
    main()
