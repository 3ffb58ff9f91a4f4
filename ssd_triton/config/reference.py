"""What the models of the configuration say of themselves: a page for people, a schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ssd_triton.common.files import ROOT
from ssd_triton.config.model import Config, section_of
from ssd_triton.config.section import Section, unit_of

_INTRODUCTION = """# Configuration

Every value has a default, so a configuration file holds only what differs. `ssd-triton config` prints the values in
force and where each of them comes from.

Later ones win: defaults, then `config.yml` of the project, then other files (`--config FILE`, repeatable), then
`--set KEY=VALUE` (any key, repeatable, the value in YAML), then the flags of a command. Sections and mappings are
merged key by key, other values are replaced.

Relative paths in a file are relative to that file's folder; on a command line and in `--set`, to the working folder. By
default, inputs (weights, labels, model repository) lie in the project's folder, and outputs go to `reports/` of the
working folder.
"""


def reference() -> str:
    """The reference page, in Markdown."""
    return f"{_INTRODUCTION}\n{section_reference()}"


def section_reference(name: str = "") -> str:
    """Tables of a section, such as ``server``, and of the sections in it; of all sections without a name."""
    section: type[Section] = Config
    for part in filter(None, name.split(".")):
        section = section_of(section.model_fields[part]) or section
    # The section itself has the heading of the place where this goes.
    return "\n".join(_section(section, name)).removeprefix(f"## `{name}`\n\n")


def json_schema() -> dict[str, Any]:
    """JSON schema of a configuration file, for editors; nothing in it is required."""
    schema = Config.model_json_schema()
    schema["title"] = "Configuration of ssd-triton"
    portable: dict[str, Any] = json.loads(json.dumps(schema).replace(f"{ROOT}/", ""))
    return portable


def _section(section: type[Section], name: str) -> Iterator[str]:
    values = [(key, field) for key, field in section.model_fields.items() if section_of(field) is None]
    if name:
        yield f"## `{name}`\n"
    yield _paragraph(section) + "\n"
    if values:
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        yield from (
            f"| `{key}` | {_kind(field)} | {_default(key, field)} | {_meaning(field)} |" for key, field in values
        )
        yield ""
    for key, field in section.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from _section(inner, f"{name}.{key}".lstrip("."))


def _paragraph(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split()).replace("``", "`")


def _kind(field: FieldInfo) -> str:
    """Type and limits."""
    limits = [_limit(item) for item in field.metadata]
    return ", ".join(filter(None, [_type_name(field.annotation), *limits]))


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    if get_origin(kind) is dict:
        return "mapping"
    if kind is type(None):
        return "`null`"
    names = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path"}
    return names.get(kind) or " or ".join(_type_name(one) for one in get_args(kind))


def _limit(item: Any) -> str:
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    sign, name = signs.get(type(item), ("", ""))
    return f"{sign} {getattr(item, name):g}" if sign else ""


def _default(key: str, field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Mapping) and value:
        lines = (f"`{name}: {_plain(one)}`" for name, one in value.items())
        return "<br>".join(lines)
    return f"`{_plain(value)}` {unit_of(key)}".rstrip()


def _plain(value: Any) -> str:
    """A default as YAML on one line; paths in the project's folder are relative to it."""
    if isinstance(value, Path):
        value = str(value.relative_to(ROOT) if value.is_relative_to(ROOT) else value)
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n...\n").strip()


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    return (text[:1].upper() + text[1:]).replace("|", "\\|")
