import os
import shutil

import pytest

from llava.eval.ask import identity
from llava.records import InputError

MIB = 2**20


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB])
def test_a_file_is_known_by_its_size_and_both_its_ends(tmp_path, size):
    content = bytes(size)
    (tmp_path / "a").write_bytes(content)
    known = identity.of_file(tmp_path / "a")
    assert known.startswith(f"{size} bytes, ")
    for place in {0, size - 1, min(size, MIB) - 1, max(0, size - MIB)} if size else ():
        changed = bytearray(content)
        changed[place] = 1
        (tmp_path / "b").write_bytes(changed)
        assert identity.of_file(tmp_path / "b") != known
    (tmp_path / "b").write_bytes(content + b"\0")
    assert identity.of_file(tmp_path / "b") != known


def test_a_copy_with_another_name_and_another_time_is_the_same_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"weights")
    shutil.copy(tmp_path / "a.bin", tmp_path / "b.bin")
    os.utime(tmp_path / "b.bin", (1, 1))
    assert identity.of_file(tmp_path / "a.bin") == identity.of_file(tmp_path / "b.bin")


def test_a_checkpoint_is_known_by_its_files_and_by_the_tower_beside_it(llava_shapes, tmp_path):
    shutil.copytree(os.path.dirname(llava_shapes), tmp_path / "copies")
    copy = tmp_path / "copies" / os.path.basename(llava_shapes)
    (copy / "README.md").write_text("says nothing")
    files = identity.of_run(checkpoint=llava_shapes, base=None)
    assert files == identity.of_run(checkpoint=str(copy)) and set(files) == {"checkpoint", "tower"}
    assert {"config.json", "tokenizer_config.json"} <= set(files["checkpoint"])
    (tower,) = (tmp_path / "copies").glob("clip*")
    for folder, part in ((copy, "checkpoint"), (tower, "tower")):
        name = next(name for name in files[part] if name.endswith(".safetensors"))
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        changed = identity.of_run(checkpoint=str(copy))[part]
        (difference,) = identity.differences(files[part], changed)
        assert difference.startswith(f"{name}: ") and identity.digest(files[part]) != identity.digest(changed)


def test_a_hub_id_is_what_the_cache_holds_of_it(tmp_path, monkeypatch):
    assert identity.of_run(checkpoint="someone/llava-7b") == {}
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(identity, "try_to_load_from_cache", lambda name, file: str(folder / file))
    assert identity.of_run(checkpoint="someone/llava-7b") == identity.of_run(checkpoint=str(folder))


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")

    def refuse(*_):
        raise OSError(5, "Input/output error", str(tmp_path / "config.json"))

    monkeypatch.setattr(identity, "of_file", refuse)
    with pytest.raises(InputError, match=r"cannot read .*config\.json: Input/output error"):
        identity.of_run(checkpoint=str(tmp_path))
