"""
Personal details taken out of an utterance before it is stored: e-mail, card, phone, address, order number.

Each find is replaced by its tag, so that what the message is about stays readable. This is a net with a mesh:
it looks for shapes, knows no names of people, and prefers to take out a harmless number to keeping a telling one.
"""

import re

EMAIL, CARD, PHONE, ADDRESS, ORDER = "<email>", "<card>", "<phone>", "<address>", "<order>"

_TELLING = re.compile(r"[0-9０-９@＠〒]|丁目")
"""Without one of these there is nothing to find; most messages end here."""

_LONG_NUMBER = re.compile(r"[0-9](?:[\s().-]{0,3}[0-9]){4}")
"""Five digits or more, however they are grouped: without them there is no card, phone or bare order number."""

_EMAIL = re.compile(r"[\w.+%-]{1,64} ?@ ?[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")

_CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
"""13 to 19 digits in groups; a match counts as a card only when its check digit is right."""

_ANNOUNCING = re.compile("order|invoice|tracking|parcel|shipment|ref|rma|case|ticket|booking|注文|番号")
"""Quick look for one of the words of the next rule, in small letters."""
_ANNOUNCES_NUMBER = (
    r"(?:\b(?:order|invoice|tracking|parcel|shipment|reference|ref|rma|case|ticket|booking)s?"
    r"(?:\s+(?:number|num|no\b\.?|id|code|nr\.?))?(?:\s+(?:is|was))?"
    r"|注文(?:番号|ID|no\.?)?|(?:予約|追跡|問い?合わ?せ|伝票|受付)番号)"
)
_ORDER = re.compile(
    rf"(?P<said>{_ANNOUNCES_NUMBER}\s{{0,3}}[はがの:=]?\s{{0,3}}[#№-]?\s?)"
    r"(?P<number>(?=[A-Z-]{0,12}\d)[A-Z0-9](?:-?[A-Z0-9]){2,29})(?![A-Z0-9])",
    re.IGNORECASE | re.ASCII,
)
"""Three characters or more with a digit, right after a word that announces it. "order 12 volumes" keeps its 12."""

_ORDER_SHAPE = re.compile(
    r"#\d{3,}|(?<![\w-])(?:\d{3}-\d{7}-\d{7}|[A-Z]{1,4}-?\d{5,18}[A-Z]{0,2})(?![\w-])", re.IGNORECASE | re.ASCII
)
"""Numbers that need no announcement: #4411, 503-1234567-7654321, MA-1029384."""

_PHONE = re.compile(
    r"(?<![\w.-])(?:\+\s?\d{1,3}[\s.-]?(?:\(\d{1,4}\)[\s.-]?)?\d(?:[\s.-]?\d){5,12}"
    r"|\(\d{2,5}\)[\s.-]?\d{2,4}[\s.-]?\d{3,4}"
    r"|0\d{1,4}[\s.-]\d{1,4}[\s.-]\d{3,4}"
    r"|\d{3}[\s.-]\d{3}[\s.-]\d{4}|\d{3}-\d{4}|\d{10,12})(?![\w-])",
    re.ASCII,
)

_KANA_OR_KANJI = "[\u3040-\u30ff\u4e00-\u9fff々]"
_ADDRESS_JP = re.compile(
    # A postal code counts with its mark, or before Japanese script.
    r"〒\s?\d{3}-?\d{4}|(?<!\d)\d{3}-\d{4}(?=\s?" + _KANA_OR_KANJI + ")"
    # Prefecture, municipality, then on to the last number.
    r"|(?:東京都|北海道|大阪府|京都府|[\u4e00-\u9fff]{2,3}県)" + _KANA_OR_KANJI + "{1,12}?[市区町村郡]"
    "(?:" + _KANA_OR_KANJI + r"{0,16}[\d-]{1,8}(?:丁目|番地|番|号室|号|階)?){1,4}"
    # Municipality or quarter with a block number.
    r"|[\u4e00-\u9fff]{1,8}[市区町村]" + _KANA_OR_KANJI + r"{0,12}\d{1,4}(?:(?:丁目|番地|番|号室|号|-)\d{0,4}){1,4}"
    r"|[\u4e00-\u9fff]{1,8}[一二三四五六七八九十\d]{1,3}丁目(?:[\d一二三四五六七八九十-]{1,4}(?:番地|番|号室|号)?){0,3}"
)
_TELLS_ADDRESS_JP = re.compile("[市区町村郡丁〒]|\\d{3}-\\d{4}")

