"""What both models behind lmms-eval refuse before anything is loaded, and the embedded one in Transformers' format."""

from pathlib import Path

import pytest

from llava.convert.program import to_hf

PRUNED = {"pruner": "divprune", "keep_ratio": 0.5}
WRONG_OF_BOTH = [
    ({"device_map": "foo"}, ValueError, "device_map 'foo'"),
    ({"dtype": "float8"}, ValueError, "dtype 'float8' is not one of float16"),
    ({"attn_implementation": "fast"}, ValueError, "'fast' is not one of sdpa, eager"),
    ({"attn_implementation": "flash_attention_2"}, ValueError, "flash_attention_2 needs a GPU"),
    ({**PRUNED, "prune_layer": True}, ValueError, "prune_layer must be an integer"),
    ({**PRUNED, "text_chunking": "cut"}, ValueError, "release, bos_eos"),
]


@pytest.fixture(scope="session")
def converted(llava_shapes, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("converted") / "shapes-hf"
    to_hf(Path(llava_shapes), folder)
    return str(folder)
