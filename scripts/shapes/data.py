"""Training batches: pictures, what every patch shows, captions, phrases and packed questions."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from llava.conversation import conv_templates
from llava.shapes.questions import QUESTION_TYPES, SHORT_ANSWER_PROMPT, describe
from llava.shapes.scenes import COLORS, IMAGE_SIZE, OBJECT_COUNTS, SHAPES, Scene, draw_scene, object_map, render

PATCH_SIZE = 8
GRID = IMAGE_SIZE // PATCH_SIZE
NUM_PATCHES = GRID * GRID
IGNORED = -100
IMAGE_MARK = "<image>"
ANY_NUMBER = -1
REGION_SPREAD = 2.0
MIN_SHARE = 0.2
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.25, 0.25, 0.25)
PATCH_TASKS = {
    "kind": 3,
    "color": len(COLORS),
    "shape": len(SHAPES),
    "tens": 10,
    "units": 10,
    "centre": 2,
    "count": len(OBJECT_COUNTS),
}


def pixel_values(pictures: list[np.ndarray]) -> torch.Tensor:
    """Normalised as CLIPImageProcessor does with this model's settings, (B, 3, 96, 96) float32."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


def patch_owners(scene: Scene) -> np.ndarray:
    """Which object covers most of each patch, (N,) int64: -1 where none covers a fifth, len(objects) for the plate."""
    cells = object_map(scene).reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE)
    owners = cells.transpose(0, 2, 1, 3).reshape(NUM_PATCHES, -1)  # (N, pixels)
    share = np.stack([(owners == index).mean(axis=1) for index in range(len(scene.objects) + 1)], axis=1)
    return np.where(share.max(axis=1) >= MIN_SHARE, share.argmax(axis=1), -1)


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """What each patch shows, (N,) int64 per task; a task that does not apply to a patch holds IGNORED there."""
    owner, plate = patch_owners(scene), len(scene.objects)
    labels = {task: np.full(NUM_PATCHES, IGNORED) for task in PATCH_TASKS}
    labels["kind"] = np.where(owner < 0, 0, np.where(owner == plate, 2, 1))
    labels["centre"] = np.zeros(NUM_PATCHES, dtype=np.int64)
    labels["count"][labels["kind"] == 1] = OBJECT_COUNTS.index(len(scene.objects))
    for index, item in enumerate(scene.objects):
        labels["color"][owner == index] = tuple(COLORS).index(item.color)
        labels["shape"][owner == index] = SHAPES.index(item.shape)
        row, column = (item.top + item.size // 2) // PATCH_SIZE, (item.left + item.size // 2) // PATCH_SIZE
        labels["centre"][row * GRID + column] = 1
    if scene.plate:
        labels["tens"][owner == plate], labels["units"][owner == plate] = divmod(scene.plate.number, 10)
    return labels


def draw_phrase(scene: Scene, rng: np.random.Generator) -> tuple[str, str | None, str | None, int | None]:
    """A phrase or question, with the colour, shape and number that a picture must show for it to fit."""
    item = scene.objects[rng.integers(len(scene.objects))]
    kind = rng.integers(8)
    if scene.plate and kind < 2:
        if kind < 1:
            return "What number is on the plate?", None, None, ANY_NUMBER
        return f"a plate with the number {scene.plate.number}", None, None, scene.plate.number
    if kind < 4:
        return f"a {item.color} {item.shape}", item.color, item.shape, None
    if kind < 6:
        return f"Is there a {item.color} {item.shape}?", item.color, item.shape, None
    if kind < 7:
        return f"What color is the {item.shape}?", None, item.shape, None
    return f"What shape is the {item.color} object?", item.color, None, None


def fits(scene: Scene, color: str | None, shape: str | None, number: int | None) -> bool:
    """Whether the scene shows a plate with this number, or, without a number, an object of this colour and shape."""
    if number is not None:
        return scene.plate is not None and number in (ANY_NUMBER, scene.plate.number)
    return any(color in (None, item.color) and shape in (None, item.shape) for item in scene.objects)


@dataclass
class TowerBatch:
    """What the vision tower and CLIP learn from."""

    pixels: torch.Tensor  # (B, 3, 96, 96)
    patches: dict[str, torch.Tensor]  # (B, N) per task
    captions: list[str]  # B
    phrases: list[str]  # P
    matches: torch.Tensor  # (B, P) bool

    def to(self, device: str) -> "TowerBatch":
        """The same batch on a device."""
        patches = {task: labels.to(device) for task, labels in self.patches.items()}
        return replace(self, pixels=self.pixels.to(device), patches=patches, matches=self.matches.to(device))


def draw_scenes(rng: np.random.Generator, split: str, count: int) -> list[Scene]:
    """`count` scenes of a split."""
    return [draw_scene(rng, split) for _ in range(count)]


def tower_batch(scenes: list[Scene], rng: np.random.Generator) -> TowerBatch:
    """Pictures, patch labels, captions, and one phrase per scene matched against all scenes."""
    labels = [patch_labels(scene) for scene in scenes]
    phrases = [draw_phrase(scene, rng) for scene in scenes]
    matches = [[fits(scene, *needs) for _, *needs in phrases] for scene in scenes]
    return TowerBatch(
        pixels=pixel_values([render(scene) for scene in scenes]),
        patches={task: torch.from_numpy(np.stack([label[task] for label in labels])) for task in PATCH_TASKS},
        captions=[describe(scene) for scene in scenes],
        phrases=[text for text, *_ in phrases],
        matches=torch.tensor(matches),
    )


def draw_questions(scene: Scene, rng: np.random.Generator, count: int) -> list[tuple[str, str, str]]:
    """`count` different questions as (type, question, answer): the types in turn while they have a new one to ask."""
    questions: dict[str, tuple[str, str, str]] = {}
    while len(questions) < count:
        for kind, ask in QUESTION_TYPES.items():
            asked = ask(scene, rng)
            if asked and len(questions) < count:
                questions.setdefault(asked[0], (kind, *asked))
    return list(questions.values())


@dataclass
class QuestionBatch:
    """Questions of B pictures, Q each, as the tokens that follow the image, padded to L tokens."""

    ids: torch.Tensor  # (B, Q, L) int64
    targets: torch.Tensor  # (B, Q, L) int64: the token to predict after each position, IGNORED outside the answer
    kinds: list[list[str]]  # B lists of Q question types

    def to(self, device: str) -> "QuestionBatch":
        """The same batch on a device."""
        return replace(self, ids=self.ids.to(device), targets=self.targets.to(device))


class PromptTokens:
    """Token ids of LLaVA's `vicuna_v1` prompt, split at the image as `tokenizer_image_token` splits it."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.before_image = self._split(IMAGE_MARK)[0]
        self._cache: dict[tuple[str, str], tuple[list[int], int]] = {}

    def _split(self, message: str) -> list[list[int]]:
        conversation = conv_templates["vicuna_v1"].copy()
        conversation.append_message(conversation.roles[0], message)
        conversation.append_message(conversation.roles[1], None)
        pieces = [self.tokenizer(piece).input_ids for piece in conversation.get_prompt().split(IMAGE_MARK)]
        return [pieces[0], *(piece[1:] for piece in pieces[1:])]

    def question(self, question: str, answer: str) -> tuple[list[int], int]:
        """Ids after the image, answer and end token included, and how many of them are the question's."""
        if (question, answer) not in self._cache:
            asked = self._split(f"{IMAGE_MARK}\n{question}\n{SHORT_ANSWER_PROMPT}")[1]
            reply = self.tokenizer(f"ASSISTANT: {answer}").input_ids
            bare = len(self.tokenizer("ASSISTANT:").input_ids)
            ids = asked + reply[bare:] + [self.tokenizer.eos_token_id]
            self._cache[question, answer] = ids, len(asked)
        return self._cache[question, answer]


def question_batch(asked: list[list[tuple[str, str, str]]], prompts: PromptTokens) -> QuestionBatch:
    """Packs (type, question, answer) triples, the same number for every picture."""
    rows = [[prompts.question(question, answer) for _, question, answer in questions] for questions in asked]
    length = max(len(ids) for row in rows for ids, _ in row) - 1
    ids = np.zeros((len(rows), len(rows[0]), length), dtype=np.int64)
    targets = np.full_like(ids, IGNORED)
    for b, row in enumerate(rows):
        for q, (tokens, asked_length) in enumerate(row):
            ids[b, q, : len(tokens) - 1] = tokens[:-1]
            targets[b, q, asked_length - 1 : len(tokens) - 1] = tokens[asked_length:]
    kinds = [[kind for kind, _, _ in questions] for questions in asked]
    return QuestionBatch(torch.from_numpy(ids), torch.from_numpy(targets), kinds)


def random_keep(rng: np.random.Generator, images: int, kept: int) -> torch.Tensor:
    """Patches drawn without looking at the picture, ascending, (B, K)."""
    order = rng.random((images, NUM_PATCHES)).argsort(axis=1)[:, :kept]
    return torch.from_numpy(np.sort(order, axis=1))


def uneven_keep(rng: np.random.Generator, scenes: list[Scene], kept: int) -> torch.Tensor:
    """Patches drawn with odds that differ by region, ascending, (B, K).

    Background, plate and every object take their log-odds from the same normal distribution. So no kind of region is
    favoured, and yet the share of patches that show objects varies widely, as it does between pruners: from how many
    patches show objects, the language model can not guess how many objects there are.
    """
    rows = []
    for scene in scenes:
        log_odds = rng.normal(0, REGION_SPREAD, size=len(scene.objects) + 2)
        scores = log_odds[patch_owners(scene) + 1] + rng.gumbel(size=NUM_PATCHES)
        rows.append(np.sort(np.argsort(-scores)[:kept]))
    return torch.from_numpy(np.stack(rows))
