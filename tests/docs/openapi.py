"""docs/openapi.yaml is a valid document; for ``tox -e docs``."""

from __future__ import annotations

import yaml
from openapi_spec_validator import validate
from processes import ROOT


def test_document_is_valid() -> None:
    validate(yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8")))
