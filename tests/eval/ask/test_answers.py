import contextlib
import errno
import json
import multiprocessing
import resource
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.eval.ask.answers import AnswersFile, appending
from llava.records import InputError

EXPECTED = [{"question_id": i // 2, "prompt": f"Q{i}"} for i in range(5)]
SETTINGS = {"pruner": "divprune", "options": {"visual_token_num": 64}}


def answer(index):
    return {**EXPECTED[index], "text": f"answer {index}\n\u00fc", "answer_id": str(index)}


def answers_at(path, expected=EXPECTED, **changes):
    return AnswersFile(path, expected, SETTINGS | changes)


def complete(path, rank=None, indices=None, finish=True, **changes):
    """One run: answer what is missing, or only ``indices`` of it; returns what was missing."""
    answers = answers_at(path, **changes)
    with answers.claim() as missing:
        wanted = missing if indices is None else indices
        with answers.writer(rank) as write:
            for index in wanted:
                write(index, answer(index))
        if finish:
            answers.finish()
    return missing


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


WHOLE = [answer(index) for index in range(5)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "vtn_64.jsonl"


def test_a_run_starts_with_every_question_and_ends_with_every_answer(path):
    assert complete(path) == [0, 1, 2, 3, 4]
    assert lines(path) == WHOLE
    header = json.loads((path.parent / "vtn_64.jsonl.run").read_text())
    assert header["settings"] == SETTINGS and {"cpu", "gpu", "threads", "date"} <= header["environment"].keys()


def test_a_finished_run_has_nothing_left_to_do(path):
    complete(path)
    content = path.read_bytes()
    assert complete(path) == [] and path.read_bytes() == content


def test_wherever_a_run_is_cut_off_the_next_one_completes_it(path):
    complete(path)
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert complete(path) == list(range(whole, 5))
        assert lines(path) == WHOLE


def test_an_answer_is_on_disk_as_soon_as_it_is_written(path):
    with appending(path) as write:
        write({"text": "ja\n\u00fc"})
        assert path.read_text() == '{"text": "ja\\n\\u00fc"}\n'


def test_other_settings_are_refused_with_the_difference_and_nothing_is_touched(path):
    complete(path, indices=[0, 1], finish=False)
    content = path.read_bytes() + b'{"question_id'
    path.write_bytes(content)
    with (
        pytest.raises(InputError) as refusal,
        answers_at(path, options={"visual_token_num": 32}, dtype="float16").claim(),
    ):
        pass
    message = str(refusal.value)
    assert 'options: {"visual_token_num": 64}, now {"visual_token_num": 32}; dtype: null, now "float16"' in message
    assert "pruner" not in message and "--overwrite" in message and str(path) in message
    assert path.read_bytes() == content


def test_overwriting_starts_anew_with_the_settings_of_now(path):
    complete(path)
    complete(path, rank=1, indices=[1], finish=False)
    answers = answers_at(path, pruner="random")
    with answers.claim(overwrite=True) as missing:
        assert missing == [0, 1, 2, 3, 4] and path.read_bytes() == b""
    assert complete(path, pruner="random") == [0, 1, 2, 3, 4]


def test_settings_of_a_run_without_a_single_answer_bind_nobody(path):
    complete(path, indices=[], finish=False)
    assert complete(path, pruner="random") == [0, 1, 2, 3, 4]


def test_answers_of_unknown_origin_are_refused_and_kept(path):
    path.parent.mkdir()
    path.write_text(json.dumps(answer(0)) + "\n")
    with pytest.raises(InputError, match=r"jsonl\.run does not say how the answers in .*--overwrite"):
        complete(path)
    assert lines(path) == [answer(0)]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda lines: [lines[0], lines[0], *lines[2:]], 'line 2 answers another question: prompt is "Q0", not "Q1"'),
        (lambda lines: [*lines, lines[0]], "line 6: there are only 5 questions"),
        (lambda lines: [lines[0], b'{"question_id": 0, "pro\n', *lines[2:]], "line 2: not valid JSON"),
        (lambda lines: [lines[0][:-2] + b', "metadata": 3}\n', *lines[1:]], "line 1: the value of 'metadata' is of"),
    ],
)
def test_a_file_that_was_edited_is_refused_naming_the_line(path, damage, complaint):
    complete(path)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(InputError, match=complaint):
        complete(path)


def test_a_run_that_ends_early_is_not_finished(path):
    with pytest.raises(InputError, match="2 of 5 answers are missing, the first of them to question number 4"):
        complete(path, indices=[0, 1, 2])


def in_another_process(path, told, hold):
    try:
        with answers_at(path).claim() as missing:
            told.send(missing)
            if hold:
                signal.pause()
    except InputError as error:
        told.send(str(error))


