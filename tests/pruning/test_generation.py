"""The ways of calling a pruned model: all of them read the same shortened prompt."""

import copy
import inspect

import pytest
import torch
import transformers
from packaging.version import Version

from llava import compat
from llava.pruning import prune

TRANSFORMERS = Version(transformers.__version__)
chunks = pytest.mark.skipif(
    TRANSFORMERS < Version("5.23"),
    reason="before Transformers 5.23 no image reaches a chunk of a prompt, pruned or not",
)
STEPS = 4
PRUNER = {"pruner": "divprune", "keep_ratio": 0.4}


def greedy(model, inputs, **kwargs):
    kwargs = {"max_new_tokens": STEPS, "do_sample": False, **kwargs}
    return model.generate(**inputs, **kwargs, return_dict_in_generate=True, output_logits=True)


@pytest.fixture
def copies(tiny) -> None:
    if isinstance(tiny.model, transformers.LlavaNextVideoForConditionalGeneration) and TRANSFORMERS < Version("5.21"):
        pytest.skip("Transformers 5.20 fails to copy videos of LLaVA-NeXT-Video for beams and samples, pruned or not")


def test_eager_attention_answers_alike(tiny):
    with prune(tiny.model, **PRUNER):
        sdpa = greedy(tiny.model, tiny.inputs)
        tiny.model.set_attn_implementation("eager")
        eager = greedy(tiny.model, tiny.inputs)
    assert torch.equal(sdpa.sequences, eager.sequences)
    torch.testing.assert_close(torch.stack(sdpa.logits), torch.stack(eager.logits), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("pruner", ["divprune", "cdpruner"])  # cdpruner reads the prompt's text, which grows
def test_without_a_cache_the_choice_is_made_once(tiny, pruner):
    with prune(tiny.model, pruner, keep_ratio=0.4) as record:
        cached = greedy(tiny.model, tiny.inputs)
        kept = [positions.tolist() for positions in record.keep]
        uncached = greedy(tiny.model, tiny.inputs, use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    assert kept == [positions.tolist() for positions in record.keep]
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), atol=3e-5, rtol=1e-4)


@pytest.mark.usefixtures("copies")
def test_one_beam_of_three_is_scored_as_greedy_search_scores_it(tiny):
    """Beams read the copies of one prompt; the record names its images once."""
    with prune(tiny.model, **PRUNER) as record:
        beams = tiny.model.generate(
            **tiny.inputs, max_new_tokens=STEPS, num_beams=3, do_sample=False, return_dict_in_generate=True,
            output_scores=True, length_penalty=0.0,
        )  # fmt: skip
        assert len(record.keep) == tiny.visuals
        length = tiny.inputs["input_ids"].shape[1]
        answers = beams.sequences[:, length:]
        scores = sequence_scores(tiny, answers)
    torch.testing.assert_close(beams.sequences_scores, scores, atol=1e-4, rtol=1e-4)


def sequence_scores(tiny, answers):
    """Sum of the log-probabilities of given answers, step by step through a greedy run that is made to say them."""

    class Says:
        def __init__(self):
            self.step, self.total = 0, 0.0

        def __call__(self, ids, scores):
            wanted = answers[:, self.step : self.step + 1]
            self.total = self.total + scores.log_softmax(dim=-1).gather(1, wanted)
            self.step += 1
            return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)

    says = Says()
    greedy(tiny.model, tiny.inputs, logits_processor=[says], max_new_tokens=answers.shape[1])
    return says.total.flatten()


@pytest.mark.usefixtures("copies")
def test_returned_samples_are_drawn_from_the_shortened_prompt(tiny):
    with prune(tiny.model, **PRUNER):
        first = greedy(tiny.model, tiny.inputs).logits[0]
        samples = greedy(tiny.model, tiny.inputs, do_sample=True, num_return_sequences=2, max_new_tokens=1).logits[0]
    torch.testing.assert_close(samples, first.repeat_interleave(2, dim=0), atol=3e-5, rtol=1e-4)


def test_a_direct_call_reads_what_generate_reads(tiny):
    with prune(tiny.model, **PRUNER):
        generated = greedy(tiny.model, tiny.inputs)
        called = tiny.model(**tiny.inputs)
    torch.testing.assert_close(called.logits[:, -1], generated.logits[0], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_a_loop_written_by_hand_decodes_as_generate_does(tiny, masked):
    """With the attention mask of the unpruned prompt, as ``generate`` keeps it, or without any."""
    with prune(tiny.model, **PRUNER):
        expected = torch.stack(greedy(tiny.model, tiny.inputs).logits, dim=1)
        mask = tiny.inputs["attention_mask"]
        out = tiny.model(**tiny.inputs, use_cache=True)
        logits = [out.logits[:, -1]]
        for _ in range(STEPS - 1):
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            token = logits[-1].argmax(dim=-1, keepdim=True)
            given = {"attention_mask": mask} if masked else {}
            out = tiny.model(input_ids=token, **compat.cache_argument(compat.cache_in(out)), use_cache=True, **given)
            logits.append(out.logits[:, -1])
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, atol=3e-5, rtol=1e-4)


