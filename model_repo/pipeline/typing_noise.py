"""How people type: case, punctuation, short forms, typos of a keyboard. Digits are never touched."""

import random
import re

NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
"""Keys beside each letter on a QWERTY keyboard."""
SHORT_FORMS = {
    "you": "u", "your": "ur", "are": "r", "please": "plz", "thanks": "thx", "because": "cuz", "with": "w", "and": "n",
    "to": "2", "for": "4", "what": "wat", "don't": "dont", "can't": "cant", "isn't": "isnt", "won't": "wont",
    "volume": "vol", "really": "rly", "something": "smth", "i'm": "im", "have": "hv", "about": "abt", "before": "b4",
    "people": "ppl", "tomorrow": "tmr", "doesn't": "doesnt",
}  # fmt: skip
EMOJI = ["🙏", "😭", "😊", "💀", "😡", "📦", "📚", "✨", "🥲", "👀"]


def roughen(text: str, rng: random.Random) -> str:
    """The message in one of five hands: tidy, plain, lower case, hurried, or shouted."""
    hand = rng.choices(["tidy", "plain", "lower", "hurried", "shouted"], weights=[28, 30, 22, 18, 2])[0]
    if hand == "tidy":
        ends_open = text.isascii() and text[-1:].isalnum()
        stop = rng.choice(["", "?" if _asks(text) else "."]) if ends_open else ""
        return text[:1].upper() + text[1:] + stop
    if hand == "lower":
        return text.lower()
    if hand == "hurried":
        return hurry(text, rng)
    return text.upper() if hand == "shouted" else text


def hurry(text: str, rng: random.Random) -> str:
    """Lower case, short forms, one typo in about 25 characters, little punctuation, sometimes an emoji."""
    words = [SHORT_FORMS.get(word, word) if rng.random() < 0.6 else word for word in text.lower().split(" ")]
    typed = " ".join(words)
    for _ in range(rng.randint(0, 1 + len(typed) // 25)):
        typed = mistype(typed, rng)
    if rng.random() < 0.6:
        typed = re.sub(r"[.,;:!?'’。、？！]+", "", typed)
    return f"{typed} {rng.choice(EMOJI)}" if rng.random() < 0.2 else typed


def mistype(text: str, rng: random.Random) -> str:
    """One slip at an ASCII letter: dropped, doubled, swapped, or a neighbouring key. Text with few stays as it is."""
    letters = [i for i, c in enumerate(text) if c in NEIGHBOURS]
    if len(letters) < 4:
        return text
    i = rng.choice(letters)
    slip = rng.choice(["drop", "double", "swap", "neighbour"])
    if slip == "drop":
        return text[:i] + text[i + 1 :]
    if slip == "double":
        return text[:i] + text[i] + text[i:]
    if slip == "swap" and text[i + 1 : i + 2] in NEIGHBOURS:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + rng.choice(NEIGHBOURS[text[i]]) + text[i + 1 :]


def _asks(text: str) -> bool:
    return bool(
        re.match(r"(is|are|do|does|can|could|what|when|where|which|who|how|why|any|will|did|am|should)\b", text.lower())
    )
