"""Loading of base models: their files, their fingerprints, and their forward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights
from transformers.utils import logging

from multiprompt.engine.base import DTYPES, BaseModel
from multiprompt.engine.fingerprint import config_fingerprint, tokenizer_fingerprint, weights_fingerprint
from multiprompt.engine.folder import FLOATS, ModelFolder
from multiprompt.engine.hub import Source
from multiprompt.engine.plain import PlainForward
from multiprompt.engine.selfcheck import checked
from multiprompt.errors import BaseModelError, MultipromptError
from multiprompt.records import BaseModelRecord

# The most numbers that a config may describe beyond the weights in the files.
_NUMBERS_OF_ROOM = 100_000_000
_MAX_COMPUTED_NUMBERS = 2**31
# Tensors in files of older releases that a model computes by itself.
_COMPUTED = ("inv_freq", "masked_bias")
# In front of the names of a model that PEFT has wrapped.
_WRAPPED = "base_model.model."


def load_base_model(source: Source, dtype: str = "auto") -> BaseModel:
    """Load a base model from its folder. `dtype` is auto, float32, bfloat16 or float16.

    It reads the folder's own safetensors and runs none of its code. A self-check chooses the forward. Raises
    BaseModelError that names the folder.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise BaseModelError(f"dtype is {dtype!r}; it must be one of: auto, {', '.join(DTYPES)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = _fastest_dtype(device) if dtype == "auto" else dtype
    with _reading(source.folder):
        folder = ModelFolder.read(source.folder)
        weights = weights_fingerprint(folder.weights)
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
        _require_one_reading(source.folder, tokenizer)
        model = _model(folder, DTYPES[resolved])
        record = BaseModelRecord(
            name=source.name,
            source=source.reference,
            revision=source.revision,
            architecture=type(model).__name__,
            dtype=resolved,
            weights=weights,
            tokenizer=tokenizer_fingerprint(tokenizer),
            config=config_fingerprint(folder.settings, folder.generation),
        )
        folder.require_unchanged()
        frozen = model.requires_grad_(False).eval().to(device)
        base = BaseModel(frozen, tokenizer, record, source.folder, folder.states, PlainForward("it was not checked"))
        _require_embeddings(base)
        return checked(base)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Any error of transformers and tokenizers becomes a BaseModelError that names the folder."""
    try:
        yield
    except MultipromptError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        shown = said if len(said) <= 300 else f"{said[:300]}…"
        raise BaseModelError(
            f"{folder} cannot be loaded as a causal language model ({type(error).__name__}: {shown})."
        ) from error


def _fastest_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    cpu: Any = torch.cpu
    native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _model(folder: ModelFolder, dtype: torch.dtype) -> PreTrainedModel:
    """The model. Each tensor comes from the folder and has memory of its own."""
    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"), no_init_weights():
        described = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    _require_room(folder, described)
    _require_numbers(folder, described)
    load: Any = AutoModelForCausalLM.from_pretrained
    with _without_bars():
        model, info = load(
            folder.path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    for what, names in (("lacks", info["missing_keys"]), ("has other shapes for", info["mismatched_keys"])):
        if names:
            raise BaseModelError(
                f"{folder.path} {what} {_first(names)}, which {type(model).__name__} needs: give the whole model."
            )
    _require_one_name(folder, model)
    unused = [name for name in info["unexpected_keys"] if _would_matter(model, name)]
    if unused:
        raise BaseModelError(
            f"{folder.path} holds {_first(unused)}, which {type(model).__name__} as config.json describes it leaves "
            "out: give the config that belongs to the weights."
        )
    for tensor in (*model.parameters(), *model.buffers()):
        # transformers maps float32 files into memory, where whoever writes the file changes the model.
        tensor.data = tensor.data.clone()
    return cast("PreTrainedModel", model)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Turns the progress bars of transformers off, so that a program's own output stays clean."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _require_room(folder: ModelFolder, described: PreTrainedModel) -> None:
    """Refuse a config that describes far more numbers than the files hold."""
    numbers = sum(parameter.numel() for parameter in described.parameters())
    computed = sum(buffer.numel() for buffer in described.buffers())
    if numbers > 2 * folder.tensors.numbers + _NUMBERS_OF_ROOM or computed > _MAX_COMPUTED_NUMBERS:
        raise BaseModelError(
            f"{folder.path / 'config.json'} describes {numbers:,} weights and {computed:,} computed numbers, but the "
            f"files hold {folder.tensors.numbers:,}: give the config that belongs to the weights."
        )


def _require_numbers(folder: ModelFolder, described: PreTrainedModel) -> None:
    """Refuse quantised parameters; transformers would convert them without their scales."""
    parameters = {name for name, _ in described.named_parameters()}
    for name, dtype in sorted(folder.tensors.dtypes.items()):
        if dtype not in FLOATS and (name.endswith("weight") or parameters & set(_names_in(described, name))):
            raise BaseModelError(
                f"{folder.path} holds {name} as {dtype}, but weights must be {', '.join(FLOATS)}: give the model's "
                "unquantised weights."
            )


def _names_in(model: PreTrainedModel, name: str) -> tuple[str, ...]:
    """The names that a tensor of a file may have in a model: with and without the model's prefix."""
    prefix = f"{model.base_model_prefix}."
    return name, prefix + name, name.removeprefix(prefix)


def _require_one_name(folder: ModelFolder, model: PreTrainedModel) -> None:
    """Refuse a tensor with and without the model's prefix; transformers would take the one that it reads last."""
    prefix = f"{model.base_model_prefix}."
    for name in sorted(folder.tensors.names):
        if prefix + name in folder.tensors.names:
            raise BaseModelError(
                f"{folder.path} holds one tensor under two names, {name} and {prefix}{name}: keep one."
            )


def _would_matter(model: PreTrainedModel, name: str) -> bool:
    """True where an unused tensor belongs to a module of the model, or to a missing part of one."""
    if name.endswith(_COMPUTED):
        return False
    modules = {module for module, _ in model.named_modules()}
    buffers = {buffer for buffer, _ in model.named_buffers()}
    for known in _names_in(model, name.removeprefix(_WRAPPED)):
        parts = known.split(".")
        layers = [i for i, part in enumerate(parts) if part.isdigit() and ".".join(parts[:i]) in modules]
        parents = {".".join(parts[:-1]), ".".join(parts[:-2])} - {""}
        if known not in buffers and (parents & modules or layers):
            return True
    return False


def _first(names: Any) -> str:
    """The first three names, and the count of the others."""
    listed = sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more


def _require_one_reading(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises BaseModelError for a tokenizer that encodes a text at random, as some do in pre-training."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    dropout = getattr(model, "dropout", None)
    if dropout:
        raise BaseModelError(
            f"{path}: the tokenizer reads texts at random (dropout {dropout:.3g}): set dropout to null in "
            "tokenizer.json."
        )
    if (tokenizer.init_kwargs.get("sp_model_kwargs") or {}).get("enable_sampling"):
        raise BaseModelError(
            f"{path}: the tokenizer reads texts at random (enable_sampling): take it out of sp_model_kwargs in "
            "tokenizer_config.json."
        )


def _require_embeddings(base: BaseModel) -> None:
    """Raises BaseModelError where a file names a token that the model has no embedding for.

    Some classes of tokenizers add tokens that no file names. A text with such a token is refused when it is encoded.
    """
    numbers = dict(base.tokenizer.get_vocab())
    words = set(numbers) - set(base.tokenizer.get_added_vocab()) - set(base.tokenizer.all_special_tokens)
    if len(words) < 2:
        kind = type(base.tokenizer).__name__
        raise BaseModelError(f"{base.folder}: {kind} found no vocabulary in the folder: add the tokenizer's files.")
    _require_readable(base)
    numbers |= {str(base.tokenizer.convert_ids_to_tokens(number)): number for number in base.tokenizer.encode("a")}
    beyond = [token for token, number in numbers.items() if number >= base.vocabulary]
    if not beyond:
        return
    files = [file for file in base.folder.iterdir() if file.suffix in (".json", ".txt", ".model")]
    named = b"".join(file.read_bytes() for file in files)
    for token in beyond:
        if token.encode() in named or json.dumps(token)[1:-1].encode() in named:
            raise BaseModelError(
                f"{base.folder}: the tokenizer's token {token!r} has the id {numbers[token]}, but the model has "
                f"embeddings for {base.vocabulary} tokens: resize the model (resize_token_embeddings) or take the "
                "token out."
            )


def _require_readable(base: BaseModel) -> None:
    """Raises BaseModelError where the tokenizer puts a token without an embedding in front of every text."""
    front = base.tokens_in_front
    if max(front, default=0) >= base.vocabulary:
        raise BaseModelError(
            f"{base.folder}: the tokenizer puts the token id {max(front)} in front of every text, but the model has "
            f"embeddings for {base.vocabulary} tokens: give the tokenizer that belongs to the model."
        )
