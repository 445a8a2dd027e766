"""Fixtures that belong to no one part of the package: a small Llama tokenizer and CLIP's image processor."""

from pathlib import Path

import pytest
import sentencepiece
from transformers import CLIPImageProcessorPil, LlamaTokenizer

SENTENCES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: What color is the large shape? ASSISTANT: It is red.",
    "Answer the question using a single word or phrase.",
    "[INST] Describe both images in detail [/INST] ### Human: stop ### Assistant:",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A folder with nothing but a byte-fallback `tokenizer.model`, as in LLaVA's checkpoints."""
    folder = tmp_path_factory.mktemp("tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder


@pytest.fixture(scope="session")
def llama_tokenizer(tokenizer_folder) -> LlamaTokenizer:
    return LlamaTokenizer.from_pretrained(tokenizer_folder, add_bos_token=True)


@pytest.fixture(scope="session")
def clip_processor() -> CLIPImageProcessorPil:
    """The preprocessing of CLIP-L/336."""
    return CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
