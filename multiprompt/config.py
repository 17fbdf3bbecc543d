"""Settings: frozen dataclasses, checked once, read from the `multiprompt:` key of a task file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from multiprompt.errors import ConfigError, nearest

DEFAULT_BASE_MODEL = "smollm2-135m"
DEFAULT_CATALOG = "sqlite:///multiprompt.db"
# Jobs of a lower number run first.
DEFAULT_PRIORITY = 100
# Longer ago than any catalog was made.
MAX_DAYS = 365_000
# A worker that gave no sign of life for so long has its jobs taken over.
LEASE_SECONDS = 15.0

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")
# The effects that a regression of a task may have; the first is a new catalog's.
POLICIES = ("block", "warn", "rollback")
# The scores that a first version must beat; the first asks for the second, too.
FLOORS = ("hard", "majority", "none")

T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """The settings of a prompt method that a task file may leave out.

    `inits` are the ways in which its parameters may start; the first is the default. `learning_rate` is where AdamW
    starts: an encoder's weights bear less than embeddings do.
    """

    inits: tuple[str, ...]
    learning_rate: float


# `engine/kinds` has a module for each.
METHODS = {
    "prompt-tuning": Method(("text", "sample-vocab", "random", "tokens", "version"), 0.03),
    "multitask-prompt-tuning": Method(("text", "sample-vocab", "random", "tokens", "version"), 0.03),
    "prefix-tuning": Method(("text", "random", "version"), 0.03),
    "p-tuning": Method(("random", "version"), 0.003),
}


@dataclass(frozen=True)
class PromptConfig:
    """The soft prompt before training.

    `init` is where it starts: from `init_text` (by default the description), sampled vocabulary, random numbers,
    `init_tokens`, or the prompt `init_version`. `encoder`, `encoder_hidden_size` and `encoder_layers` are of P-tuning,
    `projection` (through `encoder_hidden_size`) of prefix tuning, `num_ranks` of multitask prompt tuning.
    """

    method: str = "prompt-tuning"
    num_virtual_tokens: int = 20
    init: str | None = None
    init_text: str | None = None
    init_tokens: tuple[int, ...] | None = None
    init_version: str | None = None
    encoder: str = "mlp"
    encoder_hidden_size: int | None = None
    encoder_layers: int = 2
    projection: bool = False
    num_ranks: int = 1

    def __post_init__(self) -> None:
        _one_of("method", self.method, tuple(METHODS))
        if self.init is not None:
            _one_of("init", self.init, self._inits)
        for init, setting in (("tokens", "init_tokens"), ("version", "init_version")):
            if (self.start == init) != (getattr(self, setting) is not None):
                raise ConfigError(f"{setting} and init: {init} belong together, but init is {self.start}.")
        _one_of("encoder", self.encoder, ("mlp", "lstm"))
        _between("num_virtual_tokens", self.num_virtual_tokens, 1, 1000)
        if self.encoder_hidden_size is not None:
            _between("encoder_hidden_size", self.encoder_hidden_size, 1, 16384)
        _between("encoder_layers", self.encoder_layers, 1, 16)
        _between("num_ranks", self.num_ranks, 1, 256)

    @property
    def start(self) -> str:
        """`init`, or the method's default."""
        return self.init or self._inits[0]

    @property
    def _inits(self) -> tuple[str, ...]:
        return ("random", "version") if self.projection else METHODS[self.method].inits


