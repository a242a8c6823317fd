"""What a report says about its origin."""

import json

import numpy
import torch

from reid_cckd.report import provenance


def test_is_json_with_stable_keys(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/tools/test.py", "last.pt", "a b=1"])
    full = provenance(device="cpu", checkpoint_sha256="ab", config={"seed": 0}, protocol="torchreid")
    assert json.loads(json.dumps(full)) == full
    assert full["command"] == "test.py last.pt 'a b=1'"
    assert full["torch"] == torch.__version__.split("+")[0] or full["torch"] == torch.__version__
    assert full["numpy"] == numpy.__version__
    assert (full["config"], full["protocol"], full["checkpoint_sha256"]) == ({"seed": 0}, "torchreid", "ab")
    assert set(provenance()) == set(full) - {"protocol"}


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["commit"] is None
