"""
The failure-mode tree: read from ``failure_modes.toml``, checked, and walked from signals to a diagnosis.

Pure but for ``load``. A branch fires when one of its signals is breached; what follows asks further signals until it
comes to an action. An inconclusive signal holds: it neither fires nor clears.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from model_repo.contract.errors import CannotMeasure
from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.errors import BadFailureTree
from monitoring.latency import LATENCY_SIGNALS
from monitoring.segments import SEGMENT_SIGNALS
from monitoring.signals import LABELLED_SIGNALS, Signal, Verdict, Watch
from monitoring.unlabelled import UNLABELLED_SIGNALS

DEFAULT_TREE = Path(__file__).with_name("failure_modes.toml")
REFIT_SIGNAL = "ece_after_refit"
"""Measured by the re-fit itself, on the half of the labels that it was not fitted on."""
KNOWN_SIGNALS = frozenset(
    (
        *LABELLED_SIGNALS,
        *CALIBRATION_SIGNALS,
        *SEGMENT_SIGNALS,
        *LATENCY_SIGNALS,
        *UNLABELLED_SIGNALS,
        REFIT_SIGNAL,
    )
)
ANSWERS = ("breached", "ok", "unknown")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Names of branches and actions become parts of ids, file names, headers and metrics."""


@dataclass(frozen=True)
class Edge:
    """An answer, and the node or action it leads to."""

    label: str
    then: str


@dataclass(frozen=True)
class Branch:
    """Where a walk begins."""

    node: str
    label: str
    signals: tuple[str, ...]
    unless: tuple[str, ...]
    """Signals whose breach explains this one away."""
    then: str


@dataclass(frozen=True)
class Node:
    """A further question: by the verdict of one signal, or by which of several is the largest."""

    name: str
    label: str
    signal: str | None
    edges: Mapping[str, Edge]
    """By answer (``breached``, ``ok``, ``unknown``) when ``signal`` is given, by signal otherwise."""


@dataclass(frozen=True)
class RemedyRule:
    """What follows an action that has finished."""

    check_after_s: float
    """Seconds for which its branch may still fire before that counts as "did not help"."""
    next: str | None
    """The action that is tried then; None leaves it to people."""


@dataclass(frozen=True)
class FailureTree:
    """A tree that has been checked."""

    watches: Mapping[str, Watch]
    actions: Mapping[str, str]
    """What each does, in words."""
    remedies: Mapping[str, RemedyRule]
    """One for each action."""
    branches: tuple[Branch, ...]
    nodes: Mapping[str, Node]


class Outcome(StrEnum):
    """What a walk of one branch came to."""

    FIRED = "fired"
    CLEAR = "clear"
    HELD = "held"


@dataclass(frozen=True)
class Walk:
    """A walk of one branch; a diagnosis when it fired."""

    branch: str
    outcome: Outcome
    path: tuple[str, ...]
    """Labels from the branch to where the walk ended."""
    action: str | None
    """Set exactly when it fired."""
    evidence: tuple[Signal, ...]
    """Every signal that was asked, in order."""

    @property
    def diagnosis(self) -> str:
        """As in ``accuracy_down/retrain``; the branch alone when nothing fired."""
        return self.branch if self.action is None else f"{self.branch}/{self.action}"


def load(path: Path = DEFAULT_TREE) -> FailureTree:
    """Read and check a tree; raises BadFailureTree naming the file and the part."""
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, BadFailureTree) as wrong:
        raise BadFailureTree(f"{path}: {wrong}") from wrong


def parse(table: Mapping[str, Any]) -> FailureTree:
    """A checked tree from what TOML gives; raises BadFailureTree."""
    _check_keys("the file", table, {"defaults", "signals", "actions", "remedies", "branches", "nodes"})
    defaults = table.get("defaults", {})
    _check_keys("defaults", defaults, {"rows_per_false_alarm"})
    tree = FailureTree(
        watches={name: _watch(name, {**defaults, **body}) for name, body in table.get("signals", {}).items()},
        actions=dict(table.get("actions", {})),
        remedies={name: _remedy(name, body) for name, body in table.get("remedies", {}).items()},
        branches=tuple(_branch(body) for body in table.get("branches", ())),
        nodes={name: _node(name, body) for name, body in table.get("nodes", {}).items()},
    )
    _check_names(tree)
    _check_remedies(tree)
    _check_reach(tree)
    return tree


