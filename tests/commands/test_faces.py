"""`identify`, `verify` and `features`: what they report is what the library finds in the public layouts."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd.commands import verify
from reid_cckd.commands.__main__ import main
from reid_cckd.data import Numbers, write_twin
from reid_cckd.data.megaface import read_feature, write_feature
from reid_cckd.engine import Embeddings
from reid_cckd.evaluation import (
    clean_probes,
    evaluate_identification,
    evaluate_open_set,
    evaluate_pairs,
    pool_templates,
)
from reid_cckd.evaluation.open_set import OpenSetResult
from reid_cckd.files import write_json
from tests.data.test_megaface import write_ijb
from tests.data.trees import jpeg

SCALES = [10, 100, 250]


def faces() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """24 photos of 6 people."""
    rng = np.random.default_rng(0)
    people = np.arange(24) // 4
    vectors = rng.standard_normal((6, 8))[people] + 0.8 * rng.standard_normal((24, 8))
    return vectors.astype(np.float32), people, [f"P_{who}/{number}.png" for number, who in enumerate(people)]


def crowd() -> tuple[np.ndarray, list[str]]:
    vectors = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    vectors[:20] = faces()[0][:20]  # distractors that show a probe's person
    return vectors, [f"a/b/{number}.jpg" for number in range(300)]


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Features as the devkit keeps them, lists of two sets, and noise lists."""
    for folder, vectors, paths in [("facescrub", faces()[0], faces()[2]), ("megaface", *crowd())]:
        for vector, path in zip(vectors, paths, strict=True):
            write_feature(tmp_path / folder / f"{path}_x.bin", vector)
    people = [f"P_{who}" for who in faces()[1]]
    write_json(tmp_path / "probes.json", {"path": faces()[2], "id": people})
    for number in (1, 2):
        order = orders()[number]
        for scale in SCALES:
            listed = [crowd()[1][row] for row in order[:scale]]
            write_json(tmp_path / f"lists.json_{scale}_{number}", {"path": listed})
    (tmp_path / "probe_noises.txt").write_text("3.png\n8.png\n")
    (tmp_path / "noises.txt").write_text("# theirs\n" + "\n".join(crowd()[1][:20]) + "\n")
    for folder in ("facescrub", "megaface"):
        arguments = ["features", "from-devkit", str(tmp_path / folder), "--suffix", "_x.bin"]
        assert main([*arguments, "--output", str(tmp_path / f"{folder}_set")]) == 0
    return tmp_path


def orders() -> dict[int, np.ndarray]:
    return {number: np.random.default_rng(number).permutation(300) for number in (1, 2)}


