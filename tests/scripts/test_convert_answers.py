"""The scripts that turn answers into what a benchmark's server takes."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from openpyxl import load_workbook

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def convert(monkeypatch):
    def run(script, **flags):
        words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
        monkeypatch.setattr(sys, "argv", [script, *words])
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")

    return run


def answers(*pairs, **fields):
    return [{"question_id": qid, "prompt": "?", "text": text, **fields} for qid, text in pairs]


def test_gqa_gets_lower_case_predictions_without_closing_periods(put, convert, tmp_path):
    source = put("a.jsonl", answers(("05", "Yes."), ("7", "A dog")))
    convert("convert_gqa_for_eval", src=source, dst=tmp_path / "new folder/p.json")
    assert json.loads((tmp_path / "new folder/p.json").read_text()) == [
        {"questionId": "05", "prediction": "yes"},
        {"questionId": "7", "prediction": "a dog"},
    ]


def test_mmvet_gets_texts_by_versioned_id(put, convert, tmp_path):
    convert(
        "convert_mmvet_for_eval", src=put("a.jsonl", answers((0, "A\tlong\nanswer."), (17, ""))), dst=tmp_path / "r"
    )
    assert (tmp_path / "r").read_text() == '{\n  "v1_0": "A\\tlong\\nanswer.",\n  "v1_17": ""\n}'


class TestVizWiz:
    QUESTIONS = (
        {"question_id": 1, "image": "b.jpg", "text": "What?"},
        {"question_id": 0, "image": "a.jpg", "text": "What?"},
    )

    def files(self, put, tmp_path, *pairs):
        return {
            "annotation_file": put("llava_test.jsonl", self.QUESTIONS),
            "result_file": put("a.jsonl", answers(*pairs)),
            "result_upload_file": tmp_path / "upload.json",
        }

    def test_gets_normalised_answers_in_question_order(self, put, convert, tmp_path):
        convert("convert_vizwiz_for_submission", **self.files(put, tmp_path, (0, "Two dogs"), (1, "Unanswerable")))
        assert json.loads((tmp_path / "upload.json").read_text()) == [
            {"image": "b.jpg", "answer": "unanswerable"},
            {"image": "a.jpg", "answer": "2 dogs"},
        ]

    def test_wants_every_question_answered(self, put, convert, tmp_path):
        with pytest.raises(SystemExit, match=r"1 without an answer, such as '0'.*--result-file .*a\.jsonl"):
            convert("convert_vizwiz_for_submission", **self.files(put, tmp_path, (1, "Unanswerable")))
        assert not (tmp_path / "upload.json").exists()


class TestVqav2:
    @pytest.fixture
    def folder(self, put, tmp_path):
        put("llava_vqav2_mscoco_test2015.jsonl", [{"question_id": qid} for qid in (3, 1, 2)])
        put("answers/dev/ckpt/merge.jsonl", answers((1, "The Two."), (3, "it's")))
        return tmp_path

    EXPECTED = (
        {"question_id": 3, "answer": "it 's"},
        {"question_id": 1, "answer": "2"},
        {"question_id": 2, "answer": ""},
    )

    def test_gets_an_answer_for_every_question_of_the_test_split(self, folder, convert):
        paths = {"src": "answers/dev/ckpt/merge.jsonl", "dst": "answers_upload/vtn 64.json"}
        convert("convert_vqav2_for_submission", dir=folder, **paths)
        assert json.loads((folder / "answers_upload/vtn 64.json").read_text()) == list(self.EXPECTED)

    def test_knows_llavas_layout(self, folder, convert):
        convert("convert_vqav2_for_submission", dir=folder, split="dev", ckpt="ckpt")
        assert json.loads((folder / "answers_upload/dev/ckpt.json").read_text()) == list(self.EXPECTED)

    @pytest.mark.parametrize("paths", [{}, {"src": "a"}, {"src": "a", "dst": "b", "ckpt": "c"}])
    def test_wants_one_of_the_two_ways_to_name_files(self, folder, convert, paths):
        with pytest.raises(SystemExit, match="give either --ckpt"):
            convert("convert_vqav2_for_submission", dir=folder, **paths)

    def test_refuses_answers_to_other_questions_and_broken_lines(self, folder, put, convert):
        put("answers/dev/ckpt/merge.jsonl", answers((1, "yes"), (8, "no")))
        with pytest.raises(SystemExit, match=r"merge\.jsonl: 1 answers are to no question of .*such as 8"):
            convert("convert_vqav2_for_submission", dir=folder, split="dev", ckpt="ckpt")
        (folder / "answers/dev/ckpt/merge.jsonl").write_text('{"question_id": 1, "te')
        with pytest.raises(SystemExit, match=r"merge\.jsonl, line 1: not valid JSON"):
            convert("convert_vqav2_for_submission", dir=folder, split="dev", ckpt="ckpt")


class TestSeed:
    ANNOTATION = {
        "question_type": {"Scene Understanding": 1},
        "questions": [
            {"question_id": "0012", "question_type_id": 1, "data_type": "image", "answer": "A"},
            {"question_id": "v3", "question_type_id": 1, "data_type": "video", "answer": "B"},
        ],
    }

    def files(self, put, tmp_path, *pairs):
        return {
            "annotation_file": put("SEED-Bench.json", self.ANNOTATION),
            "result_file": put("a.jsonl", answers(*pairs)),
            "result_upload_file": tmp_path / "upload/seed.jsonl",
        }

    def test_gets_predictions_and_prints_accuracies(self, put, convert, tmp_path, capsys):
        convert("convert_seed_for_submission", **self.files(put, tmp_path, ("v3", "A"), (12, "A")))
        lines = (tmp_path / "upload/seed.jsonl").read_text().splitlines()
        assert list(map(json.loads, lines)) == [
            {"question_id": "0012", "prediction": "A"},
            {"question_id": "v3", "prediction": "A"},
        ]
        assert "Total accuracy: 50.00%" in capsys.readouterr().out

    def test_wants_every_question_answered(self, put, convert, tmp_path):
        with pytest.raises(SystemExit, match=r"1 of 2 questions have no answer, such as 'v3'"):
            convert("convert_seed_for_submission", **self.files(put, tmp_path, (12, "A")))


class TestMmbench:
    HEADER = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit\n"
    ROWS = (
        "2\tWho?\t\tNone\tBob\t\t\tA\tx\t/9j/\ts\ty\t\tdev\n"
        "1000002\tWho?\thint\tBob\tNone\t3\t4\tB\tx\t/9j/\ts\ty\t\tdev\n"
    )

    def files(self, put, tmp_path, records, table=HEADER + ROWS):
        put("answers/n_64/r_0.5.jsonl", records)
        return {
            "annotation_file": put("mmbench_dev.tsv", table),
            "result_dir": tmp_path / "answers/n_64",
            "upload_dir": tmp_path / "upload",
            "experiment": "r_0.5",
        }

    def test_gets_the_table_with_predictions_in_the_seventh_column(self, put, convert, tmp_path):
        records = [*answers((1000002, "B\x07"), (2, "A\nB"), round_id=0), *answers((2, "C"), round_id=1)]
        convert("convert_mmbench_for_submission", **self.files(put, tmp_path, records))
        rows = list(load_workbook(tmp_path / "upload/r_0.5.xlsx").active.values)
        assert rows[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
        assert rows[1] == (2, "Who?", "None", "Bob", None, None, "A\nB", "A", "dev")
        assert rows[2] == (1000002, "Who?", "Bob", "None", "3", "4", "B", "B", "dev")

    def test_keeps_what_a_spreadsheet_takes_for_a_formula(self, put, convert, tmp_path):
        table = "index\tquestion\tA\tB\n2\t=1+1?\t=blue\t#N/A\n"
        convert("convert_mmbench_for_submission", **self.files(put, tmp_path, answers((2, "=B")), table))
        row = load_workbook(tmp_path / "upload/r_0.5.xlsx").active[2]
        assert [(cell.value, cell.data_type) for cell in row[1:]] == [
            ("=1+1?", "s"),
            ("=blue", "s"),
            ("#N/A", "s"),
            ("=B", "s"),
        ]

    def test_without_openpyxl_the_error_says_how_to_install_it(self, put, convert, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "openpyxl", None)
        records = answers((1000002, "B"), (2, "A"))
        with pytest.raises(SystemExit, match=r"needs openpyxl.*: pip install '\.\[eval\]'"):
            convert("convert_mmbench_for_submission", **self.files(put, tmp_path, records))
        assert not (tmp_path / "upload").exists()

    @pytest.mark.parametrize("index", ["", "x", "1.5", "9" * 5000])
    def test_names_an_index_that_is_no_number(self, put, convert, tmp_path, index):
        table = f"index\tquestion\tA\tB\n{index}\tWho?\tAnn\tBob\n"
        with pytest.raises(SystemExit, match=r"mmbench_dev\.tsv, index .*: the index is not a number"):
            convert("convert_mmbench_for_submission", **self.files(put, tmp_path, answers((2, "A")), table))

    def test_names_an_index_that_two_rows_have(self, put, convert, tmp_path):
        table = "index\tquestion\tA\tB\n" + 2 * "0\tWho?\tAnn\tBob\n"
        with pytest.raises(SystemExit, match=r"mmbench_dev\.tsv: two rows have the same index, 0"):
            convert("convert_mmbench_for_submission", **self.files(put, tmp_path, answers((0, "A"), (0, "B")), table))

    def test_does_without_the_columns_it_drops(self, put, convert, tmp_path):
        table = "index\tquestion\tA\tB\n2\tWho?\tAnn\tBob\n"
        convert("convert_mmbench_for_submission", **self.files(put, tmp_path, answers((2, "A")), table))
        rows = list(load_workbook(tmp_path / "upload/r_0.5.xlsx").active.values)
        assert rows == [("index", "question", "A", "B", "prediction"), (2, "Who?", "Ann", "Bob", "A")]

    def test_wants_every_row_answered(self, put, convert, tmp_path):
        with pytest.raises(SystemExit, match="1 without an answer, such as '1000002'"):
            convert("convert_mmbench_for_submission", **self.files(put, tmp_path, answers((2, "A"))))

    def test_names_the_columns_that_a_table_lacks(self, put, convert, tmp_path):
        with pytest.raises(SystemExit, match=r"mmbench_dev\.tsv: no column question"):
            convert(
                "convert_mmbench_for_submission",
                **self.files(put, tmp_path, answers((2, "A")), "index\tA\tB\n1\t2\t3\n"),
            )
