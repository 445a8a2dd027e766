"""Searches: how the tokens that a method asks for are found, by whatever is fastest for the size and on the device."""

from llava.pruners.search.coverage import cover, cover_softly
from llava.pruners.search.dpp import greedy_map
from llava.pruners.search.duplicates import remove_duplicates
from llava.pruners.search.farthest import max_min
from llava.pruners.search.stretches import Stretches

__all__ = ["Stretches", "cover", "cover_softly", "greedy_map", "max_min", "remove_duplicates"]
