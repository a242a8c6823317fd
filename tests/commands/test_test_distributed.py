"""`test` by two processes, as torchrun starts them, reports what one reports: of embeddings and of checkpoints."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing

from reid_cckd.commands.__main__ import main
from reid_cckd.engine import Embeddings
from tests.commands.test_distributed import free_port
from tests.data.trees import jpeg

BATCH = "evaluation.batch_size=5"


def cases(teacher: Path, folder: Path) -> dict[str, list[str]]:
    pairs = ["evaluation.task=verification", f"evaluation.pairs={{lfw: {folder / 'pairs.bin'}}}"]
    return {
        "embeddings": [str(folder / "features")],
        "checkpoint": [str(teacher), BATCH, "--save-embeddings", str(folder / "WHO" / "saved")],
        "multi-query": [str(folder / "several"), "--protocol", "multi-query", "--bootstrap", "20"],
        "single-shot": [str(teacher), BATCH, "--protocol", "single-shot"],
        "verification": [str(teacher), BATCH, *pairs],
        "refined": [str(teacher), BATCH, "--rerank", "5", "2", "0.3", "--expand", "3"],
        "compared": [str(folder / "features"), "--rerank", "--compare", str(teacher)],
    }


def refused(teacher: Path, folder: Path) -> dict[str, list[str]]:
    """What only the process that evaluates finds fault with."""
    return {
        "one kind of pairs": [
            str(teacher),
            "evaluation.task=verification",
            f"evaluation.pairs={{a: {folder}/same.bin}}",
        ]
    }


def run(arguments: list[str], output: Path) -> int:
    filled = [argument.replace("WHO", output.parent.name) for argument in arguments]
    return main(["test", *filled, "--output", str(output), "--json", str(output) + ".json"])


def process(rank: int, folder: Path, teacher: Path, ports: dict[str, int]) -> None:
    """Every case as one of two processes; exit codes and messages to files."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    codes = {}
    for name, arguments in {**cases(teacher, folder), **refused(teacher, folder)}.items():
        os.environ["MASTER_PORT"] = str(ports[name])
        with pytest.MonkeyPatch.context() as patch, (folder / f"{name}.{rank}.err").open("w") as errors:
            patch.setattr("sys.stderr", errors)
            codes[name] = run(arguments, folder / "two" / name)
    (folder / f"codes.{rank}.json").write_text(json.dumps(codes))


@pytest.fixture(scope="module")
def found(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which one process and two ran every case."""
    folder = tmp_path_factory.mktemp("tests")
    images = [jpeg(grey, (16, 32)) for pair in [(40, 45), (40, 220)] * 10 for grey in pair]
    (folder / "pairs.bin").write_bytes(pickle.dumps((images, [True, False] * 10), protocol=2))
    (folder / "same.bin").write_bytes(pickle.dumps((images, [True] * 20), protocol=2))
    assert main(["extract", str(teacher), "--output", str(folder / "features")]) == 0
    rows = Embeddings.load(folder / "features")
    replace(rows, cameras=(rows.roles == "gallery").astype(np.int64)).save(folder / "several")
    for name, arguments in cases(teacher, folder).items():
        assert run(arguments, folder / "one" / name) == 0
    ports = {name: free_port() for name in (*cases(teacher, folder), *refused(teacher, folder))}
    multiprocessing.spawn(process, args=(folder, teacher, ports), nprocs=2)
    return folder


def report(path: Path) -> dict[str, Any]:
    """What does not depend on the moment."""
    values: dict[str, Any] = json.loads(path.read_text())
    return {key: value for key, value in values.items() if key not in ("cost", "provenance")}


@pytest.mark.parametrize(
    "case", ["embeddings", "checkpoint", "multi-query", "single-shot", "verification", "refined", "compared"]
)
def test_two_processes_report_what_one_does(found: Path, case: str) -> None:
    assert [json.loads((found / f"codes.{rank}.json").read_text())[case] for rank in range(2)] == [0, 0]
    alone, together = (report(found / number / f"{case}.json") for number in ("one", "two"))
    assert together == alone
    assert report(found / "two" / case / "report.json") == alone


def test_embeddings_of_two_processes_are_those_of_one(found: Path) -> None:
    one, two = (Embeddings.load(found / number / "saved") for number in ("one", "two"))
    np.testing.assert_array_equal(one.vectors, two.vectors)
    np.testing.assert_array_equal(one.paths, two.paths)


def test_a_fault_that_one_process_finds_stops_all_with_its_message(found: Path) -> None:
    for rank in range(2):
        assert json.loads((found / f"codes.{rank}.json").read_text())["one kind of pairs"] == 2
        message = (found / f"one kind of pairs.{rank}.err").read_text()
        assert "same.bin" in message
        assert "Connection" not in message
