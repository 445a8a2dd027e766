import base64
import io
import math
import types

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import (
    KeywordsStoppingCriteria,
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    get_model_name_from_path,
    load_image_from_base64,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
    to_rgb,
    tokenizer_image_token,
)

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
MEAN_COLOUR = (122, 116, 104)


def settings_of(aspect_ratio=None):
    return types.SimpleNamespace(image_aspect_ratio=aspect_ratio, image_grid_pinpoints=PINPOINTS)


def gradient(width, height, mode="RGB"):
    levels = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


class TestBestResolution:
    @pytest.mark.parametrize(
        ("size", "best"),
        [
            ((640, 480), (672, 672)),
            ((480, 640), (672, 672)),
            ((1024, 768), (672, 672)),
            ((1000, 300), (1008, 336)),
            ((300, 1000), (336, 1008)),
            ((100, 700), (336, 1008)),
            ((336, 336), (336, 672)),
            ((200, 200), (336, 672)),
            ((500, 333), (672, 336)),
        ],
    )
    def test_is_the_one_of_the_stock_list(self, size, best):
        assert select_best_resolution(size, PINPOINTS) == best

    def test_comes_from_the_list_that_is_given(self):
        assert select_best_resolution((1000, 300), [(672, 672)]) == (672, 672)
        assert select_best_resolution((1000, 300), [(100, 100), (200, 100)]) == (200, 100)

    def test_is_an_error_without_a_list(self):
        with pytest.raises(ValueError, match="image_grid_pinpoints"):
            select_best_resolution((10, 10), [])

    def test_gives_the_grid_of_tiles(self):
        assert get_anyres_image_grid_shape((1000, 300), PINPOINTS, 336) == (3, 1)
        assert get_anyres_image_grid_shape((300, 1000), str(PINPOINTS), 336) == (1, 3)

    @given(st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)))
    def test_keeps_as_much_of_the_image_as_any_other(self, size):
        def kept(canvas):
            scale = min(canvas[0] / size[0], canvas[1] / size[1])
            return min(math.prod(int(side * scale) for side in size), math.prod(size))

        best = select_best_resolution(size, PINPOINTS)
        assert list(best) in PINPOINTS
        assert kept(best) == max(kept(canvas) for canvas in PINPOINTS)


class TestGeometry:
    def test_a_wide_image_is_centred_between_black_bars(self):
        padded = np.asarray(resize_and_pad_image(Image.new("RGB", (100, 50), "white"), (200, 200)))
        assert padded.shape == (200, 200, 3)
        assert padded[50:150].min() == 255 and padded[:50].max() == padded[150:].max() == 0

    def test_an_odd_margin_is_larger_at_the_end(self):
        padded = np.asarray(resize_and_pad_image(Image.new("RGB", (1, 4), "white"), (4, 4)))
        assert padded[0, :, 0].tolist() == [0, 255, 0, 0]

    def test_the_shorter_side_is_rounded_up(self):
        padded = np.asarray(resize_and_pad_image(Image.new("RGB", (1000, 301), "white"), (100, 100)))
        assert (padded[:, 50, 0] == 255).sum() == 31

    def test_patches_are_cut_row_by_row(self):
        image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
        assert [patch.getpixel((0, 0)) for patch in divide_to_patches(image, 1)] == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize(("size", "inside"), [((5, 2), (0, 1, 5, 3)), ((2, 5), (1, 0, 3, 5))])
    def test_an_image_is_centred_on_the_square_of_its_longer_side(self, size, inside):
        square = expand2square(Image.new("RGB", size, "white"), MEAN_COLOUR)
        expected = Image.new("RGB", (5, 5), MEAN_COLOUR)
        expected.paste((255, 255, 255), inside)
        assert square.mode == "RGB" and np.array_equal(square, expected)

    def test_a_square_image_comes_back_as_it_is(self):
        image = Image.new("L", (3, 3))
        assert expand2square(image, 0) is image


class TestColour:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "RGB"])
    def test_every_mode_becomes_rgb_without_losing_the_picture(self, mode):
        image = Image.new("RGB", (2, 1), "black")
        image.putpixel((1, 0), (255, 255, 255))
        levels = np.asarray(to_rgb(image.convert("L").convert(mode) if mode in ("PA", "LA") else image.convert(mode)))
        assert levels.shape == (1, 2, 3)
        assert levels[0, 0].max() == 0 and levels[0, 1].min() == 255

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, ">u2"])
    def test_sixteen_bits_are_scaled_to_eight(self, dtype):
        image = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=dtype))
        assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 1, 128, 255]

    def test_an_rgb_image_is_not_copied(self):
        image = gradient(3, 2)
        assert to_rgb(image) is image

    def test_a_palette_image_is_padded_in_its_own_colours(self, clip_processor):
        image = gradient(40, 20)
        palette = image.quantize(256)
        as_palette = process_images([palette], clip_processor, settings_of("pad"))
        as_rgb = process_images([palette.convert("RGB")], clip_processor, settings_of("pad"))
        assert torch.equal(as_palette, as_rgb)


