"""Values as Go has them: their types, how they are written, and JSON.

Go's int and float64 are Python's int and float, so ``1`` and ``1.0`` stay different things.
"""

import json
import re
from typing import Any


class ExpressionError(Exception):
    """An expression does not compile, or fails when it runs: Argo does not tell the two apart."""


def type_of(value: Any) -> str:
    """What ``type()`` says."""
    if callable(value):
        return "func"
    kinds = {bool: "bool", int: "int", float: "float", str: "string", list: "array", dict: "map"}
    return kinds[type(value)] if value is not None else "nil"


def as_string(value: Any) -> str:
    if type(value) is not str:
        raise ExpressionError(f"{type_of(value)} is not string")
    return value


def to_string(value: Any) -> str:
    """fmt.Sprintf("%v"): a float of a million is 1e+06."""
    if type(value) is float:
        return number(value, 6, -4)
    if type(value) is list:
        return f"[{' '.join(map(to_string, value))}]"
    if type(value) is dict:
        return f"map[{' '.join(f'{k}:{to_string(value[k])}' for k in sorted(value))}]"
    return (
        {None: "<nil>", True: "true", False: "false"}.get(value, value)
        if type(value) in (bool, type(None))
        else str(value)
    )


def number(value: float, large: int, small: int) -> str:
    """The shortest decimal, with an exponent from 10**large on and below 10**small."""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    if digits in ("inf", "nan"):
        return {"inf": "+Inf", "nan": "NaN"}[digits] if not sign else "-Inf"
    whole, _, part = digits.partition(".")
    part = "" if part == "0" else part
    point = len(whole) + int(exponent or 0)
    all_digits = (whole + part).lstrip("0")
    point -= len(whole + part) - len(all_digits) if all_digits else 0
    all_digits = all_digits.rstrip("0")
    if not all_digits:
        return f"{sign}0"
    if not small <= point - 1 < large:
        rest = f".{all_digits[1:]}" if len(all_digits) > 1 else ""
        return f"{sign}{all_digits[0]}{rest}e{point - 1:+03d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{all_digits}"
    return f"{sign}{all_digits[:point].ljust(point, '0')}" + (
        f".{all_digits[point:]}" if len(all_digits) > point else ""
    )


def go_json(value: Any) -> str:
    """json.Marshal: compact, keys sorted, floats without .0, and what HTML could take for markup escaped."""
    if type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise ExpressionError(f"json: unsupported value: {value}")
        return re.sub(r"e-0(\d)$", r"e-\1", number(value, 21, -6))
    if type(value) is list:
        return f"[{','.join(map(go_json, value))}]"
    if type(value) is dict:
        return "{" + ",".join(f"{go_json(k)}:{go_json(value[k])}" for k in sorted(value)) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", text) if type(value) is str else text


def from_json(value: Any) -> Any:
    try:
        return json.loads(as_string(value), parse_int=float, parse_constant=_no_constant)
    except ValueError as e:
        raise ExpressionError(str(e)) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
