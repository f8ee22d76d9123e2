"""The traffic mix, and that traffic has it."""

import dataclasses
import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from loadtest.messages import Message
from loadtest.traffic import DEFAULT_MIX, BadMix, TrafficMix, read_mix, traffic, weigh

MIX = TrafficMix(
    priors={"browse": 0.6, "track": 0.3, "ood": 0.1},
    multi_intent=0.2,
    mixed_language=0.15,
    duplicate=0.1,
    burst=0.1,
    burst_length=3,
    pause_s=0.5,
)
MESSAGES = [
    Message(f"{main}-{number}-{lang}-{len(intents)}", intents, lang)
    for main, intents in (
        ("browse", ("browse",)),
        ("browse", ("browse", "track")),
        ("track", ("track",)),
        ("track", ("track", "browse")),
        ("ood", ()),
    )
    for lang in ("en", "mix")
    for number in range(7 if main == "browse" else 2)
]


def test_weighted_shares_are_those_of_the_mix() -> None:
    """All three kinds of share hold at once, whatever the messages' own shares."""
    weights = weigh(MESSAGES, MIX)
    labels = np.array([message.main_label for message in MESSAGES])
    for label, share in MIX.priors.items():
        assert weights[labels == label].sum() == pytest.approx(share, abs=1e-5)
    is_multi = np.array([len(message.intents) > 1 for message in MESSAGES])
    is_mixed = np.array([message.lang == "mix" for message in MESSAGES])
    assert weights[is_multi].sum() == pytest.approx(MIX.multi_intent, abs=1e-5)
    assert weights[is_mixed].sum() == pytest.approx(MIX.mixed_language, abs=1e-5)
    assert weights.min() > 0


def test_drawn_traffic_has_the_shares() -> None:
    """Ten thousand messages of one person, within four standard errors."""
    plain = dataclasses.replace(MIX, duplicate=0.0)
    sent = [
        planned.text
        for planned in itertools.islice(traffic(MESSAGES, weigh(MESSAGES, MIX), plain, random.Random(1)), 10_000)
    ]
    for name, share in (("-mix-", MIX.mixed_language), ("-2/", MIX.multi_intent), ("track-", 0.3), ("ood-", 0.1)):
        seen = sum(name in f"{text}/" for text in sent) / len(sent)
        assert seen == pytest.approx(share, abs=4 * (share * (1 - share) / len(sent)) ** 0.5)


def test_same_seed_sends_the_same_and_another_seed_does_not() -> None:
    """Traffic is a function of its arguments."""
    weights = weigh(MESSAGES, MIX)

    def sent(seed: int) -> list[object]:
        return list(itertools.islice(traffic(MESSAGES, weights, MIX, random.Random(seed)), 50))

    assert sent(3) == sent(3)
    assert sent(3) != sent(4)


def test_bursts_have_no_pause_and_end_with_one() -> None:
    """A burst of three is two pauses of nothing and one of something."""
    bursty = dataclasses.replace(MIX, burst=0.5)
    planned = itertools.islice(traffic(MESSAGES, weigh(MESSAGES, MIX), bursty, random.Random(2)), 2000)
    runs = [len(list(group)) for is_short, group in itertools.groupby(p.pause_s == 0.0 for p in planned) if is_short]
    assert set(runs) == {2}
    assert len(runs) > 300


def test_duplicates_follow_their_original() -> None:
    """The same text twice in a row about as often as asked, beside what chance repeats."""
    weights = weigh(MESSAGES, MIX)
    repeated = dataclasses.replace(MIX, duplicate=0.5)
    texts = [planned.text for planned in itertools.islice(traffic(MESSAGES, weights, repeated, random.Random(5)), 4000)]
    share = sum(a == b for a, b in itertools.pairwise(texts)) / 4000
    assert 0.5 <= share <= 0.5 + 0.5 * float((weights**2).sum()) + 0.04


def test_the_mix_that_ships_is_the_stated_one() -> None:
    """18% of several intents, 5% ood, 9% of mixed language."""
    mix = read_mix(DEFAULT_MIX)
    assert (mix.multi_intent, mix.mixed_language, mix.priors["ood"]) == (0.18, 0.09, 0.05)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"priors": {"browse": 0.5, "ood": 0.1}}, "priors"),
        ({"multi_intent": 1.0}, "multi_intent"),
        ({"duplicate": -0.1}, "duplicate"),
        ({"burst_length": 1}, "burst"),
        ({"pause_s": 0.0}, "pause"),
    ],
)
def test_an_impossible_mix_is_refused_by_name(change: dict[str, object], names: str) -> None:
    """The message says which number is wrong."""
    with pytest.raises(BadMix, match=names):
        dataclasses.replace(MIX, **change)  # type: ignore[arg-type]


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """A misspelt key is not a default."""
    path = tmp_path / "mix.toml"
    path.write_text(DEFAULT_MIX.read_text(encoding="utf-8").replace("burst_length", "burst_lenght"), encoding="utf-8")
    with pytest.raises(BadMix, match="burst_lenght"):
        read_mix(path)


def test_messages_that_cannot_give_the_mix_are_refused() -> None:
    """No prior for an intent, no message for a share, and shares that contradict each other."""
    with pytest.raises(BadMix, match="gift"):
        weigh([*MESSAGES, Message("a", ("gift",), "en")], MIX)
    with pytest.raises(BadMix, match="no message"):
        weigh([message for message in MESSAGES if message.intents], MIX)
    only_ood_is_mixed = [message for message in MESSAGES if message.lang == "en" or not message.intents]
    with pytest.raises(BadMix, match="contradict"):
        weigh(only_ood_is_mixed, MIX)
