"""Tests for kernelgan.baselines.once."""

from concurrent import futures

import numpy as np
import pytest

from kernelgan.baselines.once import Once


def test_what_many_ask_for_is_made_once_and_kept_with_what_names_it():
    once, asked = Once(), []

    def make():
        asked.append(1)
        return np.full(2, len(asked))

    with futures.ThreadPoolExecutor(4) as pool:
        ask = [pool.submit(once, "a", make) for _ in range(8)]
        first = ask[0].result()
        assert all(one.result() is first for one in ask)
    assert len(asked) == 1
    groups = [np.zeros(3) for _ in range(20)]
    made = [once(id(group), make, kept=group) for group in groups]
    del groups
    assert len({id(one) for one in made}) == 20
    assert once(id(np.zeros(3)), make)[0] == 22  # no number of those that are kept is free


def test_an_error_is_raised_for_all_and_not_tried_again():
    once, asked = Once(), []

    def fail():
        asked.append(1)
        raise ValueError("no such fit")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such fit"):
            once("a", fail)
    assert len(asked) == 1