def walk(tree: FailureTree, signals: Mapping[str, Signal]) -> list[Walk]:
    """
    Every branch, in order. A signal that is missing, of no rows or without a reference is not known: it holds what asks
    for it, but for a branch of which other signals are known.
    """
    return [_walk_branch(tree, branch, signals) for branch in tree.branches]


def mermaid(tree: FailureTree) -> str:
    """The tree as a flow chart, one line an edge; actions are rounded, and dotted edges lead to what is tried next."""
    lines = ["flowchart LR", '    signals(["signals"])']
    for branch in tree.branches:
        unless = f"|unless {', '.join(branch.unless)}|" if branch.unless else ""
        lines.append(f'    signals --> {branch.node}["{branch.label}<br/>{"<br/>".join(branch.signals)}"]')
        lines.append(f"    {branch.node} -->{unless} {branch.then}")
    for node in tree.nodes.values():
        lines.append(f'    {node.name}{{"{node.label}"}}')
        lines += [f"    {node.name} -->|{edge.label}| {edge.then}" for edge in node.edges.values()]
    lines += [f'    {action}("{words}")' for action, words in tree.actions.items()]
    lines += [f"    {name} -.->|did not help| {rule.next}" for name, rule in tree.remedies.items() if rule.next]
    return "\n".join(lines) + "\n"


def _walk_branch(tree: FailureTree, branch: Branch, signals: Mapping[str, Signal]) -> Walk:
    asked = tuple(signals[name] for name in branch.signals if name in signals and _is_known(signals[name]))
    breached = tuple(signal for signal in asked if signal.verdict is Verdict.BREACHED)
    if not breached:
        is_clear = bool(asked) and all(signal.verdict is Verdict.OK for signal in asked)
        return Walk(branch.node, Outcome.CLEAR if is_clear else Outcome.HELD, (branch.label,), None, asked)
    explained = [name for name in branch.unless if name in signals and signals[name].verdict is Verdict.BREACHED]
    if explained:
        path = (branch.label, f"explained by {', '.join(explained)}")
        return Walk(branch.node, Outcome.HELD, path, None, breached)
    return _descend(tree, branch, breached, signals)


def _is_known(signal: Signal) -> bool:
    return signal.n > 0 and not math.isnan(signal.reference)


def _descend(tree: FailureTree, branch: Branch, evidence: tuple[Signal, ...], signals: Mapping[str, Signal]) -> Walk:
    path, at = [branch.label], branch.then
    while at not in tree.actions:
        node = tree.nodes[at]
        asked = [name for name in _asked(node) if name in signals and signals[name].n > 0]
        evidence += tuple(signals[name] for name in asked)
        edge = _answer(node, signals)
        path.append(node.label)
        if edge is None:
            return Walk(branch.node, Outcome.HELD, tuple(path), None, evidence)
        path.append(edge.label)
        at = edge.then
    return Walk(branch.node, Outcome.FIRED, tuple(path), at, evidence)


def _answer(node: Node, signals: Mapping[str, Signal]) -> Edge | None:
    """Which way to go; None holds."""
    if node.signal is None:
        breached = [
            signals[name] for name in node.edges if name in signals and signals[name].verdict is Verdict.BREACHED
        ]
        return node.edges[max(breached, key=lambda signal: signal.value).name] if breached else None
    signal = signals.get(node.signal)
    if signal is None or signal.n == 0:
        return node.edges.get("unknown")
    return node.edges.get(str(signal.verdict))


def _asked(node: Node) -> tuple[str, ...]:
    return tuple(node.edges) if node.signal is None else (node.signal,)


def _watch(name: str, body: Mapping[str, Any]) -> Watch:
    _check_keys(f"signals.{name}", body, set(Watch.__dataclass_fields__))
    try:
        return Watch(**body)
    except (TypeError, CannotMeasure) as wrong:
        raise BadFailureTree(f"signals.{name}: {wrong}") from wrong


def _remedy(name: str, body: Mapping[str, Any]) -> RemedyRule:
    _check_keys(f"remedies.{name}", body, {"check_after_s", "next"})
    seconds = body.get("check_after_s")
    # TOML has booleans, infinity and NaN too, and Python takes True for a number.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.0 <= seconds < math.inf:
        raise BadFailureTree(f"remedies.{name}.check_after_s must be seconds, 0 or more, got {seconds!r}")
    return RemedyRule(float(seconds), body.get("next"))


