"""Every benchmark for real, on a handful of questions: the script asks the embedded model and scores its answers."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

REPOSITORY = Path(__file__).parents[2]
WHICH = "llava-shapes/divprune/vtn_9"
ONE_WORD = "\nAnswer the question using a single word or phrase."
CHOICES = "\nA. red\nB. blue"


def asked(*lines, suffix=ONE_WORD):
    return [
        {"question_id": qid, "image": image, "text": text + suffix, "category": category}
        for qid, image, text, category in lines
    ]


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (80, 60), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def mmbench_table() -> str:
    image = base64.b64encode(picture()).decode()
    columns = "index question hint A B C D answer category image source l2-category comment split".split()
    rows = [
        [7, "Which color?", "", "red", "blue", "", "", "A", "color", image, "s", "look", "", "dev"],
        [1000007, "Which color?", "", "blue", "red", "", "", "B", "color", image, "s", "look", "", "dev"],
    ]
    return "\n".join("\t".join(map(str, row)) for row in [columns, *rows]) + "\n"


SCIENCE = [
    {"id": "4", "image": "4/image.png", "conversations": [{"from": "human", "value": f"<image>\nWhich?{CHOICES}"}]},
    {"id": "5", "conversations": [{"from": "human", "value": f"Which?{CHOICES}"}]},
]
QUALITY = [{"img_path": "a.png", "question": "Is it sharp?", "candidates": ["Yes", "No"], "correct_ans": "Yes"}]
POPE = [("a.png", f"Is there a {thing} in the image?") for thing in ("dog", "cat", "cow")]
CATEGORIES = ("random", "popular", "adversarial")

FILES = {
    "vqav2/llava_vqav2_mscoco_test-dev2015.jsonl": asked((1, "a.png", "Which?", "x")),
    "vqav2/llava_vqav2_mscoco_test2015.jsonl": asked((1, "a.png", "Which?", "x"), (2, "a.png", "What?", "x")),
    "vqav2/test2015/a.png": picture(),
    "gqa/llava_gqa_testdev_balanced.jsonl": asked(
        ("01", "a.png", "Is it red?", "x"), ("02", "a.png", "What is it?", "x")
    ),
    "gqa/data/images/a.png": picture(),
    "gqa/data/questions/testdev_balanced_questions.json": {
        number: {
            "question": "What?",
            "answer": "yes",
            "isBalanced": True,
            "types": {"structural": "verify", "semantic": "attr"},
            "semantic": [],
            "groups": {"global": "thing"},
        }
        for number in ("01", "02")
    },
    "vizwiz/llava_test.jsonl": asked((0, "a.png", "What is this?", "x")),
    "vizwiz/test/a.png": picture(),
    "scienceqa/llava_test_CQM-A.json": SCIENCE,
    "scienceqa/pid_splits.json": {"test": ["4", "5"]},
    "scienceqa/problems.json": {
        pid: {"choices": ["red", "blue"], "answer": 0, "image": image}
        for pid, image in (("4", "image.png"), ("5", None))
    },
    "scienceqa/images/test/4/image.png": picture(),
    "textvqa/llava_textvqa_val_v051_ocr.jsonl": asked(
        ("a", "a.png", "What does it say?\nReference OCR token: stop", "x")
    ),
    "textvqa/TextVQA_0.5.1_val.json": {
        "data": [{"image_id": "a", "question": "what does it say?", "answers": ["stop"] * 10}]
    },
    "textvqa/train_images/a.png": picture(),
    "pope/llava_pope_test.jsonl": asked(
        *((i, image, text, category) for i, ((image, text), category) in enumerate(zip(POPE, CATEGORIES, strict=True)))
    ),
    "pope/val2014/a.png": picture(),
    **{
        f"pope/coco/coco_pope_{category}.json": json.dumps({"image": image, "text": text, "label": "no"}) + "\n"
        for (image, text), category in zip(POPE, CATEGORIES, strict=True)
    },
    "MME/llava_mme.jsonl": asked(
        *(("existence/a.png", "existence/a.png", f"Is there a {thing} in this image?", "x") for thing in ("dog", "cat"))
    ),
    "MME/MME_Benchmark_release_version/existence/a.png": picture(),
    "MME/MME_Benchmark_release_version/existence/a.txt": "".join(
        f"Is there a {thing} in this image? Please answer yes or no.\tNo\n" for thing in ("dog", "cat")
    ),
    "mmbench/mmbench_dev_20230712.tsv": mmbench_table(),
    "mmbench_cn/mmbench_dev_cn_20231003.tsv": mmbench_table(),
    "mm-vet/llava-mm-vet.jsonl": asked((0, "a.png", "What is it?", "x"), suffix=""),
    "mm-vet/mm-vet.json": {"v1_0": {"capability": ["rec"], "question": "What is it?", "answer": "red"}},
    "mm-vet/images/a.png": picture(),
    "seed_bench/llava-seed-bench.jsonl": asked(
        (5, "SEED-Bench-image/5", "Which?", "x"), ("v6", "video/6.png", "Which?", "x")
    ),
    "seed_bench/SEED-Bench-image/5": picture(),
    "seed_bench/video/6.png": picture(),
    "seed_bench/SEED-Bench.json": {
        "question_type": {"Scene": 1, "Action": 10},
        "questions": [
            {"question_id": "5", "question_type_id": 1, "data_type": "image", "answer": "A"},
            {"question_id": "v6", "question_type_id": 10, "data_type": "video", "answer": "B"},
        ],
    },
    "llava-bench-in-the-wild/questions.jsonl": asked((0, "a.png", "What is it?", "conv"), suffix=""),
    "llava-bench-in-the-wild/images/a.png": picture(),
    "qbench/llvisionqa_dev.json": QUALITY,
    "qbench/质衡-问答-验证集.json": QUALITY,
    "qbench/images_llvisionqa/a.png": picture(),
}
UPLOADS = {
    "vqav2": "vqav2/answers_upload/llava_vqav2_mscoco_test-dev2015",
    "vizwiz": "vizwiz/answers_upload/llava_test",
    "mmvet": "mm-vet/answers_upload/llava-mm-vet",
}
SCORED = {
    "gqa": "gqa/answers/llava_gqa_testdev_balanced",
    "sqa": "scienceqa/answers/llava_test_CQM-I",
    "textvqa": "textvqa/answers/llava_textvqa_val_v051_ocr",
    "pope": "pope/answers/llava_pope_test",
    "mme": "MME/answers/llava_mme",
    "mmbench": "mmbench/answers/mmbench_dev_20230712",
    "mmbench_cn": "mmbench_cn/answers/mmbench_dev_cn_20231003",
    "seed": "seed_bench/answers/llava-seed-bench",
    "qbench": "qbench/answers/dev",
    "qbench_zh": "qbench/answers/zh_dev",
    "shapes": "shapes/answers/shapes_test",
}


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a playground")
    (folder / "scripts").symlink_to(REPOSITORY / "scripts")
    for name, content in FILES.items():
        path = folder / "playground/data/eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(record) + "\n" for record in content))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    write_benchmark(folder / "playground/data/eval/shapes", split="test", num_questions=6, seed=2)
    return folder


def run(playground, benchmark, *options, **environment):
    checkpoint = Path(checkpoint_path())
    environment |= {"CKPT": checkpoint.name, "CKPT_DIR": str(checkpoint.parent), "PYTHONPATH": str(REPOSITORY)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", f"scripts/v1_5/eval/{benchmark}.sh", "9", "--pruner", "divprune", "--device", "cpu", *options]
    command += ["--num_workers", "0"]
    result = subprocess.run(command, cwd=playground, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "benchmark", [pytest.param(name, marks=[] if name == "shapes" else pytest.mark.slow) for name in SCORED]
)
def test_a_script_ends_with_a_score(playground, benchmark):
    run(playground, benchmark)
    result = json.loads((playground / "playground/data/eval" / SCORED[benchmark] / f"{WHICH}.json").read_text())
    assert result["benchmark"] == benchmark and result["missing"] == 0
    assert result["value"] is not None and result["count"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", UPLOADS)
def test_or_with_a_file_to_submit(playground, benchmark):
    output = run(playground, benchmark)
    upload = playground / "playground/data/eval" / UPLOADS[benchmark] / f"{WHICH}.json"
    assert f"{UPLOADS[benchmark]}/{WHICH}.json to https://" in output and json.loads(upload.read_text())


@pytest.mark.slow
def test_mmbenchs_answers_go_to_its_server_as_a_table(playground):
    data = playground / "playground/data/eval/mmbench"
    (data / "mmbench_test_20230712.tsv").write_text(mmbench_table())
    assert "to https://mmbench" in run(playground, "mmbench", "--split", "mmbench_test_20230712")
    assert (data / "answers_upload/mmbench_test_20230712" / f"{WHICH}.xlsx").is_file()


@pytest.mark.slow
def test_stored_reviews_are_added_up_by_the_next_run_on_any_number_of_devices(playground):
    first = run(playground, "llavabench", CUDA_VISIBLE_DEVICES="0,1")
    assert "not scored here" in first
    reviews = playground / "playground/data/eval/llava-bench-in-the-wild/reviews/questions" / f"{WHICH}.jsonl"
    reviews.parent.mkdir(parents=True)
    reviews.write_text(json.dumps({"question_id": 0, "category": "llava_bench_conv", "tuple": [8, 4]}) + "\n")
    assert "50.0" in run(playground, "llavabench", CUDA_VISIBLE_DEVICES="0")


@pytest.mark.slow
def test_a_launcher_gives_the_same_answers(playground):
    place = playground / "playground/data/eval/pope/answers/llava_pope_test" / f"{WHICH}.jsonl"
    run(playground, "pope", "--overwrite", "--dtype", "float32")
    alone = place.read_text().splitlines()
    run(playground, "pope", "--overwrite", "--dtype", "float32", "--launcher", "torchrun", CUDA_VISIBLE_DEVICES="0,1")
    launched = place.read_text().splitlines()
    texts = [[json.loads(line)["text"] for line in lines] for lines in (alone, launched)]
    assert len(texts[0]) == 3 and texts[0] == texts[1]
