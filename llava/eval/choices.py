"""Which option of a multiple-choice question an answer means, by MMBench's rules, without a judge."""

import re
from collections.abc import Mapping


def chosen_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer means, or ``None`` where it says none or several.

    The first of these that fits exactly one option: the answer is a letter; it is the option's text; the option's
    letter is a word of it; it contains the option's text. Letters count in upper case, texts in any case.

    Args:
        text: the answer.
        options: the text of every option by its letter.
    """
    text = text.strip()
    if re.fullmatch("[A-Z]", text):
        return text
    words = set(re.findall("[A-Za-z0-9']+", text))
    text = text.rstrip(".").casefold()
    texts = {letter: option.strip().rstrip(".").casefold() for letter, option in options.items()}
    fitting = (
        [letter for letter in options if texts[letter] == text],
        [letter for letter in options if letter in words],
        [letter for letter in options if texts[letter] in text],
    )
    return next((letters[0] for letters in fitting if len(letters) == 1), None)