def test_megaface_of_two_sets_raw_and_cleaned(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = ["--probe-list", str(devkit / "probes.json"), "--distractor-lists", str(devkit / "lists.json")]
    noises = ["--probe-noises", str(devkit / "probe_noises.txt"), "--distractor-noises", str(devkit / "noises.txt")]
    sets = ["--sets", "1", "2", "--scales", *map(str, SCALES), "--devkit-name", "x"]
    sources = [str(devkit / "facescrub_set"), str(devkit / "megaface_set")]
    assert main(["identify", *sources, *lists, *noises, *sets, "--output", str(devkit / "out")]) == 0
    report = json.loads((devkit / "out" / "report.json").read_text())
    vectors, people, _ = faces()
    noisy = np.isin(np.arange(24), [3, 8])
    wrong = np.arange(300) < 20
    for kind, probes, ignored in [("raw", vectors, None), ("cleaned", clean_probes(vectors, people, noisy), wrong)]:
        found = [
            evaluate_identification(probes, people, crowd()[0], SCALES, ignored=ignored, order=orders()[number])
            for number in (1, 2)
        ]
        for scale in SCALES:
            row = next(row for row in report["rows"] if (row["features"], row["distractors"]) == (kind, scale))
            rates = [result.rate[scale][1] for result in found]
            assert row["rank1"] == pytest.approx([np.mean(rates), np.std(rates, ddof=1)], abs=1e-9)
            name = "x" if kind == "raw" else "x_cleaned"
            written = json.loads((devkit / "out" / f"cmc_facescrub_megaface_{name}_{scale}_2.json").read_text())
            assert written["cmc"][1][0] == pytest.approx(rates[1])
    assert report["protocol"]["noisy_probes"] == 2
    assert {"cmc.png", "roc.png"} <= {entry.name for entry in (devkit / "out").iterdir()}
    assert "beyond the inputs" in capsys.readouterr().out


def test_lists_that_do_not_begin_each_other_take_a_pass_each(devkit: Path) -> None:
    rows = np.random.default_rng(9).permutation(300)[:10]
    write_json(devkit / "lists.json_10_1", {"path": [crowd()[1][row] for row in rows]})
    sources = [str(devkit / "facescrub_set"), str(devkit / "megaface_set")]
    options = ["--distractor-lists", str(devkit / "lists.json"), "--scales", "10", "250"]
    assert main(["identify", *sources, *options, "--output", str(devkit / "out")]) == 0
    report = json.loads((devkit / "out" / "report.json").read_text())
    vectors, people, _ = faces()
    first = evaluate_identification(vectors, people, crowd()[0], [10], order=rows)
    second = evaluate_identification(vectors, people, crowd()[0], [250], order=orders()[1])
    assert [row["rank1"] for row in report["rows"]] == [first.rate[10][1], second.rate[250][1]]


def test_any_two_sets_without_lists(devkit: Path) -> None:
    sources = [str(devkit / "facescrub_set"), str(devkit / "megaface_set")]
    assert main(["identify", *sources, "--output", str(devkit / "out"), "--json", str(devkit / "r.json")]) == 0
    assert [row["distractors"] for row in json.loads((devkit / "r.json").read_text())["rows"]] == [10, 100, 300]


def test_devkit_features_go_both_ways(devkit: Path) -> None:
    out, source = devkit / "again", str(devkit / "megaface_set")
    assert main(["features", "to-devkit", source, "--suffix", "_y.bin", "--output", str(out)]) == 0
    np.testing.assert_array_equal(read_feature(out / "a/b/7.jpg_y.bin"), crowd()[0][7])
    assert main(["features", "--help"]) == 0
    assert main(["features"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["identify", "facescrub_set", "megaface_set", "--sets", "1", "2"], "--distractor-lists"),
        (["identify", "facescrub_set", "megaface_set", "--distractor-lists", "none.json"], "no such list"),
        (["identify", "facescrub_set", "megaface_set", "--probe-noises", "all"], "every photo of"),
        (["identify", "facescrub_set", "megaface_set", "--distractor-noises", "probe_noises.txt"], "names none of"),
        (["identify", "facescrub_set", "megaface_set", "--scales", "301"], "301 distractors are wanted"),
        (["identify", "facescrub_set", "narrow"], "columns"),
        (["features", "from-devkit", "facescrub", "--suffix", "_gone.bin"], "ends in _gone.bin"),
        (["features", "from-devkit", "cut", "--suffix", "_x.bin"], "truncated"),
        (["features", "from-devkit", "mixed", "--suffix", "_x.bin"], "has 3 features and the first file 8"),
        (["features", "to-devkit", "outside", "--suffix", "_x.bin"], "outside the output"),
        (["verify", "facescrub_set", "--pairs", "pairs.txt"], "P_9/1.png"),
        (["verify", "facescrub_set", "--ijb", "facescrub"], "ijbc_face_tid_mid.txt"),
    ],
)
def test_mistakes_are_a_sentence(
    devkit: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(devkit)
    rows = Embeddings.load(devkit / "megaface_set")
    rest: Any = (rows.labels, rows.cameras)
    Embeddings(rows.vectors[:, :3], *rest, rows.paths, rows.roles).save(devkit / "narrow")
    climbing = np.char.add("../", rows.paths)
    Embeddings(rows.vectors, *rest, climbing, rows.roles).save(devkit / "outside")
    (devkit / "all").write_text("\n".join(path.rpartition("/")[2] for path in faces()[2]))
    (devkit / "pairs.txt").write_text("P_0/0.png P_9/1.png 1\n")
    for folder, width in (("cut", 8), ("mixed", 3)):
        write_feature(devkit / folder / "a" / "1.jpg_x.bin", np.ones(8, np.float32))
        write_feature(devkit / folder / "a" / "2.jpg_x.bin", np.ones(width, np.float32))
    cut = devkit / "cut" / "a" / "2.jpg_x.bin"
    cut.write_bytes(cut.read_bytes()[:-2])
    assert main([*arguments, "--output", "out"]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


@pytest.mark.parametrize("command", [["identify", "facescrub_set", "megaface_set"], ["extract", "resnet10t"]])
def test_the_work_of_one_process_is_not_done_by_several(
    devkit: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(devkit)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*command, "--output", "out"]) == 2
    assert f"reid-cckd {command[0]} is the work of one process, and 2 were started" in capsys.readouterr().err
    assert not Path("out").exists()


def test_pair_lists_are_verified(devkit: Path) -> None:
    vectors, people, paths = faces()
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 24, (2, 200))
    same = people[first] == people[second]
    lines = [f"{paths[a]} {paths[b]} {int(verdict)}" for a, b, verdict in zip(first, second, same, strict=True)]
    (devkit / "pairs.txt").write_text("\n".join(lines))
    arguments = ["--pairs", str(devkit / "pairs.txt"), "--fars", "0.1", "--output", str(devkit / "out")]
    assert main(["verify", str(devkit / "facescrub_set"), *arguments]) == 0
    scores = json.loads((devkit / "out" / "report.json").read_text())["scores"]
    expected = evaluate_pairs(vectors, first, second, same, fars=(0.1,))
    assert scores == pytest.approx(expected.summary())
    assert (devkit / "out" / "roc.png").stat().st_size > 1000


