"""The page as a whole: one file, no external resource, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from .data import to_json


def page(title: str, lead: str, sections: Sequence[str], data: Any = None) -> str:
    """Sections under a title. With `data`, the script that brings them to life comes along."""
    script = ""
    if data is not None:
        script = f'<script type="application/json" id="data">{to_json(data)}</script>\n'
        script += f"<script>{_asset('page.js')}</script>\n"
    toggle = '<button type="button" id="theme" data-script hidden>dark</button>' if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{_asset("page.css")}</style>\n'
        f'</head>\n<body>\n<main>\n<header><p class="kicker">pgm_sync {toggle}</p><h1>{escape(title)}</h1>'
        + (f'<p class="lead">{escape(lead)}</p>' if lead else "")
        + "</header>\n"
        + "\n".join(part for part in sections if part)
        + f"\n</main>\n{script}</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip()
