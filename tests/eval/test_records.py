import json
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.records import InputError, check_writable, get_chunk, read_jsonl, replace_file, split_list

KEYS = {"question_id": (int, str), "text": str}


def question_file(tmp_path, *lines):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_reads_one_object_per_line_and_keeps_repeated_ids(tmp_path):
    path = question_file(tmp_path, b'{"question_id": "a", "text": "one"}', b"", b'{"question_id": "a", "text": "two"}')
    assert [record["text"] for record in read_jsonl(path, KEYS)] == ["one", "two"]


def test_a_line_separator_inside_a_question_does_not_end_the_line(tmp_path):
    text = "one\u2028two\x85three"
    path = question_file(tmp_path, json.dumps({"question_id": 1, "text": text}, ensure_ascii=False).encode())
    assert read_jsonl(path, KEYS)[0]["text"] == text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"question_id": 1, "text": "cut o', "not valid JSON"),
        (b'{"question_id": 1, "text": "\xff"}', "not valid JSON"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b'{"question_id": 1}', "the key 'text' is missing"),
        (b'{"question_id": 1, "text": null}', "the value of 'text' is of the wrong type: null"),
    ],
)
def test_a_broken_line_is_named_with_its_file(tmp_path, line, complaint):
    path = question_file(tmp_path, b'{"question_id": 0, "text": "fine"}', b"", line)
    with pytest.raises(InputError) as error:
        read_jsonl(path, KEYS)
    assert f"{path}, line 3" in str(error.value) and complaint in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_question_file_is_an_error(tmp_path, content):
    with pytest.raises(InputError, match=r"questions\.jsonl is empty"):
        read_jsonl(question_file(tmp_path, content), KEYS)


def test_a_question_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.jsonl: No such file"):
        read_jsonl(tmp_path / "absent.jsonl", KEYS)


def test_makes_the_folder_of_the_answers_and_leaves_old_answers_alone(tmp_path):
    path = tmp_path / "new folder" / "answers.jsonl"
    check_writable(path)
    path.write_text("old")
    assert check_writable(str(path)) == path and path.read_text() == "old"


def test_an_answers_file_needs_no_folder_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_writable("answer.jsonl").exists()


def test_answers_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "answers.jsonl"):
        with pytest.raises(InputError, match=f"cannot write {bad}"):
            check_writable(bad)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 60))
def test_the_chunks_are_always_n_and_together_are_the_list(items, n):
    chunks = split_list(items, n)
    assert len(chunks) == n and [item for chunk in chunks for item in chunk] == items
    assert [get_chunk(items, n, k) for k in range(n)] == chunks


def test_chunks_are_cut_where_llava_cuts_them():
    assert split_list(list(range(10)), 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_more_chunks_than_questions_leave_the_last_ones_empty():
    assert split_list(list(range(9)), 6) == [[0, 1], [2, 3], [4, 5], [6, 7], [8], []]
    assert get_chunk([7], 4, 3) == []


@pytest.mark.parametrize(("n", "k", "flag"), [(0, 0, "--num-chunks"), (2, 2, "--chunk-idx"), (2, -1, "--chunk-idx")])
def test_a_chunk_that_cannot_be_names_the_flag(n, k, flag):
    with pytest.raises(InputError, match=flag):
        get_chunk([1, 2, 3], n, k)


@pytest.mark.parametrize("content", ["café", "café".encode()])
def test_a_file_is_replaced_as_a_whole_with_its_folders(tmp_path, content):
    for _ in range(2):
        replace_file(tmp_path / "new folder" / "r.json", content)
    assert [path.read_bytes() for path in (tmp_path / "new folder").iterdir()] == ["café".encode()]


def test_a_full_disk_leaves_what_the_file_held(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*r\.json: File too large"):
            replace_file(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*r\.json"):
        replace_file(tmp_path / "file" / "r.json", "new")