class TestProcessImages:
    def test_padding_has_the_mean_colour(self, clip_processor):
        (pixels,) = process_images([Image.new("RGB", (672, 336), "white")], clip_processor, settings_of("pad"))
        mean, std = (torch.tensor(x) for x in (clip_processor.image_mean, clip_processor.image_std))
        margin = (torch.tensor(MEAN_COLOUR) / 255 - mean) / std
        torch.testing.assert_close(pixels[:, 0, 0], margin.float())
        torch.testing.assert_close(pixels[:, 168, 168], ((1 - mean) / std).float())

    def test_any_other_setting_crops_the_centre(self, clip_processor):
        image = Image.new("RGB", (1008, 336), "black")
        image.paste((255, 255, 255), (336, 0, 672, 336))
        pixels = process_images([image, image], clip_processor, settings_of(None))
        assert pixels.shape == (2, 3, 336, 336)
        assert pixels.min() > 1.9  # white on CLIP's scale

    def test_anyres_puts_the_whole_image_before_its_tiles(self, clip_processor):
        image = gradient(1000, 300)
        tiles = process_anyres_image(image, clip_processor, str(PINPOINTS))
        assert tiles.shape == (4, 3, 336, 336)
        whole = clip_processor.preprocess(image.resize((336, 336)), return_tensors="pt")["pixel_values"][0]
        assert torch.equal(tiles[0], whole)
        assert tiles[1].mean() > tiles[0].min()
        batch = process_images([image], clip_processor, settings_of("anyres"))
        assert torch.equal(batch[0], tiles)

    def test_images_of_different_shapes_come_as_a_list(self, clip_processor):
        images = [gradient(1000, 300), gradient(640, 480)]
        pixels = process_images(images, clip_processor, settings_of("anyres"))
        assert [len(tiles) for tiles in pixels] == [4, 5]
        same = process_images([images[0], images[0]], clip_processor, settings_of("anyres"))
        assert same.shape == (2, 4, 3, 336, 336)

    @pytest.mark.parametrize("size", [(120, 3), (3, 121)])
    def test_the_ends_of_a_long_image_do_not_matter_to_its_centre(self, clip_processor, size):
        image = gradient(*size)
        whole = clip_processor.preprocess(image, return_tensors="pt")["pixel_values"]
        assert torch.equal(process_images([image], clip_processor, settings_of(None)), whole)

    @pytest.mark.parametrize("aspect_ratio", ["pad", "anyres", None])
    @pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (10_000, 10)])
    def test_extreme_sizes_are_fine(self, clip_processor, aspect_ratio, size):
        pixels = process_images([gradient(*size)], clip_processor, settings_of(aspect_ratio))
        assert pixels.shape[-3:] == (3, 336, 336) and pixels.isfinite().all()

    def test_no_image_gives_an_empty_list(self, clip_processor):
        assert process_images([], clip_processor, settings_of("pad")) == []

    def test_base64_is_decoded_in_the_mode_of_the_file(self):
        buffer = io.BytesIO()
        gradient(5, 4, "L").save(buffer, format="PNG")
        image = load_image_from_base64(base64.b64encode(buffer.getvalue()))
        assert (image.mode, image.size) == ("L", (5, 4))


