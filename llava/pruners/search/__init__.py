"""Searches: how the tokens that a method asks for are found."""
