"""Fixtures that belong to no one part of the package: tokenizer, image processor, the embedded model and its scenes."""

from .torchvision_operators import OPERATORS  # noqa: F401  before Transformers, which imports torchvision

# isort: split
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers
from hypothesis import HealthCheck, settings
from packaging.version import Version
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, LlamaTokenizer

from llava import compat
from llava.asking.questions import Question
from llava.pruners import Pruner, VisualCues
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

# A machine that is busy makes no test fail; what repeats a failure is printed with it.
settings.register_profile(
    "suite", settings.default, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

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


@pytest.fixture(scope="session")
def can_prune() -> None:
    """What calls ``llava.pruning.prune`` is skipped where Transformers is older than it needs."""
    if Version(transformers.__version__) < Version(compat.PRUNES_FROM):
        pytest.skip(f"llava.pruning needs Transformers {compat.PRUNES_FROM}; this is {transformers.__version__}")


@pytest.fixture
def switching():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@dataclass(frozen=True)
class Scene:
    """A question with its answer, its image, and another answer."""

    image: Path
    text: str
    answer: str
    wrong: str

    def question(self, **changes) -> Question:
        return replace(Question(self.text, lambda: [Image.open(self.image).convert("RGB")]), **changes)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> list[Scene]:
    """Twelve questions whose answers differ in length, about two images."""
    folder = tmp_path_factory.mktemp("scenes")
    write_benchmark(folder, split="test", num_questions=12, seed=3)
    names = ("shapes_test.jsonl", "shapes_test_labels.jsonl")
    asked, labels = ([json.loads(line) for line in (folder / name).read_text().splitlines()] for name in names)
    return [
        Scene(folder / "images" / question["image"], question["text"], label["answer"], "a very long ellipse")
        for question, label in zip(asked, labels, strict=True)
    ]


@pytest.fixture(scope="session")
def llava_shapes() -> str:
    return str(checkpoint_path())


@dataclass(frozen=True)
class Spy(Pruner):
    """Keeps the first tokens of each row, and remembers what it was told."""

    told: list[VisualCues] = field(default_factory=list)

    needs = frozenset({"features", "embeds", "cls_attention", "relevance"})

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        self.told.append(cues)
        return torch.arange(budget).repeat(cues.shape[0], 1)


@pytest.fixture
def spy() -> Spy:
    return Spy(visual_token_num=1)
