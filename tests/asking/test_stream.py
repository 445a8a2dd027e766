from hypothesis import example, given
from hypothesis import strategies as st

from llava.asking.stream import AnswerStreamer


class TestAnswerStreamer:
    def shown(self, pieces, stop="###"):
        shown = []
        streamer = AnswerStreamer(None, stop, shown.append)
        for i, piece in enumerate(pieces):
            streamer.on_finalized_text(piece, stream_end=i == len(pieces) - 1)
        return shown

    def test_shows_pieces_as_they_come(self):
        assert self.shown(["It ", "is ", "red."]) == ["It ", "is ", "red."]

    def test_holds_back_what_may_become_the_separator_and_never_shows_it(self):
        assert self.shown(["red#", "#", "# Human: more"]) == ["red"]
        assert self.shown(["red#", "1"]) == ["red", "#1"]
        assert self.shown(["red##"]) == ["red##"]

    @given(st.lists(st.text("a#", max_size=4), min_size=1))
    @example(["##", "a#", "##"])
    def test_shows_all_before_the_separator_however_the_text_is_cut(self, pieces):
        assert "".join(self.shown(pieces)) == "".join(pieces).partition("###")[0]