@contextlib.contextmanager
def another_process(path, hold):
    fork = multiprocessing.get_context("fork")
    heard, told = fork.Pipe(duplex=False)
    process = fork.Process(target=in_another_process, args=(path, told, hold))
    process.start()
    try:
        yield process, heard.recv()
    finally:
        process.kill()
        process.join()


def test_a_second_run_on_the_same_file_is_refused(path):
    with answers_at(path).claim(), another_process(path, hold=False) as (_, heard):
        assert heard == f"{path}.run: another process is writing here"


def test_a_run_that_was_killed_holds_nothing(path):
    with another_process(path, hold=True) as (process, missing):
        assert missing == [0, 1, 2, 3, 4]
        with pytest.raises(InputError, match="another process is writing here"):
            complete(path)
        process.kill()
        process.join()
        assert complete(path) == [0, 1, 2, 3, 4]


def test_worker_processes_of_a_killed_run_hold_nothing(path):
    """Processes that decode images inherit the open file, and notice seconds later that their run is dead."""
    with answers_at(path).claim():
        worker = multiprocessing.get_context("fork").Process(target=signal.pause)
        worker.start()
    try:
        assert complete(path) == [0, 1, 2, 3, 4]
    finally:
        worker.kill()
        worker.join()


def test_a_file_system_without_locks_is_warned_about(path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    complete(path)
    assert "No locks available" in caplog.text and lines(path) == WHOLE


@pytest.mark.parametrize("rank", [None, 1])
@pytest.mark.parametrize("room", [0, 1, 60, 150])
def test_on_a_full_disk_whole_lines_remain_and_a_rerun_continues(path, room, rank):
    answers = answers_at(path)
    with answers.claim() as missing, pytest.raises(InputError, match=r"cannot write .*jsonl: .* a rerun continues"):
        with answers.writer(rank) as write:
            for index in missing:
                with file_size_limit(room):
                    write(index, answer(index))
    content = b"".join(file.read_bytes() for file in ([path] if rank is None else answers.parts()) if file.exists())
    assert content == b"" or content.endswith(b"\n")
    assert complete(path, rank) == list(range(content.count(b"\n"), 5))
    assert lines(path) == WHOLE


def test_a_full_disk_at_the_start_is_an_error_that_names_the_file(path):
    with file_size_limit(0), pytest.raises(InputError, match=r"cannot write .*vtn_64\.jsonl\.run: File too large"):
        complete(path)
    assert complete(path) == [0, 1, 2, 3, 4]


def test_a_full_disk_while_merging_loses_nothing(path):
    complete(path, rank=0, finish=False)
    with file_size_limit(100), pytest.raises(InputError, match=r"cannot write .*vtn_64\.jsonl"):
        answers_at(path).finish()
    assert complete(path, rank=0) == [] and lines(path) == WHOLE


@contextlib.contextmanager
def file_size_limit(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_parts_of_several_processes_are_merged_in_question_order(path):
    complete(path, rank=0, indices=[0, 2, 4], finish=False)
    (path.parent / "vtn_64" / "0.log").write_text("a log")
    assert complete(path, rank=1, indices=[1, 3]) == [1, 3]
    assert lines(path) == WHOLE
    assert [entry.name for entry in (path.parent / "vtn_64").iterdir()] == ["0.log"]


def test_a_folder_that_held_nothing_but_parts_is_removed(path):
    complete(path, rank=0)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["vtn_64.jsonl", "vtn_64.jsonl.run"]


def test_parts_count_as_answers_when_settings_change(path):
    complete(path, rank=3, indices=[4], finish=False)
    with pytest.raises(InputError, match="answers of another run: pruner"):
        complete(path, pruner="random")


def test_answers_without_a_suffix_have_their_parts_elsewhere(tmp_path):
    complete(tmp_path / "answers", rank=0)
    assert lines(tmp_path / "answers") == WHOLE


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6), st.binary(max_size=3)), max_size=4))
def test_runs_of_any_number_of_processes_complete_each_other(tmp_path_factory, runs):
    """Each run is killed after some answers, in the middle of a line."""
    path = tmp_path_factory.mktemp("runs") / "a.jsonl"
    for count, survived, torn in runs:
        answers = answers_at(path)
        with answers.claim() as missing:
            alone = count == 1 and not answers.parts()
            for rank in range(count):
                share = missing[rank::count]
                with answers.writer(None if alone else rank) as write:
                    for index in share[:survived] if alone else share[::-1][:survived]:
                        write(index, answer(index))
                last = path if alone else answers.folder / f"rank{rank:05}.jsonl"
                last.write_bytes(last.read_bytes() + torn.replace(b"\n", b""))
    answers = answers_at(path)
    with answers.claim() as missing:
        with answers.writer(0 if answers.parts() else None) as write:
            for index in missing:
                write(index, answer(index))
        answers.finish()
    assert lines(path) == WHOLE
