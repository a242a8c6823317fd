"""Images without a label reach losses that need none, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reid_cckd.build.labels import check_labels_suffice
from reid_cckd.config import config_from_dict
from reid_cckd.errors import ConfigError

UNIFORM = {"kind": "uniform", "batch_size": 8}
MIMIC = {"name": "mimic", "loss": "cosine_mimic"}
PLAIN: dict[str, Any] = {"cross_entropy": False, "terms": [MIMIC]}
LABELS = np.array([0, 1, -1, -1])


def check(objective: dict[str, Any], sampler: dict[str, Any] = UNIFORM, labels: Any = LABELS) -> None:
    config = {
        "output": "run",
        "data": {"root": "."},
        "model": {"backbone": "resnet18"},
        "objective": objective,
        "sampler": sampler,
    }
    check_labels_suffice(config_from_dict({**config, "teacher": {"checkpoint": "last.pt"}}, "test"), labels)


def test_losses_that_look_at_the_teacher_alone_take_them() -> None:
    check(PLAIN)
    check({**PLAIN, "alpha": 0.5, "beta": 30})
    check({"beta": 1}, {}, np.array([0, 1, 1, 0]))  # every image has a label


@pytest.mark.parametrize(
    ("objective", "sampler", "key"),
    [
        ({"beta": 1}, UNIFORM, "objective.cross_entropy"),
        (PLAIN, {}, "sampler.kind"),
        (PLAIN, {"kind": "sur", "inner_samples_per_class": 2}, "sampler.kind"),
        ({**PLAIN, "beta": 1, "correlation": {"within_weight": 2}}, UNIFORM, "objective.correlation"),
        ({**PLAIN, "beta": 1, "correlation": {"miner": "BatchHardMiner"}}, UNIFORM, "objective.correlation"),
        ({**PLAIN, "terms": [MIMIC, {"name": "pml", "loss": "TripletMarginLoss"}]}, UNIFORM, "terms.1 (pml)"),
        ({**PLAIN, "terms": [{"name": "ada", "loss": "adadistill"}]}, UNIFORM, "terms.0 (ada)"),
        ({**PLAIN, "terms": [{"name": "it", "loss": "dkd"}]}, UNIFORM, "terms.0 (it)"),
    ],
)
def test_what_goes_by_labels_is_named(objective: dict[str, Any], sampler: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match="2 of 4 training images have none") as caught:
        check(objective, sampler)
    assert key in str(caught.value)
