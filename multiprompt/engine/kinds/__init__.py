"""Prompt methods: each module here is one method, and `config.METHODS` lists them.

A module has the method's name, and its `KIND` is the method's `Kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from peft.config import PromptLearningConfig

from multiprompt.config import METHODS
from multiprompt.engine.kinds.kind import Kind


def _kind(method: str) -> Kind:
    kind: Kind = import_module(f"{__name__}.{method.replace('-', '_')}").KIND
    return kind


KINDS: Mapping[str, Kind] = {method: _kind(method) for method in METHODS}


def method_of(config: PromptLearningConfig) -> str:
    """The method whose class of config this is."""
    return next(method for method, kind in KINDS.items() if kind.peft_config is type(config))
