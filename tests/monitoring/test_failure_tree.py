"""The tree that ships has the stated branches and leads each breach to its action; bad trees are refused."""

import copy
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitoring.__main__ import main
from monitoring.errors import BadFailureTree
from monitoring.failure_tree import (
    DEFAULT_TREE,
    KNOWN_SIGNALS,
    FailureTree,
    Outcome,
    RemedyRule,
    Walk,
    load,
    mermaid,
    parse,
    walk,
)
from monitoring.signals import Signal, Verdict
from tests.monitoring.watches import signal_of

README = Path(__file__).resolve().parents[2] / "README.md"
BREACHED, OK, INCONCLUSIVE = Verdict.BREACHED, Verdict.OK, Verdict.INCONCLUSIVE


@pytest.fixture
def tree() -> FailureTree:
    """The one that ships."""
    return load()


@pytest.fixture
def table() -> dict[str, Any]:
    """The one that ships, to be spoilt."""
    return copy.deepcopy(tomllib.loads(DEFAULT_TREE.read_text(encoding="utf-8")))


def walks(tree: FailureTree, **verdicts: Verdict) -> dict[str, Walk]:
    """Walks with these verdicts, every other signal being ok."""
    signals = {name: signal_of(name, OK) for name in KNOWN_SIGNALS}
    signals |= {name: signal_of(name, verdict) for name, verdict in verdicts.items()}
    return {one.branch: one for one in walk(tree, signals)}


