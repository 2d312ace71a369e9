"""The table of docs/performance.md, and the overview picture, from the JSON files of benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS
from whole_sizes import SIZES

ROOT = Path(__file__).parent.parent
PAGES = {"en": ROOT / "docs/performance.md", "zh": ROOT / "docs/zh/performance.md"}
BEGIN, END = "<!-- table: python -m benchmarks --table -->", "<!-- end of table -->"
HEADS = {"en": ("what", "must hold", "script"), "zh": ("内容", "要求", "脚本")}
MISSING = "–"


@dataclass(frozen=True)
class Row:
    """A line of the table: the figure at `key` of the results of a benchmark, held against what must hold.

    Args:
        en: what the figure is.
        zh: the same in Chinese.
        benchmark: the benchmark's name, as in bench_NAME.py.
        key: keys and indices that lead to the figure.
        bound: what the figure may be at most, or at least where `more` is set; None: there is no bound.
        unit: written after the figure.
        more: whether more is better.
    """

    en: str
    zh: str
    benchmark: str
    key: Sequence[str | int]
    bound: float | None = None
    unit: str = " ×"
    more: bool = False

    def value(self, version: str) -> float | None:
        """The figure measured on a Paddle version, None where it was not."""
        path = RESULTS / f"{self.benchmark}-{version}.json"
        found: Any = json.loads(path.read_text()) if path.exists() else None
        for key in self.key:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def cell(self, version: str) -> str:
        """The figure as the table shows it; bold where it keeps a bound."""
        value = self.value(version)
        if value is None:
            return MISSING
        text = f"{value:.3g}"
        if self.bound is None:
            return text + self.unit
        if value >= self.bound if self.more else value <= self.bound:
            return f"**{text}{self.unit}**"
        # Rounded to its bound, it would look as if it kept it.
        return f"{value:.4g}{self.unit} ✗" if float(text) == self.bound else f"{text}{self.unit} ✗"

    def limit(self) -> str:
        """The bound as the table shows it."""
        if self.bound is None:
            return ""
        return f"{'≥' if self.more else '≤'} {self.bound:g}{self.unit}"


def _loop(kind: str, case: str) -> tuple[str, ...]:
    return (kind, "times_faster_than", case)


def _updates(case: str, en: str, zh: str, bound: float, in_a_row: bool = False) -> Row:
    suffix = "_in_a_row" if in_a_row else ""
    return Row(
        f"update with clip, L2SP, multipliers and Adam in one pass: times faster than by Paddle's operations, {en}",
        f"裁剪、L2SP、学习率倍数和 Adam 合成一遍的更新：比用 Paddle 的各个操作快多少倍，{zh}",
        "step", ("updates_ms", case, f"composed_over_fused{suffix}"), bound, more=True,
    )  # fmt: skip


WHOLE = {
    "transformer_relu": (
        "a 4-layer transformer (h=256), 32×64 tokens, ReLU",
        "4 层 transformer（h=256），32×64 个词，ReLU",
    ),
    "transformer_gelu": ("the same with GELU and dropout 0.1", "同上，GELU，dropout 0.1"),
    "bert_base": ("an encoder of BERT-base's shape, 8×128 tokens", "BERT-base 形状的编码器，8×128 个词"),
    "lstm": ("a 2-layer LSTM language model (h=256), 32×64 tokens", "2 层 LSTM 语言模型（h=256），32×64 个词"),
    "resnet18": ("ResNet-18, batch 16, 64×64", "ResNet-18，批大小 16，64×64"),
    "mobilenet_v2": ("MobileNetV2, batch 16, 64×64", "MobileNetV2，批大小 16，64×64"),
}


def _whole(name: str) -> tuple[Row, ...]:
    en, zh = WHOLE[name]
    return (
        Row(
            f"whole step with AdamW and clipping of {en}: over torch's", f"{zh}，AdamW 与裁剪的一整步：与 torch 之比",
            "whole", (name, "over_torch"), SIZES[name].limit,
        ),
        Row(
            "the same, times faster than Paddle as it comes", "同上，比开箱即用的 Paddle 快多少倍",
            "whole", (name, "times_faster_than", "paddle"), more=True,
        ),
        Row(
            "the same, memory that the steps add to the model over Paddle's",
            "同上，训练在模型之外占用的内存与 Paddle 之比",
            "whole", (name, "memory_over_paddle"), 1.1,
        ),
        Row(
            "the same, memory in use, over Paddle's with as many threads",
            "同上，实际使用的内存与线程数相同的 Paddle 之比",
            "whole", (name, "memory_in_use_over_paddle"), 1.1,
        ),
    )  # fmt: skip


ROWS = (
    *(row for name in WHOLE for row in _whole(name)),
    Row(
        "whole step of ResNet-18 (batch 16, 64×64), full strategy: times faster than Paddle's AdamW as it comes",
        "ResNet-18（批大小 16，64×64）完整策略的一整步：比开箱即用的 Paddle AdamW 快多少倍",
        "loop", _loop("resnet18", "paddle"), 1.6, more=True,
    ),
    Row(
        "the same, times faster than Paddle's AdamW under OMP_NUM_THREADS=2",
        "同上，比 OMP_NUM_THREADS=2 下的 Paddle AdamW 快多少倍",
        "loop", _loop("resnet18", "paddle_all_threads"), 3.0, more=True,
    ),
    Row(
        "the same, times faster than the same strategy on one thread",
        "同上，比单线程下的同一策略快多少倍",
        "loop", _loop("resnet18", "ours_one_thread"), more=True,
    ),
    Row(
        "the same, times faster than the same strategy with MKL as it comes",
        "同上，比不改动 MKL 时的同一策略快多少倍",
        "loop", _loop("resnet18", "ours_mkl_as_it_comes"), more=True,
    ),
    Row(
        "whole step of a 4-layer transformer (h=256), full strategy: times faster than Paddle's AdamW as it comes",
        "4 层 transformer（h=256）完整策略的一整步：比开箱即用的 Paddle AdamW 快多少倍",
        "loop", _loop("transformer", "paddle"), 1.35, more=True,
    ),
    Row(
        "the same, times faster than Paddle's AdamW under OMP_NUM_THREADS=2",
        "同上，比 OMP_NUM_THREADS=2 下的 Paddle AdamW 快多少倍",
        "loop", _loop("transformer", "paddle_all_threads"), more=True,
    ),
    Row(
        "`Learner.fit` over a loop by hand, ResNet-18, 32×32, batch 32, equal threads",
        "`Learner.fit` 与手写循环之比，ResNet-18，32×32，批大小 32，线程数相同",
        "loop", ("learner", "ratio"), 1.05,
    ),
    Row(
        "beside it: fastai's `Learner.fit` over a bare torch loop, the same work",
        "对照：fastai 的 `Learner.fit` 与裸 torch 循环之比，同样的训练",
        "loop", ("fastai", "ratio"),
    ),
    Row(
        "`run.step()` over the same update by hand with Paddle's Adam: 192 tensors, 0.6 M values",
        "`run.step()` 与手写的 Paddle Adam 更新之比：192 个张量，60 万个数值",
        "step", ("step_plain_adam", "ratio"), 1.03,
    ),
    Row(
        "the same with global-norm clip, L2SP and decoupled decay",
        "同上，加全局范数裁剪、L2SP 和解耦衰减",
        "step", ("step_clip_l2sp_decay", "ratio"), 1.03,
    ),
    _updates("0.6M in 192, 1 core", "0.6 M values, 192 tensors, one core, updates in a row",
             "60 万个数值，192 个张量，单核，连续更新", 12.0, in_a_row=True),
    Row(
        "the same with the caches cold",
        "同上，但缓存是冷的",
        "step", ("updates_ms", "0.6M in 192, 1 core", "composed_over_fused"), 12.0, more=True,
    ),
    Row(
        "what could be gained there, if tensors were only asked and values only updated",
        "只询问张量、只更新数值时最多能快多少倍",
        "step", ("updates_ms", "0.6M in 192, 1 core", "composed_over_floor"), more=True,
    ),
    _updates("85M in 192, 1 core", "85 M values, 192 tensors, one core", "8500 万个数值，192 个张量，单核", 5.0),
    _updates("85M in 192, 2 cores", "85 M values, 192 tensors, two cores", "8500 万个数值，192 个张量，双核", 5.0),
    Row(
        "the same update over torch's clip and fused AdamW (without L2SP), 85 M, one core",
        "同样的更新与 torch 的裁剪加 fused AdamW（没有 L2SP）之比，8500 万个数值，单核",
        "torch", ("85M in 192, 1 core", "fused_over_torch"), 1.0,
    ),
    Row(
        "the same, two cores",
        "同上，双核",
        "torch", ("85M in 192, 2 cores", "fused_over_torch"), 1.0,
    ),
    Row(
        "the same update over a triad of as many values, 85 M, one core",
        "同样的更新与同样多数值的三元运算（triad）之比，8500 万个数值，单核",
        "step", ("updates_ms", "85M in 192, 1 core", "fused_over_triad"), 2.6,
    ),
    Row(
        "the same update, times faster than Paddle's AdamW alone, 10,000 tensors of 10, one core, in a row",
        "同样的更新，比单独的 Paddle AdamW 快多少倍，10000 个张量、各 10 个数值，单核，连续更新",
        "step", ("updates_ms", "0.1M in 10,000, 1 core", "adamw_over_fused_in_a_row"), 8.0, more=True,
    ),
    Row(
        "the same with the caches cold",
        "同上，但缓存是冷的",
        "step", ("updates_ms", "0.1M in 10,000, 1 core", "adamw_over_fused"), 8.0, more=True,
    ),
    Row(
        "what could be gained there, if tensors were only asked and values only updated",
        "只询问张量、只更新数值时最多能快多少倍",
        "step", ("updates_ms", "0.1M in 10,000, 1 core", "adamw_over_floor"), more=True,
    ),
    Row("`bind()` of 200 tensors, 110 M values", "对 200 个张量、1.1 亿个数值执行 `bind()`",
        "step", ("bind", "bind_s"), unit=" s"),
    Row("memory that L2SP adds, over the weights", "L2SP 增加的内存与权重之比",
        "step", ("bind", "l2sp_memory_over_weights")),
    Row(
        "`lr_scheduler.step()` over Paddle's `NoamDecay.step()`, the dearest curve",
        "`lr_scheduler.step()` 与 Paddle 的 `NoamDecay.step()` 之比，最贵的曲线",
        "schedules", ("highest_step_ratio",), 1.0,
    ),
    Row("10⁶ values of a curve as an array, the slowest", "一次以数组求一条曲线的 10⁶ 个值，最慢的曲线",
        "schedules", ("slowest_array_s",), 0.5, unit=" s"),
    Row(
        "step with the lower 2/3 of a 6-layer transformer frozen, over forward + 1/3 backward",
        "冻结 6 层 transformer 下面 2/3 时的一步，与「前向 + 1/3 反向」之比",
        "freeze", ("lower_two_thirds_of_transformer", "to_forward_and_third_of_backward"), 1.03,
    ),
    Row(
        "first of three unfreezing phases, transformer: peak memory over that of the last",
        "三个解冻阶段中的第一个，transformer：峰值内存与最后阶段之比",
        "freeze", ("phases", "transformer", "phases", 0, "memory"), 0.5,
    ),
    Row(
        "first of three unfreezing phases, ResNet-18: peak memory over that of the last",
        "三个解冻阶段中的第一个，ResNet-18：峰值内存与最后阶段之比",
        "freeze", ("phases", "resnet18", "phases", 0, "memory"), 0.75,
    ),
    Row(
        "epoch with kept features of the frozen layers, over an epoch of the trainable third alone",
        "使用冻结层缓存特征的一轮，与只训练那三分之一层的一轮之比",
        "features",
        ("cached_to_third_alone",),
        1.1,
    ),
    Row(
        "loading 109 M parameters from safetensors: time over reading the file with numpy",
        "从 safetensors 加载 1.09 亿个参数：耗时与用 numpy 读该文件之比",
        "transfer", ("time_of_numpy_load",), 1.3,
    ),
    Row("`import paddle_ftstrat` after Paddle's own import", "在导入 Paddle 之后 `import paddle_ftstrat`",
        "import", ("alone_s",), 0.15, unit=" s"),
    Row(
        "the same until a strategy can be made, over Paddle's own import; Learner, tasks and files come when asked for",
        "同上，直到可以创建策略，与 Paddle 自身导入之比；Learner、任务和文件读写在用到时才导入",
        "import", ("with_a_strategy_over_paddle",),
    ),
    Row(
        "`interpolate` of 109 M parameters with a file: time over reading the file with numpy",
        "`interpolate` 把 1.09 亿个参数与一个文件插值：耗时与用 numpy 读该文件之比",
        "transfer", ("interpolate_time_of_numpy_load",), 1.5,
    ),
    Row(
        "fused update with an EMA of the weights over one without, 85 M values, two cores",
        "带权重 EMA 的融合更新与不带的之比，8500 万个数值，双核",
        "members", ("updates_fused", "85M in 192", "ratio"), 1.1,
    ),
    Row(
        "whole step of a 2-layer transformer with an EMA over one without",
        "2 层 transformer 的整步，带 EMA 与不带之比",
        "members", ("steps", "EMA", "ratio"), 1.1,
    ),
    Row("the same with FGM over a plain step", "同上，FGM 与普通一步之比", "members", ("steps", "FGM", "ratio"), 2.1),
    Row("the same with SAM over a plain step", "同上，SAM 与普通一步之比", "members", ("steps", "SAM", "ratio"), 2.1),
)  # fmt: skip


def versions() -> list[str]:
    """The Paddle versions that there are results of, oldest first."""
    found = {path.stem.rpartition("-")[2] for path in RESULTS.glob("[!q]*-*.json")}
    return sorted(found, key=lambda version: [int(part) if part.isdigit() else 0 for part in version.split(".")])


def markdown(language: str) -> str:
    """The table in a language."""
    what, bound, script = HEADS[language]
    columns = versions()
    lines = [
        f"| {what} | {bound} | {' | '.join(columns)} | {script} |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in ROWS:
        cells = " | ".join(row.cell(version) for version in columns)
        lines.append(f"| {getattr(row, language)} | {row.limit()} | {cells} | `bench_{row.benchmark}.py` |")
    text = "\n".join(lines)
    return text.replace(" ×", " 倍") if language == "zh" else text


def refresh() -> None:
    """Write the tables between the markers of both pages."""
    for language, page in PAGES.items():
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{markdown(language)}\n\n{END}{after}", "utf-8")


def draw(version: str, path: Path) -> None:
    """A picture of all figures that have a bound: how far within it or beyond it they are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bounded = [(row, row.value(version)) for row in ROWS if row.bound is not None]
    shown = [(row, value) for row, value in bounded if value]
    figure, axes = pyplot.subplots(figsize=(13, 1.2 + 0.42 * len(shown)), layout="constrained")
    for place, (row, value) in enumerate(reversed(shown)):
        margin = _margin(row)(value)
        axes.barh(place, margin - 1, left=1, color="tab:green" if margin >= 1 else "tab:red")
        axes.text(max(margin, 1), place, f" {value:.3g}{row.unit} ({row.limit()})", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [row.en for row, _ in reversed(shown)], fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.01)
    axes.set_xlabel("times better than what must hold (log)")
    axes.set_title(f"paddlepaddle {version}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _margin(row: Row) -> Callable[[float], float]:
    """Figure → how many times better than its bound it is."""
    return (lambda value: value / row.bound) if row.more else (lambda value: row.bound / value)


CASES = {
    "paddle": "Paddle as it comes",
    "paddle_all_threads": "Paddle, all threads",
    "ours": "this library",
    "torch": "torch",
}


def draw_whole(version: str, path: Path) -> None:
    """The whole steps of bench_whole.py as bars, torch's step being 1, or ours where it was not measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = json.loads((RESULTS / f"whole-{version}.json").read_text())
    models = [name for name in WHOLE if name in results]
    figure, axes = pyplot.subplots(figsize=(11, 4.5), layout="constrained")
    for place, (case, label) in enumerate(CASES.items()):
        heights = []
        for name in models:
            steps = {key: row["step_ms"] for key, row in results[name]["cases"].items()}
            heights.append(steps.get(case, 0) / steps.get("torch", steps["ours"]))
        bars = axes.bar([i + 0.2 * place for i in range(len(models))], heights, 0.19, label=label)
        axes.bar_label(bars, [f"{height:.2g}" for height in heights], fontsize=7)
    axes.set_xticks([i + 0.3 for i in range(len(models))], [name.replace("_", " ") for name in models])
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.set_ylabel("time of a training step over torch's")
    axes.set_title(f"{results['environment']['processor']}, {results['environment']['cpus']} cores, Paddle {version}")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
