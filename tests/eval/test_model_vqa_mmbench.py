import base64
from io import BytesIO

import pytest
from PIL import Image

from llava.eval import model_vqa_mmbench
from llava.eval.tasks.base import Given
from llava.eval.tasks.mmbench import MMBENCH, TABLE
from llava.records import InputError

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "image"]


def picture(mode="RGB", colour=0):
    content = BytesIO()
    Image.new(mode, (20, 10), colour).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


ROWS = [
    ["241", "Which?", "Look.", "None", "NA", "null", "nan", "A", picture("P", 3)],
    ["1000241", "Which?", "nan", "None", "NA", "", "", "B", picture("L", 90)],
    ["7", "How many\t?", "", "1", "2", "3", "", "C", picture("RGBA", (1, 2, 3, 4))],
]


@pytest.fixture
def table(put):
    """Write rows as MMBench's table, whose cells may be quoted."""

    def write(rows=ROWS, columns=COLUMNS):
        cells = [columns, *rows]
        return put("mm.tsv", "".join("\t".join(f'"{cell}"' for cell in row) + "\n" for row in cells))

    return write


def test_a_record_has_mmbenchs_keys_in_order(ask, table):
    record = ask(model_vqa_mmbench, question_file=table())[1]
    assert list(record) == [
        *("question_id", "round_id", "prompt", "text", "options", "option_char"),
        *("answer_id", "model_id", "metadata"),
    ]
    assert (record["question_id"], record["round_id"]) == (1000241, 0) and record["text"]


def test_options_called_none_na_and_null_are_options_and_only_empty_cells_end_the_list(ask, table):
    records = ask(model_vqa_mmbench, question_file=table())
    assert [record["options"] for record in records] == [["None", "NA", "null", "nan"], ["None", "NA"], ["1", "2", "3"]]
    assert [record["option_char"] for record in records] == [list("ABCD"), list("AB"), list("ABC")]


def test_the_prompt_is_hint_question_and_options_and_an_empty_hint_leaves_no_line(ask, table):
    prompts = [record["prompt"] for record in ask(model_vqa_mmbench, question_file=table())]
    assert prompts[0] == "Look.\nWhich?\nA. None\nB. NA\nC. null\nD. nan"
    assert prompts[1:] == ["Which?\nA. None\nB. NA", "How many\t?\nA. 1\nB. 2\nC. 3"]


@pytest.mark.parametrize(
    ("lang", "request_"),
    [("en", "\nAnswer with the option's letter from the given choices directly."), ("cn", "\n请直接回答选项字母。")],
)
def test_the_request_for_a_letter_is_asked_but_neither_recorded_nor_compared_with_the_image(
    ask, table, echo_model, lang, request_
):
    plain = ask(model_vqa_mmbench, question_file=table(), lang=lang)
    asked = ask(model_vqa_mmbench, question_file=table(), lang=lang, single_pred_prompt=True)
    assert [record["prompt"] for record in asked] == [record["prompt"] for record in plain]
    assert [call["texts"] for call in echo_model.calls[:3]] == [call["texts"] for call in echo_model.calls[3:]]
    assert echo_model.calls[0]["texts"] == [plain[0]["prompt"]]
    samples = TABLE.samples(TABLE.read(table()), lang=lang, single_pred_prompt=True)
    assert samples[0].prompt == plain[0]["prompt"] + request_
    assert all(a["text"] != b["text"] for a, b in zip(plain, asked, strict=True))


def test_all_rounds_asks_every_rotation_and_says_which_option_stood_where(ask, table):
    records = ask(model_vqa_mmbench, question_file=table(), all_rounds=True)
    assert [(record["question_id"], record["round_id"]) for record in records] == [
        *((241, turn) for turn in range(4)), *((1000241, turn) for turn in range(2)), *((7, turn) for turn in range(3))
    ]  # fmt: skip
    second = records[7]
    assert (second["options"], second["option_char"]) == (["2", "3", "1"], ["B", "C", "A"])
    assert second["prompt"] == "How many\t?\nA. 2\nB. 3\nC. 1"


