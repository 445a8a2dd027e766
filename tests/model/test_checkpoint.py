"""What lies in a checkpoint folder."""

import pytest

from llava.model.checkpoint import is_computed, read_json


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", "{}".encode("utf-16"), b"\xff"])
def test_a_file_without_a_json_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json"):
        read_json(tmp_path / "config.json")


def test_a_byte_order_mark_is_no_part_of_json(tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}


def test_tables_that_the_config_determines_are_no_weights():
    assert is_computed("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert is_computed("vision_model.embeddings.position_ids")
    assert not is_computed("vision_model.embeddings.position_embedding.weight")
