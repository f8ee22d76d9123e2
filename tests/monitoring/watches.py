"""Watches of the failure tree that ships, for tests of signals; and evidence of either kind."""

import numpy as np

from monitoring.failure_tree import load
from monitoring.sequential import Evidence
from monitoring.signals import Signal, Verdict

WATCHES = load().watches
DETECTED = Evidence(np.zeros((1, 1)), rows=1000, detected_at=900)
NOTHING = Evidence(np.zeros((1, 1)), rows=1000, detected_at=None)


def signal_of(name: str, verdict: Verdict, value: float = 0.5, n: int = 1000) -> Signal:
    """A signal whose verdict is all that matters."""
    return Signal(name, value, value, value, n, verdict, 0.0, 0.1)
