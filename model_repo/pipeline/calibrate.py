"""
Fit the numbers of a policy: ``python -m model_repo calibrate --run DIR --data DIR --version NAME --out DIR``.

Reads a training run's checkpoint/ and outputs_validation.npz, and validation.jsonl; writes policy.json and
reference.npz. The validation split is the calibration split, and nothing here ever sees another one.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_repo.contract.decision import decide, energy, sigmoid, softmax
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.labels import LANGUAGES, LabelledUtterance, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray, ModelOutputs
from model_repo.contract.policy import Policy
from model_repo.contract.ranking import auroc
from model_repo.contract.reference import EMBEDDINGS, ReferenceProfile, quantiles
from model_repo.contract.temperature import fit_shares_temperature, fit_temperature, is_at_a_bound
from model_repo.pipeline.thresholds import fit_thresholds
from model_repo.pipeline.truth import Truth, check_rows, truth_of

IN_SCOPE_RETENTION = 0.95
"""Higher answers more real requests and lets more ood through."""
ENERGY_TEMPERATURES = 2.0 ** np.linspace(-2.0, 3.0, 21)
"""Holds 1, the plain energy of Liu et al. 2020, which wins unless another ranks better by more than AUROC_NOISE."""
AUROC_NOISE = 0.002
"""A smaller gain on some hundred ood utterances does not carry over to others."""
NEVER = 1.0
"""A threshold that no probability below 1 reaches."""


def calibrate(
    outputs: ModelOutputs,
    utterances: Sequence[LabelledUtterance],
    n_tokens: IntArray,
    taxonomy: Taxonomy,
    version: str,
    rng: np.random.Generator,
    in_scope_retention: float = IN_SCOPE_RETENTION,
) -> tuple[Policy, ReferenceProfile]:
    """
    The first policy of a version, and its reference profile, from its outputs on the calibration split.

    Without ood utterances the energy temperature stays 1; without age labels no request is age-sensitive.
    """
    check_rows(outputs, utterances)
    truth = truth_of(utterances, taxonomy)
    in_scope = ~truth.is_ood
    temperature = policy_temperature(outputs.logits[in_scope], truth.targets[in_scope])
    energy_temperature = fit_energy_temperature(outputs.logits, truth.is_ood)
    probabilities = softmax(outputs.logits[in_scope], temperature)
    high_risk = np.array([intent in taxonomy.high_risk for intent in taxonomy.intents])
    policy = Policy(
        version=version,
        revision=1,
        temperature=temperature,
        thresholds=tuple(fit_thresholds(probabilities, truth.targets[in_scope], high_risk, rng).tolist()),
        energy_temperature=energy_temperature,
        energy_cut=fit_energy_cut(energy(outputs.logits[in_scope], energy_temperature), in_scope_retention),
        age_threshold=fit_age_threshold(sigmoid(outputs.age_logits), truth.age),
        in_scope_retention=in_scope_retention,
    )
    return policy, reference_profile(outputs, policy, utterances, truth, n_tokens, rng)


def policy_temperature(logits: FloatArray, targets: BoolArray) -> float:
    """That of the top intent; of the shares, and saying so, where the top one has none."""
    temperature = fit_temperature(logits, targets)
    if not is_at_a_bound(temperature):
        return temperature
    by_shares = fit_shares_temperature(logits, targets)
    print(
        f"temperature {by_shares:.3f} of the shares of several intents: the top one fits at a bound, {temperature:.3f}"
    )
    return by_shares


def fit_energy_temperature(logits: FloatArray, is_ood: BoolArray) -> float:
    """The T_e nearest to 1 whose energy ranks ood above in-scope (AUROC) about as well as the best; 1 without ood."""
    if not is_ood.any():
        return 1.0
    ranked = np.array([float(auroc(energy(logits, t), is_ood)) for t in ENERGY_TEMPERATURES])
    good = ENERGY_TEMPERATURES[ranked >= ranked.max() - AUROC_NOISE]
    return float(good[np.abs(np.log(good)).argmin()])


def fit_energy_cut(energies: FloatArray, retention: float) -> float:
    """
    The lowest cut that keeps ``retention`` of the in-scope energies, midway to the next one.

    >>> fit_energy_cut(np.array([-4.0, -1.0, -3.0, -2.0]), 0.75)
    -1.5
    """
    if not 0 < retention < 1:
        raise CannotMeasure(f"in_scope_retention must be in (0, 1), got {retention}")
    ordered = np.sort(np.asarray(energies, dtype=np.float64))
    kept = int(np.ceil(retention * len(ordered) - 1e-9))
    following = ordered[min(kept, len(ordered) - 1)]
    # Midway, so that another engine's rounding does not reject the last utterance that is kept.
    return float((ordered[kept - 1] + following) / 2.0) if following > ordered[kept - 1] else float(following)


def fit_age_threshold(probabilities: FloatArray, age: FloatArray) -> float:
    """
    The threshold with the highest F1 for age-sensitive requests; NEVER when no utterance is labelled so.

    >>> fit_age_threshold(np.array([0.9, 0.6, 0.2]), np.array([1.0, 1.0, 0.0])).__round__(3)
    0.4
    """
    known = ~np.isnan(age)
    sensitive = age[known] == 1.0
    if not sensitive.any():
        return NEVER
    order = np.argsort(-probabilities[known], kind="stable")
    falling = probabilities[known][order]
    accepted = np.arange(1, len(falling) + 1)
    f1 = 2.0 * np.cumsum(sensitive[order]) / (accepted + sensitive.sum())
    below = np.append(falling[1:], 0.0)
    best = int(np.where(falling > below, f1, -1.0).argmax())
    return float((falling[best] + below[best]) / 2.0)


def reference_profile(
    outputs: ModelOutputs,
    policy: Policy,
    utterances: Sequence[LabelledUtterance],
    truth: Truth,
    n_tokens: IntArray,
    rng: np.random.Generator,
) -> ReferenceProfile:
    """What these utterances look like to the model under this policy. ``n_tokens`` (n,), specials included."""
    if len(n_tokens) != len(outputs):
        raise CannotMeasure(f"n_tokens has {len(n_tokens)} rows and outputs {len(outputs)}")
    decisions = decide(outputs, policy)
    n_labels = truth.targets.shape[1] + 1
    decided = np.where(decisions.is_ood, n_labels - 1, decisions.top)
    confusion = np.bincount(truth.main * n_labels + decided, minlength=n_labels**2).reshape(n_labels, n_labels)
    kept = np.sort(rng.choice(len(outputs), size=min(EMBEDDINGS, len(outputs)), replace=False))
    return ReferenceProfile(
        n=len(outputs),
        energy_quantiles=quantiles(decisions.energies),
        confidence_quantiles=quantiles(decisions.probabilities.max(axis=-1)),
        length_quantiles=quantiles(n_tokens.astype(np.float64)),
        label_counts=confusion.sum(axis=1),
        confusion=confusion,
        lang_counts=np.array([sum(u.lang == lang for u in utterances) for lang in LANGUAGES]),
        embeddings=outputs.embeddings[kept].astype(np.float32),
    )


def run(run_folder: Path, data: Path, taxonomy: Taxonomy, version: str, out: Path, seed: int = 42) -> Policy:
    """The stage: read the run and the calibration split, write policy.json and reference.npz into ``out``."""
    # Reading a run needs torch; the fitting above does not.
    from tokenizers import Tokenizer

    from model_repo.pipeline.dataset import encode, read_utterances
    from model_repo.pipeline.train import load_outputs

    utterances = read_utterances(data / "validation.jsonl")
    tokenizer = Tokenizer.from_file(str(run_folder / "checkpoint" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    n_tokens = np.array([len(ids) for ids in encode(tokenizer, [u.text for u in utterances])])
    outputs = load_outputs(run_folder / "outputs_validation.npz")
    policy, reference = calibrate(outputs, utterances, n_tokens, taxonomy, version, np.random.default_rng(seed))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(policy.to_json(taxonomy), indent=2, ensure_ascii=False)
    (out / "policy.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(out / "reference.npz", allow_pickle=False, **reference.to_arrays())
    return policy
