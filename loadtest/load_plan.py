"""What an open-loop run sends, and what came of it."""

from dataclasses import asdict, dataclass

from loadtest.latency import LatencySummary, Sample

LONGEST_RUN_S = 600.0


@dataclass(frozen=True)
class RateStep:
    """A constant rate for a while."""

    rate: float
    """Requests a second."""
    seconds: float


@dataclass(frozen=True)
class LoadPlan:
    """What a run sends."""

    steps: tuple[RateStep, ...]
    connections: int = 512
    """Most open at once; beyond it requests wait in the generator, and their latency counts from when they were due."""
    prewarmed: int = 16
    timeout_s: float = 5.0
    """How long after the last request answers are awaited."""
    abort_backlog_s: float = 2.5
    """The run stops once this many seconds of requests are unanswered: the server has collapsed."""
    seed: int = 7

    def __post_init__(self) -> None:
        if not self.steps or any(step.rate <= 0 or step.seconds <= 0 for step in self.steps):
            raise ValueError("a load plan needs steps of positive rate and length")
        if self.seconds > LONGEST_RUN_S:
            raise ValueError(f"a run lasts at most {LONGEST_RUN_S:.0f} s, asked for {self.seconds:.0f} s")

    @property
    def seconds(self) -> float:
        """Length of the run."""
        return sum(step.seconds for step in self.steps)

    def due_times(self) -> list[float]:
        """
        When each request leaves, in seconds from the start.

        >>> LoadPlan((RateStep(2.0, 1.0), RateStep(4.0, 0.5))).due_times()
        [0.0, 0.5, 1.0, 1.25]
        """
        due, begins = [], 0.0
        for step in self.steps:
            due += [begins + number / step.rate for number in range(int(step.rate * step.seconds))]
            begins += step.seconds
        return due


@dataclass(frozen=True)
class LoadReport:
    """What came of a run."""

    samples: tuple[Sample, ...]
    latency: LatencySummary
    """Of the requests answered with 200 and the right id."""
    sent: int
    seconds: float
    error_kinds: dict[str, int]
    has_collapsed: bool
    """The backlog passed the plan's limit and the run was cut short."""
    client_cpu: float
    """Cores that the generator used: near 1 it measures itself."""

    @property
    def errors(self) -> int:
        """Requests without a right answer."""
        return sum(self.error_kinds.values())

    @property
    def achieved(self) -> float:
        """Right answers a second."""
        return self.latency.answered / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """Everything but the samples."""
        summary = {name: value for name, value in asdict(self).items() if name != "samples"}
        return {**summary, "errors": self.errors, "achieved": round(self.achieved, 1)}
