"""The bounded pipeline: order, bounds, errors, and the same results in any number of threads."""

import threading
import time

import numba
import pytest
from threadpoolctl import threadpool_info

from segmodels.engine.parallel import available_threads, map_images, map_in_order


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_items_order(workers):
    def slow_when_early(item):
        time.sleep(0.002 * (10 - item))
        return item * item

    assert list(map_in_order(slow_when_early, range(10), workers=workers)) == [
        item * item for item in range(10)
    ]


def test_items_are_taken_only_as_results_are():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = map_in_order(lambda item: item, items(), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]

    # Three were given out, at most twice the workers wait or are worked on.
    assert len(taken) <= 3 + 2 * 2
    results.close()


def test_several_items_are_worked_on_at_once():
    meeting = threading.Barrier(2, timeout=10)

    assert (
        list(map_in_order(lambda item: meeting.wait() is not None, range(4), workers=2))
        == [True] * 4
    )


def test_an_error_comes_in_its_items_place_and_stops_the_rest():
    begun = []

    def fail_at_three(item):
        begun.append(item)
        if item == 3:
            raise KeyError("three")
        return item

    results = map_in_order(fail_at_three, range(100), workers=2)

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert len(begun) < 12


def test_no_items():
    assert list(map_in_order(str, [], workers=2)) == []


def test_workers_must_be_positive():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        next(map_in_order(str, [1], workers=0))


def test_images_are_computed_with_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = blas_threads()

    seen = list(map_images(lambda _: (numba.get_num_threads(), blas_threads()), range(4)))

    assert seen == [(1, {1})] * 4
    assert blas_threads() == before


@pytest.mark.parametrize(("limit", "expected"), [("1", 1), ("3", 3)])
def test_the_environment_limits_threads(monkeypatch, limit, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)

    assert available_threads() == expected


@pytest.mark.parametrize("limit", ["", "0", "many"])
def test_without_a_limit_all_cores_are_used(monkeypatch, limit):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)

    assert available_threads() >= 1