class TestTokenizerImageToken:
    prompt = "A chat. USER: <image>\nWhat color is it? ASSISTANT:"

    def test_tokenizes_the_pieces_as_sentencepiece_does(self, llama_tokenizer, tokenizer_folder):
        before, after = self.prompt.split("<image>")
        pieces = sentencepiece.SentencePieceProcessor(str(tokenizer_folder / "tokenizer.model"))
        expected = [1, *pieces.encode(before), IMAGE_TOKEN_INDEX, *pieces.encode(after)]
        assert tokenizer_image_token(self.prompt, llama_tokenizer) == expected

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.text(alphabet=" \naAe:.,é▁", max_size=8), min_size=1, max_size=4))
    def test_does_so_for_any_text(self, llama_tokenizer, tokenizer_folder, texts):
        reference = sentencepiece.SentencePieceProcessor(str(tokenizer_folder / "tokenizer.model"))
        expected = [1, *reference.encode(texts[0])]
        for text in texts[1:]:
            expected += [IMAGE_TOKEN_INDEX, *reference.encode(text)]
        assert tokenizer_image_token("<image>".join(texts), llama_tokenizer) == expected

    def test_a_space_after_the_image_is_not_lost(self, llama_tokenizer):
        spaced = tokenizer_image_token("USER: <image> ASSISTANT:", llama_tokenizer)
        joined = tokenizer_image_token("USER: <image>ASSISTANT:", llama_tokenizer)
        assert spaced != joined

    def test_two_images_side_by_side_and_none(self, llama_tokenizer):
        assert tokenizer_image_token("<image><image>", llama_tokenizer) == [1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX]
        assert tokenizer_image_token("It is red.", llama_tokenizer) == llama_tokenizer("It is red.").input_ids

    def test_without_bos_nothing_is_dropped(self, tokenizer_folder):
        from transformers import LlamaTokenizer

        bare = LlamaTokenizer.from_pretrained(tokenizer_folder, add_bos_token=False)
        ids = tokenizer_image_token("It is<image>red", bare)
        assert ids == [*bare("It is").input_ids, IMAGE_TOKEN_INDEX, *bare("red").input_ids]

    def test_a_tokenizer_that_keeps_spaces_is_left_alone(self):
        def tokenizer(text):
            return types.SimpleNamespace(input_ids=[0, *text.encode()])

        tokenizer.bos_token_id = 0
        assert tokenizer_image_token(" a<image> b", tokenizer, -1) == [0, *b" a", -1, *b" b"]

    def test_returns_a_tensor_on_request_and_refuses_the_rest(self, llama_tokenizer):
        ids = tokenizer_image_token(self.prompt, llama_tokenizer, return_tensors="pt")
        assert ids.dtype == torch.long and ids.ndim == 1
        assert ids.tolist() == tokenizer_image_token(self.prompt, llama_tokenizer)
        with pytest.raises(ValueError, match="'np'.*'pt'"):
            tokenizer_image_token(self.prompt, llama_tokenizer, return_tensors="np")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("/models/llava-v1.5-7b/", "llava-v1.5-7b"),
        ("runs/llava-lora/checkpoint-100/", "llava-lora_checkpoint-100"),
        ("checkpoint-100", "checkpoint-100"),
        ("/checkpoint-100/", "checkpoint-100"),
    ],
)
def test_the_name_of_a_model_is_the_end_of_its_path(path, name):
    assert get_model_name_from_path(path) == name


class TestKeywordsStoppingCriteria:
    prompt = "USER: stop ### USER: What? ASSISTANT:"

    def criteria(self, tokenizer, *keywords, rows=1):
        self.prompt_ids = torch.tensor([tokenizer(self.prompt).input_ids] * rows)
        return KeywordsStoppingCriteria(keywords, tokenizer, self.prompt_ids)

    def ids(self, tokenizer, *texts):
        rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        width = max(map(len, rows))
        return torch.tensor([[tokenizer.unk_token_id] * (width - len(row)) + row for row in rows])

    def test_each_row_stops_on_its_own(self, llama_tokenizer):
        stops = self.criteria(llama_tokenizer, "###", rows=2)(
            self.ids(llama_tokenizer, "It is red.", "It is ###"), None
        )
        assert stops.dtype == torch.bool and stops.tolist() == [False, True]

    def test_a_keyword_of_the_prompt_does_not_stop(self, llama_tokenizer):
        criteria = self.criteria(llama_tokenizer, "ASSISTANT:")
        repeated = torch.cat([self.prompt_ids, self.ids(llama_tokenizer, "is")], dim=1)
        assert criteria(repeated, None).tolist() == [False]

    def test_the_first_new_token_may_stop_with_and_without_the_prompt(self, llama_tokenizer):
        criteria = self.criteria(llama_tokenizer, "</s>")
        eos = torch.tensor([[llama_tokenizer.eos_token_id]])
        assert criteria(eos, None).tolist() == [True]
        assert criteria(torch.cat([self.prompt_ids, eos], dim=1), None).tolist() == [True]

    def test_one_object_serves_several_generations(self, llama_tokenizer):
        criteria = self.criteria(llama_tokenizer, "###")
        long, short = (self.ids(llama_tokenizer, text) for text in ("It is red. It is large ###", "###"))
        assert criteria(long, None).tolist() == criteria(short, None).tolist() == [True]

    def test_a_keyword_inside_a_longer_token_is_found_in_the_text(self, llama_tokenizer):
        criteria = self.criteria(llama_tokenizer, "ssistan")
        assert criteria(self.ids(llama_tokenizer, "an assistant"), None).tolist() == [True]
        assert criteria(self.ids(llama_tokenizer, "an artificial"), None).tolist() == [False]

    def test_nothing_new_yet_does_not_stop(self, llama_tokenizer):
        assert self.criteria(llama_tokenizer, "###")(torch.empty(1, 0, dtype=torch.long), None).tolist() == [False]
        assert self.criteria(llama_tokenizer)(self.ids(llama_tokenizer, "###"), None).tolist() == [False]
