"""Trains the embedded model in two stages.

    python -m scripts.shapes.train --stage tower --run-dir RUN --steps 3500
    python -m scripts.shapes.train --stage language --run-dir RUN --tower-from RUN/tower.pt --steps 5800 \\
        --batch-size 16 --seed 1

`tower` trains CLIP: captions and phrases against the [CLS] embedding, and throw-away heads that name what each patch
shows. `language` trains projector and Llama on questions with the tower frozen, as LLaVA does; it may run beside the
first stage and takes over the tower as it improves. A run that was stopped goes on where it last saved.
"""

import argparse
import copy
import json
from collections import defaultdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import CLIPTokenizer, LlamaTokenizer

from llava.command import SEED, Number, at_least, run_program
from llava.shapes.questions import QUESTION_TYPES
from llava.shapes.scenes import render, scene_generator
from scripts.shapes.data import (
    IGNORED,
    NUM_PATCHES,
    PromptTokens,
    QuestionBatch,
    draw_questions,
    draw_scenes,
    pixel_values,
    question_batch,
    random_keep,
    tower_batch,
    uneven_keep,
)
from scripts.shapes.model import ShapesModel
from scripts.shapes.tokenizers import train_clip_tokenizer, train_language_tokenizer

PATCH_WEIGHTS = {"centre": 1.0, "kind": 1.0, "color": 1.0, "shape": 1.0, "tens": 0.7, "units": 0.7, "count": 0.7}
LOSS_WEIGHTS = PATCH_WEIGHTS | {"caption": 0.5, "phrase": 2.0, "answer_full": 1.0, "answer_part": 1.0}
VALIDATION_BATCH = 50
TOWER_EVERY = 100
Accuracies = dict[str, dict[str, float]]


class Trainer:
    """Computes in bfloat16 on a working copy; float32 masters take the AdamW steps."""

    def __init__(self, working: ShapesModel, lr: float, device: str):
        self.masters = {name: p.detach().clone().float().to(device) for name, p in working.named_parameters()}
        self.average = {name: p.clone() for name, p in self.masters.items()}
        self.working = working.to(device)
        for parameter in self.working.parameters():  # and no buffer: rotary frequencies need their float32
            parameter.data = parameter.data.to(torch.bfloat16)
        decayed = [p for p in self.masters.values() if p.ndim >= 2]
        others = [p for p in self.masters.values() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=True)

    def step(self, loss: torch.Tensor, lr: float, average_decay: float) -> None:
        """One AdamW step on the masters, copied into the working weights and mixed into their average."""
        loss.backward()
        parameters = dict(self.working.named_parameters())
        for name, master in self.masters.items():
            grad = parameters[name].grad
            master.grad = grad.float() if grad is not None else None
            parameters[name].grad = None
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                parameters[name].copy_(master)
                self.average[name].lerp_(master, 1 - average_decay)

    def state(self) -> dict:
        """All that another process needs to go on."""
        return {"masters": self.masters, "average": self.average, "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict, with_optimizer: bool) -> None:
        """Goes on from a state, or only from its weights."""
        parameters = dict(self.working.named_parameters())
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(state["masters"][name])
                self.average[name].copy_(state["average"][name])
                parameters[name].copy_(master)
        if with_optimizer:
            self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def load_tower(self, state: dict) -> None:
        """Takes over the averaged CLIP of another run."""
        parameters = dict(self.working.named_parameters())
        for name in (name for name in self.masters if name.startswith("clip.")):
            for weights in (self.masters, self.average, parameters):
                weights[name].copy_(state["average"][name])

    def averaged(self) -> ShapesModel:
        """A float32 model with the running average of the weights, on the CPU."""
        model = copy.deepcopy(self.working).float().cpu()
        model.load_state_dict(self.average, strict=False)
        return model.eval()


def tokenizers(folder: Path) -> tuple[CLIPTokenizer, LlamaTokenizer]:
    """Both tokenizers, trained into `folder` when they are not there yet."""
    clip, language = folder / "clip-shapes", folder / "llava-shapes"
    if not (language / "tokenizer_config.json").exists():
        clip.mkdir(parents=True, exist_ok=True)
        language.mkdir(parents=True, exist_ok=True)
        train_clip_tokenizer(clip)
        train_language_tokenizer(language)
    return CLIPTokenizer.from_pretrained(clip), LlamaTokenizer.from_pretrained(language, add_bos_token=True)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, decay_share: float = 0.3) -> float:
    """Linear warm-up, a plateau, and a linear fall to a fiftieth over the last `decay_share` of the steps."""
    rise = min(1.0, (step + 1) / warmup)
    fall = min(1.0, max(0.02, (steps - step) / (steps * decay_share)))
    return peak * min(rise, fall)