def _branch(body: Mapping[str, Any]) -> Branch:
    name = str(body.get("node", "?"))
    _check_keys(f"branch {name}", body, {"node", "label", "signals", "unless", "then"})
    try:
        return Branch(name, body["label"], tuple(body["signals"]), tuple(body.get("unless", ())), body["then"])
    except KeyError as missing:
        raise BadFailureTree(f"branch {name} lacks {missing}") from None


def _node(name: str, body: Mapping[str, Any]) -> Node:
    if "largest" in body:
        _check_keys(f"nodes.{name}", body, {"label", "largest"})
        answers = body["largest"]
    else:
        _check_keys(f"nodes.{name}", body, {"label", "signal", *ANSWERS})
        answers = {answer: body[answer] for answer in ANSWERS if answer in body}
    if not answers or "label" not in body or ("largest" not in body and "signal" not in body):
        raise BadFailureTree(f"nodes.{name} needs a label, and a signal with answers or a largest of signals")
    return Node(name, body["label"], body.get("signal"), {key: _edge(name, key, edge) for key, edge in answers.items()})


def _edge(node: str, answer: str, body: Any) -> Edge:
    if not isinstance(body, dict) or set(body) != {"label", "then"}:
        raise BadFailureTree(f"nodes.{node}.{answer} must have a label and a then, got {body!r}")
    return Edge(body["label"], body["then"])


def _check_names(tree: FailureTree) -> None:
    """Every name means one thing, and every signal is known and watched."""
    names = [branch.node for branch in tree.branches] + list(tree.nodes) + list(tree.actions)
    misnamed = sorted(name for name in names if not _NAME.fullmatch(name))
    if misnamed:
        raise BadFailureTree(f"names must be small ASCII letters, digits and _, got {', '.join(map(repr, misnamed))}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadFailureTree(f"names used twice: {', '.join(twice)}")
    asked = {name for branch in tree.branches for name in (*branch.signals, *branch.unless)}
    asked |= {name for node in tree.nodes.values() for name in _asked(node)}
    unknown = sorted((asked | set(tree.watches)) - KNOWN_SIGNALS)
    if unknown:
        raise BadFailureTree(f"unknown signals: {', '.join(unknown)}; known: {', '.join(sorted(KNOWN_SIGNALS))}")
    unwatched = sorted(asked - set(tree.watches))
    if unwatched:
        raise BadFailureTree(f"signals without a threshold: {', '.join(unwatched)}")
    if not tree.branches or not all(branch.signals for branch in tree.branches):
        raise BadFailureTree("a tree needs a branch, and each branch a signal")


def _check_remedies(tree: FailureTree) -> None:
    """Every action has its remedy entry and no other name has, and what is tried next comes to an end."""
    strangers = sorted(set(tree.remedies) ^ set(tree.actions))
    if strangers:
        raise BadFailureTree(f"in one of actions and remedies only: {', '.join(strangers)}")
    for action in tree.actions:
        path = [action]
        while (following := tree.remedies[path[-1]].next) is not None:
            if following not in tree.actions:
                raise BadFailureTree(f"remedies.{path[-1]}.next is {following!r}, which is not an action")
            if following in path:
                raise BadFailureTree(f"remedies go in a circle: {' -> '.join((*path, following))}")
            path.append(following)


def _check_reach(tree: FailureTree) -> None:
    """Every path ends in an action, and every node and action lies on one or is tried next after one that does."""
    reached: set[str] = set()
    for branch in tree.branches:
        for name in _reach(tree, branch.then, (branch.node,)):
            reached.add(name)
    for action in reached & set(tree.actions):
        following = tree.remedies[action].next
        while following is not None:
            reached.add(following)
            following = tree.remedies[following].next
    lost = sorted((set(tree.nodes) | set(tree.actions)) - reached)
    if lost:
        raise BadFailureTree(f"no branch leads to: {', '.join(lost)}")


def _reach(tree: FailureTree, name: str, path: tuple[str, ...]) -> Iterator[str]:
    if name in path:
        raise BadFailureTree(f"the tree goes in a circle: {' -> '.join((*path, name))}")
    yield name
    if name in tree.actions:
        return
    if name not in tree.nodes:
        raise BadFailureTree(f"{path[-1]} leads to {name!r}, which is neither a node nor an action")
    for edge in tree.nodes[name].edges.values():
        yield from _reach(tree, edge.then, (*path, name))


def _check_keys(part: str, body: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise BadFailureTree(f"{part} has unknown keys: {', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}")
