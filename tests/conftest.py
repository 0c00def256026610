"""Settings shared by every test: one torch thread per worker, and the Hypothesis profiles."""

from __future__ import annotations

import os

# Before torch starts its pools: the suite runs one worker per core, and more threads than cores only wait.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# Nothing in the suite may reach for a hub or a display.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

settings.register_profile(
    "fast",
    max_examples=25,
    deadline=None,  # the first example pays for compilation and imports
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    settings.get_profile("fast"),
    max_examples=1000,
    derandomize=False,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator, so that a test's numbers do not depend on which tests ran before it."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws without a generator is the same in every run, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer():
    """CLIP's, of single characters."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=77)


@pytest.fixture(scope="session")
def clip(tokenizer):
    """CLIP with random weights."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from pgm_sync.evaluation import Clip

    words = len(tokenizer)
    text = {"vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, **size}, vision_config={**size, "image_size": 16, "patch_size": 4}, projection_dim=8
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return Clip(CLIPModel(config), tokenizer, processor)