class TestTreeThatShips:
    def test_it_has_the_four_branches_and_the_one_without_labels(self, tree: FailureTree) -> None:
        """With the thresholds of the design: 1 point, 0.01, 2 ms, 2 points; and 5 of the recall."""
        asked = {branch.node: branch.signals for branch in tree.branches}
        labelled = ("accuracy_down", "ece_up", "latency_up", "ood_precision_down")
        assert tuple(asked) == (*labelled, "unlabelled_drift")
        thresholds = [{name: tree.watches[name].threshold for name in asked[node]} for node in labelled]
        assert thresholds == [
            {"accuracy": 0.01},
            {"ece": 0.01},
            {"total_p95_ms": 2.0},
            {"ood_precision": 0.02, "ood_recall": 0.05},
        ]

    def test_every_signal_is_watched(self, tree: FailureTree) -> None:
        """A signal without a threshold would have no verdict."""
        assert set(tree.watches) == KNOWN_SIGNALS

    @pytest.mark.parametrize(
        ("verdicts", "diagnosis"),
        [
            ({"accuracy": BREACHED, "segment_concentration": BREACHED}, "accuracy_down/relabel_segment"),
            ({"accuracy": BREACHED, "segment_concentration": OK}, "accuracy_down/retrain"),
            ({"ece": BREACHED, "ece_after_refit": OK}, "ece_up/swap_calibrator"),
            ({"ece": BREACHED, "ece_after_refit": BREACHED}, "ece_up/retrain"),
            ({"total_p95_ms": BREACHED, "tokenize_share_of_delay": BREACHED}, "latency_up/tune_tokenizer"),
            ({"total_p95_ms": BREACHED, "queue_share_of_delay": BREACHED}, "latency_up/tune_batching"),
            ({"total_p95_ms": BREACHED, "inference_share_of_delay": BREACHED}, "latency_up/reload_model_graph"),
            ({"ood_precision": BREACHED}, "ood_precision_down/discover_intents"),
            ({"ood_recall": BREACHED}, "ood_precision_down/discover_intents"),
            ({"prior_shift": BREACHED}, "unlabelled_drift/sample_for_labels"),
            ({"embedding_mmd": BREACHED}, "unlabelled_drift/sample_for_labels"),
        ],
    )
    def test_each_breach_comes_to_its_action(
        self, tree: FailureTree, verdicts: dict[str, Verdict], diagnosis: str
    ) -> None:
        """One branch fires, the others stay silent, and the path is told."""
        fired = [one for one in walks(tree, **verdicts).values() if one.outcome is Outcome.FIRED]
        assert [one.diagnosis for one in fired] == [diagnosis]
        assert fired[0].path[0] == next(b.label for b in tree.branches if b.node == fired[0].branch)
        assert {signal.name for signal in fired[0].evidence} >= set(verdicts)

    @pytest.mark.parametrize(
        ("action", "following"),
        [
            ("relabel_segment", "retrain"),
            ("swap_calibrator", "retrain"),
            ("tune_tokenizer", "reload_model_graph"),
            ("tune_batching", "reload_model_graph"),
            ("reload_model_graph", "roll_back"),
            ("roll_back", None),
            ("retrain", None),
        ],
    )
    def test_each_remedy_has_what_is_tried_next(self, tree: FailureTree, action: str, following: str | None) -> None:
        """And after a re-fit its own signal leads on, so the next walk counts at once."""
        assert tree.remedies[action].next == following
        assert tree.remedies["refit_calibrator"] == RemedyRule(0.0, None)

    def test_remedies_that_people_or_training_carry_have_days(self, tree: FailureTree) -> None:
        """The others have a minute or two."""
        slow = {action for action, rule in tree.remedies.items() if rule.check_after_s >= 86_400}
        assert slow == {"relabel_segment", "retrain", "discover_intents", "sample_for_labels"}
        assert max(tree.remedies[action].check_after_s for action in set(tree.actions) - slow) <= 300

    def test_quiet_signals_clear_every_branch(self, tree: FailureTree) -> None:
        """All ok: nothing fires and nothing is held."""
        assert {one.outcome for one in walks(tree).values()} == {Outcome.CLEAR}

    def test_calibrator_is_refitted_before_it_is_judged(self, tree: FailureTree) -> None:
        """While no re-fit has been measured, a breached ECE asks for one; an inconclusive re-fit holds."""
        signals = {"ece": signal_of("ece", BREACHED)}
        assert next(one for one in walk(tree, signals) if one.branch == "ece_up").action == "refit_calibrator"
        assert walks(tree, ece=BREACHED, ece_after_refit=INCONCLUSIVE)["ece_up"].outcome is Outcome.HELD

    def test_largest_share_of_a_delay_decides(self, tree: FailureTree) -> None:
        """Of two stages that both gained, the one that gained more is remedied."""
        signals = {
            "total_p95_ms": signal_of("total_p95_ms", BREACHED),
            "queue_share_of_delay": signal_of("queue_share_of_delay", BREACHED, value=0.4),
            "inference_share_of_delay": signal_of("inference_share_of_delay", BREACHED, value=0.6),
        }
        assert {one.branch: one.action for one in walk(tree, signals)}["latency_up"] == "reload_model_graph"

    def test_inconclusive_never_fires(self, tree: FailureTree) -> None:
        """Whatever is inconclusive, alone or on the way down, holds."""
        held = walks(tree, **dict.fromkeys(KNOWN_SIGNALS, INCONCLUSIVE)).values()
        assert {one.outcome for one in held} == {Outcome.HELD}
        assert walks(tree, accuracy=BREACHED, segment_concentration=INCONCLUSIVE)["accuracy_down"].action is None
        assert walks(tree, total_p95_ms=BREACHED)["latency_up"].outcome is Outcome.HELD

    def test_accuracy_explains_the_ece_and_labels_explain_drift(self, tree: FailureTree) -> None:
        """One cause is one diagnosis."""
        got = walks(tree, accuracy=BREACHED, ece=BREACHED, energy_ks=BREACHED)
        assert [name for name, one in got.items() if one.outcome is Outcome.FIRED] == ["accuracy_down"]
        assert got["ece_up"].path[-1] == "explained by accuracy"
        got = walks(tree, ood_recall=BREACHED, ood_rate=BREACHED)
        assert [name for name, one in got.items() if one.outcome is Outcome.FIRED] == ["ood_precision_down"]
        assert got["unlabelled_drift"].path[-1] == "explained by ood_recall"

    def test_nothing_known_is_neither_clear_nor_fired(self, tree: FailureTree) -> None:
        """No signals, or signals of no rows, hold every branch; of several, those that are known decide."""
        none: dict[str, Signal] = {}
        assert {one.outcome for one in walk(tree, none)} == {Outcome.HELD}
        of_no_rows = {"accuracy": signal_of("accuracy", INCONCLUSIVE, n=0)}
        assert {one.outcome for one in walk(tree, of_no_rows)} == {Outcome.HELD}
        known = {
            "energy_ks": signal_of("energy_ks", OK),
            "embedding_mmd": signal_of("embedding_mmd", INCONCLUSIVE, n=0),
        }
        assert walk(tree, known)[-1].outcome is Outcome.CLEAR

    def test_signal_without_a_reference_does_not_hold_the_others_of_its_branch(self, tree: FailureTree) -> None:
        """Where the reference has hardly a label that says ood there is no recall; the precision comes back still."""
        nan = float("nan")
        signals = {
            "ood_precision": signal_of("ood_precision", OK),
            "ood_recall": replace(signal_of("ood_recall", INCONCLUSIVE), reference=nan),
        }
        outcomes = {one.branch: one.outcome for one in walk(tree, signals)}
        assert outcomes["ood_precision_down"] is Outcome.CLEAR
        signals["ood_precision"] = replace(signals["ood_precision"], reference=nan)
        outcomes = {one.branch: one.outcome for one in walk(tree, signals)}
        assert outcomes["ood_precision_down"] is Outcome.HELD


