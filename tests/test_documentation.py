"""What README, docs and help show can be run: python blocks as they stand, command lines as far as their parser."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd.commands.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "datasets").rglob("*.md"))]
LABELS = np.repeat(np.arange(70), 4)  # more classes than a batch of the examples and clusters of superclasses take


def what_a_reader_has() -> dict[str, Any]:
    """The names that a page may use without making them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(len(LABELS), 16, generator=generator)
    return {
        "labels": torch.from_numpy(LABELS),
        "embeddings": rows.requires_grad_(),
        "teacher_embeddings": torch.randn(len(LABELS), 24, generator=generator),
        "dataset": torch.utils.data.TensorDataset(rows.detach()),
    }


def pages_with_python() -> list[Path]:
    """Those of datasets/ convert files that no test has."""
    own = [page for page in PAGES if ROOT / "datasets" not in page.parents]
    return [page for page in own if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", pages_with_python(), ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path) -> None:
    names = what_a_reader_has()
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


def command_lines() -> Iterator[tuple[str, str]]:
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "configs").rglob("*.yaml")}
    modules = [importlib.import_module(f"reid_cckd.commands.{name}") for name in COMMANDS]
    examples = [(name, value) for module in modules for name, value in vars(module).items() if "EXAMPLES" in name]
    texts |= {f"{number} {name}": str(value) for number, (name, value) in enumerate(examples)}
    for source, text in texts.items():
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            found = re.match(r"[#\s]*(?:\S+/bin/)?reid-cckd ([a-z].*)", line)
            if found and found[1].split()[0] in COMMANDS:
                yield source, re.split(r"\s{3,}|\s#", found[1])[0]  # a remark stands behind a gap


def test_command_lines_are_understood_and_name_files_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = argparse.ArgumentParser.parse_intermixed_args

    def understand_and_stop(self: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        sys.exit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", understand_and_stop)
    lines = list(command_lines())
    assert len(lines) > 60
    for source, line in lines:
        try:
            code: Any = main(shlex.split(line))
        except SystemExit as error:
            code = error.code
        assert code == 0, f"{source}: {line}\n{capsys.readouterr().err}"
        missing = [name for name in re.findall(r"configs/\S+", line) if not (ROOT / name).exists()]
        assert not missing, f"{source}: {line}"
