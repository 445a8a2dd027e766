"""The first questions alone: asked, named and noted, and never gone on with as if they were all."""

import json

import pytest

from llava.command import run_program
from llava.eval import model_vqa_loader, model_vqa_science
from llava.eval.ask.plan import plan_of
from llava.eval.ask.plan_video import video_plan
from llava.records import InputError


def places(questions):
    return {"question_file": questions.file, "image_folder": questions.images}


def test_the_first_questions_are_asked_and_say_so(ask, questions):
    every = ask(model_vqa_loader, **places(questions))
    some = ask(model_vqa_loader, **places(questions), limit=3)
    assert [line["text"] for line in some] == [line["text"] for line in every[:3]]
    assert [line["metadata"]["run"]["limit"] for line in some] == [3, 3, 3]
    assert "limit" not in every[0]["metadata"]["run"]


def test_a_limit_of_all_questions_is_one_and_a_larger_one_is_refused(ask, questions):
    assert len(ask(model_vqa_loader, **places(questions), limit=7)) == 7
    with pytest.raises(InputError, match=r"--limit 8: .*questions\.jsonl has 7 questions; leave it out"):
        ask(model_vqa_loader, **places(questions), limit=8)


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "all"])
def test_what_is_no_number_of_questions_is_refused(limit, capsys):
    for program in (model_vqa_loader, model_vqa_science):
        with pytest.raises(SystemExit):
            run_program(program.build_parser(), program.eval_model, ["--limit", limit])
        assert "argument --limit: " in capsys.readouterr().err


@pytest.mark.parametrize(("before", "now"), [(3, None), (None, 3), (3, 4)])
def test_answers_to_other_numbers_of_questions_are_not_gone_on_with(ask, questions, before, now):
    ask(model_vqa_loader, **places(questions), limit=before)
    with pytest.raises(InputError, match=f"limit: {json.dumps(before)}, now {json.dumps(now)}"):
        ask(model_vqa_loader, **places(questions), limit=now, overwrite=False)


def test_a_limited_run_goes_on_where_it_was_cut(ask, questions, tmp_path, echo_model):
    whole = ask(model_vqa_loader, **places(questions), limit=4)
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:2]))
    echo_model.calls.clear()
    again = ask(model_vqa_loader, **places(questions), limit=4, overwrite=False)
    assert [line["text"] for line in again] == [line["text"] for line in whole]
    assert sum(call["rows"] for call in echo_model.calls) == 2


def test_the_first_questions_are_what_processes_share(ask, questions):
    shares = [ask(model_vqa_loader, **places(questions), limit=5, num_chunks=2, chunk_idx=index) for index in (0, 1)]
    assert [len(share) for share in shares] == [3, 2]
    prompts = [line["prompt"] for share in shares for line in share]
    assert prompts == [line["text"] for line in questions.lines[:5]]


def test_a_script_passes_the_limit_on_and_names_files_by_it():
    plan = plan_of(["gqa", "v1_5", "64", "--limit", "100"], {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert plan.answers.endswith("gqa/answers/llava_gqa_testdev_balanced/llava-v1.5-7b/cdpruner/vtn_64_limit100.jsonl")
    assert all("--limit 100" in " ".join(command) for command in plan.asking)
    assert plan.scoring[-4:-2] == ["--limit", "100"] and plan.scoring[-1].endswith("vtn_64_limit100.json")
    assert plan.parts[0].endswith("vtn_64_limit100/2_0.jsonl")
    assert "--limit" not in plan_of(["gqa", "v1_5", "64"], {}).scoring


def test_what_a_server_scores_is_not_submitted_in_part():
    plan = plan_of(["vqav2", "v1_5", "64", "--limit=100"], {})
    assert plan.scoring == [] and plan.submission.startswith("nothing, as https://eval.ai")
    judged = plan_of(["mmvet", "v1_5", "64", "--limit=100"], {})
    assert judged.scoring[:2] == ["submit", "mmvet"] and "vtn_64_limit100" in judged.submission


def test_videos_have_a_limit_too():
    (command,), answers = video_plan(["q.jsonl", "videos", "16", "--limit", "5"], {})
    assert command[-4:-2] == ["--limit", "5"] and answers.endswith("vtn_16_limit5.jsonl")
