"""What `ftstrat migrate` makes of PaddleHub's text scripts: its table against PaddleNLP 2.8.1, and scripts that run."""

import inspect
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libcst", reason="the tool needs LibCST")
pytest.importorskip("paddlenlp", reason="PaddleNLP is not installed")

from paddlenlp import datasets, transformers
from paddlenlp.datasets.dataset import MapDataset, import_main_class
from paddlenlp.transformers.auto.tokenizer import get_configurations

from paddle_ftstrat.tools.migrate import paddlenlp, rewriter

INPUTS = Path(__file__).parent.parent / "migrate" / "inputs"
FAMILIES = {"ernie": "Ernie", "bert": "Bert", "roberta": "Roberta", "electra": "Electra"}
ROWS = {**paddlenlp.DATA, **paddlenlp.GLUE, "XNLI": paddlenlp.data_of("XNLI", "")}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def tokenizers():
    return {name for names in get_configurations() for name in names}


@pytest.mark.parametrize("name", paddlenlp.MODELS)
def test_weights_and_tokenizer_are_there(name, tokenizers):
    model = paddlenlp.MODELS[name]
    base = getattr(transformers, f"{FAMILIES[model.encoder]}PretrainedModel")
    assert model.weights in base.pretrained_init_configuration
    assert model.encoder == base.base_model_prefix
    assert model.weights in tokenizers
    for head in ("SequenceClassification", "TokenClassification"):
        forward = getattr(transformers, f"{FAMILIES[model.encoder]}For{head}").forward
        assert list(inspect.signature(forward).parameters)[1:3] == ["input_ids", "token_type_ids"]


@pytest.mark.parametrize("name", ROWS)
def test_data_set_has_splits_columns_and_labels(name):
    row = ROWS[name]
    builder = import_main_class(row.given[0])
    if hasattr(builder, "BUILDER_CONFIGS"):
        config = builder.BUILDER_CONFIGS[row.given[1]]
        splits, labels = config["splits"], config["labels"]
    else:
        splits = builder.SPLITS
        # THUCNews has them in a file that it downloads: 14, like PaddleHub's.
        labels = range(14) if name == "THUCNEWS" else builder.get_labels(None)
    assert set(row.splits.values()) <= set(splits)
    if not row.columns:
        return
    assert (1 if labels is None else len(labels)) == row.classes
    if row.given[0] != "clue":  # whose rows are the JSON of the files
        read = inspect.getsource(builder._read)
        assert all(f'"{column}":' in read for column in (*row.columns, row.label))


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Folders with the weights of small models and their tokenizers, by the name that a script asks for."""
    folder = tmp_path_factory.mktemp("weights")
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    made = {}
    for weights, family in (("ernie-1.0-base-zh", "Ernie"), ("ernie-tiny", "Ernie"), ("bert-base-uncased", "Bert")):
        made[weights] = str(folder / weights)
        config = getattr(transformers, f"{family}Config")(vocab_size=len(words), **SIZES)
        getattr(transformers, f"{family}Model")(config).save_pretrained(made[weights])
        getattr(transformers, f"{family}Tokenizer")(str(folder / "vocab.txt")).save_pretrained(made[weights])
    return made


def load_dataset(*given, splits):
    """Rows as those of a data set: texts of letters, labels that are numbers already."""
    row = next(row for row in ROWS.values() if row.given == given and splits in row.splits.values())
    draw, rows = np.random.RandomState(0), []
    for _ in range(16):
        words = ["".join(draw.choice(list(LETTERS), 3)) for _ in range(4)]
        if row.columns == ("tokens",):
            texts, label = {"tokens": words}, draw.randint(row.classes, size=4).tolist()
        else:
            texts = {column: " ".join(words) for column in row.columns}
            label = f"{draw.rand():.1f}" if row.classes == 1 else int(draw.randint(row.classes))
        rows.append({**texts, row.label: label})
    names = import_main_class(given[0]).get_labels(None) if row.columns == ("tokens",) else list("0123456")
    return MapDataset(rows, label_list=None if row.classes == 1 else names[: row.classes])


@pytest.mark.parametrize(("script", "left"), [("text_classification", 0), ("sequence_labelling", 2), ("regression", 2)])
def test_scripts_run(script, left, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoTokenizer"):
        real = getattr(transformers, name).from_pretrained
        small = staticmethod(lambda weights, real=real, **options: real(stand_ins[weights], **options))
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", small)
    # What is left by hand in regression.py.
    logging = types.ModuleType("paddlehub.common.logger")
    logging.logger = types.SimpleNamespace(info=print)
    for name in ("paddlehub", "paddlehub.common", "paddlehub.common.logger"):
        monkeypatch.setitem(sys.modules, name, logging)

    result = rewriter.migrate((INPUTS / f"{script}.py").read_bytes())
    assert len(result.left) == left
    (tmp_path / "new.py").write_bytes(result.code)
    made = runpy.run_path(str(tmp_path / "new.py"), run_name="__main__")
    task = made.get("cls_task") or made["task"]
    assert task.current_step == task.max_train_steps
    assert task.best_score is not None or "dev" not in task.phases
    if script == "text_classification":
        assert len(task.predict([made["encode"]({"text": "abc", "label": 0})], return_result=True)) == 1
