"""The guess at the language."""

import pytest

from service.language import guess_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("where is my parcel??", "en"),
        ("42", "en"),
        ("🎉🎉", "en"),
        ("c'est où déjà", "en"),
        ("本が届きません", "ja"),
        ("7巻の在庫はありますか?", "ja"),
        ("vol.7はいつ出ますか", "ja"),
        ("ﾏﾝｶﾞ", "ja"),
        ("osusume の isekai ありますか? in english pls", "mix"),
        ("予約を cancel したいです", "mix"),
        ("is 鬼滅の刃 in stock", "mix"),
    ],
)
def test_script_decides(text: str, language: str) -> None:
    """Japanese script, Latin words beside it, or neither."""
    assert guess_language(text) == language