@pytest.mark.parametrize("all_rounds", [False, True])
def test_the_scorer_reads_what_is_written(ask, table, all_rounds):
    path = table()
    answers = ask(model_vqa_mmbench, question_file=path, all_rounds=all_rounds)
    right = {int(row["index"]): row["answer"] for row in MMBENCH.truth[0].read(path)}
    for answer in answers:
        answer["text"] = "ABCD"[answer["option_char"].index(right[answer["question_id"]])]
    assert MMBENCH.score(Given(answers, annotations=[MMBENCH.truth[0].read(path)])).value == 100


def test_palette_grey_and_transparent_images_are_seen_as_they_look(ask, table):
    grey, red = [241, "Q", "", "x", "", "", "", "A", picture("L", 76)], (200, 0, 0)
    palette = Image.new("RGB", (20, 10), red).convert("P", palette=Image.Palette.ADAPTIVE)
    content = BytesIO()
    palette.save(content, "PNG")
    rows = [grey, [*grey[:-1], base64.b64encode(content.getvalue()).decode()], [*grey[:-1], picture("RGB", red)]]
    texts = [record["text"] for record in ask(model_vqa_mmbench, question_file=table(rows))]
    assert texts[0] != texts[1] == texts[2]


def spoiled(column, value):
    row = list(ROWS[1])
    row[COLUMNS.index(column)] = value
    return [ROWS[0], row]


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("image", "no base64!", r"mm\.tsv, row 2 \(index 1000241\): the image is not base64"),
        ("image", "", "row 2 .*: the cell of column image is empty"),
        ("A", "", "row 2 .*: the cell of column A is empty"),
        ("question", "", "row 2 .*: the cell of column question is empty"),
        *(("index", index, rf"mm\.tsv, index {index}.*: the index is not a number") for index in ("one", "", "\u0663")),
    ],
)
def test_a_cell_that_cannot_be_used_is_named_before_the_model_loads(ask, table, loads, column, value, complaint):
    with pytest.raises(InputError, match=complaint):
        ask(model_vqa_mmbench, question_file=table(spoiled(column, value)))
    assert loads == []


def test_an_image_that_cannot_be_decoded_names_its_question(ask, table):
    rows = spoiled("image", base64.b64encode(b"<html>").decode())
    with pytest.raises(InputError, match="question 1000241: cannot read its image"):
        ask(model_vqa_mmbench, question_file=table(rows))


@pytest.mark.parametrize("column", ["image", "hint", "D"])
def test_a_missing_column_is_named(ask, table, column):
    columns = [name for name in COLUMNS if name != column]
    with pytest.raises(InputError, match=rf"mm\.tsv: no column {column}"):
        ask(model_vqa_mmbench, question_file=table([row[: len(columns)] for row in ROWS], columns))


def test_options_that_are_not_asked_are_counted(ask, table):
    columns = [*COLUMNS[:7], "E", *COLUMNS[7:]]
    rows = [[*ROWS[0][:7], "fifth", *ROWS[0][7:]], [*ROWS[1][:5], "", "behind a gap", "", *ROWS[1][7:]]]
    rows.append([*ROWS[2][:7], "", *ROWS[2][7:]])
    records = ask(model_vqa_mmbench, question_file=table(rows, columns))
    assert [record["metadata"].get("options_dropped") for record in records] == [1, 1, None]


def test_words_that_stand_for_images_are_taken_out_and_counted(ask, table):
    rows = [[*ROWS[0][:1], "Which <image>?", "<im<image>age>", *ROWS[0][3:]], ROWS[1]]
    first, second = ask(model_vqa_mmbench, question_file=table(rows))
    assert first["metadata"]["placeholders"] == 3 and "placeholders" not in second["metadata"]
