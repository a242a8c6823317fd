"""Configurations: what is read, and that every fault is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.config import Config, Ramp, config_from_dict, dump_config, load_config, to_dict
from reid_cckd.errors import ConfigError

MINIMAL = "output: runs/x\ndata: {root: somewhere}\nmodel: {backbone: resnet18}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


def test_minimal_file_takes_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert (config.seed, config.data.dataset, config.objective.alpha) == (0, "msmt17", 1.0)


def test_exponent_without_a_point_is_a_float(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL + "optim: {lr: 1e-3}\n")).optim.lr == 0.001
    assert load_config(write(tmp_path, MINIMAL), ["optim.lr=2E5"]).optim.lr == 200000.0


def test_on_and_off_are_words(tmp_path: Path) -> None:
    text = MINIMAL + "train: {amp: off}\nevaluation:\n  on: embedding\n"
    config = load_config(write(tmp_path, text))
    assert (config.train.amp, config.evaluation.on) == ("off", "embedding")


def test_every_fault_is_in_one_error_with_line_and_hint(tmp_path: Path) -> None:
    text = (
        "output: runs/x\n"  # 1
        "data: {image_sise: [64, 32]}\n"  # 2: unknown, and root is missing
        "model:\n"
        "  backbone: resnet18\n"
        "  pooling: gen\n"  # 5: not one of
        "optim:\n"
        "  lr: 0.1\n"
        "  lr: fast\n"  # 8: duplicate
        "train: {epochs: many}\n"  # 9: mistyped
    )
    message = faults_of(tmp_path, text, "seeed=3")
    for expected in (
        "6 faults",
        "run.yaml:2: data.image_sise: unknown key. Did you mean 'image_size'?",
        "data.root: missing",
        "run.yaml:5: model.pooling",
        "Did you mean 'gem'?",
        "run.yaml:8: optim.lr: duplicate key, first written at",
        "run.yaml:9: train.epochs: expected a whole number, found 'many'",
        "command line, seeed=3: seeed: unknown key. Did you mean 'seed'?",
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("objective.alpha=0.5", "objective.alpha"),
        ("objective.beta=3", "objective.beta"),
        ("objective.beta=-3", "objective.beta: below 0 a loss is made larger"),
        ("objective.beta={start: 1, stop: -1}", "objective.beta: below 0"),
        ("objective.terms=[{name: m, loss: sp, weight: -1}]", "objective.terms.0.weight: below 0"),
        ("sampler.kind=sur", "sampler.kind"),
        ("sampler.samples_per_class=1", "sampler.samples_per_class"),
        ("teacher.checkpoint=t.pt", "teacher"),
        ("optim.schedule=multistep", "optim.milestones"),
        ("train.epochs=0", "train.epochs"),
        ("optim.lr=0", "optim.lr"),
        ("optim.lr=.nan", "optim.lr"),
        ("train.ema=1.5", "train.ema: must be above 0 and below 1, is 1.5"),
        ("train.clip_norm=-1", "train.clip_norm: must be above 0, is -1"),
        ("train.clip_norm=0", "train.clip_norm"),
        ("optim.weight_decay=-1", "optim.weight_decay"),
        ("optim.min_lr=9", "optim.min_lr: 9 is where the schedule ends, above optim.lr 0.001"),
        ("optim.min_lr=-1", "optim.min_lr: must be at least 0"),
        ("model.embedding=0", "model.embedding: must be at least 1, is 0"),
        ("sampler.batches_per_epoch=0", "sampler.batches_per_epoch"),
        ("data.image_size=[4, 64]", "data.image_size: must be at least 8, is [4, 64]"),
        ("evaluation.top=[]", "evaluation.top: must be at least 1, is []"),
        ("objective.correlation.memory=-1", "objective.correlation.memory"),
        ("data.image_size=[64]", "data.image_size"),
        ("data.workers=true", "data.workers"),
        ("evaluation.ranks=[0]", "evaluation.ranks"),
        ("objective.temperature=0", "objective.temperature"),
        ("output", ""),
    ],
)
def test_contradictions_and_ranges_are_named(tmp_path: Path, override: str, key: str) -> None:
    assert f"{key}" in faults_of(tmp_path, MINIMAL, override)


def test_names_of_terms_are_unique(tmp_path: Path) -> None:
    terms = (
        "objective:\n  terms:\n  - {name: cc, loss: mimic}\n  - {name: m, loss: mimic}\n  - {name: m, loss: mimic}\n"
    )
    message = faults_of(tmp_path, MINIMAL + terms)
    assert "objective.terms.0.name" in message
    assert "objective.terms.2.name" in message


def test_overrides_reach_lists_and_free_sections(tmp_path: Path) -> None:
    text = MINIMAL + "objective:\n  terms:\n  - {name: triplet, loss: TripletMarginLoss}\n"
    overrides = [
        "objective.terms.0.weight=0.5",
        "model.options.channels=[8, 16]",
        "objective.terms.0.options.margin=0.3",
    ]
    config = load_config(write(tmp_path, text), overrides)
    assert config.objective.terms[0].weight == 0.5
    assert config.objective.terms[0].options == {"margin": 0.3}
    assert config.model.options == {"channels": [8, 16]}


def test_weight_may_be_a_ramp(tmp_path: Path) -> None:
    text = MINIMAL + "teacher: {checkpoint: t.pt}\nobjective: {beta: {start: 0, stop: 100, shape: cosine}}\n"
    assert load_config(write(tmp_path, text)).objective.beta == Ramp(0.0, 100.0, shape="cosine")


def test_effective_config_loads_to_itself(tmp_path: Path) -> None:
    text = MINIMAL + "teacher: {checkpoint: t.pt}\nobjective: {alpha: 0.5, beta: 1e2, kernel: {order: null}}\n"
    config = load_config(write(tmp_path, text))
    assert load_config(write(tmp_path, dump_config(config))) == config
    assert config_from_dict(to_dict(config), "memory") == config


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"Did you mean .*run\.yaml"):
        load_config(tmp_path / "rum.yaml")


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_text_makes_anything_but_a_config_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "run.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        outcome: object = load_config(path)
    except ConfigError as error:
        outcome = str(error)
    assert isinstance(outcome, Config) or str(path) in str(outcome)


@pytest.mark.parametrize("text", ["a: [", "&a [*a]", "output: 2001-99-99", "\x1f", "- just\n- a list", "text"])
def test_what_is_not_a_configuration_is_refused(tmp_path: Path, text: str) -> None:
    assert "run.yaml" in faults_of(tmp_path, text)
