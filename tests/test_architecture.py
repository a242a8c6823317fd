"""The house keeps its shape: rooms import the ground floor only, and the hall is not imported from below."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reid_cckd"
GROUND = {"batch", "errors", "files", "scratch", "splitmix"}
ROOMS = {"config", "data", "samplers", "models", "losses", "engine", "evaluation", "report"}
HALL = {"build", "assess", "commands"}


def imports_of(file: Path) -> set[str]:
    """Parts of reid_cckd that a file imports, wherever in the file it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            whole = node.module == "reid_cckd"
            names = [f"reid_cckd.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("reid_cckd.")}
    return found


def test_every_file_has_a_known_place() -> None:
    places = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}
    assert places - {"__pycache__", "py.typed"} == GROUND | ROOMS | HALL | {"__init__"}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_the_ground_floor_and_themselves_only(room: str) -> None:
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        strangers = imports_of(file) - GROUND - {room}
        assert not strangers, f"{file.relative_to(PACKAGE)} imports {sorted(strangers)}"


@pytest.mark.parametrize("part", sorted(GROUND))
def test_the_ground_floor_imports_nothing_above_it(part: str) -> None:
    assert imports_of(PACKAGE / f"{part}.py") <= GROUND


def test_commands_are_imported_by_nobody_below() -> None:
    files = [*(PACKAGE / "build").rglob("*.py"), *(PACKAGE / "assess").rglob("*.py")]
    assert len(files) > 2
    assert "commands" not in set().union(*map(imports_of, files))


def test_samplers_need_none_of_the_heavy_packages() -> None:
    heavy = "{'timm', 'albumentations', 'pytorch_metric_learning', 'matplotlib', 'faiss', 'cv2'}"
    code = f"import sys; from reid_cckd.samplers import ClassUniformSampler; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_others_reuse_needs_no_locks_of_unix() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import reid_cckd.samplers, reid_cckd.losses, reid_cckd.evaluation"
    subprocess.run([sys.executable, "-c", code], check=True)
