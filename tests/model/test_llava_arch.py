"""Encode, prune, merge, splice, pad: laws that hold for every pruner and both layouts."""

import pytest
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX
from llava.mm_utils import process_images
from llava.model import LlavaLlamaForCausalLM
from llava.pruners import PRUNERS, resolve_pruner
from llava.selecting.options import PruningOptions

from .conftest import QUESTIONS, generate, layer_for, left_pad, prompt_ids, pruner_of, question_prompts

BUDGET = 5  # of the 16 patches of a tile
LAYOUTS = ["single", "native", "fixed"]


@pytest.fixture(params=LAYOUTS)
def layout(request) -> str:
    return request.param


@pytest.fixture
def model_of(load, checkpoint, anyres_checkpoint):
    """Return a function that loads the model of a layout with a pruner."""

    def get(layout: str, pruner: str | None = None, budget: int = BUDGET, **options):
        folder = checkpoint if layout == "single" else anyres_checkpoint
        anyres = "fixed" if layout == "fixed" else "native"
        chosen = None if pruner in (None, "none") else pruner_of(pruner, budget)
        return load(folder, pruner=chosen, anyres=anyres, **{"prune_layer": layer_for(pruner), **options})

    return get


@pytest.mark.parametrize("pruner", ["none", *PRUNERS])
def test_a_batch_answers_as_its_prompts_alone(model_of, layout, pruner, images):
    tokenizer, model, processor, _ = model_of(layout, pruner)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    record = model.last_prune
    for row, (image, question, prompt) in enumerate(zip(images, QUESTIONS, prompts, strict=True)):
        alone = generate(model, tokenizer, processor, [image], [question], [prompt])
        length = alone.shape[1]
        assert together[row, :length].tolist() == alone[0].tolist()
        assert model.last_prune.visual_tokens == record.visual_tokens[row : row + 1]
        if pruner != "none":
            assert torch.equal(model.last_prune.keep[0], record.keep[row])


@pytest.mark.parametrize("pruner", PRUNERS)
def test_keeping_all_is_no_pruning_bit_for_bit(model_of, layout, pruner, images):
    tokenizer, model, processor, _ = model_of(layout)
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    inputs = {
        "images": process_images(images, processor, model.config),
        "image_sizes": [image.size for image in images],
        "texts": QUESTIONS,
    }
    plain = model.prepare_inputs_labels_for_multimodal(ids, None, mask, None, None, **inputs)[4]
    model.pruning = PruningOptions(pruner_of(pruner, 1000), prune_layer=layer_for(pruner))
    assert torch.equal(model.prepare_inputs_labels_for_multimodal(ids, None, mask, None, None, **inputs)[4], plain)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_budget_of_zero_leaves_the_text_and_the_newlines(model_of, layout, pruner, images):
    tokenizer, model, processor, _ = model_of(layout, pruner, budget=0)
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    candidates = pruner in ("divprune", "fastv")  # newline rows compete there
    newlines = [6, 10, 4] if layout == "native" and not candidates else [0, 0, 0]
    assert model.last_prune.visual_tokens == model.last_prune.newline_tokens == newlines