def test_two_conversations_interleave(tiny):
    """Each cache remembers its own prompt."""
    with prune(tiny.model, **PRUNER):
        expected = greedy(tiny.model, tiny.inputs).logits[1]
        first = tiny.model(**tiny.inputs, use_cache=True)
        tiny.model(**{**tiny.inputs, "input_ids": tiny.inputs["input_ids"].clone()}, use_cache=True)
        mask = torch.nn.functional.pad(tiny.inputs["attention_mask"], (0, 1), value=1)
        token = first.logits[:, -1].argmax(dim=-1, keepdim=True)
        second = tiny.model(input_ids=token, attention_mask=mask, **compat.cache_argument(compat.cache_in(first)))
    torch.testing.assert_close(second.logits[:, -1], expected, atol=3e-5, rtol=1e-4)


def test_a_copied_cache_goes_on_as_the_first(tiny):
    with prune(tiny.model, **PRUNER), torch.no_grad():
        first = tiny.model(**tiny.inputs, use_cache=True)
        token = first.logits[:, -1].argmax(dim=-1, keepdim=True)
        caches = copy.deepcopy(compat.cache_in(first)), compat.cache_in(first)
        copied, expected = (tiny.model(input_ids=token, **compat.cache_argument(cache)).logits for cache in caches)
    assert torch.equal(copied, expected)


def test_a_prompt_without_images_is_left_alone(tiny):
    text = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    expected = greedy(tiny.model, text)
    with prune(tiny.model, **PRUNER):
        greedy(tiny.model, tiny.inputs)
        assert torch.equal(torch.stack(greedy(tiny.model, text).logits), torch.stack(expected.logits))


@pytest.mark.parametrize("images", [True, False])
def test_an_answer_may_contain_a_placeholder(tiny_llava, images):
    """Behind images that are all kept, or none at all: what is said is not an image."""

    def says(ids, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([90]), 0.0)

    model, inputs = tiny_llava.model, tiny_llava.inputs
    said = inputs if images else {"input_ids": torch.tensor([[1, 5, 6, 7]])}
    expected = greedy(model, said, logits_processor=[says])
    with prune(model, "divprune", visual_token_num=1000):
        greedy(model, inputs)
        answered = greedy(model, said, logits_processor=[says])
    assert torch.equal(torch.stack(answered.logits), torch.stack(expected.logits))


def test_original_positions_leave_every_token_its_place(tiny_llava):
    """Keeping the first tokens of the last image shifts nothing before it: only what follows is told apart."""
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "uniform", visual_token_num=4, positions="original"):
        original = greedy(model, inputs)
        again = greedy(model, inputs, use_cache=False)
    with prune(model, "uniform", visual_token_num=4, positions="compact"):
        compact = greedy(model, inputs)
    torch.testing.assert_close(torch.stack(original.logits), torch.stack(again.logits), atol=3e-5, rtol=1e-4)
    assert not torch.allclose(original.logits[0], compact.logits[0], atol=1e-3)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"cache_implementation": "static"}, "static cache is not supported"),
        pytest.param({"prefill_chunk_size": 8}, "chunked prefill is not supported", marks=chunks),
    ],
)
def test_what_does_not_work_says_so(tiny_llava, kwargs, message):
    with prune(tiny_llava.model, **PRUNER), pytest.raises(NotImplementedError, match=message):
        greedy(tiny_llava.model, tiny_llava.inputs, **kwargs)


def test_the_cache_of_a_pruned_prompt_cannot_be_continued(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, **PRUNER):
        out = greedy(model, inputs)
        more = torch.cat([out.sequences, torch.tensor([[5], [6]])], dim=1)
        mask = torch.nn.functional.pad(
            inputs["attention_mask"], (0, more.shape[1] - inputs["input_ids"].shape[1]), value=1
        )
        with pytest.raises(NotImplementedError, match="cannot be handed to another generate"):
            model.generate(
                input_ids=more, attention_mask=mask, **compat.cache_argument(compat.cache_in(out)), max_new_tokens=1
            )


def test_labels_are_refused(tiny_llava):
    with prune(tiny_llava.model, **PRUNER), pytest.raises(NotImplementedError, match="labels"):
        tiny_llava.model(**tiny_llava.inputs, labels=tiny_llava.inputs["input_ids"])


@pytest.mark.parametrize("name", ["labels", "logits_to_keep"])
def test_columns_are_refused_by_place_as_well(tiny_llava, name):
    given = tiny_llava.inputs | {name: tiny_llava.inputs["input_ids"][0]}
    names = list(inspect.signature(tiny_llava.model.forward).parameters)
    by_place = [given.get(each) for each in names[: names.index(name) + 1]]
    with prune(tiny_llava.model, **PRUNER), pytest.raises(NotImplementedError, match=name):
        tiny_llava.model(*by_place)


def test_a_batch_is_pruned_as_its_prompts_alone(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    real = inputs["attention_mask"][1].bool()
    alone = {"input_ids": inputs["input_ids"][1:, real], "pixel_values": inputs["pixel_values"][2:]}
    with prune(model, "cdpruner", visual_token_num=5) as record:
        together = greedy(model, inputs)
        kept = record.keep[2].tolist()
        single = greedy(model, alone)
        assert record.keep[0].tolist() == kept
    assert torch.equal(together.sequences[1, -STEPS:], single.sequences[0, -STEPS:])
