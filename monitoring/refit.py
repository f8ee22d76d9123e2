"""
The remedies for an ECE that went up: re-fit the temperature on one half of the recent labels, judge it on the other,
and hot-swap it.

``refit_calibrator`` publishes nothing: it writes what it proposes into ``<work folder>/refit/<incident>.json``, and
``swap_calibrator`` publishes just that. A new revision keeps the energy cut, which no temperature of the softmax moves,
and moves the thresholds of the intents so that what was accepted stays accepted (``temperature.moved_thresholds``): a
customer is answered as before, only the probability that goes with the answer is put right.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.decision import accept, softmax
from model_repo.contract.errors import ContractError, DeploymentMoved, FileMissing, VersionError
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.policy import Policy
from model_repo.contract.temperature import is_at_a_bound
from model_repo.store import Store
from monitoring.errors import HookFailed
from monitoring.observations import StreamKey
from monitoring.recalibration import Judged, fit_half, judged, recent_stretch, refitted, verdict_after
from monitoring.remedies import ActionRequest, ActionResult, SignalRecord
from monitoring.signals import Signal, Verdict, Watch
from monitoring.windows import Window
from monitoring.work_files import write_json


class RefitCalibrator:
    """Fits, judges and proposes."""

    def __init__(self, store: Store, watch: Watch, work_folder: Path) -> None:
        """``watch`` is that of ``ece_after_refit``; each half needs its ``minimum_rows``, labelled and in scope."""
        self._store = store
        self._watch = watch
        self._folder = work_folder

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. Asked again under the same key it fits anew: nothing serves what it proposes yet."""
        reference = next((signal.reference for signal in request.evidence if signal.name == "ece"), None)
        if reference is None:
            return ActionResult("failed", "The request does not say what ECE it is to come back to.")
        try:
            before = policy_of(self._store, window.key)
        except ContractError as wrong:
            return ActionResult("failed", f"The policy to start from cannot be read: {wrong}")
        rows = recent_stretch(window.labelled, before.temperature, self._watch.minimum_rows)
        fits = fit_half(rows["number"])
        counts = int(fits.sum()), int((~fits).sum())
        if min(counts) < self._watch.minimum_rows:
            words = f"{counts[0]} and {counts[1]} labelled rows in scope; each half needs {self._watch.minimum_rows}."
            return ActionResult("nothing_to_do", words, {"rows_fitted": counts[0], "rows_judged": counts[1]})
        proposed = refitted(before, rows[fits], window.predictions)
        old, new = (judged(policy, rows[~fits], self._watch, reference) for policy in (before, proposed))
        # Where the search ended at a bound no temperature fits: published, it would leave nothing but certainty.
        has_none = is_at_a_bound(proposed.temperature)
        verdict = Verdict.BREACHED if has_none else verdict_after(old, new, self._watch)
        signal = replace(new.ece, verdict=verdict)
        detail = _detail(before, proposed, old, new, counts, window)
        body = {"key": request.key, "based_on": before.name, "verdict": str(signal.verdict)}
        try:
            write_json(
                self._folder / proposal_name(request), body | {"policy": proposed.to_json(window.taxonomy), **detail}
            )
        except OSError as error:
            raise HookFailed(f"the proposal cannot be written: {error}") from error
        words = f"Temperature {before.temperature:.3f} -> {proposed.temperature:.3f}: {_words(signal)}"
        if has_none:
            words += " No temperature fits these labels: the search ended at its bound."
        return ActionResult("done", words, detail, (SignalRecord.of_signal(signal),))


