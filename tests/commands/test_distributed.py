"""Two processes train as one does: the same losses and weights, stopped and resumed on another number of them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing

from reid_cckd import build
from reid_cckd.assess import RetrievalJudge, build_judge
from reid_cckd.batch import Output
from reid_cckd.commands import train as train_module
from reid_cckd.commands.__main__ import main
from reid_cckd.commands.train import main as train_main
from reid_cckd.config import load_config
from reid_cckd.data import write_pedestrians
from reid_cckd.engine import Layout, Trainer, load_checkpoint, processes, teacher_cache
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
FACES = {
    "name": "faces",
    "loss": "partial_margin",
    "weight": 0.01,
    "options": {"share": 0.5},
}  # draws classes
OBJECTIVE = {"alpha": 0.5, "beta": 10.0, "terms": [TRIPLET, CRD, FACES]}
SHARED_OUT = f"objective.terms={json.dumps([TRIPLET, CRD, {**FACES, 'options': {'share': 0.5, 'shard': True}}])}"
CASES: dict[str, list[str]] = {
    "plain": [],
    "chunks": ["train.chunk=4"],
    "stopped": ["seed=5"],
    "grown": ["--resume"],
    "views": ["teacher.mode=views", "teacher.views=2", "teacher.cache_dtype=float32", "train.epochs=1"],
    "odd": ["sampler.classes_per_batch=3", "sampler.samples_per_class=3"],
    "other data": [],
    "other teacher": [],
    "norms": ["train.sync_bn=true"],
    "shared out": [SHARED_OUT],
    "shared out, stopped": [SHARED_OUT],
    "shared out, grown": [SHARED_OUT, "--resume"],
    "shared out, whole weights": [SHARED_OUT, "optim.name=lamb"],
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
    rows_asked, reported = count_answers(), list[int]()
    for name, arguments in CASES.items():
        os.environ["MASTER_PORT"] = str(ports[name])
        if name == "other data" and rank == 1:
            arguments = [f"data.root={other_root}"]
        if name == "other teacher" and rank == 1:
            arguments = [f"teacher.checkpoint={folder / 'alone' / 'last.pt'}"]
        with pytest.MonkeyPatch.context() as patch, (folder / f"{name}.{rank}.err").open("w") as errors:
            patch.setattr("sys.stderr", errors)
            if name.endswith("stopped") and rank == 1:
                stop_after_four_steps(patch)
            patch.setattr(teacher_cache, "PART", 20)
            if name == "plain":
                reported = count_reported(patch)
            where = [f"output={folder / name}", f"teacher.cache={folder / name / 'answers'}"]
            codes[name] = train_main([str(folder / "run.yaml"), *where, *arguments])
    (folder / f"codes.{rank}.json").write_text(
        json.dumps({**codes, "answers": sum(rows_asked), "reported": sum(reported)})
    )
    os.environ["MASTER_PORT"] = str(ports["embed"])
    with processes(torch.device("cpu")):
        torch.save(embedded(folder), folder / f"embedded.{rank}.pt")


def count_answers() -> list[int]:
    """What this process writes into caches from now on: rows of every batch."""
    counts: list[int] = []
    make = teacher_cache._rows

    def counted(output: Output, layout: Layout) -> Any:
        counts.append(len(output.neck))
        return make(output, layout)

    teacher_cache._rows = counted  # type: ignore[assignment]
    return counts


def count_reported(patch: pytest.MonkeyPatch) -> list[int]:
    """How many images this process embeds for reports of runs from now on, batch by batch."""
    counts: list[int] = []
    extraction = importlib.import_module("reid_cckd.engine.extract")  # whose name in the package is its function's
    report, embed = train_module._report, extraction.embed_batch

    def counted(network: Any, batch: Any, **options: Any) -> torch.Tensor:
        counts.append(len(batch.index))
        return embed(network, batch, **options)

    def watched(*arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(extraction, "embed_batch", counted)
            report(*arguments)

    patch.setattr(train_module, "_report", watched)
    return counts


def embedded(folder: Path) -> dict[str, Any]:
    """Query and gallery of the finished network, their scores, and how many images this process looked at."""
    network = build.load_network(folder / "alone" / "last.pt").network
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])))
    found: dict[str, Any] = {}
    for size in (9, 500):  # of 500 there is no batch for one of the processes
        keys = [f"evaluation.batch_size={size}", "evaluation.flip=false"]
        config = load_config(folder / "run.yaml", keys)
        judge = build_judge(config, build.read_manifest(config.data), torch.device("cpu"))
        assert isinstance(judge, RetrievalJudge)
        query, gallery = judge.embed(network)
        found[f"rows {size}"] = [torch.tensor(part.vectors) for part in (query, gallery)]
        found[f"seen {size}"] = sum(seen)
        found[f"scores {size}"] = judge(network)
        seen.clear()
    return found


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
    extra |= {"train": {"ema": 0.9, "clip_norm": 1.0}, "evaluation": {"batch_size": 8}}
    values = recipe(pedestrians, folder / "alone", model=MODEL, **extra)
    config = write_config(folder / "run.yaml", values)
    assert train_main([str(config)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_after_four_steps(patch)
        for name, arguments in {"grown": [], "shared out, grown": [SHARED_OUT]}.items():
            assert train_main([str(config), f"output={folder / name}", *arguments]) == 128 + signal.SIGTERM
    ports = {name: free_port() for name in (*CASES, "embed")}
    multiprocessing.spawn(work, args=(folder, ports, other), nprocs=2)
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path) -> None:
    left, right = load_checkpoint(one / "last.pt"), load_checkpoint(other / "last.pt")
    assert left["position"]["step"] == right["position"]["step"]
    for part in ("model", "average", "objective"):
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
    assert list(first) == ["ce", "kd", "cc", "triplet", "relation", "faces"]
    if case == "plain":
        for name in first:
            assert second[name] == {
                key: value if key == "term" else pytest.approx(value, rel=1e-4) for key, value in first[name].items()
            }


def test_two_processes_make_the_report_together(found: Path) -> None:
    again = found / "again"
    assert main(["test", str(found / "plain" / "last.pt"), "--output", str(again)]) == 0
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (again, found / "plain"))
    assert two["scores"] == one["scores"]
    assert two["provenance"]["checkpoint_sha256"] == one["provenance"]["checkpoint_sha256"]
    assert {path.name for path in (found / "plain").glob("*.png")} == {"cmc.png", "ranks.png", "curves.png"}
    assert sum(one["reported"] for one in codes(found)) == 48
    assert min(one["reported"] for one in codes(found)) >= 16


def test_a_signal_to_one_stops_both_and_one_process_goes_on(found: Path) -> None:
    assert [one["stopped"] for one in codes(found)] == [128 + signal.SIGTERM] * 2
    assert load_checkpoint(found / "stopped" / "last.pt")["position"]["step"] == 4
    config, arguments = str(found / "run.yaml"), ["seed=5"]
    assert train_main([config, *arguments, f"output={found / 'stopped'}", "--resume"]) == 0
    assert train_main([config, *arguments, f"output={found / 'whole'}"]) == 0
    assert_alike(found / "whole", found / "stopped")


def test_two_processes_go_on_where_one_stopped(found: Path) -> None:
    assert [one["grown"] for one in codes(found)] == [0, 0]
    assert_alike(found / "alone", found / "grown")


def test_two_processes_share_the_classes_of_a_head(found: Path) -> None:
    assert [one["shared out"] for one in codes(found)] == [0, 0]
    assert_alike(found / "alone", found / "shared out")


def test_shared_out_classes_go_on_with_another_number_of_processes(found: Path) -> None:
    assert [one["shared out, grown"] for one in codes(found)] == [0, 0]
    assert_alike(found / "alone", found / "shared out, grown")
    assert [one["shared out, stopped"] for one in codes(found)] == [128 + signal.SIGTERM] * 2
    stopped = found / "shared out, stopped"
    assert train_main([str(found / "run.yaml"), SHARED_OUT, f"output={stopped}", "--resume"]) == 0
    assert_alike(found / "alone", stopped)


def test_two_processes_share_the_questions_to_a_teacher(found: Path) -> None:
    assert [one["views"] for one in codes(found)] == [0, 0]
    answers = [one["answers"] for one in codes(found)]
    assert sum(answers) == 2 * 96
    assert min(answers) >= 80
    folder, arguments = found / "views alone", CASES["views"]
    assert train_main([str(found / "run.yaml"), f"output={folder}", f"teacher.cache={folder}/answers", *arguments]) == 0
    tables = [np.fromfile(at / "answers" / "rows.bin", np.float32) for at in (found / "views", folder)]
    np.testing.assert_allclose(*tables, rtol=1e-5, atol=1e-6)
    assert_alike(folder, found / "views")


def test_two_processes_share_the_images_of_an_evaluation(found: Path) -> None:
    alone, pair = embedded(found), [torch.load(found / f"embedded.{rank}.pt") for rank in range(2)]
    for size in (9, 500):
        for one in pair:
            assert one[f"scores {size}"] == alone[f"scores {size}"]
            assert all(map(torch.equal, one[f"rows {size}"], alone[f"rows {size}"]))
    everything = alone["seen 9"]
    assert sum(one["seen 9"] for one in pair) == everything
    assert max(one["seen 9"] for one in pair) < 0.7 * everything
    assert [one["seen 500"] for one in pair] == [2, everything]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("odd", ["a batch of 9 images cannot be split over 2 processes"]),
        ("other data", ["data", "not the same on all processes", "rank 1"]),
        ("other teacher", ["The teacher is not the same on all processes", "rank 1", "alone/last.pt"]),
        ("norms", ["train.sync_bn", "GPUs"]),
        ("shared out, whole weights", ["optim.name: lamb", "shard: true"]),
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