def test_ijb_one_to_one_and_one_to_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[Any] = []

    def search(*rows: Any, device: Any = None) -> OpenSetResult:
        devices.append(device)
        return evaluate_open_set(*rows, device=device)

    monkeypatch.setattr(verify, "evaluate_open_set", search)
    vectors = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    paths, roles = np.array([f"{number}.jpg" for number in range(1, 6)]), np.full(5, "test")
    Embeddings(vectors, np.zeros(5, int), np.zeros(5, int), paths, roles).save(tmp_path / "set")
    meta = write_ijb(tmp_path / "meta")
    arguments = ["--ijb", str(meta), "--folds", "3", "--output", str(tmp_path / "out")]
    assert main(["verify", str(tmp_path / "set"), *arguments, "--device", "cpu"]) == 0
    assert devices == [torch.device("cpu")] * 2
    assert "3 pairs of 4 rows, width 8: 1 MB beyond the inputs" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    templates = np.stack([vectors[0] + vectors[1], *vectors[2:]])
    one = evaluate_pairs(templates, [0, 1, 0], [2, 3, 3], [True, False, False], folds=3)
    assert report["scores"]["auc"] == one.auc
    halves = [evaluate_open_set(templates[2:], templates[k : k + 1], [7, 8], [7 + k]) for k in (0, 1)]
    assert report["search"]["rank1"] == np.mean([half.cmc[1] for half in halves])
    scores = np.linspace(0.2, 1, 5)
    lines = [f"{path} {'1.5 ' * 10}{score}" for path, score in zip(paths, scores, strict=True)]
    (meta / "ijbc_name_5pts_score.txt").write_text("\n".join(reversed(lines)))
    assert main(["verify", str(tmp_path / "set"), *arguments, "--detection-scores"]) == 0
    weighted = json.loads((tmp_path / "out" / "report.json").read_text())
    heavy, _ = pool_templates(vectors, [1, 1, 2, 3, 4], [10, 11, 12, 13, 13], scores)
    assert weighted["scores"]["auc"] == evaluate_pairs(heavy, [0, 1, 0], [2, 3, 3], [True, False, False], folds=3).auc
    assert (report["protocol"]["weights"], weighted["protocol"]["weights"]) == ("none", "detection scores")
    (meta / "ijbc_name_5pts_score.txt").write_text("\n".join(lines[1:]))
    assert main(["verify", str(tmp_path / "set"), *arguments, "--detection-scores"]) == 2
    assert "has no score of 1.jpg" in capsys.readouterr().err
    assert report["search"]["tpir@0.1"] == np.mean([half.tpir[0.1] for half in halves])


def test_a_bin_of_faces_is_extracted_and_verified(tmp_path: Path) -> None:
    torch.manual_seed(0)  # of the weights: a few of so narrow a network answer a black image with zeros
    images = [jpeg(6 * number, (32, 16)) for number in range(40)]
    same = [number % 3 == 0 for number in range(20)]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((images, same)))
    model = ["model.pretrained=false", "model.options={channels: [8, 8, 8, 8], stem_width: 8}"]
    data = ["data.dataset=pairs", f"data.root={tmp_path / 'lfw.bin'}", "data.image_size=[32, 16]", "data.workers=0"]
    arguments = ["extract", "resnet10t", "--roles", "test", "--output", str(tmp_path / "set")]
    assert main([*arguments, *model, *data]) == 0
    arguments = ["--pairs", str(tmp_path / "lfw.bin"), "--output", str(tmp_path / "out")]
    assert main(["verify", str(tmp_path / "set"), *arguments]) == 0
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["scores"]
    vectors = Embeddings.load(tmp_path / "set").vectors
    expected = evaluate_pairs(vectors, range(0, 40, 2), range(1, 40, 2), np.array(same))
    assert scores == pytest.approx(expected.summary())


