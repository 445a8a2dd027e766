"""The model in training: Transformers' own CLIP and Llama, LLaVA's projector, and heads that are thrown away."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

from llava.shapes.scenes import IMAGE_SIZE
from scripts.shapes.data import IGNORED, PATCH_SIZE, PATCH_TASKS, QuestionBatch, TowerBatch

VISION = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4, hidden_act="gelu")
TEXT = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu")
LANGUAGE = dict(hidden_size=160, intermediate_size=448, num_hidden_layers=4, num_attention_heads=5)
PROJECTION = 128
SELECT_LAYER = -2


def plain_attention(module, query, key, value, attention_mask, scaling, **_):
    """Two products and a softmax in the input's dtype: on a CPU three times as fast in training as the fused kernel."""
    scores = (query * scaling) @ key.transpose(-1, -2)  # (B, H, Q, K)
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None


def packed_attention(module, query, key, value, attention_mask, scaling, slots, slot_length, **_):
    """Causal attention of a shared prefix and of `slots` questions that see the prefix and themselves only."""
    prefix = query.shape[2] - slots * slot_length
    query = query * scaling
    mask = torch.full((max(prefix, slot_length),) * 2, float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    scores = query[:, :, :prefix] @ key[:, :, :prefix].transpose(-1, -2) + mask[:prefix, :prefix]
    shared = scores.softmax(dim=-1) @ value[:, :, :prefix]  # (B, H, P, D)
    folded = [tensor[:, :, prefix:].unflatten(2, (slots, slot_length)) for tensor in (query, key, value)]
    back = query[:, :, prefix:] @ key[:, :, :prefix].transpose(-1, -2)
    own = folded[0] @ folded[1].transpose(-1, -2) + mask[:slot_length, :slot_length]
    weights = torch.cat([back, own.flatten(2, 3)], dim=-1).softmax(dim=-1)  # (B, H, slots * L, P + L)
    asked = (weights[..., prefix:].unflatten(2, (slots, slot_length)) @ folded[2]).flatten(2, 3)
    asked = asked + weights[..., :prefix] @ value[:, :, :prefix]
    return torch.cat([shared, asked], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register("shapes_plain", plain_attention)
AttentionInterface.register("shapes_packed", packed_attention)


def clip_config(tokenizer) -> CLIPConfig:
    """CLIP with a text tower that pools at the tokenizer's own end token."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPConfig(
        vision_config=VISION | dict(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, projection_dim=PROJECTION),
        text_config=TEXT | ids | dict(vocab_size=len(tokenizer), projection_dim=PROJECTION, max_position_embeddings=77),
        projection_dim=PROJECTION,
    )


def language_config(tokenizer) -> LlamaConfig:
    """A Llama for short prompts; embeddings untied, as in LLaVA v1.5."""
    return LlamaConfig(
        **LANGUAGE,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )


class ShapesModel(nn.Module):
    """CLIP, projector and Llama, with linear heads on patches that no exported file contains."""

    def __init__(self, clip_tokenizer, tokenizer):
        super().__init__()
        self.clip_tokenizer = clip_tokenizer
        attention = {"vision_config": "shapes_plain", "text_config": "eager"}  # the text tower needs its causal mask
        self.clip = CLIPModel._from_config(clip_config(clip_tokenizer), attn_implementation=attention)
        self.llm = LlamaForCausalLM._from_config(language_config(tokenizer), attn_implementation="shapes_packed")
        width = VISION["hidden_size"]
        self.projector = nn.Sequential(
            nn.Linear(width, LANGUAGE["hidden_size"]),
            nn.GELU(),
            nn.Linear(LANGUAGE["hidden_size"], LANGUAGE["hidden_size"]),
        )
        self.heads = nn.ModuleDict({task: nn.Linear(width, classes) for task, classes in PATCH_TASKS.items()})
        self.phrase_scale = nn.Parameter(torch.tensor(2.3))  # as a logarithm, as CLIP's
        self.phrase_bias = nn.Parameter(torch.tensor(-5.0))

    @property
    def dtype(self) -> torch.dtype:
        return self.phrase_scale.dtype

    def see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of the selected layer (B, N, C) and the image embedding from [CLS] (B, P)."""
        seen = self.clip.vision_model(pixels.to(self.dtype), output_hidden_states=True)
        return seen.hidden_states[SELECT_LAYER][:, 1:], self.clip.visual_projection(seen.pooler_output)

    def read(self, texts: list[str]) -> torch.Tensor:
        """Unit text embeddings, (T, P) float32."""
        tokens = self.clip_tokenizer(texts, padding=True, return_tensors="pt").to(self.phrase_scale.device)
        pooled = self.clip.text_model(**tokens).pooler_output
        return F.normalize(self.clip.text_projection(pooled).float(), dim=-1)

    def tower_losses(self, batch: TowerBatch, patches: torch.Tensor, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
        """Patch classification by throw-away heads, and captions and phrases against the [CLS] embedding alone."""
        losses = {task: self._patch_loss(task, patches, batch.patches[task]) for task in PATCH_TASKS}
        images = F.normalize(embeds.float(), dim=-1)
        texts = self.read(batch.captions + batch.phrases)
        logits = images @ texts[: len(images)].T * self.clip.logit_scale.float().exp().clamp(max=100)
        target = torch.arange(len(images), device=logits.device)
        losses["caption"] = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        logits = images @ texts[len(images) :].T * self.phrase_scale.float().exp() + self.phrase_bias.float()
        losses["phrase"] = F.binary_cross_entropy_with_logits(logits, batch.matches.to(logits))
        return losses

    def _patch_loss(self, task: str, patches: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        kept = target != IGNORED
        logits = self.heads[task](patches[kept]).float()
        return F.cross_entropy(logits, target[kept]) if len(logits) else logits.sum()

    def answer_logits(self, patches: torch.Tensor, before_image: list[int], batch: QuestionBatch) -> torch.Tensor:
        """Logits at the answers' positions, (A, V) float32, in the order of `batch.targets[batch.targets != IGNORED]`.

        All questions of a picture share its prefix; each starts at the position after it.
        """
        images, slots, length = batch.ids.shape
        embed = self.llm.model.embed_tokens
        start = embed(torch.tensor(before_image, device=patches.device)).expand(images, -1, -1)
        asked = embed(batch.ids.flatten(1))
        embeds = torch.cat([start, self.projector(patches), asked], dim=1)  # (B, P + Q * L, D)
        prefix = embeds.shape[1] - slots * length
        own = torch.arange(prefix, prefix + length).repeat(slots)
        positions = torch.cat([torch.arange(prefix), own])[None].to(patches.device)
        # Attention reads no mask; a four-dimensional one keeps Transformers from building its own.
        unused = torch.zeros(1, 1, 1, 1, dtype=embeds.dtype, device=embeds.device)
        hidden = self.llm.model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=unused,
            use_cache=False,
            slots=slots,
            slot_length=length,
        ).last_hidden_state
        return self.llm.lm_head(hidden[:, prefix:][(batch.targets != IGNORED).flatten(1)]).float()
