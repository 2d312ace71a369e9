"""Reviews put together from phrases, so that everything runs without a file. They show no more than that it runs."""

from __future__ import annotations

import numpy as np

from ulmfit.tables import Table

THINGS = {
    "酒店": ("房间", "早餐", "前台", "大堂", "床", "浴室", "位置", "停车场", "空调", "电梯"),
    "商品": ("包装", "物流", "客服", "味道", "质量", "屏幕", "电池", "封面", "颜色", "价格"),
}
GOOD = (
    "很干净", "非常满意", "不错", "很方便", "很热情", "值得推荐", "比想象的好", "很舒服", "让人放心",
    "没有什么可挑剔的",
)  # fmt: skip
BAD = (
    "太差了", "很失望", "有异味", "又旧又脏", "慢得要命", "根本不值这个价", "不如照片", "没人理睬", "坏了", "不会再来",
)  # fmt: skip
PLAIN = (
    "我是上周去的。",
    "朋友介绍的。",
    "一共住了两天。",
    "第一次买。",
    "说说我的感受。",
    "下次再看看吧。",
    "就这样。",
)
LINKS = ("，", "，而且", "，另外", "。")


def unlabelled(count: int, seed: int = 0) -> Table:
    """Made-up reviews of goods, for pretraining."""
    rng = np.random.RandomState(seed)
    return Table("built-in sample", [_review(rng, "商品", rng.rand() < 0.5) for _ in range(count)])


def labelled(count: int, seed: int = 1) -> Table:
    """Made-up reviews of hotels, each with 1 (positive) or 0 (negative); some phrases speak against the label."""
    rng, seen = np.random.RandomState(seed), {}
    while len(seen) < count:
        positive = bool(rng.rand() < 0.6)
        seen.setdefault(_review(rng, "酒店", positive), str(int(positive)))
    return Table("built-in sample", list(seen), list(seen.values()))


def _review(rng: np.random.RandomState, kind: str, positive: bool) -> str:
    things = rng.permutation(THINGS[kind])[: rng.randint(2, 6)]
    against = rng.rand(len(things)) < 0.25
    phrases = [thing + str(rng.choice(GOOD if positive != other else BAD)) for thing, other in zip(things, against)]
    text = phrases[0] + "".join(str(rng.choice(LINKS)) + phrase for phrase in phrases[1:]) + "。"
    plain = str(rng.choice(PLAIN)) if rng.rand() < 0.6 else ""
    return plain + text if rng.rand() < 0.5 else text + plain