class TestTreesThatCannotBe:
    def test_unknown_signal(self, table: dict[str, Any]) -> None:
        """In a branch, in a node, or watched."""
        table["branches"][0]["signals"] = ["accurcy"]
        with pytest.raises(BadFailureTree, match="unknown signals: accurcy"):
            parse(table)

    def test_signal_without_threshold(self, table: dict[str, Any]) -> None:
        """A branch asks for what nothing is asked of."""
        del table["signals"]["accuracy"]
        with pytest.raises(BadFailureTree, match="without a threshold: accuracy"):
            parse(table)

    def test_leaf_that_is_no_action(self, table: dict[str, Any]) -> None:
        """The name of the leaf and where it hangs are told."""
        table["nodes"]["where"]["ok"]["then"] = "send_mail"
        with pytest.raises(BadFailureTree, match="where leads to 'send_mail', which is neither a node nor an action"):
            parse(table)

    @pytest.mark.parametrize("part", ["actions", "nodes"])
    def test_unreachable_leaf_or_node(self, table: dict[str, Any], part: str) -> None:
        """What no branch leads to is a slip."""
        table[part]["orphan"] = "never done" if part == "actions" else table["nodes"]["where"]
        if part == "actions":
            table["remedies"]["orphan"] = {"check_after_s": 1, "next": "retrain"}
        with pytest.raises(BadFailureTree, match="no branch leads to: orphan"):
            parse(table)

    def test_action_and_remedy_entry_go_together(self, table: dict[str, Any]) -> None:
        """An action of which nobody says when it is checked, or an entry of no action."""
        del table["remedies"]["retrain"]
        table["remedies"]["retrian"] = {"check_after_s": 1}
        with pytest.raises(BadFailureTree, match="in one of actions and remedies only: retrain, retrian"):
            parse(table)

    def test_next_that_is_no_action(self, table: dict[str, Any]) -> None:
        """A node is none."""
        table["remedies"]["swap_calibrator"]["next"] = "where"
        with pytest.raises(BadFailureTree, match=r"remedies\.swap_calibrator\.next is 'where', which is not an action"):
            parse(table)

    def test_remedies_in_a_circle(self, table: dict[str, Any]) -> None:
        """They would be tried for ever."""
        table["remedies"]["roll_back"]["next"] = "reload_model_graph"
        with pytest.raises(
            BadFailureTree, match=r"in a circle: .*reload_model_graph -> roll_back -> reload_model_graph"
        ):
            parse(table)

    @pytest.mark.parametrize("seconds", [None, "1h", -1, True, float("inf"), float("nan")])
    def test_remedy_without_its_seconds(self, table: dict[str, Any], seconds: object) -> None:
        """The entry is named."""
        table["remedies"]["retrain"] = {} if seconds is None else {"check_after_s": seconds}
        with pytest.raises(BadFailureTree, match=r"remedies\.retrain\.check_after_s must be seconds"):
            parse(table)

    def test_names_are_fit_for_paths_and_headers(self, table: dict[str, Any]) -> None:
        """A branch's name becomes part of an id, and that of a header and a folder."""
        for name in ("../up", "Ece", "é", "ece up", ""):
            table["branches"][1]["node"] = name
            with pytest.raises(BadFailureTree, match="names must be small ASCII letters"):
                parse(table)

    def test_circle(self, table: dict[str, Any]) -> None:
        """A walk would not end."""
        table["nodes"]["where"]["ok"]["then"] = "refit"
        table["nodes"]["refit"]["ok"]["then"] = "where"
        with pytest.raises(BadFailureTree, match="in a circle: accuracy_down -> where -> refit -> where"):
            parse(table)

    def test_name_used_twice(self, table: dict[str, Any]) -> None:
        """A node called like an action would hide it."""
        table["nodes"]["retrain"] = table["nodes"]["where"]
        with pytest.raises(BadFailureTree, match="used twice: retrain"):
            parse(table)

    def test_unknown_key_anywhere(self, table: dict[str, Any]) -> None:
        """A misspelt key is not ignored."""
        spoilt = (table["signals"]["ece"], table["branches"][1], table["nodes"]["stage"], table["remedies"]["retrain"])
        for part in (table, *spoilt):
            part["treshold"] = 1
            with pytest.raises(BadFailureTree, match="unknown keys: treshold"):
                parse(table)
            del part["treshold"]

    def test_watch_that_makes_no_sense(self, table: dict[str, Any]) -> None:
        """The signal is named."""
        table["signals"]["ece"]["worse"] = "sideways"
        with pytest.raises(BadFailureTree, match=r"signals\.ece: worse must be"):
            parse(table)

    def test_edge_without_its_parts(self, table: dict[str, Any]) -> None:
        """An answer leads somewhere and says what it is."""
        table["nodes"]["where"]["ok"] = "retrain"
        with pytest.raises(BadFailureTree, match=r"nodes\.where\.ok must have a label and a then"):
            parse(table)

    def test_file_is_named(self, tmp_path: Path) -> None:
        """Missing or malformed, the message says which file."""
        broken = tmp_path / "tree.toml"
        broken.write_text("branches = [", encoding="utf-8")
        for path in (broken, tmp_path / "none.toml"):
            with pytest.raises(BadFailureTree, match=path.name):
                load(path)


