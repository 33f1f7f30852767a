"""What clients need on a terminal: the console and the line editor."""

import net  # noqa: F401 - checks the version of Python
