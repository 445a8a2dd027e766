import pytest

from llava.eval.outputs import nothing_left


def test_a_refusal_takes_away_the_empty_files_and_folders_it_has_made(tmp_path):
    path = tmp_path / "new" / "newer" / "a.json"
    with pytest.raises(KeyboardInterrupt), nothing_left(path):
        path.parent.mkdir(parents=True)
        path.touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_holds_something_stays(tmp_path):
    old, written = tmp_path / "old.json", tmp_path / "new" / "written.json"
    old.touch()
    with pytest.raises(ValueError, match="refused"), nothing_left(old, written):
        written.parent.mkdir()
        written.write_text("{}")
        raise ValueError("refused")
    assert old.exists() and written.read_text() == "{}"


def test_a_good_end_leaves_empty_files_alone(tmp_path):
    with nothing_left(tmp_path / "a.json"):
        (tmp_path / "a.json").touch()
    assert (tmp_path / "a.json").exists()
