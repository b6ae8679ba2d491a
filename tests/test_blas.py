"""The BLAS is held to one thread as long as anyone needs it, and gets its threads back afterwards."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fastfactor.blas import one_blas_thread


def count_blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two_threads():
    with threadpool_limits(2, "blas"):
        if count_blas_threads() != {2}:
            pytest.skip("this BLAS does not take two threads")
        yield


def fail_while_holding():
    with one_blas_thread():
        assert count_blas_threads() == {1}
        raise ZeroDivisionError


def test_counts_come_back_also_after_an_error():
    with pytest.raises(ZeroDivisionError):
        fail_while_holding()
    assert count_blas_threads() == {2}


def test_overlapping_holders_as_from_two_threads():
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert count_blas_threads() == {1}
    second.__exit__(None, None, None)
    assert count_blas_threads() == {2}
