"""
Real text with what a version says of it: the messages that measurements are replayed from.

    own         messages of the shop that no version was trained on (``--in-scope``, several files)
    hint3       live customers of two other shops, where their intent is one of ours for certain
    clinc150    questions that no shop assistant answers: ood
    multidogo   requests to other businesses: ood, and near to ours
    new         messages of one intent that the taxonomy lacks, of all three public sets
    cut         ``own`` as a client sends it that keeps the first characters only

Of the public sets only what is held out is taken, so far as the publisher holds anything out. The model's outputs are
computed once, by ONNX Runtime on the packed graph, and kept in a folder.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The one library would start a thread pool of its own, the other reports its use to its makers.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from tokenizers import Tokenizer

from model_repo.contract.engine import ENGINE_FILE, INPUTS, MODEL_FILE, OUTPUTS, TOKENIZER_FILE, EngineSpec
from model_repo.contract.labels import LANGUAGES, OOD, Taxonomy
from model_repo.contract.outputs import BoolArray, IntArray, ModelOutputs, concatenate
from model_repo.contract.packing import pack, rows
from model_repo.store import LoadedVersion, read_membership

OWN, HINT3, CLINC150, MULTIDOGO, CUT = "own", "hint3", "clinc150", "multidogo", "cut"
NEW = "new: "
CUT_AFTER = 18
"""Characters that the broken client keeps: three or four words."""
HELD_OUT = ("test", "dev")
NEAR_OOD = ("orderdessertintent", "ordersideintent", "softwareupdate", "getinformationintent", "viewbillsintent")
"""MultiDoGO's intents in the ordinary traffic; the larger ones come as new intents."""
NEW_HINT3 = ("FRANCHISE", "RESUME_DELIVERY", "100_NIGHT_TRIAL_OFFER", "CONSULT_START")
"""Intents of those shops that ours has nothing like."""
FILED_UNDER = "faq"
"""Where people put what the map of the public sets knows no place for."""
FEWEST_NEW = 14
"""Messages without which an intent is none that could be replayed."""


@dataclass(frozen=True)
class Text:
    """One message."""

    text: str
    part: str
    """``own``, ``hint3``, ``clinc150``, ``multidogo``, ``cut``, or ``new: `` and the publisher's label."""
    labels: tuple[str, ...]
    """The first is the main one; ood alone where the taxonomy has nothing for it."""
    filed_under: str
    """Of a new intent: where people put it who must choose one of ours. Otherwise the main label."""
    lang: str = "en"


@dataclass(frozen=True)
class Corpus:
    """n messages and what one version says of each."""

    taxonomy: Taxonomy
    parts: NDArray[np.str_]
    """(n,) as ``Text.part``."""
    main: IntArray
    """(n,) main label, a position in the taxonomy, ood last."""
    filed: IntArray
    """(n,) as ``Text.filed_under``."""
    truth: BoolArray
    """(n, K + 1), ood last."""
    lang: IntArray
    """(n,) positions in ``LANGUAGES``."""
    n_tokens: IntArray
    """(n,)"""
    outputs: ModelOutputs

    def __len__(self) -> int:
        return len(self.parts)

    def of(self, *parts: str) -> IntArray:
        """Positions of the messages of these parts."""
        return np.flatnonzero(np.isin(self.parts, parts))

    @property
    def new_intents(self) -> tuple[str, ...]:
        """Their parts, sorted."""
        return tuple(part for part in np.unique(self.parts).tolist() if part.startswith(NEW))


def read_texts(data: Path, own: Sequence[Path]) -> list[Text]:
    """Every message, in a fixed order; each text of a part once. Raises OSError, or KeyError for other formats."""
    mapped = json.loads((data / "label_map.json").read_text(encoding="utf-8"))["datasets"]
    mine = [
        Text(row["text"], OWN, tuple(row["intents"]) or (OOD,), (row["intents"] or [OOD])[0], row["lang"])
        for file in own
        for row in _lines(file)
    ]
    texts = [
        *mine,
        *(Text(one.text[:CUT_AFTER], CUT, one.labels, one.filed_under, one.lang) for one in mine),
        *_hint3(data, mapped),
        *_clinc150(data, mapped["clinc150"]),
        *_multidogo(data, mapped["multidogo"]),
    ]
    # A cut message stands where the whole one does: there are as many, in the same order.
    once = {(one.part, one.text): one for one in texts if one.part not in (OWN, CUT)}
    public = list(once.values())
    sizes = {part: sum(one.part == part for one in public) for part in {one.part for one in public}}
    kept = [one for one in public if not one.part.startswith(NEW) or sizes[one.part] >= FEWEST_NEW]
    return [*(one for one in texts if one.part in (OWN, CUT)), *kept]


