"""YAML from users: what makes a small file large, or a value other than it looks, is one line."""

from __future__ import annotations

import pytest

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.yaml_file import parse_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases are not allowed"),
        ("[" * 5000, "more than 100 levels"),
        ("{a: " * 200 + "1" + "}" * 200, "more than 100 levels"),
        ("? [1, 2]\n: 3", "a key is no plain value"),
        ("? {a: 1}\n: 2", "a key is no plain value"),
        ("9" * 6000, "limit"),
        ("1" * 30, "integer beyond 64 bits"),
        ("1" + ":1" * 16, "integer beyond 64 bits"),
        ("2001-02-31", "day is out of range"),
        ("!!int x", "invalid literal"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("{a: 1, a: 2}", "repeated key 'a'"),
        ("\x00", "unacceptable character"),
    ],
)
def test_refuses(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, name="mine.yml", error_type=ConfigError)
    assert words in str(error.value)
    assert str(error.value).startswith("mine.yml is not valid YAML: ")
    assert "\n" not in str(error.value)


def test_plain_values_are_taken() -> None:
    assert parse_yaml("{a: [1, 2.5, x, null, true]}", name="mine.yml", error_type=ConfigError) == {
        "a": [1, 2.5, "x", None, True]
    }
