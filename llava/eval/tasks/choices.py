"""Which option of a multiple-choice question an answer means, by MMBench's rules, without a judge."""

import re
from collections.abc import Mapping

WORD = re.compile(r"[A-Za-z\u00c0-\u024f0-9'\u2019_-]+")


def chosen_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer means, or ``None`` where it says none or several.

    The first of these that fits exactly one option: the option's letter is a word of the answer; the answer is the
    option's text; it contains the option's text. Letters count in upper case, also beside Chinese, and not as a part of
    ``T-shirt`` or ``It's``; texts count in any case. The second is no rule of MMBench's own, whose judge would be asked
    where one option's text contains another's.

    Args:
        text: the answer.
        options: the text of every option by its letter.
    """
    words = {word.strip("'\u2019_-") for word in WORD.findall(text)}
    text = text.strip().rstrip(".").casefold()
    texts = {letter: option.strip().rstrip(".").casefold() for letter, option in options.items()}
    fitting = (
        [letter for letter in options if letter in words],
        [letter for letter in options if texts[letter] and texts[letter] == text],
        [letter for letter in options if texts[letter] and texts[letter] in text],
    )
    return next((letters[0] for letters in fitting if len(letters) == 1), None)
