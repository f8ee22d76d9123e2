"""Typing noise changes how a message looks, not what it asks."""

import random

from model_repo.pipeline.typing_noise import mistype, roughen


def test_digits_survive_every_hand() -> None:
    """An order number or a volume is never mistyped: it may be what the message is about."""
    text = "please send volume 12 of order 90417, room 3"
    for seed in range(200):
        rough = roughen(text, random.Random(seed))
        assert "".join(c for c in rough if c.isdigit()) == "12904173"


def test_a_slip_touches_one_letter() -> None:
    """One letter more, one fewer, or as many."""
    for seed in range(100):
        assert abs(len(mistype("where is my parcel", random.Random(seed))) - 18) <= 1


def test_a_slip_leaves_japanese_and_tiny_texts_alone() -> None:
    """There is no neighbouring key to hit."""
    assert mistype("注文はどこですか", random.Random(3)) == "注文はどこですか"
    assert mistype("ok", random.Random(3)) == "ok"


def test_the_hands_differ() -> None:
    """Five hands type one message in more than five ways."""
    made = {roughen("can you tell me about shipping, please", random.Random(seed)) for seed in range(60)}
    assert len(made) > 5
    assert any(text.isupper() for text in {roughen("hello there", random.Random(seed)) for seed in range(300)})
