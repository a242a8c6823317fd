"""What a teacher said, kept on disk: the right row for every view, killed and resumed, and never another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_cckd.batch import Batch, Output, repeats
from reid_cckd.engine import CachedTeacher, Layout, TeacherCache, build_cache, open_cache, teacher_cache
from reid_cckd.errors import DataError, UserError

IMAGES, VIEWS = 11, 3
FACTS = {"teacher": "abc", "views": VIEWS, "image_size": (4, 4)}
LAYOUT = Layout(IMAGES, VIEWS, (2, 2, 1), "float32")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache, "PART", 4)


def load(view: int, parts: Sequence[range]) -> Iterator[Batch]:
    """Batches of two images whose pixels say which image in which view they are."""
    for part in parts:
        for rows in torch.tensor(list(part)).split(2):
            yield Batch((rows + 100 * view).float(), rows, rows)


class Counting:
    """Answers with what it sees, and fails after ``limit`` batches."""

    def __init__(self, limit: int = 1000, scale: float = 1.0) -> None:
        self.seen: list[float] = []
        self.limit, self.scale = limit, scale

    def __call__(self, images: torch.Tensor) -> Output:
        if len(self.seen) >= self.limit:
            raise KeyboardInterrupt
        self.seen.append(float(images[0]))
        rows = self.scale * images[:, None]
        return Output(torch.cat([rows, -rows], 1), torch.cat([rows + 0.5, rows], 1), rows * 2)


def build(folder: Path, answer: Counting, **facts: object) -> TeacherCache:
    return build_cache(folder, {**FACTS, **facts}, LAYOUT, load, answer)


def test_every_view_of_every_image_is_found_again(tmp_path: Path) -> None:
    teacher = CachedTeacher(build(tmp_path, Counting()))
    index = torch.tensor([7, 2, 7, 10, 7])
    for epoch in (0, 2, 4):
        output = teacher(Batch(index, index, index), torch.zeros(1), epoch)
        views = torch.tensor([epoch, epoch, epoch + 1, epoch, epoch + 2]) % VIEWS
        expected = (index + 100 * views).float()
        assert torch.equal(output.embedding, torch.stack([expected, -expected], 1))
        assert torch.equal(output.neck[:, 0], expected + 0.5)
        assert output.logits is not None
        assert torch.equal(output.logits[:, 0], 2 * expected)
        assert output.feature_map is None


def test_rows_held_on_the_device_are_those_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = build(tmp_path, Counting())
    index, repeat, row = torch.tensor([[7, 2, 7], [0, 0, 1], [7 + IMAGES, 2 + IMAGES, 7 + 2 * IMAGES]])
    there = torch.stack([index, repeat, row])
    expected = CachedTeacher(cache)(Batch(index, index, index, repeat, there), index, 1)
    held = CachedTeacher(cache, cache.on(torch.device("cpu")))
    at_hand = held(Batch(index, index, index, repeat), index, 1)  # a batch that does not know its rows is looked up
    monkeypatch.delattr(TeacherCache, "look_up")
    for output in (held(Batch(index, index, index, repeat, there), index, 1), at_hand):
        assert all(torch.equal(*pair) for pair in zip(output[:3], expected[:3], strict=True))


def test_a_gpu_holds_answers_that_take_a_quarter_of_its_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, free = build(tmp_path, Counting()), [0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 10**12))
    monkeypatch.setattr(torch.Tensor, "to", lambda rows, device: (rows, device.type))
    for bytes_free, kept in ((4 * cache.table.nbytes - 1, False), (4 * cache.table.nbytes, True)):
        free[0] = bytes_free
        assert (cache.on(torch.device("cuda")) is not None) is kept


def test_repeats_of_a_part_count_what_came_before_it() -> None:
    assert repeats(np.array([3, 1, 3]), [3, 3, 2]).tolist() == [2, 0, 3]
    assert repeats(np.array([3, 1, 3]), []).tolist() == [0, 0, 1]


def test_repeats_are_counted_in_the_order_of_the_batch() -> None:
    assert repeats(np.array([4, 4, 1, 4, 1])).tolist() == [0, 1, 0, 2, 1]


def test_a_teacher_without_a_head_keeps_no_logits(tmp_path: Path) -> None:
    layout = Layout(IMAGES, 1, (2, 2, 0), "float16")

    def answer(images: torch.Tensor) -> Output:
        return Output(images[:, None].expand(-1, 2), images[:, None].expand(-1, 2), None)

    index = torch.arange(3)
    output = CachedTeacher(build_cache(tmp_path, {}, layout, load, answer))(
        Batch(index, index, index), torch.zeros(1), 5
    )
    assert output.logits is None
    assert output.neck.dtype == torch.float16


@pytest.mark.parametrize("limit", [0, 1, 5, 17])
def test_a_killed_build_goes_on_with_the_parts_it_lacks(tmp_path: Path, limit: int) -> None:
    whole = build(tmp_path / "whole", Counting())
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", Counting(limit))
    assert open_cache(tmp_path / "killed", FACTS) is None
    rest = Counting()
    assert np.array_equal(build(tmp_path / "killed", rest).table, whole.table)
    per_part = [2, 2, 2] * VIEWS  # batches of 4, 4 and 3 images
    done = max(n for n in range(len(per_part) + 1) if sum(per_part[:n]) <= limit)
    assert len(rest.seen) == sum(per_part[done:])
    again = Counting()
    build(tmp_path / "killed", again)
    assert again.seen == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_cache_of_another_teacher_is_named(tmp_path: Path, finished: bool) -> None:
    if finished:
        build(tmp_path, Counting())
    else:
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, Counting(3))
    with pytest.raises(UserError, match=r"another teacher(.|\n)*'abc'(.|\n)*'xyz'"):
        build(tmp_path, Counting(), teacher="xyz")
    with pytest.raises(UserError, match=r"same teacher for another run(.|\n)*views: 3"):
        build(tmp_path, Counting(), views=4)


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    layout = Layout(IMAGES, VIEWS, (2, 2, 1), "float16")
    with pytest.raises(UserError, match="cache_dtype: float32"):
        build_cache(tmp_path, FACTS, layout, load, Counting(scale=1e6))
    assert open_cache(tmp_path, FACTS) is None


def test_damage_is_named(tmp_path: Path) -> None:
    build(tmp_path, Counting())
    with (tmp_path / "rows.bin").open("r+b") as file:
        file.truncate(50)
    with pytest.raises(DataError, match=r"rows\.bin is damaged"):
        open_cache(tmp_path, FACTS)
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(DataError, match=r"cache\.json is damaged"):
        open_cache(tmp_path, FACTS)


def test_a_full_disk_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teacher_cache.os, "posix_fallocate", full)
    answer = Counting()
    with pytest.raises(UserError, match=r"No space left.*teacher\.views"):
        build(tmp_path, answer)
    assert answer.seen == []


def test_what_fails_while_the_teacher_answers_is_not_put_on_the_disk(tmp_path: Path) -> None:
    def lost(*_: object) -> Output:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        build_cache(tmp_path, FACTS, LAYOUT, load, lost)