class TestChart:
    def test_every_edge_is_drawn_once(self, tree: FailureTree) -> None:
        """Each branch, answer and action stands on the chart."""
        chart = mermaid(tree)
        lines = [line.strip() for line in chart.splitlines()]
        assert lines[0] == "flowchart LR"
        for branch in tree.branches:
            assert sum(line.startswith(f'signals --> {branch.node}["') for line in lines) == 1
        for node in tree.nodes.values():
            for edge in node.edges.values():
                assert lines.count(f"{node.name} -->|{edge.label}| {edge.then}") == 1
        assert all(f'{action}("{words}")' in lines for action, words in tree.actions.items())
        dotted = [line for line in lines if "-.->" in line]
        assert sorted(dotted) == sorted(
            f"{action} -.->|did not help| {rule.next}" for action, rule in tree.remedies.items() if rule.next
        )

    def test_chart_of_the_readme_is_the_tree(self, tree: FailureTree) -> None:
        """What people look at first is what is walked."""
        readme = README.read_text(encoding="utf-8")
        assert readme.count(f"```mermaid\n{mermaid(tree)}```\n") == 1

    def test_command_prints_the_chart(self, tree: FailureTree) -> None:
        """``python -m monitoring tree`` prints what ``mermaid`` draws."""
        done = subprocess.run([sys.executable, "-m", "monitoring", "tree"], capture_output=True, text=True, check=True)
        assert done.stdout == mermaid(tree)

    def test_command_refuses_a_bad_tree(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 2, and the reason on the error stream."""
        assert main(["tree", "--file", str(tmp_path / "none.toml")]) == 2
        assert "none.toml" in capsys.readouterr().err
