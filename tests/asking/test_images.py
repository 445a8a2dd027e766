from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from llava.asking import images
from llava.asking.images import image_parser, load_image, refuse_foreign, visuals_of


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


class TestPhotos:
    def taken(self, place, orientation: int):
        """A photo of 20 x 10 pixels, red on the left, that a camera held in some way has stored."""
        photo, exif = Image.new("RGB", (20, 10)), Image.Exif()
        photo.paste((250, 0, 0), (0, 0, 10, 10))
        exif[images.ORIENTATION] = orientation
        photo.save(place, exif=exif)
        return place

    def test_are_turned_as_they_were_taken_whoever_opened_them(self, tmp_path):
        file = self.taken(tmp_path / "photo.png", 6)
        for shown in (str(file), Image.open(file)):
            (found,) = visuals_of(shown)
            assert found.size == (10, 20) and found.getpixel((5, 2)) == (250, 0, 0)
            assert visuals_of(found)[0].size == (10, 20)  # never twice
        assert load_image(str(file)).size == (20, 10)  # the pixels of the file

    def test_that_lie_as_they_are_stored_come_back_as_they_are(self, tmp_path):
        image = Image.open(self.taken(tmp_path / "photo.png", 1))
        assert visuals_of(image)[0] is image

    def test_with_broken_exif_are_shown_as_they_are_stored(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(images.ImageOps, "exif_transpose", lambda image: {}["no such tag"])
        assert visuals_of(self.taken(tmp_path / "photo.png", 6))[0].size == (20, 10)
        assert "EXIF" in caplog.text


class TestClips:
    def test_are_told_by_their_name_or_their_shape(self):
        frames = np.zeros((2, 5, 6, 3), dtype=np.uint8)
        found = visuals_of(["a/clip.MP4", frames])
        assert found[0] == "a/clip.MP4" and found[1] is frames

    @pytest.mark.parametrize("array", [np.zeros((5, 6)), np.zeros((5, 6, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)])
    def test_and_pictures_of_another_form_are_an_error(self, array):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) or frames \(T, H, W, 3\) of 8 bits"):
            visuals_of(array)

    @pytest.mark.parametrize(("shown", "name"), [("a/clip.mp4", "a/clip.mp4"), (np.zeros((2, 5, 6, 3)), "ndarray")])
    def test_are_refused_by_name_where_only_images_are_read(self, shown, name):
        with pytest.raises(ValueError, match=f"the question shows {name}: .* reads images alone"):
            refuse_foreign([Image.new("RGB", (3, 3)), shown], "the question")