_STREET = (
    "street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|terrace|square|crescent|parkway|highway|hwy"
)
_ADDRESS_EN = re.compile(
    # House number, at most three words, the kind of street; then flat, town and code where they follow.
    rf"\b\d{{1,6}}[a-z]?,?\s(?:(?!(?:for|of|in|on|the|to|a|and|is)\b)[\w'’.-]{{1,24}}\s){{1,3}}(?:{_STREET})\b\.?"
    r"(?:,?\s(?:apt|apartment|unit|suite|ste|flat|floor)\b\.?\s?#?\w{1,6})?"
    r"(?:,\s?[a-z][a-z .'-]{1,30})?(?:,?\s[a-z]{2}\s\d{5}(?:-\d{4})?)?"
    r"|\b[a-z]{1,2}\d[a-z\d]?\s\d[a-z]{2}\b"
    r"|\bp\.?\s?o\.?\sbox\s\d{1,8}\b"
    r"|\b(?:zip|postcode|postal)(?:\scode)?(?:\sis|:)?\s\d{5}(?:-\d{4})?\b",
    re.IGNORECASE | re.ASCII,
)


def redact(text: str) -> str:
    """
    The text with every find replaced by its tag; full-width digits and signs are read as their plain forms.

    >>> redact("my card 4111 1111 1111 1111 was refused for order 4411, write to kei@example.org")
    'my card <card> was refused for order <order>, write to <email>'
    >>> redact("全巻で12冊ありますか")
    '全巻で12冊ありますか'
    """
    if _TELLING.search(text) is None:
        return text
    plain = _plain(text)
    has_long_number = _LONG_NUMBER.search(plain) is not None
    redacted = plain
    if "@" in redacted:
        redacted = _EMAIL.sub(EMAIL, redacted)
    if has_long_number:
        redacted = _CARD.sub(_card_or_same, redacted)
    if _ANNOUNCING.search(redacted.lower()):
        redacted = _ORDER.sub(lambda found: found["said"] + ORDER, redacted)
    if not redacted.isascii() and _TELLS_ADDRESS_JP.search(redacted):
        redacted = _ADDRESS_JP.sub(ADDRESS, redacted)
    redacted = _ADDRESS_EN.sub(ADDRESS, redacted)
    if has_long_number or "#" in redacted:
        redacted = _ORDER_SHAPE.sub(ORDER, redacted)
    if has_long_number:
        redacted = _PHONE.sub(PHONE, redacted)
    return text if redacted == plain else redacted


def is_card_number(digits: str) -> bool:
    """
    Whether the Luhn check digit is right, over 13 to 19 digits.

    >>> is_card_number("4111111111111111"), is_card_number("4111111111111112")
    (True, False)
    """
    doubled = (int(d) if k % 2 == 0 else sum(divmod(2 * int(d), 10)) for k, d in enumerate(reversed(digits)))
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0


def _card_or_same(found: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", found[0])
    return CARD if is_card_number(digits) else found[0]


_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_LONG_VOWEL_AS_DASH = re.compile(r"(?<=\d)ー(?=\d)")


def _plain(text: str) -> str:
    """Full-width forms and the many dashes as ASCII; a long-vowel mark between digits is a dash too."""
    return text if text.isascii() else _LONG_VOWEL_AS_DASH.sub("-", text.translate(_WIDE))
