"""Judges of classification, verification and identification, by networks whose answers a person can work out."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_cckd import assess
from reid_cckd.assess import ClassificationJudge, Judge, answer_of, asks_for_scores, build_judge, head_judge
from reid_cckd.batch import Output
from reid_cckd.build import read_manifest
from reid_cckd.config import Config, Evaluation, config_from_dict
from reid_cckd.data import Manifest
from reid_cckd.errors import ConfigError, DataError
from tests.data.trees import jpeg, write_image

CPU = torch.device("cpu")
GREYS = {"apple": 0, "bird": 70, "cat": 150}  # of the darkest column; the mean is 50 more


class Grey(nn.Module):
    """An embedding on the quarter circle by brightness; class scores fall with the distance from three greys."""

    def forward(self, images: Tensor) -> Output:
        level = images.float().mean(dim=(1, 2, 3))
        angle = level / 255 * torch.pi / 2
        rows = torch.stack([angle.cos(), angle.sin()], dim=1)
        logits = -(level[:, None] - (torch.tensor(list(GREYS.values())) + 50)).abs()
        return Output(rows, rows, logits, images)


def settings(root: Path, **evaluation: object) -> Config:
    data = {"root": str(root), "dataset": "class_folders", "image_size": [8, 8], "workers": 0}
    values = {"output": "runs/x", "data": data, "model": {"backbone": "cifar_resnet8"}, "evaluation": evaluation}
    return config_from_dict(values, "test")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name, grey in GREYS.items():
        write_image(tmp_path / "train" / name / "0.png", grey, size=(8, 8))
        write_image(tmp_path / "test" / name / "0.png", grey, size=(8, 8))
    write_image(tmp_path / "test" / "cat" / "1.png", GREYS["bird"], size=(8, 8))  # looks like a bird
    return tmp_path


def judge_of(root: Path) -> ClassificationJudge:
    config = settings(root, task="classification")
    judge = build_judge(config, read_manifest(config.data), CPU)
    assert isinstance(judge, ClassificationJudge)
    return judge


def test_classification_counts_what_is_right_and_names_the_confusion(folders: Path) -> None:
    judge = judge_of(folders)
    scores = judge(Grey())
    assert judge.main == "top1"
    assert scores["top1"] == pytest.approx(3 / 4)
    assert "top5" not in scores  # of three classes
    verdict = judge.verdict(Grey())
    assert verdict.protocol["images"] == 4
    cat, bird = 2, 1
    worst = verdict.details["worst"][0]
    assert (worst["label"], worst["taken_for"], worst["accuracy"]) == (cat, bird, 0.5)
    assert (worst["label_name"], worst["taken_for_name"]) == ("cat", "bird")
    best = verdict.details["worst"][-1]
    assert (best["accuracy"], best["taken_for"], best["taken_for_name"]) == (1, None, None)


@pytest.mark.parametrize("task", ["retrieval", "classification", "verification", "identification", "recall", "none"])
def test_only_classification_looks_at_class_scores(task: Any) -> None:
    asked = [answer_of(Evaluation(task=task, on=on)) for on in ("embedding", "neck")]
    assert asked == (["logits", "logits"] if task == "classification" else ["embedding", "neck"])


def test_a_head_in_another_order_is_read_in_its_order(folders: Path) -> None:
    class Turned(Grey):
        def forward(self, images: Tensor) -> Output:
            output = super().forward(images)
            assert output.logits is not None
            return output._replace(logits=output.logits.flip(1))

    assert judge_of(folders).for_classes([2, 1, 0])(Turned())["top1"] == pytest.approx(3 / 4)
    with pytest.raises(DataError, match="1 classes that the network's head of 2 does not have"):
        judge_of(folders).for_classes([0, 1])(Grey())


def test_class_scores_are_of_an_image_as_it_is_without_its_mirror(folders: Path) -> None:
    seen = []

    class Counting(Grey):
        def forward(self, images: Tensor) -> Output:
            seen.append(len(images))
            return super().forward(images)

    judge = judge_of(folders)
    assert judge.settings.flip
    judge(Counting())
    assert seen == [4]


def test_images_that_are_not_there_are_missed_before_anything_is_trained(folders: Path) -> None:
    train = read_manifest(settings(folders).data).select("train")
    with pytest.raises(DataError, match="no test or val images"):
        build_judge(settings(folders, task="classification"), train, CPU)
    with pytest.raises(DataError, match=r"no query images to evaluate on, but train\. .*evaluation\.benchmark"):
        build_judge(settings(folders), train, CPU)


def write_pairs(path: Path, pairs: list[tuple[int, int]], same: list[bool]) -> str:
    images = [jpeg(grey, (8, 8)) for pair in pairs for grey in pair]
    path.write_bytes(pickle.dumps((images, same), protocol=2))
    return str(path)


def verifier(root: Path, **pairs: str) -> Judge:
    config = settings(root, task="verification", pairs=pairs)
    return build_judge(config, read_manifest(config.data), CPU)


def test_verification_means_over_its_sets(folders: Path) -> None:
    easy = write_pairs(folders / "easy.bin", [(20, 24), (30, 230)] * 10, [True, False] * 10)
    wrong = write_pairs(folders / "wrong.bin", [(20, 230), (30, 30)] * 10, [True, False] * 10)
    judge = verifier(folders, easy=easy, wrong=wrong)
    scores = judge(Grey())
    assert scores["easy"] == 1.0
    assert scores["wrong"] <= 0.5
    assert scores["accuracy"] == pytest.approx((scores["easy"] + scores["wrong"]) / 2)
    assert (scores["easy_tar"], scores["wrong_tar"]) == (1.0, 0.0)
    assert judge.verdict(Grey()).protocol["pairs"] == {"easy": 20, "wrong": 20}


def test_pairs_that_cannot_be_scored_are_named(folders: Path) -> None:
    few = write_pairs(folders / "few.bin", [(20, 24), (30, 230)], [True, False])
    with pytest.raises(DataError, match=r"few\.bin"):
        verifier(folders, few=few)(Grey())
    with pytest.raises(ConfigError, match=r"evaluation\.pairs"):
        settings(folders, task="verification")
    with pytest.raises(ConfigError, match=r"evaluation\.pairs"):
        settings(folders, pairs={"few": few})


def identifier(root: Path, **evaluation: object) -> Judge:
    config = settings(root, task="identification", benchmark=str(root / "faces"), **evaluation)
    return build_judge(config, read_manifest(config.data), CPU)


@pytest.fixture
def faces(folders: Path) -> Path:
    """Two people of two photos each; of eight distractors one lies close to the first photo of the second."""
    for name, grey in {"anna/0": 0, "anna/1": 4, "bert/0": 100, "bert/1": 120}.items():
        write_image(folders / "faces" / "facescrub" / f"{name}.png", grey, size=(8, 8))
    for number, grey in enumerate((96, *range(148, 155))):
        write_image(folders / "faces" / "megaface" / "0" / "0" / f"{number}.png", grey, size=(8, 8))
    return folders


def test_identification_counts_distractors_nearer_than_the_mate(faces: Path) -> None:
    judge = identifier(faces, scales=[8, 100], ranks=[1, 2])
    scores = judge(Grey())
    assert judge.main == "rank1"
    assert scores["rank1"] == scores["rank1_of_8"] == pytest.approx(3 / 4)  # bert/0 is nearer to the distractor
    assert scores["rank2"] == 1.0
    assert "rank1_of_100" not in scores
    verdict = judge.verdict(Grey())
    assert (verdict.protocol["probes"], verdict.protocol["pairs"]) == (4, 4)
    assert [row["distractors"] for row in verdict.details["scales"]] == [8]
    assert judge.for_classes([0, 1]) is judge


def test_identification_without_enough_is_refused(faces: Path) -> None:
    with pytest.raises(ConfigError, match="all exceed the 8 distractors"):
        identifier(faces, scales=[9])
    with pytest.raises(ConfigError, match=r"evaluation\.benchmark"):
        settings(faces, task="identification")
    with pytest.raises(ConfigError, match=r"evaluation\.ranks"):
        settings(faces, task="identification", benchmark="x", ranks=[5])
    (faces / "faces" / "facescrub" / "anna" / "1.png").unlink()
    (faces / "faces" / "facescrub" / "bert" / "1.png").unlink()
    with pytest.raises(DataError, match="two photos"):
        identifier(faces, scales=[8])(Grey())


def test_retrieval_ranks_where_the_network_runs(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    exact = assess.retrieval.evaluate_retrieval

    def noted(*rows: object, device: object, **options: object) -> object:
        places.append(device)
        return exact(*rows, device=device, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(assess.retrieval, "evaluate_retrieval", noted)
    for role in ("query", "gallery"):
        for camera, grey in enumerate((0, 70)):
            write_image(folders / role / f"000{camera + 1}_c{camera + 1 + (role == 'gallery')}s1_0_0.jpg", grey)
    paths = tuple(str(path.relative_to(folders)) for path in sorted(folders.glob("*/*.jpg")))
    roles = np.array([path.partition("/")[0] for path in paths])
    manifest = Manifest("two", folders, paths, np.array([1, 2, 1, 2]), np.array([2, 3, 1, 2]), roles)
    assert build_judge(settings(folders), manifest, CPU)(Grey())["mean_ap"] == 1.0
    assert places == [CPU]


def test_every_test_image_searches_the_others(folders: Path) -> None:
    config = settings(folders, task="recall", ranks=[1, 2], flip=False)
    judge = build_judge(config, read_manifest(config.data), CPU)
    found = judge.verdict(Grey())
    # Apple and bird are alone. Nearest to both cats, of which one is as grey as the bird, is the bird.
    assert found.scores == {"recall@1": 0.0, "recall@2": 0.5, "map_at_r": 0.0, "r_precision": 0.0}
    assert (found.protocol["valid_queries"], found.protocol["queries"]) == (2, 4)
    assert judge(Grey()) == found.scores
    assert found.queries is not None
    assert len(found.queries[0]) == len(found.queries[1].valid) == 4
    (folders / "test" / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match="3 test images, no two of one class"):
        build_judge(config, read_manifest(config.data), CPU)


@pytest.mark.parametrize("cameras", ["exclude-same", "ignore"])
def test_queries_without_any_match_are_missed_before_training(folders: Path, cameras: str) -> None:
    rows = ["path,label,split", "train/apple/0.png,0,train", "test/cat/0.png,2,query", "test/cat/1.png,2,gallery"]
    table = folders / "list.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    data = {"root": str(table), "dataset": "csv", "image_size": [8, 8], "workers": 0}
    values = {"output": "runs/x", "data": data, "model": {"backbone": "cifar_resnet8"}}
    config = config_from_dict({**values, "evaluation": {"cameras": cameras}}, "test")
    if cameras == "ignore":
        assert build_judge(config, read_manifest(config.data), CPU)(Grey())["rank1"] == 1
        table.write_text("\n".join(rows).replace("2,gallery", "1,gallery"), encoding="utf-8")
    words = r"none of 1 queries has a true match in the gallery" + (r"\." if cameras == "ignore" else " in another")
    with pytest.raises(DataError, match=words):
        build_judge(config, read_manifest(config.data), CPU)


def test_a_head_is_scored_on_the_training_images_of_its_classes(folders: Path) -> None:
    config = settings(folders)
    train = read_manifest(config.data).select("train")
    right = head_judge(config, train, [0, 1, 2], CPU)
    assert right is not None
    assert right(Grey()) == {"top1": 1.0, "ece": pytest.approx(0, abs=0.01)}
    others = head_judge(config, train, [2, 0, 1], CPU)  # the same ids for other things
    assert others is not None
    assert others(Grey())["top1"] == 0
    assert head_judge(config, train, [7, 8], CPU) is None


@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        ({}, False),
        ({"beta": 1}, False),
        ({"alpha": 0.5}, True),
        ({"terms": [{"name": "dist", "loss": "dist"}]}, True),
        ({"terms": [{"name": "mimic", "loss": "cosine_mimic"}]}, False),
        ({"terms": [{"name": "mimic", "loss": "cosine_mimic", "on": "logits"}]}, True),
    ],
)
def test_only_some_objectives_ask_a_teacher_for_class_scores(objective: dict[str, object], asked: bool) -> None:
    values = {"output": "runs/x", "data": {"root": "."}, "model": {"backbone": "resnet18"}, "objective": objective}
    teacher = {"teacher": {"checkpoint": "last.pt"}} if objective else {}
    assert asks_for_scores(config_from_dict({**values, **teacher}, "test").objective) is asked


@pytest.mark.parametrize("task", ["recall", "retrieval"])
def test_unlabelled_images_do_not_search_as_one_person(folders: Path, task: str) -> None:
    paths, roles = ("test/cat/0.png", "test/cat/1.png", "test/bird/0.png"), {"recall": "test", "retrieval": "query"}
    held = np.array([roles[task], roles[task], "gallery" if task == "retrieval" else "test"])
    manifest = Manifest("some", folders, paths, np.array([-1, 3, 3]), np.zeros(3, dtype=np.int64), held)
    with pytest.raises(DataError, match=r"1 of \d .* unlabelled"):
        build_judge(settings(folders, task=task, cameras="ignore"), manifest, CPU)
