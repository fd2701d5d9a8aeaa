"""Digests of specs, and of what else is data: equal values give equal digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal
    text, so digests can be compared.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def short_digest(ingredients: dict[str, Any]) -> str:
    """The first 12 hex digits of the ingredients' digest, for ids."""
    return digest_of(ingredients)[:12]
