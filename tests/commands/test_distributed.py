"""Two processes train as one does: the same losses and weights, stopped and resumed on another number of them."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from reid_cckd.commands.train import main as train_main
from reid_cckd.data import write_pedestrians
from reid_cckd.engine import Trainer, load_checkpoint
from tests.commands.conftest import recipe, write_config

# Without batch norms, which would see half a batch each: SyncBatchNorm needs GPUs.
MODEL = {
    "backbone": "vit_tiny_patch16_224",
    "options": {"img_size": [32, 16], "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "embedding": 12,
    "neck": "none",
}
TRIPLET = {"name": "triplet", "loss": "TripletMarginLoss", "miner": "BatchHardMiner"}
CRD = {"name": "relation", "loss": "rkd_distance", "weight": 0.5}
OBJECTIVE = {"alpha": 0.5, "beta": 10.0, "terms": [TRIPLET, CRD]}
CASES: dict[str, list[str]] = {
    "plain": [],
    "chunks": ["train.chunk=4"],
    "stopped": ["seed=5"],
    "odd": ["sampler.classes_per_batch=3", "sampler.samples_per_class=3"],
    "other data": [],
    "norms": ["train.sync_bn=true"],
}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def work(rank: int, folder: Path, ports: dict[str, int], other_root: Path) -> None:
    """Every case one after the other, as torchrun would start each; exit codes and messages to a file."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    codes: dict[str, int] = {}
    for name, arguments in CASES.items():
        os.environ["MASTER_PORT"] = str(ports[name])
        if name == "other data" and rank == 1:
            arguments = [f"data.root={other_root}"]
        with pytest.MonkeyPatch.context() as patch, (folder / f"{name}.{rank}.err").open("w") as errors:
            patch.setattr("sys.stderr", errors)
            if name == "stopped" and rank == 1:
                stop_after_four_steps(patch)
            codes[name] = train_main([str(folder / "run.yaml"), f"output={folder / name}", *arguments])
    (folder / f"codes.{rank}.json").write_text(json.dumps(codes))


def stop_after_four_steps(patch: pytest.MonkeyPatch) -> None:
    step = Trainer._step

    def signalled(self: Trainer, batch: Any) -> None:
        step(self, batch)
        if self.position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(Trainer, "_step", signalled)


@pytest.fixture(scope="module")
def found(pedestrians: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes ran every case, and `alone` one process."""
    folder = tmp_path_factory.mktemp("two")
    other = folder / "other_data"
    write_pedestrians(other, train_ids=12, test_ids=6, images_per_id=6, cameras=3, size=(32, 16), workers=1)
    extra: dict[str, Any] = {"teacher": {"checkpoint": str(teacher), "allow_weak": True}, "objective": OBJECTIVE}
    values = recipe(pedestrians, folder / "alone", model=MODEL, **extra, train={"ema": 0.9, "clip_norm": 1.0})
    config = write_config(folder / "run.yaml", values)
    ports = {name: free_port() for name in CASES}
    multiprocessing.spawn(work, args=(folder, ports, other), nprocs=2)
    assert train_main([str(config)]) == 0
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path) -> None:
    left, right = load_checkpoint(one / "last.pt"), load_checkpoint(other / "last.pt")
    assert left["position"]["step"] == right["position"]["step"]
    for part in ("model", "average"):
        for name, value in left[part].items():
            torch.testing.assert_close(right[part][name], value, rtol=2e-3, atol=2e-5, msg=name)


def codes(folder: Path) -> list[dict[str, int]]:
    return [json.loads((folder / f"codes.{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", ["plain", "chunks"])
def test_two_processes_train_as_one(found: Path, case: str) -> None:
    assert [one[case] for one in codes(found)] == [0, 0]
    assert_alike(found / "alone", found / case)
    assert (found / case / "report.json").exists()
    alone, together = rows(found / "alone"), rows(found / case)
    assert len(alone) == len(together)
    first, second = alone[0]["balance"], together[0]["balance"]
    assert list(first) == ["ce", "kd", "cc", "triplet", "relation"]
    if case == "plain":
        for name in first:
            assert second[name] == {
                key: value if key == "term" else pytest.approx(value, rel=1e-4) for key, value in first[name].items()
            }


def test_a_signal_to_one_stops_both_and_one_process_goes_on(found: Path) -> None:
    assert [one["stopped"] for one in codes(found)] == [128 + signal.SIGTERM] * 2
    assert load_checkpoint(found / "stopped" / "last.pt")["position"]["step"] == 4
    config, arguments = str(found / "run.yaml"), ["seed=5"]
    assert train_main([config, *arguments, f"output={found / 'stopped'}", "--resume"]) == 0
    assert train_main([config, *arguments, f"output={found / 'whole'}"]) == 0
    assert_alike(found / "whole", found / "stopped")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("odd", ["a batch of 9 images cannot be split over 2 processes"]),
        ("other data", ["data", "not the same on all processes", "rank 1"]),
        ("norms", ["train.sync_bn", "GPUs"]),
    ],
)
def test_what_cannot_run_is_said_before_the_first_step(found: Path, case: str, words: list[str]) -> None:
    assert [one[case] for one in codes(found)] == [2, 2]
    for rank in range(2):
        message = (found / f"{case}.{rank}.err").read_text()
        assert all(word in message for word in words), message
    assert not (found / case / "last.pt").exists()


def test_a_port_in_use_is_named(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        assert train_main([str(config)]) == 2
    message = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in message
    assert "port" in message
