"""Words and numbers of a run as they may stand on a terminal."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

from dreamer_async.store.sizes import UNITS

_IDLE_ZEROS = re.compile(r"\.?0+(?=[kMGT]?$)")
_MOST_DIGITS = 12
"""After the point: a double knows no more of what is worth drawing."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move the cursor, flip the direction or show nothing."""


_ASCII = str.maketrans(
    {
        "━": "=",
        "╸": "-",
        "╍": "~",
        "─": "-",
        "┄": ":",
        "▌": "|",
        "•": "*",
        "◆": "#",
        "▲": "!",
        "△": "^",
        "▽": "v",
        "◇": "x",
        "○": "o",
        "┅": "~",
        "●": "*",
        "▸": ">",
        "▶": ">",
        "·": "|",
        "–": "-",
        "…": "~",
        "²": "2",
        "λ": "l",
        "π": "p",
        "±": "~",
        "↑": "^",
        "↓": "v",
        "←": "<",
        "→": ">",
    }
)
_BRAILLE = [
    " " if not code else ".':"[bool(code & 0b11100100) + bool(code & 0b00011011) * 2 - 1]
    for code in range(256)
]


def ascii_only(text: str) -> str:
    """Write a text with ASCII characters that take as many columns, for terminals without more."""
    if text.isascii():
        return text
    return "".join(map(_ascii_char, text.translate(_ASCII)))


def _ascii_char(char: str) -> str:
    if char.isascii():
        return char
    code = ord(char) - 0x2800
    if 0 <= code < 256:
        return _BRAILLE[code]
    return "?" * max(0, cell_len(char))


def clean(text: object, limit: int = 200) -> str:
    """Return `text` on one line without control characters, at most `limit` characters."""
    head = str(text)[: 4 * limit]
    visible = "".join(
        " " if char in "\n\r\t" else char
        for char in head
        if char in "\n\r\t" or unicodedata.category(char) not in _HIDDEN
    )
    return visible if len(visible) <= limit else visible[: limit - 1] + "…"


def short(value: float | None) -> str:
    """Write a number in at most six characters: 0.012, 12.3, 1.23k, 5e-5."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if size < 1e-99:
        return "0"
    if size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    if size >= 999.5:
        return _with_suffix(value)
    return _three_digits(value)


def count(value: float) -> str:
    """Write a whole number exactly below a thousand and with a suffix above."""
    return str(int(value)) if abs(value) < 1000 else _with_suffix(value)


def plain(value: float) -> str:
    """Write a number like `short`, without zeros that say nothing: 5, 2.5, 50k."""
    text = short(value if value else 0.0)
    return _IDLE_ZEROS.sub("", text) if "." in text else text


def told_apart(values: Sequence[float]) -> list[str]:
    """Write evenly spaced numbers like `plain`, with more digits where two would look the same."""
    texts = [plain(value) for value in values]
    if len(set(texts)) == len(texts):
        return texts
    return [resolved(value, abs(values[1] - values[0])) for value in values]


def resolved(value: float, step: float) -> str:
    """Write a number like `plain`, with the digits that tell it from one that is a step away."""
    unit, suffix = _unit(abs(value))
    digits = math.ceil(math.log10(unit) - math.log10(step) - 1e-9) if step > 0 else 0
    _, _, fraction = short(value).rstrip("kMGT").partition(".")
    if digits <= len(fraction) or abs(value) >= 999.5 * unit:
        return plain(value)
    return _IDLE_ZEROS.sub("", f"{value / unit:.{min(_MOST_DIGITS, digits)}f}{suffix}")


def _unit(size: float) -> tuple[float, str]:
    """What a number of this size is counted in: ones, thousands, millions."""
    known = [(1000.0**place, suffix) for place, suffix in enumerate(("", "k", "M", "G", "T"))]
    return next((unit for unit in known if size < 999.5 * unit[0]), known[-1])


def size(count: float) -> str:
    """Write a number of bytes in the unit that suits it: 12.3 GB, 348 MB, 1.49 kB, 600 bytes."""
    for unit, bytes_ in UNITS:
        if count >= 0.9995 * bytes_:
            return f"{short(count / bytes_)} {unit}"
    return f"{count:.0f} bytes"


def apart(low: float, high: float) -> tuple[str, str]:
    """Write two numbers, low < high, so that they look different.

    Where six characters do not allow it, the high one is written as its distance: +3e-6.
    """
    texts = short(low), short(high)
    for digits in (3, 4, 5):
        if texts[0] != texts[1]:
            break
        wider = f"{low:.{digits}f}", f"{high:.{digits}f}"
        zeros = any(not float(text) for text in wider)  # -0.000 says nothing
        texts = wider if max(map(len, wider)) <= 6 and not zeros else texts
    return texts if texts[0] != texts[1] or low == high else (texts[0], f"+{short(high - low)}")


def plural(number: float, noun: str) -> str:
    """Count a noun: 1 window, 2 windows."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _three_digits(value: float) -> str:
    size = abs(value)
    digits = 3 if size < 0.9995 else 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:.{digits}f}"


def _with_suffix(value: float) -> str:
    for suffix in ("k", "M", "G", "T"):
        value /= 1000
        if abs(value) < 999.5:
            return _three_digits(value) + suffix
    return f"{value * 1e12:.0e}".replace("e+", "e")


def clock(unix_seconds: float, pattern: str) -> str:
    """Write a time of day here as `time.strftime` does; – for one that no calendar has."""
    try:
        return time.strftime(pattern, time.localtime(unix_seconds))
    except (OverflowError, OSError, ValueError):
        return "–"


def duration(seconds: float) -> str:
    """Write a time in its two largest units: 42s, 3m07s, 2h05m, 4d03h."""
    total = int(max(0.0, min(seconds, 1e12)))  # a clock may say anything
    minutes, hours, days = total // 60, total // 3600, total // 86_400
    if minutes < 1:
        return f"{total}s"
    if hours < 1:
        return f"{minutes}m{total % 60:02}s"
    if days < 1:
        return f"{hours}h{minutes % 60:02}m"
    if days < 1000:
        return f"{days}d{hours % 24:02}h"
    return f"{days // 365}y"
