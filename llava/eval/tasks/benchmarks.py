"""The facts of every benchmark, in one table: where its files lie, what they hold, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass

EVAL_ZIP = "unpack LLaVA's eval.zip, linked from https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md"
POPE_RELEASE = "https://github.com/AoiDragon/POPE/tree/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"
SCIENCE_QA = "https://github.com/lupantech/ScienceQA, data/scienceqa"
SEED_BENCH = "https://huggingface.co/datasets/AILab-CVPR/SEED-Bench"
Q_BENCH = "https://github.com/Q-Future/Q-Bench"
MMBENCH = "https://download.openmmlab.com/mmclassification/datasets"
LLAVA_BENCH = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"
MM_VET = "https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip"
ASKED = ("question_id", "image", "text")
POPE_LABEL = ("image", "text", "label")
OPTIONS = ("index", "question", "A", "B", "image")


@dataclass(frozen=True)
class DataFile:
    """A file that a benchmark reads.

    Args:
        path: relative to the benchmark's folder.
        source: where to get it, as the end of a sentence.
        rows: how many records it holds, None where nobody says.
        keys: what every record, or the table's header, must have.
        in_data: it lies below the data (images and annotations), not below the questions.
        elsewhere: a second place where it may lie.
        member: the key of the file's object that holds the records, if not all do.
        lines: one JSON object per line; said by the name where it ends in ``.jsonl``.
        made_from: the benchmark's script makes it, if it is absent, from this file, or from nothing.
    """

    path: str
    source: str
    rows: int | None = None
    keys: tuple[str, ...] = ()
    in_data: bool = False
    elsewhere: str = ""
    member: str = ""
    lines: bool = False
    made_from: str | None = None


@dataclass(frozen=True)
class Images:
    """The folder, below the data, that the questions' images lie in."""

    path: str
    source: str
    key: str = "image"  # what a question calls its image


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark reads, and how its result compares.

    Args:
        title: its name in tables.
        folder: below the folder of all benchmarks, for questions, data and answers.
        splits: the question file of every split, the usual split first.
        images: None where the question file holds them.
        annotations: what scoring the usual split reads; empty where a server or a judge scores.
        scored_by: who scores, where it is not this package alone.
        per_percent: points of the metric that count as one percent in an average over benchmarks.
    """

    title: str
    folder: str
    splits: Mapping[str, DataFile]
    images: Images | None
    annotations: tuple[DataFile, ...] = ()
    scored_by: str = ""
    per_percent: float = 1.0

    @property
    def usual_split(self) -> str:
        """The split that is asked unless another one is named."""
        return next(iter(self.splits))


def _asked(split: str, rows: int | None, source: str = EVAL_ZIP) -> dict[str, DataFile]:
    return {split: DataFile(f"{split}.jsonl", source, rows, ASKED)}


def _mmbench(split: str, rows: int | None = None) -> dict[str, DataFile]:
    source = f"{MMBENCH}/{'mmbench_cn' if '_cn_' in split else 'mmbench'}/{split}.tsv"
    columns = (*OPTIONS, "answer") if "_dev_" in split else OPTIONS  # the test splits' answers are the server's
    return {split: DataFile(f"{split}.tsv", source, rows, columns, in_data=True)}


def _qbench(**files: str) -> dict[str, DataFile]:
    keys = ("img_path", "question", "candidates")
    return {split: DataFile(name, Q_BENCH, None, keys) for split, name in files.items()}


VQAV2_TEST = _asked("llava_vqav2_mscoco_test2015", 447793)

BENCHMARKS: dict[str, Benchmark] = {
    "vqav2": Benchmark(
        "VQAv2",
        "vqav2",
        _asked("llava_vqav2_mscoco_test-dev2015", 107394) | VQAV2_TEST,
        Images("test2015", "http://images.cocodataset.org/zips/test2015.zip"),
        (*VQAV2_TEST.values(),),
        scored_by="EvalAI challenge 830, whose submission covers every test question",
    ),
    "gqa": Benchmark(
        "GQA",
        "gqa",
        _asked("llava_gqa_testdev_balanced", 12578),
        Images("data/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip"),
        (
            DataFile(
                "data/testdev_balanced_questions.json",
                "https://downloads.cs.stanford.edu/nlp/data/gqa/questions1.2.zip",
                12578,
                ("answer", "isBalanced"),
                in_data=True,
                elsewhere="data/questions/testdev_balanced_questions.json",
            ),
        ),
    ),
    "vizwiz": Benchmark(
        "VizWiz",
        "vizwiz",
        _asked("llava_test", 8000),
        Images("test", "test.zip at https://vizwiz.org/tasks-and-datasets/vqa"),
        scored_by="EvalAI challenge 2185",
    ),
    "sqa": Benchmark(
        "SQA-IMG",
        "scienceqa",
        {
            "llava_test_CQM-I": DataFile(
                "llava_test_CQM-I.json",
                "no release holds it; scripts/eval/select_image_questions.py makes it from llava_test_CQM-A.json",
                2017,
                ("id", "conversations", "image"),
                made_from="llava_test_CQM-A.json",
            ),
            "llava_test_CQM-A": DataFile("llava_test_CQM-A.json", EVAL_ZIP, 4241, ("id", "conversations")),
        },
        Images("images/test", f"the test images of {SCIENCE_QA}"),
        (
            DataFile("pid_splits.json", SCIENCE_QA, 4241, in_data=True, member="test"),
            DataFile("problems.json", SCIENCE_QA, None, ("choices", "answer"), in_data=True),
        ),
    ),
    "textvqa": Benchmark(
        "TextVQA",
        "textvqa",
        _asked("llava_textvqa_val_v051_ocr", 5000),
        Images("train_images", "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip"),
        (
            DataFile(
                "TextVQA_0.5.1_val.json",
                "https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json",
                5000,
                ("image_id", "question", "answers"),
                in_data=True,
                member="data",
            ),
        ),
    ),
    "pope": Benchmark(
        "POPE",
        "pope",
        {"llava_pope_test": DataFile("llava_pope_test.jsonl", EVAL_ZIP, 8910, (*ASKED, "category"))},
        Images("val2014", "http://images.cocodataset.org/zips/val2014.zip"),
        tuple(
            DataFile(f"coco/coco_pope_{category}.json", POPE_RELEASE, rows, POPE_LABEL, in_data=True, lines=True)
            for category, rows in (("random", 2910), ("popular", 3000), ("adversarial", 3000))
        ),
    ),
    "mme": Benchmark(
        "MME",
        "MME",
        _asked("llava_mme", 2374),
        Images(
            "MME_Benchmark_release_version",
            "ask its authors: https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
        ),
        per_percent=20.0,  # perception comes to at most 2000
    ),
    "mmbench": Benchmark(
        "MMB",
        "mmbench",
        _mmbench("mmbench_dev_20230712", 4377) | _mmbench("mmbench_test_20230712"),
        None,
    ),
    "mmbench_cn": Benchmark(
        "MMB-CN",
        "mmbench_cn",
        _mmbench("mmbench_dev_cn_20231003") | _mmbench("mmbench_test_cn_20231003"),
        None,
    ),
    "mmvet": Benchmark(
        "MM-Vet",
        "mm-vet",
        _asked("llava-mm-vet", 218),
        Images("images", MM_VET),
        (DataFile("mm-vet.json", MM_VET, 218, ("capability",), in_data=True),),
        scored_by="GPT-4, at https://huggingface.co/spaces/whyu/MM-Vet_Evaluator",
    ),
    "seed": Benchmark(
        "SEED",
        "seed_bench",
        _asked("llava-seed-bench", 19242),
        Images(".", f"SEED-Bench-image.zip and the videos' frames (extract_video_frames.py of eval.zip), {SEED_BENCH}"),
        (DataFile("SEED-Bench.json", SEED_BENCH, 19242, ("question_id", "answer"), in_data=True, member="questions"),),
    ),
    "llavabench": Benchmark(
        "LLaVA-W",
        "llava-bench-in-the-wild",
        _asked("questions", 60, LLAVA_BENCH),
        Images("images", LLAVA_BENCH),
        scored_by="GPT-4, with LLaVA's eval_gpt_review_bench.py",
    ),
    "qbench": Benchmark(
        "Q-Bench",
        "qbench",
        _qbench(dev="llvisionqa_dev.json", test="llvisionqa_test.json"),
        Images("images_llvisionqa", Q_BENCH, key="img_path"),
    ),
    "qbench_zh": Benchmark(
        "Q-Bench-CN",
        "qbench",
        _qbench(zh_dev="质衡-问答-验证集.json", zh_test="质衡-问答-测试集.json"),
        Images("images_llvisionqa", Q_BENCH, key="img_path"),
    ),
    "shapes": Benchmark(
        "shapes",
        "shapes",
        {"shapes_test": DataFile("shapes_test.jsonl", "the script draws it", None, ASKED, in_data=True, made_from="")},
        Images("images", "the script draws them"),
        (
            DataFile(
                "shapes_test_labels.jsonl",
                "the script draws it",
                None,
                ("question_id", "answer"),
                in_data=True,
                made_from="",
            ),
        ),
    ),
}
"""By the name of the script that runs it."""
