"""VQAv2: open questions about COCO images. https://arxiv.org/abs/1612.00837."""

from llava.eval.tasks.base import SHORT, Images, Task, asked

TEST = asked("llava_vqav2_mscoco_test2015", 447793)

VQAV2 = Task(
    name="vqav2",
    title="VQAv2",
    folder="vqav2",
    asks=SHORT,
    splits=asked("llava_vqav2_mscoco_test-dev2015", 107394) | TEST,
    images=Images("test2015", "http://images.cocodataset.org/zips/test2015.zip"),
    annotations=(*TEST.values(),),  # a submission covers every question of the test
    scored=lambda split: False,
    server="https://eval.ai/web/challenges/challenge-page/830",
    upload=".json",
)
