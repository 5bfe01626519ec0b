"""Colours: a dark, a light and a colour-blind-safe theme; every state is also said in words."""

from __future__ import annotations

from textual.theme import Theme

NIGHT = Theme(
    name="night",
    primary="#6cb6ff",
    secondary="#f0a05a",
    accent="#b392f0",
    warning="#e3b341",
    error="#ff7b72",
    success="#6fd08c",
    foreground="#d0d7de",
    background="#0f1318",
    surface="#161b22",
    panel="#1f2630",
    variables={"third": "#6fd08c", "fourth": "#e5a6d3"},
)
DAY = Theme(
    name="day",
    primary="#0a5fb4",
    secondary="#b35900",
    accent="#6e40c9",
    warning="#8f6400",
    error="#c0271f",
    success="#18713a",
    foreground="#1f2328",
    background="#fbfcfd",
    surface="#f0f2f5",
    panel="#e3e7ec",
    dark=False,
    variables={"third": "#18713a", "fourth": "#a33a7f"},
)
CLEAR = Theme(
    name="clear",
    primary="#56b4e9",
    secondary="#e69f00",
    accent="#cc79a7",
    warning="#f0e442",
    error="#e8743b",
    success="#56b4e9",
    foreground="#e8e8e8",
    background="#101010",
    surface="#191919",
    panel="#242424",
    variables={"third": "#cc79a7", "fourth": "#f0e442"},
)
THEMES = (NIGHT, DAY, CLEAR)
