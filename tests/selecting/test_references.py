import json

import pytest

from llava.records import InputError
from llava.selecting.references import FILE, read_erank_refs, store_erank_ref


def test_what_is_stored_is_read_and_leaves_the_rest(tmp_path):
    assert read_erank_refs(tmp_path) == {} and read_erank_refs("someone/elsewhere") == {}
    (tmp_path / FILE).write_text('{"note": "ours"}')
    path = store_erank_ref(tmp_path, 128, {"erank_ref": 80.5, "images": 10})
    store_erank_ref(tmp_path, 64, {"erank_ref": 70})
    store_erank_ref(tmp_path, 128, {"erank_ref": 81.5, "images": 12})
    assert read_erank_refs(tmp_path) == {64: 70.0, 128: 81.5}
    stored = json.loads(path.read_text())
    assert stored["note"] == "ours" and list(stored["erank_ref"]) == ["64", "128"]
    assert stored["erank_ref"]["128"] == {"erank_ref": 81.5, "images": 12}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"erank_ref": 70}',
        '{"erank_ref": {"64": 70}}',
        '{"erank_ref": {"64": {}}}',
        '{"erank_ref": {"64": {"erank_ref": 0}}}',
        '{"erank_ref": {"64": {"erank_ref": true}}}',
        '{"erank_ref": {"many": {"erank_ref": 7}}}',
    ],
)
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=FILE):
        read_erank_refs(tmp_path)
    with pytest.raises(InputError, match=FILE):
        store_erank_ref(tmp_path, 64, {"erank_ref": 7})
    assert (tmp_path / FILE).read_text() == content


def test_nothing_is_stored_beside_what_is_no_folder():
    with pytest.raises(InputError, match="someone/elsewhere is no folder"):
        store_erank_ref("someone/elsewhere", 64, {"erank_ref": 7})