@dataclass(frozen=True)
class TrainingConfig:
    """The training of a prompt; the optimizer is AdamW with linear warm-up and cosine decay.

    `batch_size` counts rows and `gradient_accumulation_steps` how many such batches make a step. `learning_rate` is by
    default the method's, `warmup` is a share of `steps`, `max_grad_norm` is the L2 norm that gradients are clipped to,
    `validate_every` counts steps, `patience` counts validations without improvement.
    """

    steps: int = 150
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    validate_every: int = 25
    validation_rows: int = 128
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _between("steps", self.steps, 1, 1_000_000)
        _between("batch_size", self.batch_size, 1, 4096)
        _between("gradient_accumulation_steps", self.gradient_accumulation_steps, 1, 4096)
        _between("learning_rate", self.learning_rate or 0.0, 0.0, 100.0)
        _between("warmup", self.warmup, 0.0, 1.0)
        _between("weight_decay", self.weight_decay, 0.0, 10.0)
        _between("max_grad_norm", self.max_grad_norm, 1e-6, 1e6)
        _between("validate_every", self.validate_every, 1, 1_000_000)
        _between("validation_rows", self.validation_rows, 1, 100_000)
        _between("patience", self.patience, 1, 1_000_000)
        _between("seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class RegressionConfig:
    """The losses that the regression gate tolerates; `max_drop` is in units of the metric (0.01 is one point).

    `alpha` is the share of false alarms among alarms, `policy` what a regression does (None: what the catalog says).
    `floor` names the scores that a first version must beat: those of the hard prompt and of the majority answer
    ("hard"), of the majority answer ("majority"), or no score ("none").
    """

    max_drop: float = 0.01
    alpha: float = 0.02
    policy: str | None = None
    floor: str = "hard"

    def __post_init__(self) -> None:
        _between("max_drop", self.max_drop, 0.0, 100.0)
        _between("alpha", self.alpha, 1e-9, 0.5)
        if self.policy is not None:
            _one_of("policy", self.policy, POLICIES)
        _one_of("floor", self.floor, FLOORS)


@dataclass(frozen=True)
class TaskConfig:
    """All of the `multiprompt:` key.

    `max_input_tokens` bounds description and text of a row (None: the model's context).
    """

    prompt: PromptConfig = field(default_factory=PromptConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    keep_description: bool = True
    max_input_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_input_tokens is not None:
            _between("max_input_tokens", self.max_input_tokens, 1, 10_000_000)

    @property
    def recipe(self) -> TrainingConfig:
        """`training` with the method's learning rate where none is set."""
        if self.training.learning_rate is not None:
            return self.training
        return replace(self.training, learning_rate=METHODS[self.prompt.method].learning_rate)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TaskConfig:
        """Read the `multiprompt:` key; prompt settings stand directly under it, the others in sections of their own.

        Raises ConfigError on an unknown key, a wrong type or a value out of range.
        """
        _mapping("multiprompt", mapping)
        prompt_keys = {f.name for f in fields(PromptConfig)}
        own_keys = {"keep_description", "max_input_tokens"}
        _known_keys("multiprompt", mapping, prompt_keys | own_keys | {"training", "regression"})
        own = {key: mapping[key] for key in own_keys & mapping.keys()}
        return _build(
            cls,
            "multiprompt",
            {
                **own,
                "prompt": _build(PromptConfig, "multiprompt", {k: mapping[k] for k in prompt_keys & mapping.keys()}),
                "training": _build(TrainingConfig, "multiprompt.training", mapping.get("training", {})),
                "regression": _build(RegressionConfig, "multiprompt.regression", mapping.get("regression", {})),
            },
        )


_SECTIONS = {"training": TrainingConfig, "regression": RegressionConfig}
SETTINGS = (
    *(f.name for f in fields(PromptConfig)),
    *(f.name for f in fields(TaskConfig) if f.name not in ("prompt", *_SECTIONS)),
    *(f"{section}.{f.name}" for section, cls in _SECTIONS.items() for f in fields(cls)),
)


def changed_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The `multiprompt:` key with other values under names like `training.steps`. Raises ConfigError."""
    changed = dict(settings)
    for name, value in changes.items():
        if name not in SETTINGS:
            inner = [known for known in SETTINGS if known.endswith(f".{name}")]
            raise ConfigError(f"there is no setting {str(name)[:100]!r}; {nearest(str(name), inner or SETTINGS)}")
        section, _, key = name.rpartition(".")
        if section:
            changed[section] = {**(changed.get(section) or {}), key: value}
        else:
            changed[key] = value
    return changed


def _build(cls: type[T], where: str, mapping: Mapping[str, Any]) -> T:
    _mapping(where, mapping)
    types = {f.name: str(f.type) for f in fields(cls)}  # type: ignore[arg-type]
    _known_keys(where, mapping, types)
    try:
        return cls(**{key: _typed(key, value, types[key]) for key, value in mapping.items()})
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None


def _typed(key: str, value: Any, annotation: str) -> Any:
    """The value, if it has the field's type; an int may stand for a float, a bool never for a number."""
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "bool": (bool,),
        "int | None": (int, type(None)),
        "float | None": (int, float, type(None)),
        "str | None": (str, type(None)),
    }
    if annotation.startswith("tuple[int"):
        return _token_ids(key, value)
    types = allowed.get(annotation)
    if types is None:
        return value
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ConfigError(f"{key} is {value!r}, but it must be {annotation.replace(' | None', ' or null')}.")
    return value


def _token_ids(key: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 1000:
        raise ConfigError(f"{key} is {str(value)[:100]!r}, but it must be a list of 1 to 1000 token ids.")
    for token in value:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ConfigError(f"{key} holds {token!r}, which is no token id.")
    return tuple(value)


def _mapping(where: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}, but it must be a mapping of settings.")


def _known_keys(where: str, mapping: Mapping[str, Any], known: Mapping[str, Any] | set[str]) -> None:
    for key in mapping:
        if key not in known:
            raise ConfigError(f"{where} has no setting {key!r}; {nearest(str(key), known)}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}, but it must lie between {low:g} and {high:g}.")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, but it must be one of: {', '.join(choices)}.")
