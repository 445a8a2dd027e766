"""Dry runs of every benchmark's script: the questions asked, the images they are about, how answers are scored."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
EVAL = "./playground/data/eval"
WHICH = "llava-v1.5-7b/cdpruner/vtn_64"
ENVIRONMENT = {"DATA_DIR": "big disk/data"}


@dataclass
class Facts:
    """What a script should do: `{E}` stands for its benchmark's folder in the playground, `{D}` for that in the data,
    `{A}` for its answers, `{S}` for its split and `{W}` for checkpoint, pruner and setting."""

    folder: str
    split: str
    images: str | None
    scorer: str
    scoring: dict[str, str]
    loader: str = "model_vqa_loader"
    questions: str = "{E}/{S}.jsonl"
    extra: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def native(annotation: str, **more: str) -> dict[str, str]:
    return {"--annotation-file": annotation, "--result-file": "{A}.jsonl", "--output": "{A}.json", **more}


def uploaded(annotation: str) -> dict[str, str]:
    upload = "{E}/answers_upload/{S}/{W}.json"
    return {"--annotation-file": annotation, "--result-file": "{A}.jsonl", "--result-upload-file": upload}


def mmbench(lang: str, split: str, folder: str) -> Facts:
    return Facts(
        folder,
        split,
        None,
        f"score {folder}",
        native("{D}/{S}.tsv"),
        "model_vqa_mmbench",
        "{D}/{S}.tsv",
        {"--lang": lang},
        ("--single-pred-prompt",),
    )


def qbench(lang: str, split: str, questions: str, name: str) -> Facts:
    return Facts(
        "qbench",
        split,
        "{D}/images_llvisionqa",
        f"score {name}",
        native(questions),
        "model_vqa_qbench",
        questions,
        {"--lang": lang, "--conv-mode": "llava_v1"},
    )


FACTS = {
    "vqav2": Facts(
        "vqav2",
        "llava_vqav2_mscoco_test-dev2015",
        "{D}/test2015",
        "convert_vqav2_for_submission",
        {"--dir": "{E}", "--src": "answers/{S}/{W}.jsonl", "--dst": "answers_upload/{S}/{W}.json"},
    ),
    "gqa": Facts(
        "gqa",
        "llava_gqa_testdev_balanced",
        "{D}/data/images",
        "score gqa",
        native("{D}/data/questions/testdev_balanced_questions.json"),
    ),
    "vizwiz": Facts(
        "vizwiz", "llava_test", "{D}/test", "convert_vizwiz_for_submission", uploaded("{E}/llava_test.jsonl")
    ),
    "sqa": Facts(
        "scienceqa",
        "llava_test_CQM-I",
        "{D}/images/test",
        "eval_science_qa",
        {"--base-dir": "{D}", "--result-file": "{A}.jsonl", "--output": "{A}.json"},
        "model_vqa_science",
        "{E}/{S}.json",
        flags=("--single-pred-prompt",),
    ),
    "textvqa": Facts(
        "textvqa",
        "llava_textvqa_val_v051_ocr",
        "{D}/train_images",
        "eval_textvqa",
        native("{D}/TextVQA_0.5.1_val.json"),
    ),
    "pope": Facts(
        "pope",
        "llava_pope_test",
        "{D}/val2014",
        "eval_pope",
        {
            "--annotation-dir": "{D}/coco",
            "--question-file": "{E}/{S}.jsonl",
            "--result-file": "{A}.jsonl",
            "--output": "{A}.json",
        },
    ),
    "mme": Facts(
        "MME",
        "llava_mme",
        "{D}/MME_Benchmark_release_version",
        "score mme",
        {"--data-dir": "{D}/MME_Benchmark_release_version", "--result-file": "{A}.jsonl", "--output": "{A}.json"},
    ),
    "mmbench": mmbench("en", "mmbench_dev_20230712", "mmbench"),
    "mmbench_cn": mmbench("cn", "mmbench_dev_cn_20231003", "mmbench_cn"),
    "mmvet": Facts(
        "mm-vet",
        "llava-mm-vet",
        "{D}/images",
        "convert_mmvet_for_eval",
        {"--src": "{A}.jsonl", "--dst": "{E}/answers_upload/{S}/{W}.json"},
        "model_vqa",
    ),
    "seed": Facts("seed_bench", "llava-seed-bench", "{D}", "score seed", native("{D}/SEED-Bench.json")),
    "llavabench": Facts("llava-bench-in-the-wild", "questions", "{D}/images", "", {}, "model_vqa"),
    "qbench": qbench("en", "dev", "{E}/llvisionqa_dev.json", "qbench"),
    "qbench_zh": qbench("zh", "zh_dev", "{E}/质衡-问答-验证集.json", "qbench_zh"),
    "shapes": Facts(
        "shapes",
        "shapes_test",
        "{D}/images",
        "score shapes",
        native("{D}/{S}_labels.jsonl"),
        questions="{D}/{S}.jsonl",
    ),
}


def filled(text: str, facts: Facts, split: str | None = None) -> str:
    which = WHICH.replace("llava-v1.5-7b", "llava-shapes") if facts.folder == "shapes" else WHICH
    places = {"E": f"{EVAL}/{facts.folder}", "D": f"big disk/data/{facts.folder}", "S": split or facts.split}
    return text.format(A=f"{places['E']}/answers/{places['S']}/{which}", W=which, **places)


@pytest.fixture
def data(workplace):
    """What the scripts look for before they ask: ScienceQA's questions with images, and the drawn shapes."""
    for name in ("scienceqa/llava_test_CQM-I.json", "shapes/shapes_test.jsonl", "shapes/shapes_test_labels.jsonl"):
        for folder in (workplace.folder / "playground/data/eval", workplace.folder / "big disk/data"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def test_every_script_is_described_here():
    assert {path.stem for path in (SCRIPTS / "v1_5/eval").glob("*.sh")} == set(FACTS)
    assert {path.stem for path in (SCRIPTS / "v1_6/eval").glob("*.sh")} == set(FACTS) - {"shapes"}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("v1_*/eval/*.sh")), ids=lambda path: path.stem)
