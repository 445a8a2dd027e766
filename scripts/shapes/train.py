"""Trains the embedded model: `--stage tower` first, then `--stage joint` from its state."""

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import CLIPTokenizer, LlamaTokenizer

from llava.shapes.scenes import render, scene_generator
from scripts.shapes.data import (
    IGNORED,
    NUM_PATCHES,
    PromptTokens,
    draw_questions,
    draw_scenes,
    pixel_values,
    question_batch,
    random_keep,
    tower_batch,
)
from scripts.shapes.model import ShapesModel
from scripts.shapes.tokenizers import train_clip_tokenizer, train_language_tokenizer

logger = logging.getLogger(__name__)
PATCH_WEIGHTS = {"centre": 1.0, "kind": 1.0, "color": 1.0, "shape": 1.0, "tens": 0.7, "units": 0.7}
TOWER_WEIGHTS = PATCH_WEIGHTS | {"caption": 0.5, "phrase": 2.0}
Accuracies = dict[str, dict[str, float]]


class Trainer:
    """Computes in bfloat16 (or the dtype given) on a working copy; float32 masters take the AdamW steps."""

    def __init__(self, working: ShapesModel, lr: float, device: str):
        self.working = working.to(device)
        self.masters = {name: p.detach().clone().float() for name, p in working.named_parameters()}
        self.average = {name: p.clone() for name, p in self.masters.items()}
        self.working.to(torch.bfloat16)
        decayed = [p for p in self.masters.values() if p.ndim >= 2]
        others = [p for p in self.masters.values() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=True)

    def step(self, loss: torch.Tensor, lr: float, average_decay: float) -> float:
        loss.backward()
        parameters = dict(self.working.named_parameters())
        for name, master in self.masters.items():
            grad = parameters[name].grad
            master.grad = grad.float() if grad is not None else None
            parameters[name].grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                parameters[name].copy_(master)
                self.average[name].lerp_(master, 1 - average_decay)
        return float(norm)

    def state(self) -> dict:
        return {"masters": self.masters, "average": self.average, "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict, with_optimizer: bool) -> None:
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


def step_losses(
    args: argparse.Namespace, model: ShapesModel, prompts: PromptTokens, step: int
) -> dict[str, torch.Tensor]:
    """Draws the step's scenes and computes the stage's losses."""
    rng = scene_generator("train", args.seed * 1_000_000 + step)
    scenes = draw_scenes(rng, "train", args.batch_size)
    losses = {}
    if args.stage == "language":
        with torch.no_grad():
            patches, _ = model.see(pixel_values([render(scene) for scene in scenes]))
    else:
        batch = tower_batch(scenes, rng)
        patches, embeds = model.see(batch.pixels)
        losses = model.tower_losses(batch, patches, embeds)
    if args.stage != "tower":
        asked = question_batch([draw_questions(scene, rng, args.questions) for scene in scenes], prompts)
        kept = random_budget(rng)
        patches = gather_patches(patches, random_keep(rng, len(scenes), kept))
        logits = model.answer_logits(patches, prompts.before_image, asked)
        name = "answer_full" if kept == NUM_PATCHES else "answer_part"
        losses[name] = F.cross_entropy(logits, asked.targets[asked.targets != IGNORED])
    return losses


@torch.no_grad()
def validate(model: ShapesModel, prompts: PromptTokens, images: int, budgets: tuple[int, ...]) -> Accuracies:
    """Share of exactly right greedy answers by type on the first validation scenes, at each number of random patches.

    An answer is right when every token, the end token too, is the likeliest after the right tokens before it: then,
    and only then, greedy decoding produces it.
    """
    rng = scene_generator("val", 0)
    hits: dict[int, dict[str, list[bool]]] = {budget: {} for budget in budgets}
    for begin in range(0, images, 50):
        scenes = draw_scenes(rng, "val", min(50, images - begin))
        asked = question_batch([draw_questions(scene, rng, 5) for scene in scenes], prompts)
        patches, _ = model.see(pixel_values([render(scene) for scene in scenes]))
        answered = asked.targets != IGNORED
        for budget in budgets:
            kept = gather_patches(patches, random_keep(rng, len(scenes), budget))
            right = torch.ones_like(answered)
            logits = model.answer_logits(kept, prompts.before_image, asked)
            right[answered] = logits.argmax(-1) == asked.targets[answered]
            for row, kinds in zip(right.all(-1).tolist(), asked.kinds, strict=True):
                for hit, kind in zip(row, kinds, strict=True):
                    hits[budget].setdefault(kind, []).append(hit)
    return {
        str(budget): {kind: round(float(np.mean(row)), 4) for kind, row in sorted(by_kind.items())}
        for budget, by_kind in hits.items()
    }


def averaged_model(trainer: Trainer, clip_tokenizer: CLIPTokenizer, tokenizer: LlamaTokenizer) -> ShapesModel:
    """A float32 model with the running average of the weights."""
    model = ShapesModel(clip_tokenizer, tokenizer)
    model.load_state_dict(trainer.average, strict=False)
    return model.eval()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("tower", "language", "joint"), required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--init-from", type=Path, help="state to start from when this stage has none of its own")
    parser.add_argument("--tower-from", type=Path, help="language stage: state whose CLIP is taken over as it improves")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=8, help="questions per picture in the joint stage")
    parser.add_argument("--tower-weight", type=float, default=1.0, help="factor on all losses but the answers'")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=300)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    clip_tokenizer, tokenizer = tokenizers(args.run_dir)
    prompts = PromptTokens(tokenizer)
    trainer = Trainer(ShapesModel(clip_tokenizer, tokenizer), args.lr, args.device)
    start = 0
    saved = args.run_dir / f"{args.stage}.pt"
    if saved.exists():
        state = torch.load(saved)
        trainer.load(state, with_optimizer=True)
        start = state["step"]
    elif args.init_from:
        trainer.load(torch.load(args.init_from), with_optimizer=False)
    log = (args.run_dir / f"{args.stage}.jsonl").open("a")
    running: dict[str, float] = {}
    began = time.time()
    for step in (bar := tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=5)):
        if args.tower_from and step % 100 == 0:
            trainer.load_tower(torch.load(args.tower_from))
        losses = step_losses(args, trainer.working, prompts, step)
        weights = {name: args.tower_weight * weight for name, weight in TOWER_WEIGHTS.items()}
        total = sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
        trainer.step(total, learning_rate(step, args.steps, args.lr), min(0.998, 1 - 10 / (step + 11)))
        for name, loss in losses.items():
            value = float(loss.detach())
            running[name] = running.get(name, value) * 0.95 + value * 0.05
        report = {"step": step + 1, "seconds": round(time.time() - began)}
        report |= {name: round(value, 4) for name, value in running.items()}
        if args.stage != "tower" and (step + 1) % args.validate_every == 0:
            averaged = averaged_model(trainer, clip_tokenizer, tokenizer)
            report["val"] = validate(averaged, prompts, 100, (NUM_PATCHES, 36))
        if (step + 1) % 20 == 0:
            bar.set_postfix({name[:3] + name[-2:]: f"{value:.2f}" for name, value in running.items()})
            log.write(json.dumps(report) + "\n")
            log.flush()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            torch.save(trainer.state() | {"step": step + 1}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").rename(saved)


if __name__ == "__main__":
    main()
