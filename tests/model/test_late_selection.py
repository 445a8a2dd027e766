"""Pruning inside LLaVA's language model: against pruning before it, without a cache, and indexing by hand."""

import pytest
import torch
import transformers
from packaging.version import Version

from llava import compat
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.late_selection import LateSelection
from llava.model.splice import spans_of, splice_row, visual_spans
from llava.pruners import PRUNERS, resolve_pruner
from llava.pruners.cues import INSIDE_CUES
from llava.selecting.options import PruningOptions

from .conftest import QUESTIONS, generate, left_pad, prompt_ids, pruner_of, question_prompts

BUDGET = 5  # of the 16 patches of a tile
LAYER = 2
INSIDE = [name for name, pruner in PRUNERS.items() if not pruner(BUDGET).merges]
BEFORE = [name for name in INSIDE if not PRUNERS[name].needs & INSIDE_CUES]
looks_up = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="Transformers 5.17 looks prompts up without the embeddings it was given, pruned or not",
)


@pytest.fixture(scope="session")
def deep(make_checkpoint):
    """Checkpoints of four decoder layers by layout."""
    single = make_checkpoint(name="deep", num_hidden_layers=4)
    native = make_checkpoint(anyres=True, name="deep-anyres", num_hidden_layers=4)
    return {"single": single, "native": native, "fixed": native}


@pytest.fixture
def model_of(load, deep):
    """Return a function that loads the model of a layout."""

    def get(layout="single", pruner=None, layer=LAYER, **options):
        chosen = None if pruner is None else pruner_of(pruner, BUDGET)
        anyres = "fixed" if layout == "fixed" else "native"
        return load(deep[layout], pruner=chosen, prune_layer=layer, anyres=anyres, **options)

    return get


def inputs_of(model, tokenizer, processor, images, questions=QUESTIONS, **options):
    ids, mask = left_pad(question_prompts(tokenizer, questions[: len(images)]))
    return ids, {
        "attention_mask": mask,
        "images": process_images(images, processor, model.config),
        "image_sizes": [image.size for image in images],
        "texts": questions[: len(images)],
        **options,
    }


def first_logits(model, ids, inputs):
    """Logits behind the prompts, (B, V), by ``generate``."""
    output = model.generate(
        ids, **inputs, do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
    )
    return output.logits[0]


def kept_by_hand(model, ids, inputs):
    """Logits behind the prompts when the layers from ``prune_layer`` on read what ``last_prune`` says was kept."""
    record, layer, body = model.last_prune, model.prune_layer, model.get_model()
    model.pruner, model.prune_layer = None, 0
    _, _, mask, _, embeds, _ = model.prepare_inputs_labels_for_multimodal(
        ids, None, inputs["attention_mask"], None, None, inputs["images"], inputs["image_sizes"]
    )
    logits = []
    for row in range(len(ids)):
        real = mask[row].bool()
        hidden = embeds[row][real][None]
        start = ids[row][inputs["attention_mask"][row].bool()].tolist().index(IMAGE_TOKEN_INDEX)
        length = record.tokens_before[row]
        image = torch.zeros(length, dtype=torch.bool).index_fill(0, record.keep[row], True)
        after = torch.ones(hidden.shape[1] - start - length, dtype=torch.bool)
        keep = torch.cat([torch.ones(start, dtype=torch.bool), image, after])
        rotary = body.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
        for index, block in enumerate(body.layers):
            if index == layer:
                hidden, rotary = hidden[:, keep], tuple(part[:, keep] for part in rotary)
            seen = torch.ones(hidden.shape[1], hidden.shape[1]).tril().bool()
            hidden = block(hidden, attention_mask=seen[None, None], position_embeddings=rotary)
        logits.append(model.lm_head(body.norm(hidden))[0, -1])
    return torch.stack(logits)


