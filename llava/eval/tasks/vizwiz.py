"""VizWiz: questions by blind people about their photographs. https://arxiv.org/abs/1802.08218."""

from llava.eval.tasks.base import SHORT, Images, Task, asked

VIZWIZ = Task(
    name="vizwiz",
    title="VizWiz",
    folder="vizwiz",
    asks=SHORT,
    splits=asked("llava_test", 8000),
    images=Images("test", "test.zip at https://vizwiz.org/tasks-and-datasets/vqa"),
    scored=lambda split: False,
    server="https://eval.ai/web/challenges/challenge-page/2185",
    upload=".json",
)
