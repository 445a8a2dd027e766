"""Let every process of an environment import a torchvision that was built for another torch.

``python .ci/torchvision_operators.py`` puts this file into the environment that it is run in, so that Python imports it
when it starts. It declares the two operators that torchvision's import asks for, once somebody imports torchvision.
"""

import importlib.abc
import sys


class Declaring(importlib.abc.MetaPathFinder):
    """Finds nothing; declares the operators before others find torchvision."""

    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            Declaring.library = torch.library.Library("torchvision", "DEF")  # they are declared as long as it lives
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


def install() -> None:
    """Copy this file beside the packages, with a line that imports it."""
    import shutil
    import sysconfig
    from pathlib import Path

    packages = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, packages / "torchvision_operators.py")
    (packages / "torchvision_operators.pth").write_text("import torchvision_operators\n", encoding="utf-8")


if __name__ == "__main__":
    install()
else:
    sys.meta_path.insert(0, Declaring())
