"""What the tests of the embedded model's training need."""

import pytest
import sentencepiece
from packaging.version import Version


@pytest.fixture(scope="session")
def can_train_tokenizers() -> None:
    """Sentencepiece before 0.2.3 ends the process at the corpus of the embedded model."""
    if Version(sentencepiece.__version__) < Version("0.2.3"):
        pytest.skip(f"sentencepiece {sentencepiece.__version__} does not train on this corpus")