class SwapCalibrator:
    """Publishes what was proposed for the incident, at most once, and only in the place of what it was fitted for."""

    def __init__(self, store: Store, work_folder: Path) -> None:
        self._store = store
        self._folder = work_folder

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``."""
        try:
            return self._swap(request, window)
        except (DeploymentMoved, OSError) as error:
            raise HookFailed(f"the revision was not published: {error}") from error
        except ContractError as wrong:
            return ActionResult("failed", f"The revision cannot be published: {wrong}")

    def _swap(self, request: ActionRequest, window: Window) -> ActionResult:
        proposal = _read_proposal(self._folder / proposal_name(request))
        if proposal is None:
            return ActionResult("failed", f"No re-fitted calibrator was proposed for {request.incident}.")
        past, reason = self._store.history(), f"re-fitted calibrator, {request.incident}"
        serving = past[-1].champion
        published = next((deployment for deployment in past if deployment.reason == reason), None)
        if published is not None and published.champion == serving:
            return ActionResult("done", f"Policy {serving.policy} serves.", {"policy": serving.policy})
        if published is not None:
            words = f"Policy {published.champion.policy} was published, and {serving.policy} has replaced it since."
            return ActionResult("nothing_to_do", words, {"policy": serving.policy})
        if serving.policy != proposal["based_on"]:
            words = f"The re-fit is of policy {proposal['based_on']}, and {serving.policy} serves now."
            return ActionResult("nothing_to_do", words, {"policy": serving.policy})
        policy = self._added(Policy.from_json(proposal["policy"], window.taxonomy))
        self._store.promote(policy.version, policy.revision, reason, expected=past[-1].number)
        detail = {"policy": policy.name, "temperature": policy.temperature, "replaces": serving.policy}
        return ActionResult("done", f"Policy {policy.name} serves in the place of {serving.policy}.", detail)

    def _added(self, proposed: Policy) -> Policy:
        """The revision with these numbers: the one that is there, left by a try that was cut off, or the next one."""
        revision = 1
        while True:
            try:
                known = self._store.policy(proposed.version, revision)
            except FileMissing:
                break
            if known == replace(proposed, revision=revision):
                return known
            revision += 1
        policy = replace(proposed, revision=revision)
        try:
            self._store.add_policy(policy)
        except VersionError as wrong:
            raise HookFailed(f"{policy.name} was taken in the meantime: {wrong}") from wrong
        return policy


def proposal_name(request: ActionRequest) -> str:
    """Where in the work folder the re-fit of an incident stands."""
    return f"refit/{request.incident}.json"


def policy_of(store: Store, key: StreamKey) -> Policy:
    """The policy that a stream was decided by; raises ContractError."""
    revision = key.policy.removeprefix(f"{key.version}.")
    if not revision.isdigit():
        raise ContractError(f"{key.policy!r} is no policy of version {key.version!r}")
    return store.policy(key.version, int(revision))


def _detail(
    before: Policy, after: Policy, old: Judged, new: Judged, counts: tuple[int, int], window: Window
) -> dict[str, Any]:
    logits = window.predictions["logits"][~window.predictions["is_ood"]]
    return {
        "revision": after.revision,
        "temperature_before": before.temperature,
        "temperature": after.temperature,
        "rows_fitted": counts[0],
        "rows_judged": counts[1],
        "ece_before": SignalRecord.of_signal(old.ece).to_json(),
        "ece_after": SignalRecord.of_signal(new.ece).to_json(),
        "nll_before": old.nll,
        "nll_after": new.nll,
        "decisions_changed": int((_accepted(logits, before) != _accepted(logits, after)).any(axis=1).sum()),
        "decisions_compared": len(logits),
    }


def _accepted(logits: FloatArray, policy: Policy) -> BoolArray:
    return accept(softmax(logits, policy.temperature), np.asarray(policy.thresholds))


def _words(signal: Signal) -> str:
    outcome = {Verdict.OK: "recovers", Verdict.BREACHED: "persists", Verdict.INCONCLUSIVE: "cannot be told"}
    measured = f"{signal.value:.4f} [{signal.low:.4f}, {signal.high:.4f}] on {signal.n} rows it was not fitted on"
    return f"ECE {measured}, reference {signal.reference:.4f}; it {outcome[signal.verdict]}."


def _read_proposal(file: Path) -> Mapping[str, Any] | None:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as wrong:
        raise ContractError(f"{file} is damaged: {wrong}") from wrong
    if not isinstance(body, dict) or not {"based_on", "policy"} <= set(body):
        raise ContractError(f"{file} holds no proposal")
    return body