def test_extracted_megaface_goes_with_the_lists_of_its_kit(teacher: Path, tmp_path: Path) -> None:
    root = write_twin("megaface", tmp_path / "mega", Numbers(ids=4, images_per_id=4, size=(32, 16))).root
    for role in ("query", "gallery"):
        data = ["--roles", role, "data.dataset=megaface", f"data.root={root}"]
        assert main(["extract", str(teacher), "--output", str(tmp_path / role), *data]) == 0
    lists = ["--probe-list", "facescrub_features_list.json", "--distractor-lists", "megaface_features_list.json"]
    noises = ["--probe-noises", "facescrub_noises.txt", "--distractor-noises", "megaface_noises.txt"]
    lists = [option if option.startswith("--") else str(root / "templatelists" / option) for option in lists]
    noises = [option if option.startswith("--") else str(root / option) for option in noises]
    arguments = ["identify", str(tmp_path / "query"), str(tmp_path / "gallery"), *lists, *noises, "--scales", "16"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["protocol"]["noisy_probes"] == 2
    assert {row["features"]: row["ignored"] for row in report["rows"]} == {"raw": 0, "cleaned": 3}


def test_extracted_ijb_goes_with_its_meta_files(teacher: Path, tmp_path: Path) -> None:
    root = write_twin("ijb", tmp_path / "ijb", Numbers(ids=6, images_per_id=4, size=(32, 16))).root
    data = ["--roles", "test", "data.dataset=ijb", f"data.root={root}"]
    assert main(["extract", str(teacher), "--output", str(tmp_path / "set"), *data]) == 0
    arguments = ["verify", str(tmp_path / "set"), "--ijb", str(root / "meta"), "--folds", "2"]
    assert main([*arguments, "--detection-scores", "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 0 < report["scores"]["auc"] <= 1
    assert len(report["search"]["galleries"]) == 2


def test_probes_are_the_queries_of_a_folder_and_distractors_its_gallery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors, people, paths = faces()
    both = np.concatenate([crowd()[0][20:60], vectors])
    labels, roles = np.append(np.full(40, -1), people), np.array(["gallery"] * 40 + ["query"] * 24)
    named = np.array([*crowd()[1][20:60], *paths])
    Embeddings(both, labels, np.zeros(64, int), named, roles, {"flip": True}).save(tmp_path / "set")
    arguments = ["identify", *[str(tmp_path / "set")] * 2, "--scales", "40", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"][0]["rank1"] == evaluate_identification(vectors, people, both[:40], [40]).rate[40][1]
    assert (report["protocol"]["probes"], report["rows"][0]["ignored"]) == (24, 0)
    assert report["provenance"]["embeddings"] == {"probes": {"flip": True}, "distractors": {"flip": True}}
    rows = Embeddings.load(tmp_path / "set")
    replace(rows, labels=np.full(64, -1)).save(tmp_path / "unknown")
    replace(rows, about={"flip": False}).save(tmp_path / "plain")
    for probes, words in [("unknown", "24 of 24 probes of"), ("plain", "evaluation.flip=False")]:
        assert main(["identify", str(tmp_path / probes), *arguments[2:]]) == 2
        assert words in capsys.readouterr().err


def test_a_probe_list_without_ids_leaves_the_people_as_they_are(devkit: Path) -> None:
    write_json(devkit / "some.json", {"path": faces()[2][:8][::-1]})
    sources = [str(devkit / "facescrub_set"), str(devkit / "megaface_set")]
    lists = ["--probe-list", str(devkit / "some.json"), "--distractor-lists", str(devkit / "lists.json")]
    options = [*lists, "--scales", "100", "--sets", "1", "1"]
    assert main(["identify", *sources, *options, "--output", str(devkit / "out")]) == 0
    report = json.loads((devkit / "out" / "report.json").read_text())
    vectors, people = (column[:8] for column in faces()[:2])
    expected = evaluate_identification(vectors, people, crowd()[0], [100], order=orders()[1])
    assert report["rows"][0]["rank1"] == expected.rate[100][1]
    assert (report["protocol"]["sets"], report["protocol"]["probes"]) == ([1], 8)


def test_rates_finer_than_the_pairs_are_called_so(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = faces()[2]
    lines = [f"{paths[0]} {paths[row]} {int(row < 4)}" for row in range(1, 24)]
    (devkit / "pairs.txt").write_text("\n".join(lines))
    arguments = ["--pairs", str(devkit / "pairs.txt"), "--fars", "0.04", "0.06", "--output", str(devkit / "out")]
    assert main(["verify", str(devkit / "facescrub_set"), *arguments]) == 0
    assert "Of 20 different pairs FAR 0.04 accepts none" in capsys.readouterr().out
    protocol = json.loads((devkit / "out" / "report.json").read_text())["protocol"]
    assert (protocol["pairs"], protocol["folds"]) == ("pairs.txt", 10)
