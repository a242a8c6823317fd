"""datasets/: each layout has a README, and each README says what is needed and names commands that exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from reid_cckd.commands.__main__ import COMMANDS
from reid_cckd.commands.prepare import TARGETS
from reid_cckd.config import load_config
from reid_cckd.data import LAYOUTS, TWINS
from reid_cckd.data.published import PUBLISHED

DATASETS = Path(__file__).parent.parent / "datasets"
READMES = sorted(DATASETS.glob("*/README.md"))
CONFIGS = sorted((DATASETS.parent / "configs").glob("[!s]*/*.yaml"))


def commands_in(text: str) -> list[list[str]]:
    """The words of each command line in a README, in its blocks and between backticks."""
    return [shlex.split(line) for line in re.findall(r"^reid-cckd [^\n`]+$|(?<=`)reid-cckd [^\n`]+(?=`)", text, re.M)]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def checks_in(path: Path) -> list[list[str]]:
    return [words for words in commands_in(path.read_text()) if words[1:3] == ["data", "check"]]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_a_readme_says_what_is_needed(path: Path) -> None:
    text, name = path.read_text(), path.parent.name
    assert text.startswith("# ")
    assert "icence" in text
    assert "ounts" in text or name == "synthetic"
    assert checks_in(path), "no `reid-cckd data check`"
    for words in checks_in(path):
        assert option(words, "--dataset") in LAYOUTS
        assert option(words, "--root").startswith(f"datasets/{name}")
    assert f"({name}/README.md)" in (DATASETS / "README.md").read_text()


@pytest.mark.parametrize("path", [DATASETS / "README.md", *READMES], ids=lambda path: path.parent.name)
def test_commands_exist_and_take_these_options(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands_in(path.read_text()):
        assert words[1] in COMMANDS
        main = importlib.import_module(f"reid_cckd.commands.{words[1]}").main
        with pytest.raises(SystemExit, match="0"):
            main([words[2], "--help"] if words[1] == "data" else ["--help"])
        known = capsys.readouterr().out
        assert all(word in known for word in words if word.startswith("--"))
        if words[1] == "prepare":
            assert words[2] in {*TARGETS, "FORMAT"}
        if words[1:3] == ["data", "synth"]:
            assert words[3] in {*TWINS, "FORMAT", "--root"}
            assert "--root" not in words or not (DATASETS.parent / option(words, "--root") / "README.md").exists()


def test_every_layout_has_a_readme() -> None:
    assert {option(words, "--dataset") for path in READMES for words in checks_in(path)} == set(LAYOUTS)


def test_the_published_counts_are_those_of_the_readmes() -> None:
    text = "".join(path.read_text() for path in READMES)
    missing = [
        f"{count.images:,} of {name}"
        for name, roles in PUBLISHED.items()
        for count in roles.values()
        if f"{count.images:,}" not in text
    ]
    assert not missing


def test_the_roots_of_the_configurations_are_described() -> None:
    assert CONFIGS
    roots = {Path(load_config(path).data.root).parts[1] for path in CONFIGS}
    assert roots <= {path.parent.name for path in READMES}
