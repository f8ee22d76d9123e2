"""What is known of the public sets holds together, and rows are read as our label map says."""

import json
from pathlib import Path

import pytest

from model_repo.pipeline.data import read_taxonomy
from model_repo.pipeline.sources import BadSources, Source, read_label_map, read_rows, read_sources, target_of

SOURCE = Source("shop", "owner/shop", "MIT", True, "permissive", "live", ("all.jsonl",))
LABEL_MAP = {"shop": {"default": "ood", "buy": "order_tracking", "hm": "drop"}}


def _write(folder: Path, rows: list[dict[str, object]]) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "all.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def test_every_source_has_a_reading_of_its_labels_and_no_reading_lacks_a_source() -> None:
    """The two files name the same sets."""
    assert set(read_label_map(read_taxonomy())) == set(read_sources())


def test_test_parts_and_sets_without_a_licence_are_never_read() -> None:
    """The public benchmarks stay clean, and mixsnips stays out of the mixture."""
    sources = read_sources()
    assert "mixsnips" not in sources
    assert not [name for s in sources.values() for name in s.files if "test" in name]


def test_share_alike_sets_do_not_ship() -> None:
    """The cautious reading of CDLA-Sharing, ODbL and CC BY-SA."""
    sharing = ("Sharing", "ODbL", "BY-SA")
    assert not [s.name for s in read_sources().values() if s.ships and any(word in s.licence for word in sharing)]


def test_border_rulings_decide_the_labels_in_doubt() -> None:
    """Where the proposal contradicted a ruling, ours follows the ruling."""
    label_map = read_label_map(read_taxonomy())
    bitext = label_map["bitext_customer_support"]
    assert target_of(bitext, "check_payment_methods") == "faq"
    assert target_of(bitext, "change_order") == "order_tracking"
    assert target_of(bitext, "newsletter_subscription") == "drop"
    assert target_of(label_map["hint3_curekart"], "NO_NODES_DETECTED") == "drop"
    assert target_of(label_map["webshop_goals"], "product_search_goal") == "ood"


def test_rows_whose_labels_disagree_or_are_dropped_are_skipped(tmp_path: Path) -> None:
    """Two labels that mean the same are one; no label reads as unlisted."""
    labelled: list[tuple[str, list[str]]] = [
        ("one  two", ["buy"]), ("three", ["hm"]), ("four", ["buy", "other"]), ("five", ["x", "y"]), ("six", []),
    ]  # fmt: skip
    _write(tmp_path, [{"text": text, "labels": labels, "split": "all"} for text, labels in labelled])
    rows = list(read_rows(SOURCE, tmp_path, LABEL_MAP))
    assert [(r.text, r.target) for r in rows] == [("one two", "order_tracking"), ("five", "ood"), ("six", "ood")]


def test_small_talk_is_labelled_by_topic(tmp_path: Path) -> None:
    """A topic says more than the one label all rows share."""
    _write(tmp_path, [{"text": "hello you", "labels": ["chitchat"], "split": "all", "topic": 3}])
    rows = list(read_rows(SOURCE, tmp_path, {"shop": {"topic_3": "chitchat"}}))
    assert [(r.label, r.target) for r in rows] == [("topic_3", "chitchat")]


def test_label_map_with_a_target_that_is_no_intent_is_refused(tmp_path: Path) -> None:
    """A slip of the pen would otherwise train a class that does not exist."""
    file = tmp_path / "label_map.toml"
    file.write_text('[shop]\nbuy = "order_traking"\n', encoding="utf-8")
    with pytest.raises(BadSources, match="order_traking"):
        read_label_map(read_taxonomy(), file)
