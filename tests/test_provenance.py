import subprocess

import llava
from llava import provenance


def test_names_every_version_that_decides_a_number():
    versions = provenance.versions()
    assert set(versions) == {"python", "torch", "transformers", "llava"}
    assert versions["llava"] == llava.__version__


def test_the_commit_is_that_of_the_checkout_the_package_runs_from(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "llava")
    assert head.startswith(provenance.commit()) and len(provenance.commit()) >= 7


def test_a_package_that_runs_from_no_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "llava")
    assert provenance.commit() is None


def test_the_environment_names_processor_and_date():
    environment = provenance.environment()
    assert environment["cpu"] and environment["threads"] >= 1 and environment["date"].endswith("+00:00")
