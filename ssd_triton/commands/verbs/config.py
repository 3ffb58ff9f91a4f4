"""Print the configuration in force, and where each value comes from.

The order is defaults, the project's config.yml, --config files, --set, and a command's flags; later values win.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ssd_triton.common.errors import ConfigError
from ssd_triton.config import Config
from ssd_triton.config.layers import DEFAULT, flattened, origins

EXAMPLE = """ssd-triton config server client --set client.timeout_s=5
  ssd-triton config --schema > config.schema.json"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "keys", nargs="*", metavar="KEY", help="keys or sections, such as braking or server.tls; by default all of them"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--schema", action="store_true", help="print a JSON schema of configuration files, for editors")
    form.add_argument("--reference", action="store_true", help="print the reference of all keys, in Markdown")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the values, the schema or the reference."""
    if args.schema or args.reference:
        from ssd_triton.config.reference import json_schema, reference

        print(json.dumps(json_schema(), indent=1) if args.schema else reference(), end="\n" if args.schema else "")
        return 0
    values = dict(flattened(config.model_dump()))
    for key in args.keys:
        if not any(_within(one, key) for one in values):
            raise ConfigError(f"unknown key '{key}': 'ssd-triton config' lists all keys")
    found = origins(args.layers)
    lines = [
        (f"{key}: {_text(value)}", found.get(key, DEFAULT))
        for key, value in values.items()
        if not args.keys or any(_within(key, wanted) for wanted in args.keys)
    ]
    width = min(max(len(line) for line, _ in lines), 72)
    for line, origin in lines:
        print(f"{line:{width}}  # {origin}")
    return 0


def _within(key: str, section: str) -> bool:
    return f"{key}.".startswith(f"{section}.")


def _text(value: Any) -> str:
    """Format a value as YAML, using that all JSON is valid YAML."""
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
