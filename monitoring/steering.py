"""
The remedies for latency: each moves what the model repository says, and the service follows within a look or two.

    tokenizer    cap the longest utterance at the 99th percentile of the reference's lengths, and open the version anew
    batching     halve the tokens computed together; when that was done before, halve how many may be inside
    model graph  open the version anew, and if that did not help, serve the previous version again

What was done under a key stands in the deployment's reason, ``<key>: <words>``, written with the change itself. So the
same request may come any number of times: it is done once, and told the same way each time. Where something else
serves by now than the request is about, nothing is done: its latency is another's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_repo.contract.deployment import Deployment, rollback_target
from model_repo.contract.errors import ContractError, DeploymentMoved, FileMissing
from model_repo.contract.reference import QUANTILES
from model_repo.contract.tuning import DEFAULT_BATCH_TOKENS, DEFAULT_MAX_IN_FLIGHT, FEWEST_MAX_TOKENS, lowered
from model_repo.store import Store
from monitoring.errors import HookFailed
from monitoring.observations import StreamKey
from monitoring.remedies import Action, ActionRequest, ActionResult
from monitoring.windows import Window

FEWEST_BATCH_TOKENS = 32
"""Two messages or so: with fewer, calls of the engine cost more than waiting for each other does."""
FEWEST_IN_FLIGHT = 8
"""What the service always admits by default; fewer refuse customers without shortening anybody's wait."""
LONGEST_KEPT = 0.99
"""Share of messages like those that the version was calibrated on which the cap leaves whole."""
MINIMUM_ROWS = 200
"""Predictions that a 99th percentile of current lengths takes."""


@dataclass(frozen=True)
class ServiceLimits:
    """What the settings of the service say, which the sidecar cannot ask it: the first remedy halves from here."""

    batch_tokens: int = DEFAULT_BATCH_TOKENS
    """As ``ROUTER_BATCH_TOKENS``."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    """As ``ROUTER_MAX_IN_FLIGHT``."""


@dataclass(frozen=True)
class Step:
    """A change of the deployment that was decided on, and its reason in words."""

    words: str
    make: Callable[[str, int], Deployment]
    """Reason, and number of the deployment that it was decided on -> the deployment that is made."""


Past = Sequence[Deployment]
"""Every deployment that is remembered, oldest first; the last one serves."""


class Steering:
    """An action that moves what the model repository says."""

    def __init__(self, store: Store, decide: Callable[[Past, Window], Step | str]) -> None:
        """``decide`` gives the change to make, or says why there is none."""
        self._store = store
        self._decide = decide

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. What the model repository refuses is failed; HookFailed when it changed meanwhile."""
        try:
            return self._steer(request, window)
        except (DeploymentMoved, OSError) as error:
            raise HookFailed(f"the deployment was not changed: {error}") from error
        except ContractError as wrong:
            return ActionResult("failed", f"The deployment cannot be changed: {wrong}")

    def _steer(self, request: ActionRequest, window: Window) -> ActionResult:
        past = self._store.history()
        serving, made = past[-1], made_under(past, request.key)
        if made is None and not serves(serving, request.stream):
            words = f"Policy {serving.champion.policy} serves by now; the request is about {request.stream.name}."
            return ActionResult("nothing_to_do", words, _detail(serving))
        if made is None:
            step = self._decide(past, window)
            if isinstance(step, str):
                return ActionResult("nothing_to_do", step, _detail(serving))
            made = step.make(_prefix(request.key) + step.words, serving.number)
        return ActionResult("done", made.reason.removeprefix(_prefix(request.key)), _detail(made))


def steering_actions(store: Store, limits: ServiceLimits) -> dict[str, Action]:
    """The remedies by the name that the failure tree has for them."""
    return {
        "tune_tokenizer": Steering(store, lambda past, window: tokenizer_step(store, past[-1], window)),
        "tune_batching": Steering(store, lambda past, _: batching_step(store, past[-1], limits)),
        "reload_model_graph": Steering(store, lambda past, _: reload_step(store, past[-1])),
        "roll_back": Steering(store, lambda past, _: rollback_step(store, past)),
    }


