"""What is taken out of a text before it is stored, and what stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.redaction import redact

TAKEN_OUT = [
    ("write to mika.t+books@post.example.org please", "write to <email> please"),
    ("メールは taro_99@example.co.jp です", "メールは <email> です"),
    ("宛先は ｈａｎａ＠example.jp", "宛先は <email>"),
    ("it refused 4111-1111-1111-1111 twice", "it refused <card> twice"),
    ("カードは５５５５５５５５５５５５４４４４です", "カードは<card>です"),
    ("amex 378282246310005 was charged", "amex <card> was charged"),
    ("call me on +44 7700 900123 after six", "call me on <phone> after six"),
    ("call (555) 010-4477", "call <phone>"),
    ("my number: 555-010-4477.", "my number: <phone>."),
    ("電話は 03-1234-5678 です", "電話は <phone> です"),
    ("携帯０９０ー１２３４ー５６７８まで", "携帯<phone>まで"),
    ("09012345678にかけて", "<phone>にかけて"),
    ("where is order 4411?", "where is order <order>?"),
    ("order number is MA-10293 and it is late", "order number is <order> and it is late"),
    ("TRACKING NUMBER 9911-B WHERE IS IT", "TRACKING NUMBER <order> WHERE IS IT"),
    ("still waiting on #88123", "still waiting on <order>"),
    ("it says 503-1234567-7654321", "it says <order>"),
    ("注文番号は20931です", "注文番号は<order>です"),
    ("注文 7-5581 の宛名を直して", "注文 <order> の宛名を直して"),
    ("追跡番号:JD0146000062", "追跡番号:<order>"),
    ("send it to 12 Harbour Street, flat 3 instead", "send it to <address> instead"),
    ("I moved to 8b Old Mill Lane", "I moved to <address>"),
    ("my postcode is BT7 1NN", "my postcode is <address>"),
    ("po box 1182 is fine", "<address> is fine"),
    ("〒150-0001 に送って", "<address> に送って"),
    ("住所は東京都渋谷区神南1-2-3です", "住所は<address>です"),
    ("大阪府大阪市北区梅田2丁目4番9号に変更", "<address>に変更"),
]

KEPT = [
    "do you have vol 12 of the fox series, under $10?",
    "全巻で12冊、2024年版ですか",
    "order 12 volumes for my class of 30",
    "is it 3 for 2, or 20% off 1,980 yen",
    "isbn 9780000000002 in hardcover",
    "error 404 on the cart page",
    "100年前の話? 5000円以下で",
    "chapter 1052 spoilers pls",
    "the 7 deadly sins, box set 2",
    "東京に住んでいます",
    "5分で2回落ちた — why",
]


@pytest.mark.parametrize(("text", "redacted"), TAKEN_OUT)
def test_personal_details_are_replaced_by_their_tags(text: str, redacted: str) -> None:
    """In English and Japanese forms, half and full width."""
    assert redact(text) == redacted


@pytest.mark.parametrize("text", KEPT)
def test_what_a_message_is_about_stays_as_it_was(text: str) -> None:
    """Volumes, prices, counts, years."""
    assert redact(text) == text


@given(st.text(max_size=400))
def test_any_text_is_survived_and_a_second_pass_changes_nothing_it_left(text: str) -> None:
    """Whatever a customer can type; tags are not eaten by later rules."""
    assert isinstance(redact(text), str)
    assert redact("<email> <card> <phone> <address> <order>") == "<email> <card> <phone> <address> <order>"


@pytest.mark.parametrize(
    "text", ["1 " * 1000, "a1 " * 660, "県市" * 1000, "1丁目" * 600, "@." * 1000, "+1(" * 660, "order " * 330]
)
def test_no_text_makes_it_crawl(text: str) -> None:
    """Each rule's work grows with the length alone: 2,000 characters made to confuse it end."""
    assert len(redact(text)) > 0
