"""The value of a setting: read from text, converted to its type, checked against its bounds, shown in messages."""

import operator
import re
import sys
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

# the bounds of annotated_types: what must hold, and its words
BOUNDS = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}
MAX_SHOWN = 200  # characters of a value in a message


class Pattern(NamedTuple):
    """The regular expression that a text must match as a whole, and the rule in words."""

    expression: str
    rule: str


def parse(hint: Any, text: str) -> Any:
    """Returns the value that a text stands for where a setting has this type; the text itself where it stands for none."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if base is str or get_origin(base) is Literal:
        return text
    if get_origin(base) is tuple and get_origin(get_args(base)[0]) is Literal:  # names of settings
        return [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]
    try:
        tree = tomllib.loads(f"value = [{text}]" if get_origin(base) is tuple and "[" not in text else f"value = {text}")
    except (ValueError, RecursionError):  # also of a number with more digits than Python converts
        return text
    return tree["value"] if len(tree) == 1 else text


def shown(value: Any) -> str:
    """Returns a value for a message: long ones cut."""
    try:
        text = str(value)
    except ValueError:  # more digits than Python converts
        return "(a number of thousands of digits)"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def convert(hint: Any, value: Any) -> Any:
    """Returns the value in the hint's type; raises ValueError with the rule that it breaks."""
    if get_origin(hint) is Union:  # a number, or one of a few words
        number, words = get_args(hint)
        if isinstance(value, str) and value in get_args(words):
            return value
        try:
            return convert(number, value)
        except ValueError as broken_rule:
            raise ValueError(f"{broken_rule}, or {' or '.join(get_args(words))}") from None
    if get_origin(hint) is Annotated:
        base, *constraints = get_args(hint)
        value = convert(base, value)
        _check(value, constraints)
        return value
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"must be one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        item_hint = get_args(hint)[0]
        if not isinstance(value, list | tuple):
            numbers = "must be numbers with commas between, such as 0,7,24"
            raise ValueError(numbers if item_hint is float else "must be a list of settings")
        return tuple(convert(item_hint, item) for item in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_valid, rule = {
        bool: (isinstance(value, bool), "true or false"),
        int: (is_number and isinstance(value, int), "a whole number"),
        float: (is_number and abs(value) <= sys.float_info.max, "a finite number"),
        str: (isinstance(value, str) and value.isprintable(), "text of printable characters"),
    }[hint]
    if not is_valid:
        raise ValueError(f"must be {rule}")
    return hint(value)


def _check(value: Any, constraints: Sequence[Any]) -> None:
    for pattern in (item for item in constraints if isinstance(item, Pattern)):
        if not re.fullmatch(pattern.expression, value):
            raise ValueError(pattern.rule)
    limits = [(name, getattr(item, name, None)) for item in constraints for name in BOUNDS]
    checked = [(*BOUNDS[name], limit) for name, limit in limits if limit is not None]
    if not all(holds(value, limit) for holds, _, limit in checked):
        raise ValueError("must be " + " and ".join(f"{rule} {limit:g}" for _, rule, limit in checked))