def tokenizer_step(store: Store, serving: Deployment, window: Window) -> Step | str:
    """
    Tokenizing takes time by the length of the text, and so does everything after it. The few longest messages are cut
    where all but one in a hundred of those end that the version was calibrated on; of a version without a reference
    profile, of the current ones. What a message is about its beginning nearly always says; how many of the current ones
    are cut stands in the words. Opened anew, the tokenizer also loses what a long life may have done to it.
    """
    loaded = store.load(serving.champion.version)
    in_force = lowered(loaded.manifest.max_tokens, serving.tuning.max_tokens)
    lengths = window.predictions["n_tokens"]
    longest, whose = _reference_percentile_99(store, serving.champion.version), "the reference's lengths"
    if longest is None and len(lengths) >= MINIMUM_ROWS:
        longest, whose = percentile_99(lengths), f"the {len(lengths)} current lengths"
    if longest is None:
        return f"There is no reference profile, and {len(lengths)} current lengths; {MINIMUM_ROWS} are needed."
    cap = max(longest, FEWEST_MAX_TOKENS)
    if cap >= in_force:
        return f"Utterances are cut at {in_force} tokens already; the 99th percentile of {whose} is {longest}."
    words = (
        f"Utterances are cut at {cap} tokens instead of {in_force}, the 99th percentile of {whose} "
        f"({int((lengths > cap).sum())} of the current {len(lengths)} are longer), and version "
        f"{serving.champion.version} is opened anew."
    )
    tuning = replace(serving.tuning, max_tokens=cap)
    return Step(words, lambda reason, number: store.tune(tuning, reason, reload=True, expected=number))


def batching_step(store: Store, serving: Deployment, limits: ServiceLimits) -> Step | str:
    """
    Everyone in a micro-batch waits for all of it, and who comes meanwhile waits for its end: half the tokens is half of
    both, at more calls. Where the queue is long because more comes than can be computed that does not help, so the next
    time the number inside is halved: by Little's law the wait is that number over the rate. Those who are refused are
    told at once, and counted. Neither falls below its floor.
    """
    tokens = lowered(limits.batch_tokens, serving.tuning.batch_tokens)
    inside = lowered(limits.max_in_flight, serving.tuning.max_in_flight)
    if tokens == limits.batch_tokens and tokens > FEWEST_BATCH_TOKENS:
        halved = max(FEWEST_BATCH_TOKENS, tokens // 2)
        words = f"{halved} tokens instead of {tokens} are computed together."
        tuning = replace(serving.tuning, batch_tokens=halved)
    elif inside > FEWEST_IN_FLIGHT:
        halved = max(FEWEST_IN_FLIGHT, inside // 2)
        words = f"{tokens} tokens are computed together already; now {halved} instead of {inside} may be inside."
        tuning = replace(serving.tuning, max_in_flight=halved)
    else:
        return f"Batching is as low as it goes: {tokens} tokens computed together, {inside} inside."
    return Step(words, lambda reason, number: store.tune(tuning, reason, expected=number))


def reload_step(store: Store, serving: Deployment) -> Step:
    """An engine that became slow by itself, as by fragmented memory or a plan for other shapes, begins anew."""
    words = f"Version {serving.champion.version} is opened anew."
    return Step(words, lambda reason, number: store.reload(reason, expected=number))


def rollback_step(store: Store, past: Past) -> Step | str:
    """The previous version. An earlier policy of the same version computes the same, so it is no remedy."""
    serving, target = past[-1].champion, rollback_target(past)
    if target is None or target.champion.version == serving.version:
        return f"No version before {serving.version} is remembered that could serve again."
    words = f"Version {target.champion.version} serves again in the place of {serving.version}."
    return Step(words, lambda reason, number: store.roll_back(reason, expected=number))


def made_under(past: Past, key: str) -> Deployment | None:
    """The deployment that was made for this request."""
    return next((deployment for deployment in past if deployment.reason.startswith(_prefix(key))), None)


def serves(deployment: Deployment, stream: StreamKey) -> bool:
    """Whether a stream is of what the deployment has answer."""
    champion = deployment.champion
    return stream == StreamKey(champion.version, champion.policy, "champion")


def percentile_99(lengths: "np.ndarray[Any, np.dtype[np.integer[Any]]]") -> int:
    """
    The shortest length that all but one in a hundred do not exceed.

    >>> percentile_99(np.arange(1, 201))
    198
    """
    return int(np.quantile(lengths, LONGEST_KEPT, method="inverted_cdf"))


def _reference_percentile_99(store: Store, version: str) -> int | None:
    try:
        quantiles = store.reference(version).length_quantiles
    except FileMissing:
        return None
    return math.ceil(float(np.interp(LONGEST_KEPT, np.linspace(0.0, 1.0, QUANTILES), quantiles)))


def _prefix(key: str) -> str:
    return f"{key}: "


def _detail(deployment: Deployment) -> dict[str, Any]:
    return {
        "deployment": deployment.number,
        "version": deployment.champion.version,
        "policy": deployment.champion.policy,
        "reload": deployment.reload,
        "tuning": deployment.tuning.to_json(),
    }
