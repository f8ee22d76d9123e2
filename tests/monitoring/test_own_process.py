"""Long computing happens elsewhere, and what comes of it comes back."""

import math
import os
import signal

import numpy as np
import pytest

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray
from monitoring.drift import median_bandwidth
from monitoring.errors import HookFailed
from monitoring.own_process import NICENESS, in_own_process


def test_result_comes_from_another_process_of_low_priority() -> None:
    """So the loop goes on, and customers come first."""
    assert in_own_process(os.getpid) != os.getpid()
    assert in_own_process(os.nice, 0) == min(os.nice(0) + NICENESS, 19)


def test_arrays_go_there_and_back() -> None:
    """As they were."""
    rows: FloatArray = np.arange(6.0).reshape(2, 3)
    assert in_own_process(np.asarray, rows).tolist() == rows.tolist()


def test_what_it_raises_is_raised_here() -> None:
    """As if it had been called."""
    with pytest.raises(CannotMeasure, match="a bandwidth needs two reference embeddings or more, got 1"):
        in_own_process(median_bandwidth, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="math domain error"):
        in_own_process(math.sqrt, -1.0)


def test_a_killed_process_is_tried_again_later() -> None:
    """Out of memory, say."""
    with pytest.raises(HookFailed, match="ended with status -9"):
        in_own_process(signal.raise_signal, signal.SIGKILL)