def random_budget(rng: np.random.Generator) -> int:
    """All patches in two steps of five, else log-uniform from 4 to all."""
    return NUM_PATCHES if rng.random() < 0.4 else round(float(np.exp(rng.uniform(np.log(4), np.log(NUM_PATCHES)))))


def gather_patches(patches: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The kept patches in raster order, (B, K, C)."""
    return patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))


def tower_losses(args: argparse.Namespace, model: ShapesModel, step: int) -> dict[str, torch.Tensor]:
    """Losses of CLIP and the patch heads on the step's scenes."""
    rng = scene_generator("train", args.seed * 1_000_000 + step)
    batch = tower_batch(draw_scenes(rng, "train", args.batch_size), rng).to(args.device)
    return model.tower_losses(batch, *model.see(batch.pixels))


def language_losses(
    args: argparse.Namespace, model: ShapesModel, prompts: PromptTokens, step: int
) -> dict[str, torch.Tensor]:
    """Loss of the answers to questions about the step's scenes, from all or a part of the frozen tower's patches."""
    rng = scene_generator("train", args.seed * 1_000_000 + step)
    scenes = draw_scenes(rng, "train", args.batch_size)
    asked = question_batch([draw_questions(scene, rng, args.questions) for scene in scenes], prompts).to(args.device)
    kept = random_budget(rng)
    keep = random_keep(rng, len(scenes), kept) if rng.random() < 0.4 else uneven_keep(rng, scenes, kept)
    with torch.no_grad():
        patches, _ = model.see(pixel_values([render(scene) for scene in scenes]).to(args.device))
    logits = model.answer_logits(gather_patches(patches, keep.to(args.device)), prompts.before_image, asked)
    name = "answer_full" if kept == NUM_PATCHES else "answer_part"
    return {name: F.cross_entropy(logits, asked.targets[asked.targets != IGNORED])}


@torch.no_grad()
def right_answers(model: ShapesModel, prompts: PromptTokens, scenes: list, asked: QuestionBatch, keep: torch.Tensor):
    """Which questions greedy decoding answers exactly, (B, Q) bool.

    An answer is right when every token, the end token too, is the likeliest after the right tokens before it: then,
    and only then, greedy decoding produces it.
    """
    patches, _ = model.see(pixel_values([render(scene) for scene in scenes]))
    logits = model.answer_logits(gather_patches(patches, keep), prompts.before_image, asked)
    answered = asked.targets != IGNORED
    right = torch.ones_like(answered)
    right[answered] = logits.argmax(-1) == asked.targets[answered]
    return right.all(-1)


def validate(model: ShapesModel, prompts: PromptTokens, images: int, budgets: tuple[int, ...]) -> Accuracies:
    """Share of right answers by type on the first validation scenes, at each number of random patches."""
    rng = scene_generator("val", 0)
    hits: dict[int, dict[str, list[bool]]] = {budget: defaultdict(list) for budget in budgets}
    for begin in range(0, images, VALIDATION_BATCH):
        scenes = draw_scenes(rng, "val", min(VALIDATION_BATCH, images - begin))
        asked = question_batch([draw_questions(scene, rng, len(QUESTION_TYPES)) for scene in scenes], prompts)
        for budget in budgets:
            right = right_answers(model, prompts, scenes, asked, random_keep(rng, len(scenes), budget))
            for kind, hit in zip(chain(*asked.kinds), right.flatten().tolist(), strict=True):
                hits[budget][kind].append(hit)
    return {
        str(budget): {kind: round(float(np.mean(row)), 4) for kind, row in sorted(by_kind.items())}
        for budget, by_kind in hits.items()
    }


def prepare(args: argparse.Namespace) -> tuple[Trainer, PromptTokens, int]:
    """Trainer, prompts and first step: from the stage's own state if there is one, else from `--init-from`."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    clip_tokenizer, tokenizer = tokenizers(args.run_dir)
    trainer = Trainer(ShapesModel(clip_tokenizer, tokenizer), args.lr, args.device)
    saved, start = args.run_dir / f"{args.stage}.pt", 0
    if saved.exists():
        state = torch.load(saved, map_location=args.device)
        trainer.load(state, with_optimizer=True)
        start = state["step"]
    elif args.init_from:
        trainer.load(torch.load(args.init_from, map_location=args.device), with_optimizer=False)
    return trainer, PromptTokens(tokenizer), start


def train(args: argparse.Namespace) -> None:
    """Runs the stage's remaining steps, with a line of losses every 20 and its state saved every `--save-every`."""
    trainer, prompts, start = prepare(args)
    saved = args.run_dir / f"{args.stage}.pt"
    running: dict[str, float] = {}
    for step in (bar := tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=5)):
        if args.stage == "tower":
            losses = tower_losses(args, trainer.working, step)
        else:
            if args.tower_from and step % TOWER_EVERY == 0:
                trainer.load_tower(torch.load(args.tower_from, map_location=args.device))
            losses = language_losses(args, trainer.working, prompts, step)
        total = sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items())
        trainer.step(total, learning_rate(step, args.steps, args.lr), min(0.998, 1 - 10 / (step + 11)))
        for name, loss in losses.items():
            value = float(loss.detach())
            running[name] = running.get(name, value) * 0.95 + value * 0.05
        report: dict = {"step": step + 1} | {name: round(value, 4) for name, value in running.items()}
        if args.stage == "language" and (step + 1) % args.validate_every == 0:
            report["val"] = validate(trainer.averaged(), prompts, args.validation_images, (NUM_PATCHES, 36, 9))
        if (step + 1) % 20 == 0:
            bar.set_postfix({name: f"{value:.2f}" for name, value in running.items()})
            with (args.run_dir / f"{args.stage}.jsonl").open("a") as log:
                log.write(json.dumps(report) + "\n")
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            torch.save(trainer.state() | {"step": step + 1}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").rename(saved)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("tower", "language"), required=True, help="what is trained")
    parser.add_argument("--run-dir", type=Path, required=True, help="tokenizers, states and logs; a second run resumes")
    parser.add_argument("--init-from", type=Path, help="state to start from when this stage has none of its own")
    parser.add_argument("--tower-from", type=Path, help="language stage: state whose CLIP is taken over as it improves")
    parser.add_argument(
        "--steps", type=at_least(1), required=True, help="last step; the learning rate falls over the last 30 %%"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="scenes per step")
    parser.add_argument("--questions", type=at_least(1), default=8, help="language stage: questions per scene")
    parser.add_argument("--lr", type=Number(float, 0, above=True), default=1.2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=SEED, default=0, help="of scenes and weights")
    parser.add_argument("--threads", type=at_least(1), default=1, help="of torch")
    parser.add_argument("--device", default="cpu", help="where it is trained")
    parser.add_argument("--save-every", type=at_least(1), default=100, help="steps between two states")
    parser.add_argument("--validate-every", type=at_least(1), default=300, help="steps between two validations")
    parser.add_argument("--validation-images", type=at_least(1), default=100, help="scenes of a validation")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), train)
