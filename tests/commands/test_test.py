"""`extract` and `test`: embeddings on disk score as their checkpoint, refined, with intervals and a paired test."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_cckd.commands import reporting
from reid_cckd.commands.__main__ import main
from reid_cckd.commands.subjects import open_subject
from reid_cckd.data import LAYOUTS, Numbers, write_twin
from reid_cckd.engine import Embeddings, file_hash, load_checkpoint, save_checkpoint
from reid_cckd.evaluation import (
    Reranking,
    bootstrap_interval,
    compare,
    evaluate_recall,
    evaluate_retrieval,
    evaluate_single_shot,
    expand_queries,
    pool_queries,
    rank_gallery,
)
from reid_cckd.report import RankedRow


@pytest.fixture(scope="module")
def features(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "teacher"
    assert main(["extract", str(teacher), "--output", str(folder)]) == 0
    return folder


def report_of(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert main(["test", *arguments, "--output", str(tmp_path / "out"), "--json", str(tmp_path / "report.json")]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return report


def columns(rows: Embeddings) -> tuple[Any, ...]:
    query, gallery = rows.select("query"), rows.select("gallery")
    return query.vectors, gallery.vectors, query.labels, gallery.labels, query.cameras, gallery.cameras


def test_kept_embeddings_score_as_their_checkpoint(features: Path, teacher: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path, str(features))
    after_training = json.loads((teacher.parent / "report.json").read_text())
    assert report["scores"] == pytest.approx(after_training["scores"])
    assert (tmp_path / "out" / "cmc.png").stat().st_size > 1000
    assert report["provenance"]["checkpoint_sha256"] == after_training["provenance"]["checkpoint_sha256"]
    assert not (tmp_path / "out" / "ranks.png").exists()
    saved = tmp_path / "saved"
    report_of(tmp_path, str(teacher), "--save-embeddings", str(saved))
    np.testing.assert_array_equal(Embeddings.load(saved).vectors, Embeddings.load(features).vectors)


def test_reports_say_how_kept_embeddings_were_made(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, keys = tmp_path / "one", ["evaluation.flip=false", "evaluation.on=embedding"]
    assert main(["extract", str(teacher), "--output", str(one), *keys]) == 0
    for arguments in ([str(one)], [str(one), *keys]):
        report = report_of(tmp_path, *arguments)
        assert (report["protocol"]["flip"], report["protocol"]["embedding"]) == (False, "embedding")
        assert report["provenance"]["config"]["evaluation"]["flip"] is False
    assert main(["test", str(one), "evaluation.flip=true"]) == 2
    assert "was extracted with False" in capsys.readouterr().err
    replace(Embeddings.load(one), about={}).save(tmp_path / "two")
    protocol = report_of(tmp_path, str(tmp_path / "two"), keys[1])["protocol"]
    assert (protocol["flip"], protocol["embedding"]) == (None, "embedding")  # nobody said; the user said


def test_reports_that_nobody_placed_do_not_meet(features: Path, tmp_path: Path) -> None:
    rows = Embeddings.load(features)
    for name in ("one", "two"):
        rows.save(tmp_path / name)
        assert main(["test", str(tmp_path / name)]) == 0
        assert (tmp_path / name / "test" / "report.json").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"one", "two"}


def test_pictures_need_to_know_where_the_images_are(features: Path, pedestrians: Path, tmp_path: Path) -> None:
    report_of(tmp_path, str(features), f"data.root={pedestrians}")
    assert (tmp_path / "out" / "ranks.png").stat().st_size > 1000


def test_pictures_of_packed_images_are_those_of_their_files(teacher: Path, pedestrians: Path, tmp_path: Path) -> None:
    pack, sheet = tmp_path / "pack", tmp_path / "out" / "ranks.png"
    of = ["--dataset", "synthetic", "--root", str(pedestrians)]
    assert main(["prepare", "packed", *of, "--output", str(pack), "--size", "32", "16"]) == 0
    report_of(tmp_path, str(teacher))
    expected, saved = np.asarray(Image.open(sheet)), tmp_path / teacher.parent.name  # which the title says
    packed = ["data.dataset=packed", f"data.root={pack}", "evaluation.sheet_rows=3"]
    for source in ([str(teacher), "--save-embeddings", str(saved)], [str(saved)]):
        sheet.unlink()
        report_of(tmp_path, *source, *packed)
        np.testing.assert_array_equal(np.asarray(Image.open(sheet)), expected)


def test_a_report_on_other_data_does_not_replace_that_on_the_own(
    teacher: Path, pedestrians: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copy(teacher, tmp_path / "last.pt")
    assert main(["test", str(checkpoint)]) == 0
    own = (tmp_path / "test" / "report.json").read_text()
    assert main(["test", str(checkpoint), "data.dataset=msmt17", f"data.root={pedestrians}"]) == 0
    assert (tmp_path / "test" / "report.json").read_text() == own
    assert json.loads((tmp_path / "test_msmt17" / "report.json").read_text())["scores"]


def test_the_queries_of_a_sheet_are_ranked_together_where_the_gallery_lies(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_subject(features, ["data.root=nowhere"])
    calls: list[Any] = []
    monkeypatch.setattr(
        reporting, "rank_gallery", lambda *args, **more: calls.append(args) or rank_gallery(*args, **more)
    )
    query, gallery, ids, others, cameras, seen = columns(Embeddings.load(features))
    chosen = np.array([7, 2, 3])
    assert subject.images is not None
    rows = reporting.ranked_rows(subject, chosen, subject.images, ["a", "b", "c"])
    assert [args[1] is subject.gallery.vectors for args in calls] == [True]
    scores = (query / np.linalg.norm(query, axis=1)[:, None]) @ (gallery / np.linalg.norm(gallery, axis=1)[:, None]).T
    scores[(ids[:, None] == others) & (cameras[:, None] == seen)] = -1
    for number, row, title in zip(chosen, rows, "abc", strict=True):
        best = np.argsort(-scores[number])[:10]
        assert row.title == title
        assert row.scores == pytest.approx(scores[number, best], abs=1e-5)
        assert row.is_match == (others[best] == ids[number]).tolist()
        assert row.gallery[0]() == "the file is missing"


def test_refinements_are_those_of_the_library(features: Path, tmp_path: Path) -> None:
    rows = columns(Embeddings.load(features))
    plain = report_of(tmp_path, str(features))
    again = report_of(tmp_path, str(features), "--rerank", "5", "2", "0.4")
    expected = evaluate_retrieval(*rows, reranking=Reranking(5, 2, 0.4))
    assert again["scores"]["mean_ap"] == pytest.approx(expected.mean_ap)
    assert again["protocol"]["re_ranking"] == {"k1": 5, "k2": 2, "weight": 0.4}
    expanded = [expand_queries(part, rows[1], k=4, alpha=2) for part in rows[:2]]
    again = report_of(tmp_path, str(features), "--expand", "4", "2")
    assert again["scores"]["mean_ap"] == pytest.approx(evaluate_retrieval(*expanded, *rows[2:]).mean_ap)
    assert again["protocol"]["query_expansion"] == [4, 2]
    assert len({plain["scores"]["mean_ap"], again["scores"]["mean_ap"], expected.mean_ap}) == 3


def test_intervals_and_a_paired_test(features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Embeddings.load(features)
    knowing = np.eye(rows.labels.max() + 1, dtype=np.float32)[rows.labels]  # embeds the label itself
    Embeddings(knowing, rows.labels, rows.cameras, rows.paths, rows.roles, {"source": "x"}).save(tmp_path / "best")
    report = report_of(tmp_path, str(tmp_path / "best"), "--compare", str(features))
    assert report["comparison"]["difference"] == pytest.approx(
        1 - report_of(tmp_path, str(features))["scores"]["mean_ap"]
    )
    assert report["comparison"]["p_value"] == pytest.approx(2**-6, abs=0.005)  # one way out of the signs of 6 people
    assert "paired sign flips of 6 people" in capsys.readouterr().out
    report = report_of(tmp_path, str(features), "--bootstrap", "200", "--compare", str(tmp_path / "best"))
    low, high = report["intervals"]["mean_ap"]
    assert 0 < low < report["scores"]["mean_ap"] < high < 1
    people, ap = rows.select("query").labels, evaluate_retrieval(*columns(rows)).ap
    assert (low, high) == pytest.approx(bootstrap_interval(ap, resamples=200, groups=people))
    assert report["comparison"]["p_value"] > 0.95


def test_embeddings_that_do_not_go_together_are_refused(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Embeddings.load(features)
    rest = (rows.labels, rows.cameras, rows.paths, rows.roles)
    Embeddings(rows.vectors, *rest, {"source": "another"}).save(tmp_path / "another")
    Embeddings(np.full_like(rows.vectors, np.nan), *rest, rows.about).save(tmp_path / "nan")
    Embeddings(rows.vectors[:, :5], *rest, rows.about).save(tmp_path / "narrow")
    Embeddings(rows.vectors[::-1], *(column[::-1] for column in rest), rows.about).save(tmp_path / "turned")
    for arguments, words in [
        ([str(features), "--gallery", str(tmp_path / "another")], "different checkpoints"),
        ([str(tmp_path / "nan")], "row 0 is not finite"),
        ([str(features), "--gallery", str(tmp_path / "narrow")], "columns"),
        ([str(features), "--compare", str(tmp_path / "turned")], "different query images"),
        ([str(features), "model.embedding=3"], "model.embedding=3"),
        ([str(features), "--bootstrap", "0"], "--bootstrap"),
        ([str(features), "--expand", "0"], "--expand"),
        ([str(features), "--rerank", "20", "6", "2"], "weight"),
    ]:
        assert main(["test", *arguments, "--output", str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err
        assert words in message
        assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_one_camera_is_an_explicit_choice(features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Embeddings.load(features)
    same = Embeddings(rows.vectors, rows.labels, np.zeros_like(rows.cameras), rows.paths, rows.roles, rows.about)
    same.save(tmp_path / "same")
    assert main(["test", str(tmp_path / "same")]) == 2
    message = capsys.readouterr().err
    assert "1 camera in all" in message
    assert "evaluation.cameras: ignore" in message
    report = report_of(tmp_path, str(tmp_path / "same"), "evaluation.cameras=ignore")
    assert report["protocol"]["cameras"] == "ignore"


def test_a_timm_model_is_extracted_as_it_is(pedestrians: Path, tmp_path: Path) -> None:
    model = ["model.pretrained=false", "model.options={channels: [8, 8, 8, 8], stem_width: 8}"]
    data = [f"data.root={pedestrians}", "data.image_size=[32, 16]", "data.workers=0"]
    arguments = ["extract", "resnet10t", "--roles", "train", "--dtype", "float16", *model, *data]
    assert main([*arguments, "--output", str(tmp_path / "set"), "--json", str(tmp_path / "about.json")]) == 0
    rows = Embeddings.load(tmp_path / "set")
    assert (set(rows.roles), rows.vectors.dtype, rows.vectors.shape[1]) == ({"train"}, np.float16, 8)
    assert len(json.loads((tmp_path / "about.json").read_text())["source"]) == 64


@pytest.mark.parametrize(
    ("network", "words"),
    [("resnet10q", "resnet10t"), ("gone.pt", "There is no checkpoint"), ("resnet10t", "data.root")],
)
def test_what_cannot_be_extracted_is_a_sentence(
    network: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = [] if network == "resnet10t" else [f"data.root={tmp_path}"]
    assert main(["extract", network, *root, "model.pretrained=false", "--output", str(tmp_path / "set")]) == 2
    assert words in capsys.readouterr().err


def test_roles_that_there_are_none_of_are_answered_by_those_that_there_are(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_twin("cub200", tmp_path / "cub", Numbers(ids=4, images_per_id=4, size=(32, 16))).root
    arguments = ["extract", str(teacher), "data.dataset=cub200", f"data.root={root}", "--output", str(tmp_path / "set")]
    assert main(arguments) == 2
    assert "has no query or gallery images; choose of what it has: --roles train test." in (capsys.readouterr().err)
    assert main([*arguments, "--roles", "train", "query", "val"]) == 2
    assert "has no query or val images; choose of what it has: --roles train test." in capsys.readouterr().err
    assert main([*arguments, "--roles", "test"]) == 0
    lines = [path.relative_to(root) for path in root.rglob("*.jpg")]
    (root / "crowd.csv").write_text("path,label,split\n" + "".join(f"{path},0,gallery\n" for path in lines))
    crowd = ["data.dataset=csv", f"data.root={root / 'crowd.csv'}", "--output", str(tmp_path / "crowd")]
    assert main(["extract", str(teacher), *crowd]) == 0  # the usual roles are those of them which there are


def test_extraction_killed_for_real_goes_on_and_another_checkpoint_is_refused(
    teacher: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    options = ["--output", str(folder), "evaluation.batch_size=1"]
    process = subprocess.Popen([sys.executable, "-m", "reid_cckd.commands", "extract", str(teacher), *options])
    while process.poll() is None and not (tmp_path / "set.part" / "progress.json").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    done = json.loads((tmp_path / "set.part" / "progress.json").read_text())["done"]
    assert 0 < done < 48
    content = load_checkpoint(teacher)
    content["model"]["head.weight"] += 1
    save_checkpoint(tmp_path / "other.pt", content)
    assert main(["extract", str(tmp_path / "other.pt"), *options]) == 2
    assert "source" in capsys.readouterr().err
    assert main(["extract", str(teacher), *options]) == 0
    assert main(["extract", str(teacher), *options]) == 0
    np.testing.assert_allclose(Embeddings.load(folder).vectors, Embeddings.load(features).vectors, atol=1e-5)


def test_a_runs_folder_stands_for_its_last_checkpoint(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(tmp_path, str(teacher.parent), "--compare", str(teacher.parent))
    assert f"\n{teacher.parent.name} " in capsys.readouterr().out  # and not the name of the report's folder
    assert report["provenance"]["checkpoint_sha256"] == report["comparison"]["other_sha256"] == file_hash(teacher)
    assert main(["test", str(tmp_path)]) == 2
    assert "holds neither last.pt nor vectors.npy" in capsys.readouterr().err
    assert main(["test", str(tmp_path / "gone")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_other_protocols_are_the_librarys(features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Embeddings.load(features)
    rows = replace(rows, cameras=(rows.roles == "gallery").astype(int))  # all queries of a person at one camera
    rows.save(tmp_path / "several")
    features = tmp_path / "several"
    parts = columns(rows)
    means, first = pool_queries(parts[0], parts[2], parts[4])
    expected = evaluate_retrieval(means, parts[1], parts[2][first], parts[3], parts[4][first], parts[5])
    assert report_of(tmp_path, str(features), "--protocol", "multi-query")["scores"]["mean_ap"] == expected.mean_ap
    shot = report_of(tmp_path, str(features), "--protocol", "single-shot")["scores"]
    assert shot["rank5"] == evaluate_single_shot(*parts).cmc[5]
    recall = report_of(tmp_path, str(features), "--protocol", "recall")["scores"]
    assert recall == evaluate_recall(rows.vectors, rows.labels).summary()
    for protocol, option in [("recall", "--rerank"), ("recall", "--gallery=x"), ("single-shot", "--bootstrap=9")]:
        assert main(["test", str(features), "--protocol", protocol, option]) == 2
        assert f"{option.partition('=')[0]} does not go with --protocol {protocol}" in capsys.readouterr().err


def test_the_values_of_each_query_are_a_table(features: Path, tmp_path: Path) -> None:
    rows = Embeddings.load(features)
    query = rows.select("query")
    alone = np.flatnonzero(query.labels == query.labels[0])  # a person without a match
    kept = np.setdiff1d(
        np.arange(len(rows)), np.flatnonzero((rows.labels == query.labels[0]) & (rows.roles != "query"))
    )
    rows.take(kept).save(tmp_path / "some")
    scores = report_of(tmp_path, str(tmp_path / "some"))["scores"]
    table = queries_of(tmp_path / "out")
    assert [line["path"] for line in table] == query.paths.tolist()
    assert [(int(line["id"]), int(line["camera"])) for line in table] == list(
        zip(query.labels.tolist(), query.cameras.tolist(), strict=True)
    )
    assert {table[row][name] for row in alone for name in ("ap", "inp", "first_rank")} == {""}
    found = [line for line in table if line["ap"]]
    assert len(found) == len(table) - len(alone)
    for name, score in [("ap", "mean_ap"), ("inp", "mean_inp")]:
        assert np.mean([float(line[name]) for line in found]) == pytest.approx(scores[score])
    assert np.mean([int(line["first_rank"]) <= 5 for line in found]) == pytest.approx(scores["rank5"])


def test_recall_has_values_of_each_query_intervals_and_a_paired_test(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Embeddings.load(features)
    noise = np.random.default_rng(0).standard_normal(rows.vectors.shape).astype(np.float32)
    replace(rows, vectors=rows.vectors + noise * rows.vectors.std()).save(tmp_path / "worse")
    options = ["--protocol", "recall", "--bootstrap", "100", "--compare", str(tmp_path / "worse")]
    report = report_of(tmp_path, str(features), *options)
    ours = evaluate_recall(rows.vectors, rows.labels)
    expected = compare(
        evaluate_recall(Embeddings.load(tmp_path / "worse").vectors, rows.labels), ours, groups=rows.labels
    )
    assert report["comparison"]["difference"] == expected.difference > 0
    assert report["comparison"]["p_value"] == expected.p_value
    interval = bootstrap_interval(ours.ap_at_r, resamples=100, groups=rows.labels)
    assert report["intervals"]["map_at_r"] == list(interval)
    assert report["intervals"].keys() == {"map_at_r", "r_precision", "recall@1"}
    assert "MAP@R +" in capsys.readouterr().out
    table = queries_of(tmp_path / "out")
    assert [line["path"] for line in table] == rows.paths.tolist()
    assert [float(line["ap_at_r"]) for line in table] == ours.ap_at_r.tolist()
    assert [int(line["first_rank"]) for line in table] == ours.first_rank.tolist()


def queries_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "queries.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_people_with_names_are_called_by_them(
    teacher: Path, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, sheets = LAYOUTS["synthetic"](pedestrians), list[RankedRow]()
    names = {label: f"p{label}" for label in manifest.labels.tolist()}
    rows = zip(
        manifest.paths, manifest.labels.tolist(), manifest.roles.tolist(), manifest.cameras.tolist(), strict=True
    )
    lines = [f"{pedestrians / path},{names[label]},{role},{camera}" for path, label, role, camera in rows]
    (tmp_path / "named.csv").write_text("\n".join(["path,label,split,camera", *lines]))
    data = ["data.dataset=csv", f"data.root={tmp_path / 'named.csv'}"]
    monkeypatch.setattr(reporting, "ranked_sheet", lambda _path, rows, _title: sheets.extend(rows))
    report_of(tmp_path, str(teacher), *data)
    called = [names[label] for label in manifest.select("query").labels.tolist()]
    assert [line["id"] for line in queries_of(tmp_path / "out")] == called
    assert all(row.title.split()[-1] in called and set(row.names) <= set(names.values()) for row in sheets)
    assert all(
        (name == row.title.split()[-1]) == match
        for row in sheets
        for name, match in zip(row.names, row.is_match, strict=True)
    )
    assert main(["extract", str(teacher), "--output", str(tmp_path / "kept"), *data]) == 0
    report_of(tmp_path, str(tmp_path / "kept"))
    assert [line["id"] for line in queries_of(tmp_path / "out")] == called
    report_of(tmp_path, str(tmp_path / "kept"), "--protocol", "recall")
    assert {line["id"] for line in queries_of(tmp_path / "out")} == set(called)


def test_two_processes_of_torchrun_report_what_one_does(features: Path, tmp_path: Path) -> None:
    tool = Path(__file__).parent.parent.parent / "tools" / "test.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tool)]
    options = ["--output", str(tmp_path / "two"), "--json", str(tmp_path / "two.json")]
    done = subprocess.run([*command, str(features), *options], capture_output=True, text=True, check=True)
    assert done.stdout.count("Report and pictures") == 1
    found, expected = json.loads((tmp_path / "two.json").read_text()), report_of(tmp_path, str(features))
    assert (found["scores"], found["protocol"]) == (expected["scores"], expected["protocol"])
