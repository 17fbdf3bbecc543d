"""The other side: soft prompts the way a PEFT user runs them, with a plain loop, with Trainer, and with generate."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from multiprompt.engine.adapter import to_adapter, write_adapter
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.teaching import TrainingExample


def load(base: BaseModel) -> Any:
    """The same weights in a model of their own, with the attention that transformers chooses."""
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=base.dtype).to(base.device)


def padded(examples: Sequence[TrainingExample], device: torch.device) -> dict[str, Tensor]:
    """Right-padded ids, mask and labels, (rows, longest); labels at answers alone."""
    longest = max(map(len, examples))
    batch = {
        "input_ids": torch.zeros(len(examples), longest, dtype=torch.long),
        "attention_mask": torch.zeros(len(examples), longest, dtype=torch.long),
        "labels": torch.full((len(examples), longest), -100),
    }
    for row, example in enumerate(examples):
        tokens = torch.tensor([*example.context, *example.answer])
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["attention_mask"][row, : len(tokens)] = 1
        batch["labels"][row, len(example.context) : len(tokens)] = torch.tensor(example.answer)
    return {name: tensor.to(device) for name, tensor in batch.items()}


class PlainLoop:
    """PEFT with a training loop of a dozen lines."""

    def __init__(self, base: BaseModel, prompt: SoftPrompt, learning_rate: float) -> None:
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prompt.num_virtual_tokens)
        self.model = get_peft_model(load(base), config)
        self.parameter = self.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            self.parameter.copy_(prompt.output())
        self._optimizer = torch.optim.AdamW([self.parameter], lr=learning_rate, weight_decay=0.0)

    def step(self, examples: Sequence[TrainingExample]) -> float:
        loss = self.model(**padded(examples, self.parameter.device)).loss
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.parameter], 1.0)
        self._optimizer.step()
        return float(loss.item())


def train_until(
    base: BaseModel,
    prompt: SoftPrompt,
    training: Sequence[TrainingExample],
    validation: Sequence[TrainingExample],
    settings: dict[str, Any],
    target: float,
) -> tuple[int, float]:
    """PEFT with transformers' Trainer until the validation loss reaches `target`; (steps, last validation loss).

    `training` are the rows in the order in which they are taken.
    """
    loop = PlainLoop(base, prompt, 0.0)

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_evaluate(self, _args: Any, _state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            losses.append(metrics["eval_loss"])
            control.should_training_stop = losses[-1] <= target

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            eval_strategy="steps",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            prediction_loss_only=True,
            lr_scheduler_type="cosine",
            **settings,
        )
        trainer = InOrder(
            loop.model,
            arguments,
            train_dataset=list(training),
            eval_dataset=list(validation),
            data_collator=lambda rows: padded(rows, torch.device("cpu")),
            callbacks=[Stop()],
        )
        trainer.train()
        return trainer.state.global_step, losses[-1]


class Switching:
    """One PeftModel with an adapter a task, switched by set_adapter for each task's rows."""

    def __init__(self, base: BaseModel, prompts: dict[str, SoftPrompt]) -> None:
        self._tokenizer = base.tokenizer
        self.model: Any = None
        with tempfile.TemporaryDirectory() as folder:
            for name, prompt in prompts.items():
                write_adapter(to_adapter(prompt), Path(folder) / name)
                if self.model is None:
                    self.model = PeftModel.from_pretrained(load(base), Path(folder) / name, adapter_name=name).eval()
                else:
                    self.model.load_adapter(Path(folder) / name, adapter_name=name)

    def next_logits(self, name: str, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Logits behind each context, (rows, vocabulary)."""
        self.model.set_adapter(name)
        batch = padded([TrainingExample(tuple(context), ()) for context in contexts], self.model.device)
        del batch["labels"]
        with torch.inference_mode():
            logits = self.model(**batch).logits
        ends = torch.tensor([len(context) for context in contexts]) - 1
        width = logits.shape[1] - batch["input_ids"].shape[1]
        return logits[torch.arange(len(contexts)), width + ends].float()

    def generate(self, name: str, context: Sequence[int], tokens: int) -> list[int]:
        """Greedy tokens behind one context."""
        self.model.set_adapter(name)
        ids = torch.tensor([context], device=self.model.device)
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        return made[0, len(context) :].tolist()  # type: ignore[no-any-return]
