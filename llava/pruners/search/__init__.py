"""Searches: how the tokens that a method asks for are found, by whatever is fastest for the size and on the device."""

from llava.pruners.search.coverage import cover, cover_softly
from llava.pruners.search.dpp import greedy_map
from llava.pruners.search.duplicates import remove_duplicates
from llava.pruners.search.farthest import max_min
from llava.pruners.search.groups import components, group_quotas, of_groups, repeats
from llava.pruners.search.stretches import Stretches

__all__ = [
    "Stretches",
    "components",
    "cover",
    "cover_softly",
    "greedy_map",
    "group_quotas",
    "max_min",
    "of_groups",
    "remove_duplicates",
    "repeats",
]
