"""What demo.py plays: the harness that runs programs, the scenarios, and the report."""

import net  # noqa: F401 - checks the version of Python
