"""Settings of the site: `make docs` builds it into build/docs, without the network."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

import sprintnet

project = "SprintNet"
author = "the SprintNet developers"
version = release = sprintnet.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "mathml"]
html_math_renderer = "mathml"
exclude_patterns = ["_generated"]
html_theme = "furo"
html_title = f"SprintNet {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
default_role = "code"  # single backticks in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
add_module_names = False
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # figures are those of the code beside them
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_show_tb = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

os.environ["SPRINTNET_DOCS_SAMPLE"] = str(Path(__file__).parents[1] / "tests" / "sample")


def setup(app: object) -> None:
    """Writes the generated parts of the reference before pages are read."""
    generate.main()
