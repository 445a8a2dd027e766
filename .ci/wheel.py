"""Build the wheel, check it, and run what is in it: ``python .ci/wheel.py ENVIRONMENT``.

The wheel goes to dist/. It is installed into ENVIRONMENT, which is made anew and holds nothing else, and the demo runs
from there in a folder that is not the checkout.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
DEMO = ("-m", "llava.eval", "demo", "--num-questions", "50", "--output-dir", "demo")
ELSEWHERE = re.compile(r"[a-z]+:|#")  # how a link begins that leads out of the repository, or stays on the page
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
TAG = re.compile(r"""<(?:img|source)\b[^>]*?\b(?:src|srcset)=["']([^"']+)["'][^>]*>""")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, metavar="ENVIRONMENT", help="where the wheel is installed; emptied")
    started, environment = time.monotonic(), parser.parse_args().environment.absolute()
    wheel = build(ROOT / "dist")
    if missing := left_out(wheel):
        print(f"wheel: these files of the package are not in it: {', '.join(missing)}")
        return 1
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=True)
    with tempfile.TemporaryDirectory() as folder:
        try_out(wheel, environment, Path(folder))
    size, minutes = wheel.stat().st_size / 1e6, (time.monotonic() - started) / 60
    print(f"wheel took {minutes:.1f} minutes with Python {sys.version.split()[0]}")
    print(f"wheel: 1 passed, {wheel.name} of {size:.1f} MB")
    return 0


def build(target: Path) -> Path:
    """Build the wheel from a copy, so that nothing of an earlier build is in it; where it is."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        shutil.copytree(ROOT / "llava", source / "llava", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / name, source)
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (source / "README.md").write_text(described(readme, address()), encoding="utf-8")
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", f"{folder}/made", source]
        subprocess.run(command, check=True)
        (made,) = Path(folder, "made").glob("*.whl")
        target.mkdir(exist_ok=True)
        return Path(shutil.copy(made, target))


def address() -> str | None:
    """Where the repository is to be found, as pyproject.toml says it; None where it says nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def described(readme: str, repository: str | None) -> str:
    """The README as the page of a registry can show it, where links within the repository lead nowhere.

    They lead to the repository if that has an address. Otherwise their words stay, and pictures go.
    """

    def linked(match: re.Match) -> str:
        words, target = match.groups()
        if ELSEWHERE.match(target):
            return match[0]
        return f"[{words}]({repository}/blob/HEAD/{target})" if repository else words

    def pictured(match: re.Match) -> str:
        if ELSEWHERE.match(match[match.lastindex]):
            return match[0]
        source = match[match.lastindex]
        return match[0].replace(source, f"{repository}/raw/HEAD/{source}") if repository else ""

    return LINK.sub(linked, TAG.sub(pictured, PICTURE.sub(pictured, readme)))


def left_out(wheel: Path) -> list[str]:
    """The files of the package that the wheel lacks."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    files = (path for path in (ROOT / "llava").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted({path.relative_to(ROOT).as_posix() for path in files} - held)


def try_out(wheel: Path, environment: Path, folder: Path) -> None:
    """Install a wheel where nothing else is, and run the demo, and the command if there is one, in a folder."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python = programs / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, f"{wheel}[eval]"]
    subprocess.run(install, check=True, cwd=folder)
    where = subprocess.run([python, "-c", "import llava; print(llava.__file__)"], cwd=folder, capture_output=True)
    if not Path(where.stdout.decode().strip()).is_relative_to(environment):
        raise SystemExit(f"wheel: llava was imported from {where.stdout.decode().strip()}, not from {environment}")
    subprocess.run([python, *DEMO], check=True, cwd=folder)
    if (command := programs / "llava").exists():
        subprocess.run([command, "--help"], check=True, cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
