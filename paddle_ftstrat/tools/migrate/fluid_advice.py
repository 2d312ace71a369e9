"""What to write in place of the parts of paddle.fluid that no rule can rewrite."""

from __future__ import annotations

_GUARD = "dygraph has no programs, so delete this `with` and dedent its body"
_STATIC = "delete: dygraph runs layer by layer, there is no program"
_DATA = "delete: nothing is declared, the model is called on the tensors of a paddle.io.DataLoader"
_LOSS = "paddle.nn.functional.cross_entropy(logits, label): it takes logits, not the output of a softmax"
_BY_PREFIX = {
    "program_guard": _GUARD,
    "unique_name.guard": _GUARD,
    "dygraph.guard": "delete this `with` and dedent its body: dygraph is Paddle's normal mode",
    "name_scope": _GUARD,
    "Program": _STATIC,
    "default_main_program": _STATIC,
    "default_startup_program": _STATIC,
    "Executor": "delete: call the model; exe.run(program, feed, fetch_list) becomes outputs = model(inputs)",
    "ParallelExecutor": "delete: start several processes with python -m paddle.distributed.launch",
    "CompiledProgram": "delete: call the model; paddle.jit.to_static(model) compiles it",
    "DataFeeder": "paddle.io.DataLoader(dataset, batch_size=…)",
    "io.DataLoader": "paddle.io.DataLoader(dataset, batch_size=…)",
    "io.PyReader": "paddle.io.DataLoader(dataset, batch_size=…)",
    "io.load": "model.set_state_dict(paddle.load(path)), or hub.load_pretrained(model, path)",
    "io.save": "paddle.save(model.state_dict(), path)",
    "layers.data": _DATA,
    "data": _DATA,
    "layers.fc": "a paddle.nn.Linear(in_features, size) of the model, and its activation",
    "layers.embedding": "a paddle.nn.Embedding(*size) of the model",
    "layers.conv2d": "a paddle.nn.Conv2D of the model",
    "layers.pool2d": "paddle.nn.functional.max_pool2d or avg_pool2d",
    "layers.batch_norm": "a paddle.nn.BatchNorm2D of the model",
    "layers.dropout": "a paddle.nn.Dropout of the model (mode='downscale_in_infer' is fluid's default)",
    "layers.softmax_with_cross_entropy": _LOSS,
    "layers.cross_entropy": _LOSS,
    "layers.square_error_cost": "paddle.nn.functional.square_error_cost(input, label)",
    "layers.mean": "paddle.mean(x)",
    "layers.reduce_mean": "paddle.mean(x, axis, keepdim)",
    "layers.accuracy": "paddle.metric.accuracy(input, label)",
    "layers.softmax": "paddle.nn.functional.softmax(x)",
    "layers.create_parameter": "self.create_parameter(shape, attr) inside a paddle.nn.Layer",
    "layers.create_global_var": "a buffer or a plain number",
    "clip.ErrorClipByValue": "clip the gradient instead: paddle.nn.ClipGradByValue",
    "optimizer": "one of paddle.optimizer, or a rule of your own: paddle_ftstrat.optim.CustomOptimizer",
    "initializer": "one of paddle.nn.initializer",
    "dygraph": "the class of that name in paddle.nn, with dygraph's arguments of today",
}


def advice(name: str) -> str:
    """The replacement to write for something under fluid that has no rule.

    Args:
        name: its dotted name, `paddle.fluid.…`.

    Example:
        >>> advice("paddle.fluid.layers.mean")
        'fluid.layers.mean is gone: paddle.mean(x)'
    """
    inner = name[len("paddle.fluid.") :]
    parts = inner.split(".")
    for cut in range(len(parts), 0, -1):
        text = _BY_PREFIX.get(".".join(parts[:cut]))
        if text is None and cut == 2 and parts[0] == "io":
            text = next((_BY_PREFIX[f"io.{verb}"] for verb in ("load", "save") if parts[1].startswith(verb)), None)
        if text is not None:
            return f"fluid.{inner} is gone: {text}"
    return f"fluid.{inner} is gone from Paddle ≥ 2.5: write its dygraph counterpart"