def test_a_wrapper_is_two_lines_on_the_body_of_its_name(script):
    first, second = script.read_text().splitlines()
    version = script.parts[-3]
    assert first == "#!/usr/bin/env bash"
    assert second == f'exec bash "$(dirname "$0")/../../eval/{script.stem}.sh" {version} "$@"'


@pytest.mark.parametrize("benchmark", sorted(FACTS))
class TestEveryBenchmark:
    def test_asks_its_questions_and_scores_the_answers(self, workplace, data, benchmark):
        facts = FACTS[benchmark]
        asked = workplace.ask(f"bash scripts/v1_5/eval/{benchmark}.sh 64 --batch_size 2", **ENVIRONMENT)
        assert asked.module == f"llava.eval.{facts.loader}" and asked.device is None
        questions = "--questions-file" if facts.loader == "model_vqa_qbench" else "--question-file"
        expected = {questions: facts.questions, "--answers-file": "{A}.jsonl", **facts.extra}
        expected |= {"--image-folder": facts.images} if facts.images else {}
        common = {
            "--visual_token_num": "64",
            "--pruner": "cdpruner",
            "--temperature": "0",
            "--conv-mode": "vicuna_v1",
            "--anyres": "native",
            "--num-chunks": "1",
            "--batch_size": "2",
        }
        for option, value in (common | expected).items():
            assert asked[option] == filled(value, facts), option
        assert set(facts.flags) <= set(asked.options)

        scored = workplace.work()[1:]
        names = [call.module.removeprefix("llava.eval").lstrip(". ") for call in scored]
        assert names == [facts.scorer] * bool(facts.scorer)
        for call in scored:
            assert {option: call[option] for option in facts.scoring} == {
                option: filled(value, facts) for option, value in facts.scoring.items()
            }

    def test_gives_every_program_what_its_command_line_takes(self, workplace, data, benchmark):
        workplace.ask(f"bash scripts/v1_5/eval/{benchmark}.sh 64 0.5 --batch_size 2 --on-error skip", **ENVIRONMENT)
        for call in workplace.calls():
            args = call.parser().parse_args(call.options)
            assert "--chunk-idx" not in call.options or (args.pruner, args.important_ratio) == ("vispruner", 0.5)

    def test_explains_itself_when_the_budget_is_missing(self, workplace, benchmark):
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh")
        assert result.returncode == 2
        assert f"usage: bash scripts/v1_5/eval/{benchmark}.sh TOKENS" in result.stderr
        assert workplace.calls() == []

    def test_a_failed_process_of_three_stops_it_before_scoring(self, workplace, data, benchmark):
        workplace.trouble = "1"
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", CUDA_VISIBLE_DEVICES="0,1,2", **ENVIRONMENT)
        assert result.returncode == 1 and "vtn_64/3_1.log" in result.stderr
        assert [call["--chunk-idx"] for call in workplace.asking()] == ["0", "1", "2"]
        assert all("--chunk-idx" in call.options for call in workplace.work())

    def test_looks_at_its_data_first(self, workplace, benchmark):
        workplace.trouble = "data"
        assert workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT).returncode == 1
        (doctor,) = workplace.calls()
        assert doctor.module == "llava.eval doctor" and doctor.options[0] == benchmark
        assert doctor["--split"] == FACTS[benchmark].split
        assert (doctor["--eval-dir"], doctor["--data-dir"]) == (EVAL, "big disk/data")


@pytest.mark.parametrize("benchmark", sorted(set(FACTS) - {"shapes"}))
def test_the_same_body_serves_llava_next(workplace, data, benchmark):
    asked = workplace.ask(f"bash scripts/v1_6/eval/{benchmark}.sh 32 --pruner divprune")
    assert asked["--anyres"] == "fixed"
    assert asked["--model-path"] == "./checkpoints/llava-v1.6-vicuna-7b"
    assert asked["--answers-file"].endswith("/llava-v1.6-vicuna-7b/divprune/vtn_32.jsonl")


