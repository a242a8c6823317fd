"""Evaluations that run at a time leave the process as they found it, in whatever order they end."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from reid_cckd.evaluation import process
from reid_cckd.evaluation.products import workers


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def two_threads_and_little_precision():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("context", [workers, lambda: process.full_precision])
@pytest.mark.usefixtures("two_threads_and_little_precision")
def test_the_first_may_leave_first(context):
    before = blas_threads(), process.precision()
    assert max(before[0]) == 2
    first, second = ExitStack(), ExitStack()
    for stack in (first, second):
        stack.enter_context(context())
    during = blas_threads(), process.precision()
    assert during != before
    first.close()
    assert (blas_threads(), process.precision()) == during
    second.close()
    assert (blas_threads(), process.precision()) == before


@pytest.mark.usefixtures("two_threads_and_little_precision")
def test_a_thread_that_comes_meanwhile_has_as_many_workers():
    def count():
        with workers() as pool:
            return pool._max_workers

    with workers() as pool:
        pool.submit(torch.get_num_threads).result()  # a worker, which has set threads to come to one
        assert in_a_new_thread(count) == 2
    assert in_a_new_thread(torch.get_num_threads) == 2
