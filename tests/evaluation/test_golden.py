"""What torchreid, fast-reid, scikit-learn and Market-1501's convention in public code said of the same data."""

import json
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.evaluation import evaluate_retrieval

GOLDEN = json.loads((Path(__file__).parent / "golden" / "retrieval.json").read_text())
PEERS = {"torchreid": "torchreid", "fastreid": "torchreid", "scikit_learn": "torchreid", "layumi": "market1501"}


@pytest.mark.parametrize(("peer", "convention"), PEERS.items())
@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_equals_public_evaluators(case, peer, convention):
    data = GOLDEN["cases"][case]
    query, gallery = (np.array(data[name], dtype=np.float32) for name in ("query", "gallery"))
    lists = [data[name] for name in ("query_ids", "gallery_ids", "query_cameras", "gallery_cameras")]
    result = evaluate_retrieval(query, gallery, *lists, convention=convention)
    expected = data["expected"][peer]
    assert result.mean_ap == pytest.approx(expected["mean_ap"], abs=1e-6)
    assert result.mean_inp == pytest.approx(expected.get("mean_inp", result.mean_inp), abs=1e-6)
    assert {str(k): v for k, v in result.cmc.items()} == pytest.approx(
        expected.get("cmc", {str(k): v for k, v in result.cmc.items()}), abs=1e-6
    )
