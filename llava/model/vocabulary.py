"""Tokenizers of checkpoints, and embeddings with a row for each of their tokens."""

from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, LlamaTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.checkpoint import listed, naming

TOKENIZERS = ("tokenizer.model", "tokenizer.json")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint, with a token to pad with.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is damaged; names the folder.
    """
    with naming(f"the tokenizer of {folder}"):
        # Files of Vicuna and Mistral name no class or the wrong beginning of a text; sentencepiece's model is clear.
        if (folder / "tokenizer.model").is_file():
            _check_sentencepiece(folder / "tokenizer.model")
            tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
        elif has_tokenizer(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
        else:
            raise FileNotFoundError(f"{folder} holds no tokenizer: none of {', '.join(TOKENIZERS)}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _check_sentencepiece(file: Path) -> None:
    """Raise ValueError for a damaged file, in which Transformers looks for other formats, or finds no words at all."""
    pieces = SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(file.read_bytes())
        whole = len(pieces) > 0
    except RuntimeError:
        whole = False
    if not whole:
        raise ValueError(f"{file} is damaged or cut short: copy or download it again")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZERS)


def add_image_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, rows: int, where: Path) -> None:
    """Add to a tokenizer the tokens that LLaVA's config asks for.

    Args:
        rows: of the embeddings that were trained with the tokenizer.
        where: what an error calls both.

    Raises:
        ValueError: the tokenizer has tokens without a row: it belongs to another checkpoint.
    """
    known = {DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN, tokenizer.pad_token}
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows and token not in known]
    if beyond:
        raise ValueError(f"{where}: the tokenizer has {len(tokenizer)} tokens, the model {rows}: {listed(beyond)}")
    if getattr(config, "mm_use_im_patch_token", True):
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if getattr(config, "mm_use_im_start_end", False):
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)


def refuse_untrained(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, rows: int, where: Path) -> None:
    """Raise ValueError where prompts have ``<im_start>`` and ``<im_end>`` and a whole checkpoint has no rows for them.

    Of ``<im_patch>`` no prompt makes use: its row may be anything.
    """
    if getattr(config, "mm_use_im_start_end", False):
        marks = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN)
        if lacking := [token for token in marks if tokenizer.convert_tokens_to_ids(token) >= rows]:
            raise ValueError(
                f"{where}: mm_use_im_start_end is set, and the {rows} embeddings have no {listed(lacking)}"
            )


@torch.no_grad()
def grow_vocabulary(model: PreTrainedModel, rows: int) -> None:
    """Give embeddings and logits this many rows, if they have fewer; new ones are the mean, as in LLaVA's training."""
    known = model.get_input_embeddings().num_embeddings
    if rows <= known:  # a padded vocabulary never shrinks
        return
    model.resize_token_embeddings(rows, mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight[known:] = table.weight[:known].float().mean(dim=0).to(table.weight.dtype)
