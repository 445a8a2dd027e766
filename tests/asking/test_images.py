from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from llava.asking import images
from llava.asking.images import image_parser, load_image, visuals_of


@pytest.fixture
def image_file(tmp_path):
    Image.new("L", (9, 12), 77).save(tmp_path / "grey, with comma.png")
    return str(tmp_path / "grey, with comma.png")


def test_an_existing_file_is_taken_whole_though_its_name_has_the_separator(image_file):
    assert image_parser(Namespace(image_file=image_file, sep=",")) == [image_file]
    assert image_parser(Namespace(image_file="a.png,b.png", sep=",")) == ["a.png", "b.png"]


def test_reads_an_image_from_an_address(monkeypatch, image_file):
    with open(image_file, "rb") as file:
        monkeypatch.setattr(images.urllib.request, "urlopen", lambda url, timeout: file)
        assert load_image("https://example.org/grey.png").size == (9, 12)


def test_files_arrays_and_images_are_shown_in_their_order(image_file):
    image, array = Image.new("RGB", (3, 4)), np.full((5, 6, 3), 9, dtype=np.uint8)
    found = visuals_of([image_file, array, image])
    assert [each.size for each in found] == [(9, 12), (6, 5), (3, 4)] and found[2] is image
    assert found[1].getpixel((0, 0)) == (9, 9, 9)
    assert visuals_of(None) == [] and visuals_of(image) == [image]
