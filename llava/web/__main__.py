"""``python -m llava.web``: the page by itself."""

from llava.command import run_program
from llava.web.program import build_parser, run_web

if __name__ == "__main__":
    run_program(build_parser(), run_web)