class TestSplits:
    @pytest.mark.parametrize(
        ("benchmark", "split", "questions", "scorer"),
        [
            ("vqav2", "llava_vqav2_mscoco_test2015", "{E}/{S}.jsonl", "convert_vqav2_for_submission"),
            ("sqa", "llava_test_CQM-A", "{E}/{S}.json", "eval_science_qa"),
            ("mmbench", "mmbench_test_20230712", "{D}/{S}.tsv", "convert_mmbench_for_submission"),
            ("mmbench_cn", "mmbench_test_cn_20231003", "{D}/{S}.tsv", "convert_mmbench_for_submission"),
            ("qbench", "test", "{E}/llvisionqa_test.json", None),
            ("qbench_zh", "zh_test", "{E}/质衡-问答-测试集.json", None),
        ],
    )
    def test_another_one_may_be_named(self, workplace, benchmark, split, questions, scorer):
        facts = FACTS[benchmark]
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64 --split {split}", **ENVIRONMENT)
        assert result.returncode == 0, result.stderr
        asked, *scored = workplace.work()
        assert asked["--questions-file" if "qbench" in benchmark else "--question-file"] == filled(
            questions, facts, split
        )
        assert f"/answers/{split}/{WHICH}.jsonl" in asked["--answers-file"]
        assert "--split" not in asked.options
        assert [call.module.removeprefix("llava.eval").lstrip(". ") for call in scored] == [scorer] * bool(scorer)
        assert benchmark == "sqa" or "not scored here: submit " in result.stdout
        for call in scored:
            call.parser().parse_args(call.options)

    def test_one_that_does_not_exist_is_refused_with_those_that_do(self, workplace):
        result = workplace.run("bash scripts/v1_5/eval/qbench.sh 64 --split=train")
        assert result.returncode == 2 and "unknown split train; valid values: dev test" in result.stderr
        assert workplace.calls() == []

    def test_mmbenchs_upload_is_named_after_the_answers(self, workplace):
        command = "bash scripts/v1_5/eval/mmbench.sh --keep_ratio 0.25 --split mmbench_test_20230712"
        result = workplace.run(command)
        (call,) = workplace.calls("convert_mmbench_for_submission")
        assert call["--experiment"] == "ratio_0.25"
        upload = "./playground/data/eval/mmbench/answers_upload/mmbench_test_20230712/llava-v1.5-7b/cdpruner"
        assert call["--upload-dir"] == upload
        assert f"submit {upload}/ratio_0.25.xlsx to https://mmbench" in result.stdout


class TestScienceQA:
    def test_the_questions_with_an_image_are_selected_when_their_file_is_absent(self, workplace):
        workplace.ask("bash scripts/v1_5/eval/sqa.sh 64")
        made, asked, _ = workplace.work()
        assert made.module == "select_image_questions"
        assert made["--src"] == f"{EVAL}/scienceqa/llava_test_CQM-A.json"
        assert made["--dst"] == asked["--question-file"] == f"{EVAL}/scienceqa/llava_test_CQM-I.json"
        made.parser().parse_args(made.options)

    def test_and_left_alone_when_it_is_there_or_not_asked_for(self, workplace, data):
        workplace.run("bash scripts/v1_5/eval/sqa.sh 64")
        (workplace.folder / EVAL / "scienceqa/llava_test_CQM-I.json").unlink()
        workplace.run("bash scripts/v1_5/eval/sqa.sh 64 --split llava_test_CQM-A")
        assert len(workplace.asking()) == 2 and workplace.calls("select_image_questions") == []


@pytest.mark.parametrize(
    ("benchmark", "folder", "stored", "annotation"),
    [
        ("mmvet", "mm-vet", "grades/llava-mm-vet/{W}.json", {"--annotation-file": "{D}/mm-vet.json"}),
        ("llavabench", "llava-bench-in-the-wild", "reviews/questions/{W}.jsonl", {"--question-file": "{E}/{S}.jsonl"}),
    ],
)
def test_stored_judgements_are_added_up(workplace, benchmark, folder, stored, annotation):
    facts = FACTS[benchmark]
    first = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT)
    stored = Path(EVAL) / folder / stored.format(W=WHICH)
    assert "not scored here" in first.stdout and f"put its {stored.parts[4]} at ./{stored}" in first.stdout
    (workplace.folder / stored).parent.mkdir(parents=True)
    (workplace.folder / stored).touch()
    assert "not scored" not in workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT).stdout
    scored = workplace.calls()[-1]
    assert scored.module == f"llava.eval score {benchmark}"
    assert scored["--result-file"] == f"./{stored}"
    for option, value in (annotation | {"--output": "{A}.json"}).items():
        assert scored[option] == filled(value, facts)
    scored.parser().parse_args(scored.options)


def test_gqas_annotations_may_lie_beside_the_images_as_in_llava(workplace):
    beside = workplace.folder / EVAL / "gqa/data/testdev_balanced_questions.json"
    beside.parent.mkdir(parents=True)
    beside.touch()
    workplace.ask("bash scripts/v1_5/eval/gqa.sh 64")
    assert workplace.calls()[-1]["--annotation-file"] == f"{EVAL}/gqa/data/testdev_balanced_questions.json"
