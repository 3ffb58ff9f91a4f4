"""What the sections of ``config.yml`` have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
Score = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Unknown keys are errors, and nothing is changed once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
