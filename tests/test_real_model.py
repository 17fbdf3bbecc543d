"""What only the real base model shows: it is fetched, it loads, and PEFT agrees with it to the last digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from multiprompt.config import PromptConfig
from multiprompt.engine.adapter import to_adapter, write_adapter
from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import constant_tokens, encode_pairs
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.engine.prompt import new_prompt

pytestmark = pytest.mark.slow
DESCRIPTION = "What is the sentiment of the film review? Options: good, bad.\n\n"
TEXTS = ("a fine film", "two hours that I want back, and the music is no better than the plot", "well")
CHOICES = (" good", " bad", " not so good")


@pytest.fixture(scope="module")
def real_base() -> Iterator[BaseModel]:
    torch.set_num_threads(2)
    yield load_base_model(locate("smollm2-135m"), "float32")
    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_log_likelihoods_agree_with_peft_to_1e_4(real_base: BaseModel, tmp_path: Path) -> None:
    prompt = new_prompt(real_base, PromptConfig(init="sample-vocab"), DESCRIPTION, seed=3)
    write_adapter(to_adapter(prompt), tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(real_base.folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(model, tmp_path / "adapter").eval()

    with torch.inference_mode():
        prefix = real_base.forward.compile_prefix(
            real_base, prompt.virtual_tokens(), constant_tokens(real_base, DESCRIPTION)
        )
    contexts = [f"{DESCRIPTION}{text}\nAnswer:" for text in TEXTS]
    ours = score_choices(real_base, [ChoiceRequest(prefix, context, CHOICES) for context in contexts])
    for context, scores in zip(contexts, ours, strict=True):
        for (head, answer), score in zip(
            encode_pairs(real_base, [context] * len(CHOICES), CHOICES), scores, strict=True
        ):
            with torch.inference_mode():
                logits = theirs(input_ids=torch.tensor([head + answer])).logits[0, -len(answer) - 1 : -1]
            expected = logits.log_softmax(-1)[torch.arange(len(answer)), answer].sum().item()
            assert score == pytest.approx(expected, abs=1e-4)


def test_the_default_base_model_is_what_its_digests_say(real_base: BaseModel) -> None:
    record = real_base.record
    assert record.revision == "gguf:sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (record.architecture, real_base.hidden_size, real_base.max_tokens) == ("LlamaForCausalLM", 576, 8192)
    assert sorted(
        path.suffix for path in real_base.folder.iterdir() if path.suffix in (".bin", ".pt", ".safetensors")
    ) == [".safetensors"]
