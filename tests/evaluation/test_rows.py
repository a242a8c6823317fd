"""Where rows lie while they are evaluated."""

import pytest
import torch

from reid_cckd.evaluation import rows


@pytest.mark.parametrize(("count", "room"), [(250, True), (251, False)])
def test_a_gpu_holds_rows_that_take_up_to_a_quarter_of_its_free_memory(count, room, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**9))
    values = torch.zeros(count, 1)
    assert rows._has_room(torch.device("cuda"), values) is room
    assert not rows._has_room(torch.device("cpu"), values)
    assert not rows._has_room(torch.device("cuda"), values.to("meta"))