@pytest.mark.parametrize("pruner", INSIDE)
@torch.no_grad()
def test_the_layers_behind_read_what_the_record_says(model_of, images, pruner):
    tokenizer, model, processor, _ = model_of(pruner=pruner)
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    logits = first_logits(model, ids, inputs)
    assert model.last_prune.visual_tokens == [BUDGET] * 3 and model.last_prune.tokens_before == [16] * 3
    torch.testing.assert_close(logits, kept_by_hand(model, ids, inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["single", "native", "fixed"])
@pytest.mark.parametrize("pruner", INSIDE)
def test_a_batch_answers_as_its_prompts_alone(model_of, images, layout, pruner):
    tokenizer, model, processor, _ = model_of(layout, pruner)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    record = model.last_prune
    for row, (image, question, prompt) in enumerate(zip(images, QUESTIONS, prompts, strict=True)):
        alone = generate(model, tokenizer, processor, [image], [question], [prompt])
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
        assert model.last_prune.visual_tokens == record.visual_tokens[row : row + 1]


@pytest.mark.parametrize("layout", ["single", "native", "fixed"])
@pytest.mark.parametrize("pruner", BEFORE)
def test_budgets_and_scopes_are_those_of_pruning_before(model_of, images, layout, pruner):
    counts = []
    for layer in (0, LAYER):
        tokenizer, model, processor, _ = model_of(layout, pruner, layer)
        generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
        record = model.last_prune
        of_base = [int((keep < 16).sum()) for keep in record.keep]
        counts.append((of_base, record.visual_tokens, record.tokens_before, record.newline_tokens))
    if pruner == "divprune":  # of the image as a whole: what is kept of the base tile is up to the choice
        counts = [entry[1:3] for entry in counts]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("layout", ["single", "native", "fixed"])
@pytest.mark.parametrize("pruner", ["random", "uniform", "cls_topk", "vispruner"])
def test_what_reads_the_encoder_alone_chooses_as_before_the_language_model(model_of, images, layout, pruner):
    keeps = []
    for layer in (0, LAYER):
        tokenizer, model, processor, _ = model_of(layout, pruner, layer)
        generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
        keeps.append(model.last_prune.keep)
    assert all(torch.equal(before, inside) for before, inside in zip(*keeps, strict=True))


@pytest.mark.parametrize("layout", ["single", "native", "fixed"])
@pytest.mark.parametrize("pruner", INSIDE)
def test_keeping_all_changes_no_bit(model_of, images, layout, pruner):
    tokenizer, model, processor, _ = model_of(layout)
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    plain = first_logits(model, ids, inputs)
    model.set_pruner(pruner_of(pruner, 1000))
    assert torch.equal(first_logits(model, ids, inputs), plain)
    assert model.last_prune.visual_tokens == model.last_prune.tokens_before


@torch.no_grad()
def test_fastv_keeps_the_largest_of_an_eager_row(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="fastv", layer=1)
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    first_logits(model, ids, inputs)
    keep = model.last_prune.keep
    model.set_pruner(None)
    model.set_attn_implementation("eager")
    output = model(ids, **inputs, output_attentions=True)
    mask = inputs["attention_mask"]
    for row in range(3):
        last = int(mask[row].sum()) + 15 - 1  # padded on the right by this checkpoint's config
        start = ids[row][mask[row].bool()].tolist().index(IMAGE_TOKEN_INDEX)
        attention = output.attentions[0][row].mean(dim=0)[last, start : start + 16]
        assert keep[row].tolist() == sorted(attention.topk(BUDGET).indices.tolist())


def test_divprune_chooses_by_the_hidden_states_that_the_layer_is_given(model_of, images):
    tokenizer, model, processor, _ = model_of("native", "divprune")
    ids, inputs = inputs_of(model, tokenizer, processor, images[:1])
    given = []
    hook = model.get_model().layers[LAYER - 1].register_forward_hook(lambda _, args, out: given.append(out))
    first_logits(model, ids, inputs)
    hook.remove()
    start, length = ids[0].tolist().index(IMAGE_TOKEN_INDEX), model.last_prune.tokens_before[0]
    hidden = given[0][0, start : start + length].float()
    cosine = torch.nn.functional.cosine_similarity(hidden[:, None], hidden[None], dim=-1)
    distance = 1 - cosine.masked_fill(torch.eye(length, dtype=torch.bool), -torch.inf)
    chosen = [int(distance.amin(dim=1).argmax())]
    while len(chosen) < len(model.last_prune.keep[0]):
        gap = distance[:, chosen].amin(dim=1)
        gap[chosen] = -1
        chosen.append(int(gap.argmax()))
    assert model.last_prune.keep[0].tolist() == sorted(chosen)


@pytest.mark.parametrize("pruner", ["divprune", "fastv"])
@torch.no_grad()
def test_forward_and_generate_read_alike(model_of, images, pruner):
    tokenizer, model, processor, _ = model_of(pruner=pruner)
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    expected = first_logits(model, ids, inputs)
    logits = model(ids, **inputs).logits  # padded on the right
    kept = inputs["attention_mask"].sum(dim=1) - 1 + BUDGET
    assert logits.shape[1] == kept.max()
    for row in range(3):
        torch.testing.assert_close(logits[row, kept[row] - 1], expected[row], rtol=0, atol=1e-4)


@torch.no_grad()
def test_rows_of_one_length_that_images_make_unequal_need_no_mask(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune", layer=0)
    model.prune_layer = LAYER
    with_image = prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:")
    without = prompt_ids(tokenizer, "USER: Hello. ASSISTANT: Hello. How are you?")[: len(with_image)]
    assert len(without) == len(with_image)
    ids, pixels = torch.stack([without, with_image]), process_images(images[:1], processor, model.config)
    logits = model(ids, images=pixels).logits
    torch.testing.assert_close(logits[0, len(without) - 1], model(without[None]).logits[0, -1], rtol=0, atol=1e-4)
    alone = model(with_image[None], images=pixels).logits[0, -1]
    torch.testing.assert_close(logits[1, -1], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_forward_goes_on_from_its_cache(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune")
    ids, inputs = inputs_of(model, tokenizer, processor, images[:1])
    answer = generate(model, tokenizer, processor, images[:1], QUESTIONS[:1], [ids[0]])
    output = model(ids, **inputs)
    for expected in answer[0].tolist():
        token = output.logits[:, -1].argmax(dim=-1)
        assert token.item() == expected
        output = model(token[None], **compat.cache_argument(compat.cache_in(output)))


@torch.no_grad()
def test_the_loss_is_that_of_the_logits_of_the_kept_tokens(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune")
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    output = model(ids, labels=ids.masked_fill(inputs["attention_mask"] == 0, IGNORE_INDEX), **inputs)
    losses = []
    for row, real in enumerate(inputs["attention_mask"].bool()):
        own = ids[row][real]
        start = own.tolist().index(IMAGE_TOKEN_INDEX)
        targets = torch.cat([own[:start], torch.full((BUDGET,), IGNORE_INDEX), own[start + 1 :]])
        logits = output.logits[row, : len(targets)]
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], targets[1:], reduction="none")[targets[1:] >= 0])
    torch.testing.assert_close(output.loss, torch.cat(losses).mean())
    as_tuple = model(ids, labels=ids, return_dict=False, **inputs)
    assert as_tuple[0].ndim == 0 and as_tuple[1].shape == output.logits.shape


def test_loss_and_backward_reach_the_projector(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="fastv")
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    model(ids, labels=ids.clone(), **inputs).loss.backward()
    assert model.get_model().mm_projector[0].weight.grad.abs().sum() > 0


def test_spans_are_where_splicing_puts_the_images():
    ids = torch.tensor([4, IMAGE_TOKEN_INDEX, 5, 6, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX, 7])
    images = spans_of([3, 5, 1], [3, 5, 1], whole=True)
    sources, _, positions = splice_row(ids, ids, images, words=4, first_word=0)
    assert (spans := visual_spans(ids, images)) == [(1, 4), (6, 11), (11, 12)]
    assert sources.tolist() == [0, 4, 5, 6, 1, 2, 7, 8, 9, 10, 11, 12, 3] and positions.tolist() == list(range(13))
    assert [sources[start].item() for start, _ in spans] == [4 + image.first for image in images]


@pytest.mark.parametrize("pruner", ["divprune", "fastv"])
def test_a_beam_search_chooses_once_for_all_beams(model_of, images, pruner):
    tokenizer, model, processor, _ = model_of(pruner=pruner)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, images, QUESTIONS, prompts, num_beams=3)
    assert model.last_prune.visual_tokens == [BUDGET] * 3
    for row in range(3):
        alone = generate(
            model, tokenizer, processor, images[row : row + 1], QUESTIONS[row : row + 1], [prompts[row]], num_beams=3
        )
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_several_images_in_one_prompt_and_prompts_without_any(model_of, images):
    tokenizer, model, processor, _ = model_of("native", "fastv")
    prompts = [
        prompt_ids(tokenizer, "USER: ", "\nand ", "\nWhich is larger? ASSISTANT:"),
        prompt_ids(tokenizer, "USER: Hello. ASSISTANT:"),
        prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:"),
    ]
    together = generate(model, tokenizer, processor, images, None, prompts)
    assert model.last_prune.visual_tokens == [25, 20, 20]
    first = generate(model, tokenizer, processor, images[:2], None, prompts[:1])
    hello = model.generate(prompts[1].unsqueeze(0), max_new_tokens=8, do_sample=False)
    last = generate(model, tokenizer, processor, images[2:], None, prompts[2:])
    for row, alone in enumerate((first, hello, last)):
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_the_layer_can_be_changed_at_run_time(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune", layer=0, positions="original")
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    before = first_logits(model, ids, inputs)
    model.prune_layer = 3
    assert model.prune_layer == 3
    assert not torch.equal(first_logits(model, ids, inputs), before)
    model.prune_layer = 0
    assert torch.equal(first_logits(model, ids, inputs), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_a_pruner_the_layer_means_nothing(model_of, images):
    tokenizer, plain, processor, _ = model_of(layer=0)
    ids, inputs = inputs_of(plain, tokenizer, processor, images)
    model = model_of(layer=LAYER)[1]
    assert torch.equal(first_logits(model, ids, inputs), first_logits(plain, ids, inputs))
    assert model.last_prune.keep is None


@pytest.mark.parametrize("layer", [-1, 4, 1.5])
def test_a_layer_that_is_not_there_is_an_error(model_of, layer):
    with pytest.raises(ValueError, match="prune_layer"):
        model_of(layer=layer)
    model = model_of(layer=1)[1]
    with pytest.raises(ValueError, match="from 0 to 3"):
        model.prune_layer = layer
    assert model.prune_layer == 1


def test_fastv_before_the_language_model_is_an_error_at_loading_and_later(model_of, images):
    with pytest.raises(ValueError, match="fastv needs prune_layer of 1 or more"):
        model_of(pruner="fastv", layer=0)
    tokenizer, model, processor, _ = model_of(layer=0)
    model.set_pruner(resolve_pruner("fastv", BUDGET))
    with pytest.raises(ValueError, match="fastv needs prune_layer of 1 or more"):
        generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))


def test_compact_positions_and_a_layer_exclude_each_other(model_of):
    with pytest.raises(ValueError, match="positions are 'original'"):
        model_of(positions="compact")
    assert model_of()[1].positions == model_of(positions="original")[1].positions == "original"
    assert model_of(layer=0)[1].positions == "compact"


def test_a_static_cache_is_refused(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune")
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    with pytest.raises(ValueError, match="static"):
        model.generate(ids, **inputs, cache_implementation="static", disable_compile=True, max_new_tokens=2)


@torch.no_grad()
def test_a_known_answer_is_not_asked_what_to_keep(model_of, images):
    """FastV reads the attention of the prompt's last token, whatever stands behind it."""
    tokenizer, model, processor, _ = model_of(pruner="fastv")
    ids, inputs = inputs_of(model, tokenizer, processor, images)
    first_logits(model, ids, inputs)
    of_prompts = [keep.tolist() for keep in model.last_prune.keep]
    answer = torch.tensor([[7, 11, 5]]).repeat(len(ids), 1)
    labels = torch.cat([torch.full_like(ids, IGNORE_INDEX), answer], dim=1)
    whole = torch.cat([ids, answer], dim=1)
    inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1)
    model(whole, labels=labels, **inputs)
    assert [keep.tolist() for keep in model.last_prune.keep] == of_prompts
    model(whole, **inputs)
    assert [keep.tolist() for keep in model.last_prune.keep] != of_prompts


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 7, 4), (2, 9, 4)])
def test_a_piece_of_the_prompts_or_more_than_them_is_refused(shape):
    late = LateSelection(PruningOptions(resolve_pruner("uniform", BUDGET)), [], note=None)
    late.place([[], []], torch.ones(2, 8, dtype=torch.bool), torch.full((2, 8), -100))
    with pytest.raises(ValueError, match="one piece"):
        late(torch.zeros(shape), None)


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, pytest.param({"prompt_lookup_num_tokens": 3}, marks=looks_up)]
)
def test_other_ways_of_decoding_greedily_say_the_same(model_of, images, options):
    tokenizer, model, processor, _ = model_of(pruner="fastv")
    ids, inputs = inputs_of(model, tokenizer, processor, images[:1])
    inputs |= {"do_sample": False, "min_new_tokens": 9, "max_new_tokens": 9}
    assert torch.equal(model.generate(ids, **inputs, **options), model.generate(ids, **inputs))


def test_a_prompt_cut_inside_an_image_is_an_error(model_of, images):
    tokenizer, model, processor, _ = model_of(pruner="divprune")
    model.config.tokenizer_model_max_length = 12
    with pytest.raises(ValueError, match="tokenizer_model_max_length cuts prompt 0"):
        generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))


def test_cues_are_let_go_once_tokens_are_chosen(model_of, images, monkeypatch):
    tokenizer, model, processor, _ = model_of(pruner="vispruner")
    late, prepare = [], model._splice_batch
    monkeypatch.setattr(model, "_splice_batch", lambda *args: late.append(prepare(*args)) or late[-1])
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert late[0][4].visuals == late[0][4].placed == [] and late[0][4].decision is not None
