import json
import os
import resource
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.records import (
    InputError,
    check_output,
    check_writable,
    get_chunk,
    read_json,
    read_jsonl,
    read_lines,
    replace_file,
    split_list,
)

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
        (b'{"question_id": 1, "text": "caf\xe9"}', "not UTF-8 (byte 0xe9); save it as UTF-8"),
        (b'{"question_id": 1, "text": "\x00"}', "a NUL byte, so damaged, or not UTF-8"),
        (b'{"question_id": NaN, "text": ""}', "not valid JSON (NaN is no number)"),
        (b'{"question_id": 1, "text": "", "share": -Infinity}', "not valid JSON (-Infinity is no number)"),
        (b'{"question_id": 1, "text": "", "share": 1e999}', "not valid JSON (1e999 is no number)"),
        (b'{"question_id": 1, "text": "a", "text": "b"}', "the key 'text' stands twice in one object"),
        (b'{"question_id": 1, "text": "\\ud83d"}', "\\ud83d is half of a surrogate pair"),
        (b"[" * 100_000, "too deep"),
        (b'{"question_id": true, "text": ""}', "the value of 'question_id' is of the wrong type: true"),
        (b'{"question_id": 1.5, "text": ""}', "the value of 'question_id' is of the wrong type: 1.5"),
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


def test_files_as_windows_saves_them_are_read_alike(tmp_path):
    mark, lines = (
        b"\xef\xbb\xbf",
        [b'{"question_id": 1, "text": "caf\xc3\xa9"}', b'{"question_id": 2, "text": "\\ud83d\\ude00"}'],
    )
    plain = read_jsonl(question_file(tmp_path, *lines), KEYS)
    path = question_file(tmp_path, mark + lines[0] + b"\r", b"\r", mark + lines[1] + b"\r", b" \r", b"")
    assert (
        read_jsonl(path, KEYS)
        == plain
        == [{"question_id": 1, "text": "café"}, {"question_id": 2, "text": "\U0001f600"}]
    )
    path.write_bytes(mark + b'\r\n{"a":\r\n [1]}\r\n')
    assert read_json(path, dict) == {"a": [1]}
    path.write_bytes(mark + "one\u2028two\r\nthree".encode())
    assert read_lines(path) == ["one\u2028two", "three"]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_text_in_another_coding_is_told_with_its_line(tmp_path, coding):
    path = tmp_path / "annotation.json"
    path.write_bytes('{"question":\n "café"}'.encode(coding))
    with pytest.raises(
        InputError, match=rf"annotation\.json, line {2 if coding in ('latin-1', 'utf-16-le') else 1}: .*UTF-8"
    ):
        read_json(path, dict)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"a": 1,\n "b": [0, NaN]}', r"\(NaN is no number in line 2\)"),
        ('{"a":\n "NaN",\n "b": -Infinity}', r"\(-Infinity is no number in line 3\)"),
        ('{"a": 1,\n "a": 2}', "stands twice"),
        ('{"a": 1,\n "b" 2}', "line 2 column 6"),
        ('{"a": 1,\n "b": "\\uDC00"}', r"\\udc00 is half of a surrogate pair in line 2"),
        ("[1]", "expected a JSON object"),
        (f'{{"a": 1,\n "b": {"9" * 400}}}', "a number of 400 digits in line 2"),
    ],
)
def test_what_python_alone_would_read_is_told_with_its_line(tmp_path, content, complaint):
    path = tmp_path / "annotation.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"annotation\.json: .*{complaint}"):
        read_json(path, dict)


def test_a_value_of_another_type_is_not_repeated_at_length(tmp_path):
    path = question_file(tmp_path, json.dumps({"question_id": 1, "text": ["x" * 10_000]}).encode())
    with pytest.raises(InputError) as error:
        read_jsonl(path, KEYS)
    assert len(str(error.value)) < 300


def test_keys_that_may_be_missing_have_types_too(tmp_path):
    path = question_file(tmp_path, b'{"question_id": 1, "text": ""}', b'{"question_id": 1, "text": "", "metadata": 3}')
    with pytest.raises(InputError, match="line 2: the value of 'metadata' is of the wrong type: 3"):
        read_jsonl(path, KEYS, {"metadata": dict})


@pytest.mark.parametrize("name", ["~nobody-of-this-name/a.jsonl", "a\0b.jsonl"])
def test_names_that_no_file_can_have_are_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    uses = (partial(read_jsonl, name, KEYS), partial(replace_file, name, ""), partial(check_writable, name))
    for use in (*uses, partial(check_output, name)):
        with pytest.raises(InputError, match=r"nobody-of-this-name|a\0b"):
            use()
    assert not os.listdir()


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        replace_file(name, "new")
    assert not os.listdir()


def test_half_of_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    replace_file(tmp_path / "r.json", '"\ud83d é"')
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == '"\\ud83d é"'


def test_looking_whether_an_output_can_be_written_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "new" / "r.json")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "new" / "r.json").write_text("old")
    check_output(tmp_path / "new" / "r.json")
    assert (tmp_path / "new" / "r.json").read_text() == "old"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\r\n"])
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


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    kept, link = tmp_path / "elsewhere" / "r.json", tmp_path / "r.json"
    link.symlink_to(kept)
    check_output(link)
    for content in ("new", "newer"):
        replace_file(link, content)
        assert link.is_symlink() and kept.read_text() == content
    assert sorted(tmp_path.rglob("*")) == [kept.parent, kept, link]


def test_what_is_no_file_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(pipe, "new")
    assert os.read(reader, 9) == b"new" and pipe.is_fifo()
    with pytest.raises(InputError, match="cannot write /dev/full: No space left"):
        replace_file("/dev/full", "new")


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*r\.json"):
        replace_file(tmp_path / "file" / "r.json", "new")
