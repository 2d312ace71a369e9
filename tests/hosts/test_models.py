"""PaddleNLP's models with their layers accelerated, against themselves: small ones, random weights."""

import copy

import numpy as np
import paddle
import pytest

import paddle_ftstrat as hub
from paddle_ftstrat.acceleration import stands

transformers = pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed")
pytest.importorskip("numba", reason="without numba few layers are accelerated")

COMMON = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
SMALL = {"max_position_embeddings": 64}
MODELS = {
    "Bert": ("SequenceClassification", COMMON),
    "Ernie": ("SequenceClassification", COMMON),
    "Roberta": ("SequenceClassification", COMMON),
    "Electra": ("SequenceClassification", {**COMMON, "embedding_size": 16}),
    "Albert": ("SequenceClassification", {**COMMON, "embedding_size": 16}),
    "DistilBert": ("SequenceClassification", COMMON),
    "GPT": ("SequenceClassification", {**COMMON, **SMALL}),
    "Llama": ("CausalLM", {**COMMON, **SMALL, "seq_length": 64}),
    "Bart": (
        "Model",
        {
            **SMALL,
            **{"vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
            **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        },
    ),
}
# Layers whose fused forward has to run; the other models bring their own.
ENCODERS = {"Bert", "Ernie", "Roberta", "Electra", "DistilBert", "Bart"}


def made(name):
    task, sizes = MODELS[name]
    paddle.seed(3)
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, f"{name}Model" if task == "Model" else f"{name}For{task}")(config)
    model.eval()  # without dropout, whose values are others
    return model


def first(output):
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same(name, monkeypatch):
    monkeypatch.setattr(stands, "LEAST", 0)
    plain = made(name)
    fast, found = copy.deepcopy(plain), []
    done = hub.accelerate(fast)
    assert ("TransformerEncoderLayer" in done.replaced.values()) == (name in ENCODERS)
    ids = paddle.randint(5, 100, [3, 12])
    for model in (plain, fast):
        output = first(model(ids))
        (output * paddle.sin(paddle.arange(output.size, dtype="float32")).reshape(output.shape)).sum().backward()
        grads = {name: param.grad for name, param in model.named_parameters()}
        found.append((output.numpy(), {name: grad.numpy() for name, grad in grads.items() if grad is not None}))
    (there, grads), (here, fast_grads) = found
    np.testing.assert_allclose(here, there, atol=1e-5 * np.abs(there).max())
    assert grads.keys() == fast_grads.keys()
    floor = max(np.abs(grad).max() for grad in grads.values())
    for key, grad in grads.items():
        np.testing.assert_allclose(
            fast_grads[key], grad, atol=1e-5 * max(np.abs(grad).max(), 1e-3 * floor), err_msg=key
        )


@pytest.mark.parametrize(
    "options", [{"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": True}]
)
def test_what_a_model_may_be_asked_for_besides(options, monkeypatch):
    monkeypatch.setattr(stands, "LEAST", 0)
    plain = made("Bert")
    fast, ids = copy.deepcopy(plain), paddle.randint(5, 100, [3, 12])
    hub.accelerate(fast)
    for each in (options, {}, options):
        outputs = [paddle.utils.flatten(model(ids, **each)) for model in (fast, plain)]
        assert len(outputs[0]) == len(outputs[1])
        for here, there in zip(*outputs):
            np.testing.assert_allclose(here.numpy(), there.numpy(), atol=1e-5)


def test_recomputed_layers_give_the_same_gradients(monkeypatch):
    monkeypatch.setattr(stands, "LEAST", 0)
    model, ids, found = made("Bert"), paddle.randint(5, 100, [3, 12]), []
    hub.accelerate(model)
    for recompute in (False, True):
        model.bert.encoder.enable_recompute = recompute
        model(ids).square().sum().backward()
        found.append([param.grad.numpy() for param in model.parameters()])
        model.clear_gradients()
    for here, there in zip(*found):
        np.testing.assert_allclose(here, there, atol=1e-6)
