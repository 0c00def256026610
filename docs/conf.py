"""Sphinx configuration. Build with ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("MPLBACKEND", "Agg")

from figure_style import STYLE  # noqa: E402  (beside the extensions)

project = "pgm_sync"
author = "the pgm_sync developers"
project_copyright = "the pgm_sync developers"
release = version = installed_version("pgm_sync")

extensions = [
    "api_pages",
    "equations",
    "matplotlib.sphinxext.plot_directive",
    "results",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
default_role = "code"
smartquotes = False  # an equation may be called 5'

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_use_rtype = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"/(plot_|minisync)",
    "within_subsection_order": "teaching_order.TeachingOrder",
    "download_all_examples": False,
    "write_computation_times": False,
    "show_memory": False,
    "remove_config_comments": True,
    "reset_modules": ("matplotlib", "figure_style.apply"),
}

plot_formats = [("svg", 100)]
plot_rcparams = STYLE
plot_apply_rcparams = True
plot_html_show_formats = False
plot_html_show_source_link = False

html_theme = "furo"
html_title = f"pgm_sync {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False

# Formulas need no network: one MathJax file, from the sphinx-mathjax-offline package, is copied beside
# the pages. (The package's own extension would copy all of its 24 MB.)
if (offline := find_spec("sphinx-mathjax-offline")) and offline.origin:
    html_static_path.append(str(Path(offline.origin).parent / "static" / "mathjax" / "tex-svg.js"))
    mathjax_path = "tex-svg.js"

mathjax3_config = {
    "tex": {
        "macros": {
            "E": r"\mathbb{E}",
            "R": r"\mathbb{R}",
            "Cov": r"\operatorname{Cov}",
            "Var": r"\operatorname{Var}",
            "tr": r"\operatorname{tr}",
            "diag": r"\operatorname{diag}",
            "blockdiag": r"\operatorname{blockdiag}",
            "snr": r"\mathrm{snr}",
            "N": r"\mathcal{N}",
            "KL": r"\operatorname{KL}",
            "T": r"{}^{\mathsf{T}}",
        }
    }
}
