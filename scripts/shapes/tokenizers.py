"""The two tokenizers of the embedded model, trained on the sentences the benchmark uses.

The language model's is a sentencepiece BPE whose templates (system prompt, question openings, short-answer line) are
single pieces: a sequence of few tokens is what lets the model train and answer on a CPU. Other text falls back to
words, letters and bytes. CLIP's is its usual byte-level BPE with every word of the benchmark as one token.
"""

import io
import json
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llava.conversation import conv_templates
from llava.shapes.questions import SHORT_ANSWER_PROMPT
from llava.shapes.scenes import COLORS, SHAPES

QUESTION_OPENINGS = (
    "What color is the",
    "What shape is the",
    "What number is on the plate?",
    "Is there a",
    "How many shapes are there?",
)
WORDS = (*COLORS, *SHAPES, "Yes", "No", "object", "object?", *(f"{shape}?" for shape in SHAPES))
CLIP_WORDS = (
    "a plate with the number , what color is shape object on there how many shapes are ? yes no of image picture . in "
    "what's which do you see describe this single word or phrase answer question using"
).split()
CLIP_CONTEXT = 77
VOCABULARY_SIZE = 1000


def language_corpus() -> list[tuple[str, int]]:
    """Sentences and how often each counts: the more often, the earlier its letters merge into one piece."""
    system = conv_templates["vicuna_v1"].system
    templates = [system, "USER:", "ASSISTANT:", SHORT_ANSWER_PROMPT, *QUESTION_OPENINGS]
    vocabulary = sorted({word for sentence in templates for word in sentence.split()} | set(WORDS))
    return [(sentence, 1000) for sentence in templates] + [(word, 5000) for word in vocabulary]


def train_language_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.model` and its settings as LLaVA v1.5 checkpoints carry them."""
    rows = "\n".join(f"{sentence}\t{count}" for sentence, count in language_corpus())
    corpus = folder / "corpus.tsv"
    corpus.write_text(rows + "\n", encoding="utf-8")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        input_format="tsv",
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        byte_fallback=True,
        split_digits=True,
        split_by_unicode_script=False,
        split_by_whitespace=False,
        max_sentencepiece_length=256,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        required_chars="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;?!'\"()-",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    corpus.unlink()
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    del proto.trainer_spec.input[:]  # the corpus' path, which says where and not what was trained
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "legacy": False,
        "model_max_length": 2048,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def train_clip_tokenizer(folder: Path) -> None:
    """Writes `vocab.json`, `merges.txt` and settings in the layout of CLIP's tokenizer.

    Every word becomes one token; equally frequent pairs merge in no fixed order, so ids differ between runs.
    """
    words = sorted({*CLIP_WORDS, *COLORS, *SHAPES})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_CONTEXT, "do_lower_case": True}
    settings |= {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings |= {"pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
