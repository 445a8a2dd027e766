"""Which part of the package may import which, and how long a file may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "llava"

GROUND = "constants conversation images layout mm_utils utils video records command flags outputs provenance"
MODELS = f"{GROUND} compat pruners selecting model pruning shapes"
MAY_IMPORT = {
    "constants": "",
    "layout": "",
    "utils": "",
    "video": "",
    "images": "",
    "conversation": "constants",
    "mm_utils": "constants images layout utils",
    "records": "",
    "command": "records",
    "flags": "records command",
    "outputs": "records",
    "provenance": "",
    "compat": "",
    "pruners": "",
    "selecting": f"{GROUND} compat pruners",
    "model": f"{GROUND} compat pruners selecting",
    "pruning": f"{GROUND} compat pruners selecting",
    "convert": f"{GROUND} compat model",
    "shapes": GROUND,
    "asking": MODELS,
    "bench": f"{MODELS} asking",
    "lmms": f"{MODELS} asking",
    "serve": f"{MODELS} asking",
    "vllm": f"{MODELS} convert asking",
    "eval.tasks": f"{GROUND} shapes asking",
    "eval.doctor": f"{MODELS} asking eval.tasks",
    "eval.results": f"{MODELS} asking eval.tasks",
    "eval.ask": f"{MODELS} asking vllm eval.tasks eval.doctor eval.results",
    "eval.pictures": f"{MODELS} asking eval.tasks eval.doctor eval.results eval.ask",
    "eval": f"{MODELS} asking vllm eval.tasks eval.doctor eval.results eval.ask eval.pictures",
    "web": f"{MODELS} asking eval.pictures",
    "cli": "flags command records serve eval eval.tasks pruners",
    "__main__": "cli",
}
"""Parts of ``llava`` and the parts they may import beside themselves: those above, and never one below."""

LONGEST = 300
LONGER = {
    "tests/eval/ask/test_video.py": 345,
    "tests/model/test_builder.py": 429,
    "tests/model/test_late_selection.py": 391,
    "tests/model/test_llava_arch.py": 505,
    "tests/pruners/test_base.py": 305,
    "tests/pruning/test_fail_closed.py": 344,
    "tests/selecting/test_at_layer.py": 506,
}
"""Files of more lines than ``LONGEST``, and how many they have. The list, and what it says, only shrinks."""


def name_of(path: Path) -> str:
    """The name of the module in a file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """Every module of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}, line {node.lineno}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "llava")


IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def part_of(name: str) -> str:
    """The part that a module belongs to: the name directly below ``llava`` or a package of ``llava.eval``."""
    names = name.split(".")[1:]
    return ".".join(names[:2]) if ".".join(names[:2]) in MAY_IMPORT else "".join(names[:1])


def not_allowed() -> set[str]:
    """The imports that ``MAY_IMPORT`` does not list; everybody may import ``llava`` itself."""
    return {
        f"{name} -> {other}"
        for name, others in IMPORTS.items()
        for other in others
        if part_of(other) not in ("", part_of(name), *MAY_IMPORT.get(part_of(name), "").split())
    }


def test_every_part_has_a_line_in_the_table():
    assert {part_of(name) for name in MODULES} - {""} == set(MAY_IMPORT)


def test_the_table_has_no_circle():
    above: list[str] = []
    for part, others in MAY_IMPORT.items():
        below = set(others.split()) - set(above)
        assert not below, f"{part} may import {', '.join(sorted(below))}, which is not above it"
        above.append(part)


def test_nothing_is_imported_that_the_table_does_not_allow():
    assert not not_allowed(), "\n".join(["not allowed by MAY_IMPORT:", *sorted(not_allowed())])


def test_no_module_imports_itself_by_way_of_others():
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(IMPORTS.get(name, ())):
                follow(other, (*way, name))
            done.add(name)

    for name in MODULES:
        follow(name, ())


def test_evaluation_is_a_few_rooms():
    """Modules and packages directly in ``llava.eval``, the imports among them, and how many levels these have."""
    room = {name: name.split(".")[2] for name in MODULES if name.startswith("llava.eval.")}
    among = {(room[name], room[other]) for name in room for other in IMPORTS[name] if other in room}
    among = {(one, other) for one, other in among if one != other}

    def level(one: str) -> int:
        return 1 + max((level(other) for other in rooms[one]), default=0)

    rooms = {one: [other for that, other in among if that == one] for one in set(room.values())}
    assert len(rooms) <= 20 and len(among) <= 45 and max(map(level, rooms)) <= 8


def test_files_are_short():
    folders = [folder for folder in ("llava", "scripts", "tests") if (REPOSITORY / folder).is_dir()]
    files = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*"))]
    lines = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if path.suffix in (".py", ".sh", ".bash")
    }
    grown = [f"{path}: {n} lines" for path, n in lines.items() if n > LONGER.get(path, LONGEST)]
    shorter = [path for path in LONGER if lines.get(path, 0) <= LONGEST]
    assert not grown, "\n".join([f"files have at most {LONGEST} lines, or as many as LONGER says:", *grown])
    assert not shorter, "\n".join(["take these out of LONGER:", *shorter])