def corpus_of(texts: Sequence[Text], version: LoadedVersion, cache: Path) -> Corpus:
    """The outputs come from ``cache`` when these texts and this graph were asked for before."""
    taxonomy = version.manifest.taxonomy
    names = {name: position for position, name in enumerate((*taxonomy.intents, OOD))}
    lengths, outputs = _outputs([one.text for one in texts], version, cache)
    head = read_membership(version.folder)
    truth = np.zeros((len(texts), len(names)), dtype=bool)
    for row, one in enumerate(texts):
        truth[row, [names[label] for label in one.labels]] = True
    return Corpus(
        taxonomy=taxonomy,
        parts=np.array([one.part for one in texts]),
        main=np.array([names[one.labels[0]] for one in texts], dtype=np.int64),
        filed=np.array([names[one.filed_under] for one in texts], dtype=np.int64),
        truth=truth,
        lang=np.array([LANGUAGES.index(one.lang) for one in texts], dtype=np.int64),
        n_tokens=lengths,
        outputs=outputs if head is None else head.applied(outputs),
    )


def _hint3(data: Path, mapped: dict[str, Any]) -> Iterator[Text]:
    """Live rows of intents that map for certain; all rows of the new ones, which are too few otherwise."""
    for name in ("hint3_curekart", "hint3_sofmattress"):
        for row in _lines(data / name / "all.jsonl"):
            label = row["labels"][0]
            target, fit = mapped[name][label]["target"], mapped[name][label]["fit"]
            if fit == "strong" and target != OOD and row["split"] == "test":
                yield Text(row["text"], HINT3, (target,), target)
            elif label in NEW_HINT3:
                yield Text(row["text"], f"{NEW}{name} {label}", (OOD,), target)


def _clinc150(data: Path, mapped: dict[str, Any]) -> Iterator[Text]:
    for row in _lines(data / "clinc150" / "oos_test.jsonl"):
        yield Text(row["text"], CLINC150, (OOD,), OOD)
    for row in _lines(data / "clinc150" / "test.jsonl"):
        label = row["labels"][0]
        if mapped.get(label, mapped["*"])["target"] == OOD:
            yield Text(row["text"], f"{NEW}clinc150 {label}", (OOD,), FILED_UNDER)


def _multidogo(data: Path, mapped: dict[str, Any]) -> Iterator[Text]:
    for file in sorted((data / "multidogo").glob("*.jsonl")):
        for row in _lines(file):
            if row["split"] not in HELD_OUT or len(row["labels"]) != 1:
                continue
            label = row["labels"][0]
            if label in NEAR_OOD:
                yield Text(row["text"], MULTIDOGO, (OOD,), OOD)
            elif mapped.get(label, mapped["*"])["target"] == OOD:
                yield Text(row["text"], f"{NEW}multidogo {label}", (OOD,), FILED_UNDER)


def _outputs(texts: Sequence[str], version: LoadedVersion, cache: Path) -> tuple[NDArray[np.int64], ModelOutputs]:
    digest = blake2b(version.manifest.files[MODEL_FILE].encode(), digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "replace") + b"\0")
    file = cache / f"outputs-{digest.hexdigest()}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as saved:
            return saved["lengths"], ModelOutputs(saved["logits"], saved["age_logits"], saved["embeddings"])
    spec = EngineSpec.from_json(json.loads(version.file(ENGINE_FILE).read_text(encoding="utf-8")))
    tokenizer = Tokenizer.from_file(str(version.file(TOKENIZER_FILE)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec.max_tokens)
    tokens = [tokenizer.encode(text).ids for text in texts]
    outputs = _run(tokens, spec, version.file(MODEL_FILE))
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished.npz")
    np.savez(unfinished, lengths=lengths, **vars(outputs))
    unfinished.replace(file)
    return lengths, outputs


def _run(tokens: Sequence[Sequence[int]], spec: EngineSpec, graph: Path) -> ModelOutputs:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    parts = []
    for group in rows(tokens, spec.slots, spec.max_row_tokens):
        row = pack(group, spec.slots, sum(map(len, group)))
        logits, age_logits, embeddings = session.run(OUTPUTS, dict(zip(INPUTS, row.arrays, strict=True)))
        parts.append(ModelOutputs(logits[: len(group)], age_logits[: len(group)], embeddings[: len(group)]))
    return concatenate(parts)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