def test_the_kept_tokens_are_fed_in_reading_order(model_of, images):
    tokenizer, model, processor, _ = model_of("fixed", "cdpruner")
    pixels = process_images(images[:1], processor, model.config)
    ids = prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:").unsqueeze(0)
    arguments = (ids, None, None, None, None, pixels, [images[0].size], "What?")
    pruned = model.prepare_inputs_labels_for_multimodal(*arguments)[4][0]
    keep = model.last_prune.keep[0]
    model.set_pruner(None)
    full = model.prepare_inputs_labels_for_multimodal(*arguments)[4][0]
    start = ids[0].tolist().index(-200)
    sequence = full[start : start + 5 * 16]
    # Behind the base tile stands the stitched grid: each of its 2 x 2 tiles, and the base, has its own budget.
    grid = keep[keep >= 16] - 16
    assert (keep < 16).sum() == BUDGET and (grid // 8 // 4 * 2 + grid % 8 // 4).bincount().tolist() == [BUDGET] * 4
    assert torch.equal(pruned[start : start + 5 * BUDGET], sequence[keep])


def test_labels_mask_and_positions_shorten_together(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "divprune")
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    positions = mask.cumsum(dim=1) - 1
    pixels = process_images(images, processor, model.config)
    _, new_positions, new_mask, _, embeds, labels = model.prepare_inputs_labels_for_multimodal(
        ids, positions, mask, None, ids.clone(), pixels
    )
    assert embeds.shape[:2] == new_mask.shape == new_positions.shape == labels.shape
    assert new_mask.sum(dim=1).tolist() == (mask.sum(dim=1) - 1 + BUDGET).tolist()
    assert new_mask.dtype == mask.dtype
    for row in range(3):  # config pads on the right
        length = int(new_mask[row].sum())
        assert new_positions[row, :length].tolist() == list(range(length))
        start = ids[row][mask[row].bool()].tolist().index(-200)
        assert labels[row, start : start + BUDGET].tolist() == [IGNORE_INDEX] * BUDGET
        text = labels[row, :length][labels[row, :length] != IGNORE_INDEX]
        assert text.tolist() == [token for token in ids[row][mask[row].bool()].tolist() if token != -200]
        assert (labels[row, length:] == IGNORE_INDEX).all()


@pytest.mark.parametrize("pruner", ["none", *PRUNERS])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_backward_reach_the_projector(model_of, layout, pruner, images):
    tokenizer, model, processor, _ = model_of(layout, pruner)
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    output = model(
        input_ids=ids,
        attention_mask=mask,
        labels=ids.clone(),
        images=process_images(images, processor, model.config),
        image_sizes=[image.size for image in images],
        texts=QUESTIONS,
    )
    output.loss.backward()
    assert output.loss.isfinite()
    assert model.get_model().mm_projector[0].weight.grad.abs().sum() > 0


def test_several_images_in_one_prompt_and_prompts_without_any(model_of, layout, images):
    tokenizer, model, processor, _ = model_of(layout, "mfpruner")
    prompts = [
        prompt_ids(tokenizer, "USER: ", "\nand ", "\nWhich is larger? ASSISTANT:"),
        prompt_ids(tokenizer, "USER: Hello. ASSISTANT:"),
        prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:"),
    ]
    texts = ["Which is larger?", None, "What?"]
    together = generate(model, tokenizer, processor, images, texts, prompts)
    first = generate(model, tokenizer, processor, images[:2], texts[:1], prompts[:1])
    last = generate(model, tokenizer, processor, images[2:], texts[2:], prompts[2:])
    hello = model.generate(prompts[1].unsqueeze(0), max_new_tokens=8, do_sample=False)
    for row, alone in enumerate((first, hello, last)):
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_placeholder_images_of_prompts_without_any_are_understood_as_in_llava(model_of, images):
    tokenizer, model, processor, _ = model_of("single")
    prompts = [prompt_ids(tokenizer, "USER: Hello. ASSISTANT:"), prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:")]
    with_placeholder = generate(model, tokenizer, processor, images[:2], None, prompts)
    without = generate(model, tokenizer, processor, images[1:2], None, prompts)
    assert with_placeholder.tolist() == without.tolist()


def test_a_count_of_images_that_fits_no_prompt_is_an_error(model_of, images):
    tokenizer, model, processor, _ = model_of("single")
    with pytest.raises(ValueError, match="show 1 images .* but 3 were given"):
        generate(model, tokenizer, processor, images, None, question_prompts(tokenizer, QUESTIONS[:1]))


def test_one_text_serves_every_row(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "cdpruner")
    prompts = question_prompts(tokenizer, QUESTIONS)
    generate(model, tokenizer, processor, images, "Where is it?", prompts)
    shared = model.last_prune.keep
    generate(model, tokenizer, processor, images, ["Where is it?"] * 3, prompts)
    for one, other in zip(shared, model.last_prune.keep, strict=True):
        assert torch.equal(one, other)


def test_texts_that_do_not_fit_the_rows_are_an_error(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "cdpruner")
    with pytest.raises(ValueError, match="2 entries for 3 prompts"):
        generate(model, tokenizer, processor, images, ["a", "b"], question_prompts(tokenizer, QUESTIONS))


@pytest.mark.parametrize("pruner", ["cdpruner", "mfpruner"])
def test_without_texts_there_is_one_warning_and_no_relevance(model_of, pruner, images, caplog):
    tokenizer, model, processor, _ = model_of("single", pruner)
    prompts = question_prompts(tokenizer, QUESTIONS)
    for _ in range(2):
        generate(model, tokenizer, processor, images, None, prompts)
    assert sum("without relevance" in message for message in caplog.messages) == 1
    assert [keep.shape for keep in model.last_prune.keep] == [(BUDGET,)] * 3


def test_a_row_without_text_leaves_the_others_alone(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "cdpruner")
    prompts = question_prompts(tokenizer, QUESTIONS)
    generate(model, tokenizer, processor, images, [QUESTIONS[0], None, QUESTIONS[2]], prompts)
    mixed = model.last_prune.keep
    generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    assert torch.equal(mixed[0], model.last_prune.keep[0])
    assert torch.equal(mixed[2], model.last_prune.keep[2])
    generate(model, tokenizer, processor, images[1:2], None, prompts[1:2])
    assert torch.equal(mixed[1], model.last_prune.keep[0])


def test_last_prune_of_a_single_tile(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "vispruner")
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    assert [tuple(keep.shape) for keep in record.keep] == [(BUDGET,)] * 3
    assert (record.visual_tokens, record.newline_tokens, record.tokens_before) == ([BUDGET] * 3, [0] * 3, [16] * 3)


def test_last_prune_of_the_fixed_layout(model_of, images):
    tokenizer, model, processor, _ = model_of("fixed", "vispruner")
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    assert [tuple(keep.shape) for keep in record.keep] == [(5 * BUDGET,)] * 3
    assert [int((keep < 16).sum()) for keep in record.keep] == [BUDGET] * 3  # of the base tile
    assert (record.visual_tokens, record.newline_tokens) == ([5 * BUDGET] * 3, [0] * 3)
    assert record.tokens_before == [80] * 3


def base_and_grid(record) -> list[tuple[int, int]]:
    """How many patches of the base tile and of the grid of each image were kept, newline tokens left out."""
    base = [int((keep < 16).sum()) for keep in record.keep]
    counts = zip(record.keep, record.newline_tokens, base, strict=True)
    return [(own, len(keep) - own - newlines) for keep, newlines, own in counts]


def test_last_prune_of_the_native_layout(model_of, images):
    tokenizer, model, processor, _ = model_of("native", "vispruner")
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    # 90 x 70 is seen on 64 x 64 (4 tiles), 40 x 100 on 32 x 96 and 120 x 38 on 96 x 32 (3 tiles each).
    assert base_and_grid(record) == [(5, 20), (5, 15), (5, 15)]
    # rows without padding: int(70 * 8 / 90) = 6 of 8, int(100 * 4 / 40) = 10 of 12, int(38 * 12 / 120) = 3 of 4, of
    # which (4 - 3) // 2 = 0 are cut on either side
    assert record.newline_tokens == [6, 10, 4]


def test_last_prune_of_a_whole_image(model_of, images):
    tokenizer, model, processor, _ = model_of("native", "divprune")
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    assert [len(keep) for keep in record.keep] == record.visual_tokens == [25, 20, 20]
    assert all((keep[1:] > keep[:-1]).all() for keep in record.keep)


def test_divprune_with_a_ratio_counts_newlines_among_the_candidates(load, anyres_checkpoint, images):
    tokenizer, model, processor, _ = load(anyres_checkpoint, pruner="divprune", keep_ratio=0.25)
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    assert record.visual_tokens == [round(0.25 * length) for length in record.tokens_before]


def test_image_scope_keeps_the_newlines_that_a_pruner_cannot_judge(load, anyres_checkpoint, images):
    tokenizer, model, processor, _ = load(
        anyres_checkpoint, pruner="vispruner", visual_token_num=BUDGET, budget_scope="image"
    )
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    tiles = [5, 4, 4]
    assert record.newline_tokens == [6, 10, 4]
    assert [len(keep) for keep in record.keep] == record.visual_tokens
    assert record.visual_tokens == [BUDGET * n + new for n, new in zip(tiles, record.newline_tokens, strict=True)]


def test_tile_scope_can_be_asked_of_divprune(load, anyres_checkpoint, images):
    tokenizer, model, processor, _ = load(
        anyres_checkpoint, pruner="divprune", visual_token_num=BUDGET, budget_scope="tile"
    )
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert base_and_grid(model.last_prune) == [(5, 20), (5, 15), (5, 15)]


def test_set_pruner_swaps_at_run_time(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "divprune")
    prompts = question_prompts(tokenizer, QUESTIONS)
    assert model.get_vision_tower().relevance is None
    plain = generate(model_of("single")[1], tokenizer, processor, images, QUESTIONS, prompts)
    model.set_pruner(resolve_pruner("cdpruner", BUDGET))
    assert model.get_vision_tower().relevance is not None
    generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    assert model.last_prune.visual_tokens == [BUDGET] * 3
    model.set_pruner(None)
    assert torch.equal(generate(model, tokenizer, processor, images, QUESTIONS, prompts), plain)
    assert model.last_prune.keep is None


@pytest.mark.parametrize("pruner", ["divprune", "vispruner", "random", "uniform", "cls_topk", "visionzip", "prumerge"])
def test_pruners_that_read_no_text_load_no_text_tower(model_of, pruner):
    assert model_of("single", pruner)[1].get_vision_tower().relevance is None


def test_generate_returns_new_tokens_alone(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "cdpruner")
    ids = generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert isinstance(ids, torch.Tensor)
    assert ids.shape[0] == 3 and ids.shape[1] <= 8


def test_an_image_token_without_images_is_an_error(model_of):
    tokenizer, model, _, _ = model_of("single")
    with pytest.raises(ValueError, match="`images` is None"):
        model.generate(question_prompts(tokenizer, QUESTIONS[:1])[0].unsqueeze(0))


def test_tiles_without_image_sizes_are_an_error(model_of, images):
    tokenizer, model, processor, _ = model_of("native")
    pixels = process_images(images[:1], processor, model.config)
    with pytest.raises(ValueError, match="image_sizes"):
        model.generate(question_prompts(tokenizer, QUESTIONS[:1])[0].unsqueeze(0), images=pixels)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("pruner", ["none", *PRUNERS])
def test_half_precision_runs_and_keeps_the_budget(model_of, layout, pruner, dtype, images):
    tokenizer, model, processor, _ = model_of(layout, pruner, dtype=dtype)
    assert model.dtype == model.get_vision_tower().dtype == getattr(torch, dtype)
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    if pruner != "none" and layout == "single":
        assert model.last_prune.visual_tokens == [BUDGET] * 3


@pytest.mark.parametrize("pruner", ["none", "cdpruner", "divprune"])
def test_mistral_behaves_alike(load, make_checkpoint, pruner, images):
    options = {} if pruner == "none" else {"pruner": pruner, "visual_token_num": BUDGET}
    tokenizer, model, processor, _ = load(make_checkpoint("mistral", anyres=True, name="mistral"), **options)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    for row, (image, question, prompt) in enumerate(zip(images, QUESTIONS, prompts, strict=True)):
        alone = generate(model, tokenizer, processor, [image], [question], [prompt])
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_eager_and_sdpa_answer_alike(load, checkpoint, images):
    answers = []
    for attention in ("eager", "sdpa"):
        tokenizer, model, processor, _ = load(
            checkpoint, pruner="vispruner", visual_token_num=BUDGET, attn_implementation=attention
        )
        prompts = question_prompts(tokenizer, QUESTIONS)
        answers.append(generate(model, tokenizer, processor, images, QUESTIONS, prompts).tolist())
    assert answers[0] == answers[1]


def test_original_positions_leave_every_token_where_it_stands_without_a_pruner(model_of, images):
    tokenizer, model, processor, _ = model_of("single", "divprune", positions="original")
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    pixels = process_images(images, processor, model.config)
    _, positions, new_mask, _, _, _ = model.prepare_inputs_labels_for_multimodal(ids, None, mask, None, None, pixels)
    for row in range(3):
        start = ids[row][mask[row].bool()].tolist().index(-200)
        kept = (model.last_prune.keep[row] + start).tolist()
        after = range(start + 16, start + 16 + int(mask[row].sum()) - start - 1)
        assert positions[row][new_mask[row].bool()].tolist() == [*range(start), *kept, *after]


def test_original_positions_hide_the_dropped_tokens_and_nothing_else(model_of, images):
    """Pruning with original positions is the full prompt with the dropped tokens masked out of attention."""
    tokenizer, model, processor, _ = model_of("single", "divprune", positions="original", attn_implementation="eager")
    ids = question_prompts(tokenizer, QUESTIONS[:1])[0].unsqueeze(0)
    pixels = process_images(images[:1], processor, model.config)
    with torch.no_grad():
        pruned = model(ids, images=pixels).logits[0, -1]
        keep = model.last_prune.keep[0]
        model.set_pruner(None)
        embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels)[4]
        start, length = ids[0].tolist().index(-200), embeds.shape[1]
        seen = torch.ones(1, length, dtype=torch.long)
        seen[0, start : start + 16] = 0
        seen[0, start + keep] = 1
        masked = model(inputs_embeds=embeds, attention_mask=seen, position_ids=torch.arange(length)[None]).logits[0, -1]
    torch.testing.assert_close(pruned, masked, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_decoding_continues_the_positions_of_the_prompt(model_of, images, positions):
    """Cached generation equals feeding the whole sequence anew for every token."""
    tokenizer, model, processor, _ = model_of("single", "divprune", positions=positions)
    prompt = question_prompts(tokenizer, QUESTIONS[:1])
    answer = generate(model, tokenizer, processor, images[:1], None, prompt)[0]
    ids = prompt[0].unsqueeze(0)
    pixels = process_images(images[:1], processor, model.config)
    for step, token in enumerate(answer.tolist()):
        with torch.no_grad():
            so_far = torch.cat([ids, answer[None, :step]], dim=1)
            assert int(model(so_far, images=pixels).logits[0, -1].argmax()) == token


def test_without_a_pruner_positions_make_no_difference(model_of, images):
    answers = []
    for positions in ("compact", "original"):
        tokenizer, model, processor, _ = model_of("native", positions=positions)
        prompts = question_prompts(tokenizer, QUESTIONS)
        answers.append(generate(model, tokenizer, processor, images, None, prompts).tolist())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("size", [(1000, 10), (2000, 25), (10, 1000), (1, 1)])
def test_images_of_any_shape_are_pruned(model_of, pruner, size):
    """Of very wide images no row of the grid is left without padding: only the base tile shows them."""
    tokenizer, model, processor, _ = model_of("native", pruner)
    image = Image.new("RGB", size, (200, 30, 30))
    generate(model, tokenizer, processor, [image], QUESTIONS[:1], question_prompts(tokenizer, QUESTIONS[:1]))
    record = model.last_prune
    assert record.visual_tokens[0] <= record.tokens_before[0]
    if PRUNERS[pruner].scope == "tile":  # others take the image as a whole
        assert base_and_grid(record)[0][0] == BUDGET and record.visual_tokens == [len(record.keep[0])]


def test_cues_follow_the_projector_to_its_device(model_of):
    """Spread over several devices, tower and projector may lie apart; the pruner must find all cues in one place."""
    _, model, _, _ = model_of("single", "mfpruner")
    model.get_model().mm_projector = torch.nn.Sequential(torch.nn.Linear(48, 32, device="meta"))
    model._projected = lambda features: model.get_model().mm_projector(features.to("meta"))
    batch = model.plan_batch(torch.zeros(1, 3, 32, 32), None, ["What?"], model.pruning)
    cues = model._encode(batch.plan, batch.pixels, {"relevance": torch.zeros(1, 24)})
    assert set(cues) == {"features", "embeds", "cls_attention", "relevance"} and all(x.is_meta for x in cues.values())


def test_rows_padded_in_front_bring_their_mask(model_of, images):
    """Two prompts of one length, of which one shows an image, differ in length once the image is in."""
    tokenizer, model, processor, _ = model_of("single", "divprune")
    model.config.tokenizer_padding_side = "left"
    with_image = question_prompts(tokenizer, QUESTIONS[:1])[0]
    text = prompt_ids(tokenizer, "USER: Hello there. ASSISTANT:").repeat(5)[: len(with_image)]
    ids = torch.stack([with_image, text])
    pixels = process_images(images[:1], processor, model.config)
    with torch.no_grad():
        together = model(ids, images=pixels).logits[1, -1]
        alone = model(text.unsqueeze(0)).logits[0, -1]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_text_side_is_loaded_when_a_pruner_first_needs_it(model_of, images, checkpoint):
    tokenizer, _, processor, _ = model_of("single")
    model = LlavaLlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model.set_pruner(resolve_pruner("cdpruner", BUDGET))
    model.get_vision_tower().load_model()
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert model.last_prune.visual_tokens == [BUDGET] * 3


def test_placeholder_images_need_no_text_and_are_not_looked_at(model_of, images, caplog):
    tokenizer, model, processor, _ = model_of("single", "cdpruner")
    prompts = [prompt_ids(tokenizer, "USER: Hello. ASSISTANT:"), prompt_ids(tokenizer, "USER: ", "\nWhat? ASSISTANT:")]
    generate(model, tokenizer, processor, images[:2], ["Hello", "What?"], prompts)
    assert not [message for message in caplog.messages if "without relevance" in message]
    assert model.last_prune.visual_tokens == [BUDGET]


def test_image_sizes_of_another_number_than_images_are_an_error(model_of, images):
    tokenizer, model, processor, _ = model_of("native")
    pixels = process_images(images[:1], processor, model.config)
    ids = question_prompts(tokenizer, QUESTIONS[:1])[0].unsqueeze(0)
    with pytest.raises(ValueError, match="image_sizes has 2 entries for 1 images"):
        model.generate(ids, images=pixels, image_sizes=[(9, 9), (9, 9)])


def test_images_may_come_in_any_sequence(model_of, images):
    tokenizer, model, processor, _ = model_of("single")
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    pixels = process_images(images, processor, model.config)
    options = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(
        model.generate(ids, images=tuple(pixels), **options), model.generate(ids, images=pixels, **options)
    )
    text = prompt_ids(tokenizer, "USER: Hello. ASSISTANT:").unsqueeze(0)
    assert torch.equal(model.generate(text, images=[], max_new_tokens=4), model.generate(text, max_new_tokens=4))


@pytest.mark.parametrize("pruner", ["none", "divprune", "fastv"])
def test_the_record_says_what_every_prompt_lost_to_the_length_limit(model_of, pruner, images):
    tokenizer, model, processor, _ = model_of("single", pruner)
    prompts = question_prompts(tokenizer, QUESTIONS)
    of_image = BUDGET if pruner == "divprune" else 16
    lengths = [len(prompt) - 1 + of_image for prompt in prompts]
    limit = sorted(lengths)[1]
    model.config.tokenizer_model_max_length = limit
    generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    assert model.last_prune.cut == [max(0, length - limit) for length in lengths]
    assert any(model.last_prune.cut) and len(model.last_prune.visual_tokens) == 3
    model.config.tokenizer_model_max_length = None
    generate(model, tokenizer, processor, images, QUESTIONS, prompts)
    assert model.last_prune.cut == [0, 0, 0]


def test_a_prompt_without_image_has_a_record_only_where_it_lost_something(model_of):
    tokenizer, model, _, _ = model_of("single", "divprune")
    prompts, mask = left_pad(
        [prompt_ids(tokenizer, "Hello"), prompt_ids(tokenizer, "How many shapes are there in it?")]
    )
    whole = model.generate(prompts, attention_mask=mask, max_new_tokens=1, do_sample=False)
    assert model.last_prune is None and len(whole) == 2
    limit = model.config.tokenizer_model_max_length = int(mask[1].sum()) - 2
    model.generate(prompts, attention_mask=mask, max_new_tokens=1, do_sample=False)
    assert model.last_prune.cut == [0, 2] and limit >= mask[0].sum()
    assert model.last_prune.visual_tokens == []


@pytest.mark.parametrize(
    ("name", "value"), [("budget_scope", "batch"), ("positions", None), ("positions", "gaps"), ("text_chunking", "cut")]
)
def test_options_of_a_loaded_model_are_held_to_the_same_values(model_of, name, value):
    _, model, _, _ = model_of("single", "uniform")
    before = getattr(model, name)
    with pytest.raises(ValueError, match=f"{name} {value!r} is not one of"):
        setattr(model, name, value)
    assert getattr(model, name) == before
