"""Losses that are read late lose nothing: neither their numbers nor the batch that broke."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from reid_cckd.engine.watch import Seen, Watch, not_finite


def test_late_numbers_are_the_same_and_in_order() -> None:
    watch = Watch(every=3)
    for step in range(4):
        terms = {"loss": torch.tensor(step / 3), "cc": torch.tensor(step / 7, dtype=torch.float64)}
        watch.add(Seen(0, step, step, torch.tensor([step]), {}), dict(list(terms.items())[: 1 + step % 2]))
        assert watch.is_due == (step >= 2)
    seen = watch.look()
    assert [one.step for one in seen] == [0, 1, 2, 3]
    assert seen[1].values == {"loss": float(torch.tensor(1 / 3)), "cc": 1 / 7}
    assert list(seen[2].values) == ["loss"]
    assert watch.look() == []
    assert not watch.is_due


def test_the_batch_that_broke_is_named_whenever_it_is_looked_at(tmp_path: Path) -> None:
    watch = Watch(every=5)
    for step, value in enumerate([1.0, math.nan, math.nan]):
        watch.add(Seen(2, step, 10 + step, torch.tensor([7, step]), {}), {"loss": torch.tensor(value)})
    first = next(seen for seen in watch.look() if seen.culprits)
    error = not_finite(first, tmp_path, lambda row: f"image{row}.png")
    assert "epoch 3, batch 1" in str(error)
    listing = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert listing == {
        "epoch": 3,
        "batch": 1,
        "step": 11,
        "terms": {"loss": "nan"},
        "images": ["image7.png", "image1.png"],
    }
