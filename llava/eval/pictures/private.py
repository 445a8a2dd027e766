"""Text without the folders of the machine it was made on."""

import re
from collections.abc import Callable
from pathlib import Path

OF_PATHS = ("model-base", "text_tower")
"""Options that are paths, as labels begin with them."""
ABSOLUTE = re.compile(r"(?<![\w.~:/])(?:/[^\s/:,;'\"()<>]+)+/([^\s/:,;'\"()<>]+)")


def without_folders(**named: str | Path) -> Callable[[str], str]:
    """What takes the paths of this machine out of a text.

    Args:
        named: folders, each of which becomes its name here, one of several names the first; the user's own becomes
            ``~``. Of another absolute path its last part remains.
    """
    places = {}
    for name, folder in named.items():
        for path in (Path(folder).expanduser(), Path(folder).expanduser().resolve()):
            if path.is_absolute() and path != Path(path.anchor):
                places.setdefault(str(path), name)
    home = Path.home()
    places |= {str(path): "~" for path in (home, home.resolve()) if path != Path(path.anchor)}
    # Words of a label have dashes in place of the slashes of a path.
    dashed = {path.replace("/", "-"): name for path, name in places.items()}
    places |= {f"{word}{path}": f"{word}-{name}" for word in OF_PATHS for path, name in dashed.items()}
    longest_first = sorted(places, key=len, reverse=True)
    whole = re.compile("|".join(rf"{re.escape(path)}(?!\w)" for path in longest_first)) if places else None

    def told(text: str) -> str:
        text = whole.sub(lambda found: places[found[0]], text) if whole else text
        return ABSOLUTE.sub(r"\1", text)

    return told
