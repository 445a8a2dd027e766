import base64
import io

import pytest
from PIL import Image

from llava.conversation import SeparatorStyle, conv_mode_for, conv_templates, default_conversation

CURIOUS_USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
CURIOUS_HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
VISUAL_CONTENT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language.The "
    "visual content will be provided with the following format: <Image>visual content</Image>."
)
LLAMA_2 = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
MPT = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."

TWO_TURNS = {
    "vicuna_v1": f"{CURIOUS_USER} USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "llava_v1": f"{CURIOUS_HUMAN} USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "v1_mmtag": f"{VISUAL_CONTENT} USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:",
    "llava_v0": f"{CURIOUS_HUMAN}###Human: Q1###Assistant: A1###Human: Q2###Assistant:",
    "v0_mmtag": f"{VISUAL_CONTENT}###Human: Q1###Assistant: A1###Human: Q2###Assistant:",
    "mistral_instruct": "[INST] Q1 [/INST] A1 </s>[INST] Q2 [/INST]",
    "llava_llama_2": f"[INST] <<SYS>>\n{LLAMA_2}\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]",
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nQ1<|im_end|>"
        "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n"
    ),
    "mpt": (
        f"<|im_start|>system\n{MPT}<|im_end|><|im_start|>user\nQ1<|im_end|>"
        "<|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n"
    ),
    "plain": "Q1\nA1\nQ2\n",
    "qwen_2": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
    ),
}
ALIASES = {"v1": "vicuna_v1", "mistral_direct": "chatml_direct", "v0_plain": "plain", "qwen_1_5": "qwen_2"}
VERSIONS = {
    "vicuna_v1": "v1",
    "llava_v1": "v1",
    "v1_mmtag": "v1_mmtag",
    "llava_v0": "Unknown",
    "v0_mmtag": "v0_mmtag",
    "mistral_instruct": "llama_v2",
    "llava_llama_2": "llama_v2",
    "chatml_direct": "mpt",
    "mpt": "mpt",
    "plain": "Unknown",
    "qwen_2": "qwen",
}


def converse(template, *messages):
    conversation = template.copy()
    for i, message in enumerate(messages):
        conversation.append_message(conversation.roles[i % 2], message)
    return conversation


@pytest.fixture
def red_square():
    return Image.new("RGB", (4, 4), (255, 0, 0))


def test_every_template_is_checked_here():
    assert conv_templates.keys() == TWO_TURNS.keys() | ALIASES.keys()
    assert all(conv_templates[alias] is conv_templates[key] for alias, key in ALIASES.items())


@pytest.mark.parametrize("key", TWO_TURNS)
def test_two_turns_are_rendered_byte_for_byte(key):
    assert converse(conv_templates[key], "Q1", "A1", "Q2", None).get_prompt() == TWO_TURNS[key]


@pytest.mark.parametrize(("key", "end"), [("vicuna_v1", " A1</s>USER: Q2 ASSISTANT:"), ("plain", "A1\nQ2\n")])
def test_the_first_turn_is_a_prefix_of_the_dialogue(key, end):
    assert converse(conv_templates[key], "Q1", None).get_prompt() == TWO_TURNS[key].removesuffix(end)


@pytest.mark.parametrize("key", VERSIONS)
def test_templates_name_their_family(key):
    assert conv_templates[key].version == VERSIONS[key]


@pytest.mark.parametrize("key", ["vicuna_v1", "mistral_instruct", "llava_llama_2"])
def test_the_string_that_ends_an_answer_is_sep2(key):
    assert conv_templates[key].sep2 == "</s>"


def test_only_the_leading_separator_itself_is_taken_off():
    template = conv_templates["llava_llama_2"].copy()
    template.system = ""
    assert converse(template, "Q").get_prompt() == "[INST] Q [/INST]"
    template.sep = "[I"
    assert converse(template, "Q").get_prompt() == "[INST] Q [/INST]"


def test_the_default_is_vicuna():
    assert default_conversation is conv_templates["vicuna_v1"]
    assert default_conversation.sep_style is SeparatorStyle.TWO


def test_a_copy_grows_alone():
    first = converse(conv_templates["v1"], "Q1")
    second = first.copy()
    second.append_message(second.roles[1], "A1")
    second.messages[0][1] = "changed"
    assert first.messages == [["USER", "Q1"]]
    assert len(conv_templates["v1"].messages) == 0


def test_a_template_itself_does_not_grow():
    with pytest.raises(TypeError, match="template.copy()"):
        conv_templates["v1"].append_message("USER", "Q1")


def test_the_image_of_a_message_comes_in_front_of_its_text(red_square):
    conversation = converse(conv_templates["v1"], ("What is this?\n<image>", red_square, "Pad"), None)
    assert conversation.get_prompt() == f"{CURIOUS_USER} USER: <image>\nWhat is this? ASSISTANT:"


def test_a_tagged_template_spends_an_exchange_on_the_image(red_square):
    conversation = converse(conv_templates["v0_mmtag"], ("<image>\nWhat is this?", red_square, "Pad"), None)
    assert conversation.get_prompt() == (
        f"{VISUAL_CONTENT}###Human: <Image><image></Image>###Assistant: Received.###Human: What is this?###Assistant:"
    )


def test_later_messages_with_images_keep_their_text(red_square):
    conversation = converse(conv_templates["v1"], "Q1", "A1", ("<image>\nQ2", red_square, "Pad"), None)
    assert conversation.get_prompt().endswith("A1</s>USER: <image>\nQ2 ASSISTANT:")


def test_images_come_back_as_they_were_sent(red_square):
    conversation = converse(conv_templates["v1"], ("Q1", red_square, "Pad"), "A1", "Q2", None)
    assert conversation.get_images(return_pil=True) == [red_square]
    (encoded,) = conversation.get_images()
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).getpixel((0, 0)) == (255, 0, 0)


def test_the_chatbot_sees_pairs(red_square):
    pairs = converse(conv_templates["v1"], ("<image>\nQ1", red_square, "Pad"), "A1", "Q2", None).to_gradio_chatbot()
    assert [pair[1] for pair in pairs] == ["A1", None]
    assert pairs[0][0].startswith('<img src="data:image/png;base64,') and pairs[0][0].endswith("/>Q1")
    assert pairs[1][0] == "Q2"


def test_plain_data_leaves_images_out(red_square):
    data = converse(conv_templates["v1"], ("Q1", red_square, "Pad"), None).dict()
    assert data["messages"] == [["USER", "Q1"], ["ASSISTANT", None]]
    assert (data["sep"], data["sep2"], data["offset"]) == (" ", "</s>", 0)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("llava-Llama-2-13b-chat", "llava_llama_2"),
        ("llava-v1.6-mistral-7b", "mistral_instruct"),
        ("llava-v1.6-34b", "chatml_direct"),
        ("LLaVA-v1.5-7B", "llava_v1"),
        ("llava-v1.6-vicuna-7b", "llava_v1"),
        ("LLaVA-MPT-7B", "mpt"),
        ("llava-13b", "llava_v0"),
    ],
)
def test_the_name_of_a_model_picks_its_template(name, mode):
    assert conv_mode_for(name) == mode
    assert mode in conv_templates
